import { NonRetryableError, task } from "millrace";
import { afterEach, describe, expect, test, vi } from "vitest";
import { sql } from "../../src/db/sql.ts";
import { tally, useDatabase } from "../support/engine.ts";
import { callerOf, createApi, recorder } from "./caller.ts";

const file = useDatabase();
afterEach(() => void vi.useRealTimers());

/** An API over a schema of its own, with `ok` and `broken` run once each on queue `mail`, and one job waiting on `idle`. */
async function setUp() {
  const ran = tally<string>();
  const ok = task({ name: "ok", queue: "mail", run: () => ran.add("ok") });
  const broken = task({
    name: "broken",
    queue: "mail",
    run() {
      ran.add("broken");
      throw new NonRetryableError("broken");
    },
  });
  const mill = await file.open([ok, broken]);
  await mill.enqueue(ok, null);
  await mill.enqueue(broken, null);
  const worker = mill.work();
  await ran.reached(2);
  await worker.stop();
  await mill.enqueue("waiting", null, { queue: "idle" });
  return { mill, call: callerOf(createApi(mill, { log: recorder() })) };
}

const none = { waiting: 0, active: 0, completed: 0, failed: 0, delayed: 0, paused: false };
const mail = { ...none, name: "mail", completed: 1, failed: 1, total: 2 };
const idle = { ...none, name: "idle", waiting: 1, total: 1 };

describe("stats", () => {
  test("counts every queue, and one", async () => {
    const { mill, call } = await setUp();
    await using _ = mill;

    const all = await call("/api/queue/stats");
    expect(all.status).toBe(200);
    expect(all.body).toEqual({ success: true, stats: [idle, mail], timestamp: expect.stringMatching(/^\d{4}-.*Z$/) });
    expect((await call("/api/queue/mail/stats")).body).toMatchObject({ success: true, stats: [mail] });
  });

  test("are shared by all who ask within a moment, and hold what was changed through this server", async () => {
    const { mill, call } = await setUp();
    await using _ = mill;
    vi.useFakeTimers({ toFake: ["performance"] });
    const waiting = async (): Promise<unknown> => {
      const { body } = await call<{ stats: { name: string; waiting: number }[] }>("/api/queue/stats");
      return body.stats.find(({ name }) => name === "idle")?.waiting;
    };
    expect(await waiting()).toBe(1);
    await mill.enqueue("waiting", null, { queue: "idle" }); // by another process, say
    vi.advanceTimersByTime(99);
    expect(await waiting()).toBe(1);
    expect((await call("/jobs", { json: { task: "waiting", queue: "idle" } })).status).toBe(200);
    expect(await waiting()).toBe(3);

    await mill.enqueue("waiting", null, { queue: "idle" });
    vi.advanceTimersByTime(200);
    expect(await waiting()).toBe(4);
  });
});

describe("one queue", () => {
  test("pauses, says so, and resumes; doing it twice changes nothing", async () => {
    const { mill, call } = await setUp();
    await using _ = mill;
    const pause = () => call("/api/queue/idle/pause", { json: { reason: "deploy", by: "ops" } });
    const resume = () => call("/api/queue/idle/resume", { method: "POST" });

    expect(await pause()).toMatchObject({ status: 200, body: { success: true, queue: "idle", changed: true } });
    expect(await pause()).toMatchObject({ status: 200, body: { changed: false } });
    expect((await call("/api/queue/idle/stats")).body).toMatchObject({ stats: [{ ...idle, paused: true }] });
    const [noted] = await mill.db.query(
      sql`select paused_by, paused_reason from millrace.queues where paused_at is not null`,
    );
    expect(noted).toEqual({ paused_by: "ops", paused_reason: "deploy" });

    expect(await resume()).toMatchObject({ status: 200, body: { success: true, queue: "idle", changed: true } });
    expect(await resume()).toMatchObject({ status: 200, body: { changed: false } });
    expect((await call("/api/queue/idle/stats")).body).toMatchObject({ stats: [idle] });
  });

  test("pauses without a body, as `curl -X POST` sends it, and refuses a body that is not what it takes", async () => {
    const { mill, call } = await setUp();
    await using _ = mill;

    expect((await call("/api/queue/idle/pause", { method: "POST" })).status).toBe(200);
    expect(await call("/api/queue/idle/pause", { json: { raeson: "x" } })).toMatchObject({
      status: 400,
      body: { code: "OPTION_UNKNOWN", detail: expect.stringContaining('Did you mean "reason"?') },
    });
    expect((await call("/api/queue/idle/pause", { json: { by: "\0" } })).status).toBe(400);
    const form = { body: "reason=x", headers: { "content-type": "application/x-www-form-urlencoded" } };
    expect((await call("/api/queue/idle/pause", form)).status).toBe(415);
  });

  test("keeps what ended less than a day ago when cleaned, and everything else when told", async () => {
    const { mill, call } = await setUp();
    await using _ = mill;
    const clean = (query: string) => call(`/api/queue/mail/clean${query}`, { method: "POST" });

    expect(await clean("")).toMatchObject({ status: 200, body: { success: true, completed: 0, failed: 0 } });
    expect(await clean("?grace=0")).toMatchObject({ status: 200, body: { success: true, completed: 1, failed: 1 } });
    expect((await call("/api/queue/mail/stats")).body).toMatchObject({ stats: [{ total: 0 }] });
    for (const query of ["?grace=-1", "?grace=1d", "?grase=1"]) expect((await clean(query)).status).toBe(400);
  });

  test("is 404, and is not made, when nothing used it yet", async () => {
    const { mill, call } = await setUp();
    await using _ = mill;

    for (const action of ["pause", "resume", "clean"]) {
      const answer = await call(`/api/queue/nowhere/${action}`, { method: "POST" });
      expect(answer).toMatchObject({ status: 404, body: { code: "QUEUE_NOT_FOUND" } });
    }
    expect(await call("/api/queue/nowhere/stats")).toMatchObject({ status: 404, body: { code: "QUEUE_NOT_FOUND" } });
    expect((await mill.stats()).map(({ name }) => name)).toEqual(["idle", "mail"]);
    for (const name of ["two%20words", "-x"])
      expect(await call(`/api/queue/${name}/stats`)).toMatchObject({
        status: 400,
        body: { code: "QUEUE_NAME_INVALID" },
      });
    expect(await call("/api/queue/%00/stats")).toMatchObject({ status: 400, body: { code: "BAD_REQUEST" } });
  });
});

describe("all queues", () => {
  test("pause, resume and are cleaned together", async () => {
    const { mill, call } = await setUp();
    await using _ = mill;
    const paused = async () => (await mill.stats()).map((queue) => queue.paused);

    expect(await call("/api/queue/pause-all", { method: "POST" })).toMatchObject({
      status: 200,
      body: { success: true, queues: ["idle", "mail"], changed: ["idle", "mail"] },
    });
    expect(await paused()).toEqual([true, true]);
    expect(await call("/api/queue/resume-all", { method: "POST" })).toMatchObject({
      status: 200,
      body: { success: true, message: "2 queues run.", changed: ["idle", "mail"], still_paused: [] },
    });
    expect(await paused()).toEqual([false, false]);
    expect(await call("/api/queue/clean-all?grace=0", { method: "POST" })).toMatchObject({
      status: 200,
      body: { success: true, completed: 1, failed: 1 },
    });
    expect((await mill.stats()).map(({ total }) => total)).toEqual([1, 0]);
  });

  test("leave out maintenance, and what was paused by itself stays paused, before it or meanwhile", async () => {
    const { mill, call } = await setUp();
    await using _ = mill;
    await mill.pause("mail", { by: "ada", reason: "provider is down" });
    await mill.enqueue("nobodys", {}, { queue: "maintenance" });
    await mill.enqueue("nobodys", {}, { queue: "other" });
    const pauses = async () =>
      Object.fromEntries((await mill.stats()).map(({ name, paused }) => [name, paused ? "paused" : "runs"]));
    expect(await call("/api/queue/pause-all", { json: { by: "bob", reason: "deploy" } })).toMatchObject({
      body: { queues: ["idle", "mail", "other"], changed: ["idle", "other"] },
    });
    expect(await pauses()).toEqual({ idle: "paused", mail: "paused", maintenance: "runs", other: "paused" });
    expect(await call("/api/queue/other/pause", { json: { by: "cy" } })).toMatchObject({ body: { changed: true } });
    expect(await call("/api/queue/pause-all", { method: "POST" })).toMatchObject({ body: { changed: [] } });
    expect(await call("/api/queue/resume-all", { method: "POST" })).toMatchObject({
      body: {
        message: "2 queues run, and mail, other stay paused.",
        changed: ["idle"],
        still_paused: ["mail", "other"],
      },
    });
    expect(
      await mill.db.query(
        sql`select name, paused_by as by from millrace.queues where paused_at is not null order by name`,
      ),
    ).toEqual([
      { name: "mail", by: "ada" },
      { name: "other", by: "cy" },
    ]);
    await mill.resume("other");
    await call("/api/queue/pause-all", { method: "POST" });
    await call("/api/queue/resume-all", { method: "POST" });
    expect(await pauses()).toEqual({ idle: "runs", mail: "paused", maintenance: "runs", other: "runs" });
  });
});
