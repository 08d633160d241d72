/** The routes that Bull Board's page calls, over queues of this test. */
import { type Millrace, NonRetryableError, schedule, task } from "millrace";
import { describe, expect, test, vi } from "vitest";
import { Tokens } from "../../src/access/tokens.ts";
import { listAudit } from "../../src/audit/audit-store.ts";
import { sql } from "../../src/db/sql.ts";
import { createApi } from "../../src/http/api.ts";
import { type Caller, callerOf, recorder } from "../http/caller.ts";
import { tally, useDatabase } from "../support/engine.ts";

const file = useDatabase();

interface BoardJob {
  id: string;
  name: string;
  data: unknown;
  failedReason?: string;
  isFailed: boolean;
  opts: object;
}
interface BoardQueue {
  name: string;
  counts: Record<string, number>;
  statuses: string[];
  jobs: BoardJob[];
  pagination: { pageCount: number };
  isPaused: boolean;
  globalConcurrency: number | null;
  jobSchedulerCount: number;
  hasWorkers: boolean;
  readOnlyMode: boolean;
}

let declined = true;
const send = task({
  name: "send",
  queue: "mail",
  run(context) {
    context.log.info({ to: "ann" }, "sending");
    context.progress(60);
    return { sent: true };
  },
});
const charge = task({
  name: "charge",
  queue: "billing",
  run() {
    if (declined) throw new NonRetryableError("card was declined");
  },
});
const nightly = schedule({ name: "nightly", task: send, cron: "0 3 * * *", zone: "Europe/Berlin" });

async function setUp(): Promise<{ mill: Millrace; call: Caller; lines: ReturnType<typeof recorder>["lines"] }> {
  declined = true;
  const mill = await file.open([send, charge], {}, [nightly]);
  const log = recorder();
  const api = callerOf(createApi(mill, { log, trustMachine: true }));
  const call: Caller = (path, options) => api(`/admin/queues${path}`, options);
  return { mill, call, lines: log.lines };
}

const put = { method: "PUT" };

/** The queue as the page asks for it. */
async function queueOf(call: Caller, name: string, status = "latest", page = 1): Promise<BoardQueue> {
  const { status: code, body } = await call<{ queues: BoardQueue[] }>(
    `/api/queues?activeQueue=${name}&status=${status}&page=${page}&jobsPerPage=10`,
  );
  expect(code).toBe(200);
  return body.queues.find((queue) => queue.name === name) as BoardQueue;
}

/** One failed job in `billing`. */
async function failOne(mill: Millrace): Promise<string> {
  const { id } = await mill.enqueue(charge, { order: 7 } as never);
  await expect(mill.waitUntilFinished(id)).rejects.toThrow("card was declined");
  return id;
}

describe("what it shows", () => {
  test("counts of every place, under BullMQ's words; a new queue is there with the next request", async () => {
    const { mill, call } = await setUp();
    await using _ = mill;
    await mill.enqueue("x", 1, { queue: "idle" });
    await mill.enqueue("x", 2, { queue: "idle", delay: "1h", priority: 2 });
    await mill.cancel((await mill.enqueue("x", 3, { queue: "idle" })).id, { by: "ann", reason: "not needed" });
    await mill.enqueueFlow({
      jobs: { first: { task: "x", queue: "idle" }, then: { task: "x", queue: "idle", after: ["first"] } },
    });
    const idle = await queueOf(call, "idle");
    expect(idle.counts).toMatchObject({ waiting: 2, delayed: 1, "waiting-children": 1, failed: 1, completed: 0 });
    expect(idle.statuses).not.toContain("prioritized");
    expect(idle.jobs).toHaveLength(5);
    expect(idle.hasWorkers).toBe(false);
    const [cancelled] = (await queueOf(call, "idle", "failed")).jobs;
    expect(cancelled).toMatchObject({
      data: 3,
      isFailed: true,
      failedReason: expect.stringMatching(/cancelled.*ann/i),
    });
    expect((await queueOf(call, "idle", "delayed")).jobs).toMatchObject([
      { data: 2, opts: { priority: -2, delay: 3_600_000 } },
    ]);
    await mill.enqueue("x", 1, { queue: "later" });
    expect((await queueOf(call, "later")).counts).toMatchObject({ waiting: 1 });
  });

  test("a job with its result, progress and log; and where it failed", async () => {
    const { mill, call } = await setUp();
    await using _ = mill;
    mill.work();
    const { id } = await mill.enqueue(send, { to: "ann" } as never, { maxAttempts: 4 });
    await mill.waitUntilFinished(id);
    const failed = await failOne(mill);

    const { body } = await call(`/api/queues/mail/${id}`);
    expect(body).toMatchObject({
      status: "completed",
      job: {
        id,
        name: "send",
        data: { to: "ann" },
        progress: 60,
        returnValue: { sent: true },
        attempts: 1,
        opts: { attempts: 4 },
        isFailed: false,
        processedBy: expect.any(String),
      },
    });
    const { timestamp, processedOn, finishedOn } = body["job"] as Record<string, number>;
    expect([timestamp, processedOn, finishedOn]).toEqual([timestamp, processedOn, finishedOn].toSorted());
    expect((await call(`/api/queues/mail/${id}/logs`)).body).toEqual(['sending {"to":"ann"}']);
    expect((await call(`/api/queues/billing/${failed}`)).body).toMatchObject({
      status: "failed",
      job: { failedReason: "card was declined", stacktrace: [expect.stringContaining("NonRetryableError: card")] },
    });
    expect((await call(`/api/queues/mail/${failed}`)).status).toBe(404);
    expect((await call("/api/queues/mail/nonsense")).status).toBe(404);
    expect((await call("/api/queues/nowhere/nonsense")).status).toBe(404);
  });

  test("pages: the list goes on behind the dead letters with the cancelled ones, and says where it ends", async () => {
    const { mill, call } = await setUp();
    await using _ = mill;
    mill.work({ queues: ["billing"] });
    for (let i = 0; i < 8; i += 1) await failOne(mill);
    const extra = await mill.enqueueMany("x", [0, 1, 2, 3, 4], { queue: "billing" });
    for (const id of extra) await mill.cancel(id);
    const [first, second, third] = await Promise.all([1, 2, 3].map((page) => queueOf(call, "billing", "failed", page)));
    expect(first?.pagination.pageCount).toBe(2);
    expect(first?.jobs.map(({ name }) => name)).toEqual([...Array(8).fill("charge"), "x", "x"]);
    expect(second?.jobs.map(({ data }) => data)).toEqual([2, 1, 0]);
    expect(third?.jobs).toEqual([]);
    const far = await call("/api/queues?activeQueue=billing&status=failed&page=10001&jobsPerPage=10");
    expect([far.status, far.body["message"]]).toEqual([400, expect.stringContaining("100000th")]);
  });

  test("a flow, from the job that waits down to those it waits for", async () => {
    const { mill, call } = await setUp();
    await using _ = mill;
    const { jobs } = await mill.enqueueFlow({
      jobs: { a: { task: "x", queue: "one" }, b: { task: "x", queue: "two" }, sum: { task: "y", after: ["a", "b"] } },
    });
    for (const [queue, id] of [
      ["default", jobs.sum],
      ["one", jobs.a],
    ] as const) {
      const { body } = await call(`/api/queues/${queue}/${id}/flow`);
      expect(body).toMatchObject({
        nodeId: id,
        isFlowNode: true,
        flowRoot: {
          id: jobs.sum,
          state: "waiting-children",
          children: [
            { id: jobs.a, queueName: "one", state: "waiting" },
            { id: jobs.b, queueName: "two", state: "waiting" },
          ],
        },
      });
    }
    const { id } = await mill.enqueue("x", 1);
    expect((await call(`/api/queues/default/${id}/flow`)).body).toMatchObject({ isFlowNode: false });
  });

  test("workers, the database, and the last hour", async () => {
    const { mill, call } = await setUp();
    await using _ = mill;
    const worker = mill.work({ name: "w", queues: ["mail", "maintenance"] });
    await worker.ready();
    await mill.waitUntilFinished(await mill.enqueue(send, null as never));
    expect((await call("/api/queues/mail/workers")).body).toEqual({
      workers: [
        {
          id: expect.stringMatching(/^\d+$/),
          name: "w",
          addr: expect.stringContaining(String(process.pid)),
          age: expect.any(Number),
        },
      ],
    });
    expect((await call("/api/queues/billing/workers")).body).toEqual({ workers: [] });
    expect((await call("/api/redis/stats")).body).toMatchObject({
      backend: "postgres",
      version: expect.stringMatching(mill.db.kind === "embedded" ? /^\d+.*embedded/ : /^\d+[.\d]*$/),
      clients: { connected: expect.any(Number) },
    });
    const { body } = await call<{ completed: { count: number; meta: { count: number } } }>("/api/queues/mail/metrics");
    expect(body.completed).toMatchObject({ count: 60, meta: { count: 1 } });
  });

  test("nothing from elsewhere: a page under a policy, and its files wherever the process was started", async () => {
    const { mill, call } = await setUp();
    await using _ = mill;
    const page = await call<string>("/queue/mail");
    expect(page.status).toBe(200);
    expect(page.headers.get("content-security-policy")).toContain("script-src 'self';");
    expect(page.body).toContain('<base href="/admin/queues/" />');
    expect(page.body).not.toMatch(/https?:\/\//);
    const [, script = ""] = /src="(static\/js\/main[^"]+)"/.exec(page.body) ?? [];
    const served = await call<string>(`/${script}`);
    expect([served.status, served.headers.get("content-type")]).toEqual([200, expect.stringContaining("javascript")]);
    expect((await call("/static/..%2f..%2fpackage.json")).status).toBe(404);
    expect((await call("/")).headers.get("location")).toBe("/admin/queues");
    expect((await call("/nowhere")).status).toBe(404);
  });
});

describe("what it does", () => {
  test("to one job: retry, promote, reschedule, prioritise, remove; its data stays", async () => {
    const { mill, call } = await setUp();
    await using _ = mill;
    const worker = mill.work({ queues: ["billing"] });
    const failed = await failOne(mill);
    declined = false;
    expect((await call(`/api/queues/billing/${failed}/retry`, put)).status).toBe(204);
    await mill.waitUntilFinished(failed);
    expect((await call(`/api/queues/billing/${failed}/retry`, put)).status).toBe(409);
    await worker.stop();

    const { id } = await mill.enqueue("x", 1, { queue: "idle", delay: "1h" });
    const path = `/api/queues/idle/${id}`;
    const patch = (json: object): object => ({ method: "PATCH", json });
    const runAt = Date.now() + 7_200_000;
    expect((await call(`${path}/delay`, patch({ runAt }))).status).toBe(200);
    expect(Math.abs(((await mill.job(id))?.runAt?.getTime() ?? 0) - runAt)).toBeLessThan(60_000);
    expect((await call(`${path}/priority`, patch({ priority: 5 }))).status).toBe(200);
    expect((await call(`${path}/priority`, patch({ priority: 40_000 }))).status).toBe(400);
    expect((await call(`${path}/promote`, put)).status).toBe(204);
    expect(await mill.job(id)).toMatchObject({ status: "waiting", priority: -5 });
    expect((await call(`${path}/promote`, put)).status).toBe(409);
    const update = await call(`${path}/update-data`, patch({ jobData: 2 }));
    expect([update.status, update.body["message"]]).toEqual([400, expect.stringContaining("Duplicate")]);
    expect((await call(`${path}/clean`, put)).status).toBe(204);
    expect(await mill.job(id)).toBeUndefined();
    expect(JSON.stringify(await mill.timeline(failed))).toContain("bull-board");
  });

  test("retry all is one bulk operation, and cancelled jobs are none of it", async () => {
    const { mill, call } = await setUp();
    await using _ = mill;
    mill.work();
    const ids = [await failOne(mill), await failOne(mill), await failOne(mill)];
    const { id: cancelled } = await mill.enqueue("x", 1, { queue: "billing", delay: "1h" });
    await mill.cancel(cancelled);
    declined = false;
    const { status, body } = await call("/api/queues/billing/retry/failed", put);
    expect([status, body]).toEqual([200, { retried: 3, skipped: 0 }]);
    for (const id of ids) await mill.waitUntilFinished(id);
    expect(await mill.bulkOperations()).toMatchObject([
      { action: "retry", changed: 3, createdBy: "bull-board", filter: { queue: "billing", status: "failed" } },
    ]);
    expect((await mill.job(cancelled))?.status).toBe("cancelled");
    expect((await call("/api/queues/billing/retry/completed", put)).status).toBe(409);
    expect((await call("/api/queues/nowhere/retry/failed", put)).status).toBe(404);
  });

  test("promote all moves every delayed job, some hundred at a time", async () => {
    const { mill, call } = await setUp();
    await using _ = mill;
    await mill.enqueueMany("x", Array(620).fill(null), { queue: "idle", delay: "1h" });
    expect((await call("/api/queues/idle/promote", put)).status).toBe(200);
    expect(await mill.stats("idle")).toMatchObject([{ waiting: 620, delayed: 0 }]);
  });

  test("clean leaves what ended in the last five seconds, and never takes what runs; empty leaves the delayed", async () => {
    const { mill, call } = await setUp();
    await using _ = mill;
    mill.work({ queues: ["billing", "maintenance"] });
    const [old, fresh] = [await failOne(mill), await failOne(mill)];
    await mill.db.query(
      sql`update millrace.dead_letters set failed_at = now() - interval '1 minute' where job_id = ${old}::uuid`,
    );
    await mill.db.query(
      sql`update millrace.attempts set finished_at = now() - interval '1 minute' where job_id = ${old}::uuid`,
    );
    expect((await call("/api/queues/billing/clean/failed", put)).status).toBe(200);
    expect(await mill.job(old)).toBeUndefined();
    expect(await mill.job(fresh)).toBeDefined();
    const active = await call("/api/queues/billing/clean/active", put);
    expect([active.status, active.body["message"]]).toEqual([409, expect.stringContaining("cancel")]);

    const { id: waiting } = await mill.enqueue("x", 1, { queue: "idle" });
    const { id: delayed } = await mill.enqueue("x", 1, { queue: "idle", delay: "1h" });
    expect((await call("/api/queues/idle/empty", put)).status).toBe(200);
    expect([await mill.job(waiting), (await mill.job(delayed))?.status]).toEqual([undefined, "delayed"]);
  });

  test("obliterate asks for a paused queue, refuses while jobs run, and cancels them when forced", async () => {
    const running = tally<string>();
    const hold = task({
      name: "hold",
      queue: "held",
      run: ({ signal }) => {
        running.add("held");
        return new Promise((_, stop) => signal.addEventListener("abort", () => stop(signal.reason as Error)));
      },
    });
    await using mill = await file.open([hold]);
    const api = callerOf(createApi(mill, { log: recorder(), trustMachine: true }));
    const obliterate = (json: object) => api("/admin/queues/api/queues/held/obliterate", { ...put, json });
    mill.work({ queues: ["held", "maintenance"] });
    const { id } = await mill.enqueue(hold, null as never);
    const { id: other } = await mill.enqueue("x", 1, { queue: "held", delay: "1h" });
    await running.reached(1);
    expect((await obliterate({})).status).toBe(400);
    await mill.pause("held");
    const refused = await obliterate({});
    expect([refused.status, JSON.stringify(refused.body)]).toEqual([409, expect.stringContaining("HAS_ACTIVE_JOBS")]);
    expect((await obliterate({ force: true })).status).toBe(200);
    // Removed like the others where it had ended by then.
    await vi.waitFor(async () => expect(["cancelled", undefined]).toContain((await mill.job(id))?.status));
    expect(await mill.job(other)).toBeUndefined();
  });

  test("a queue: pause, resume, all of them, concurrency and rate by its policy", async () => {
    const { mill, call } = await setUp();
    await using _ = mill;
    const paused = async (): Promise<boolean[]> => (await mill.stats()).map((queue) => queue.paused);
    expect((await call("/api/queues/mail/pause", put)).status).toBe(200);
    expect((await queueOf(call, "mail")).isPaused).toBe(true);
    expect((await call("/api/queues/mail/resume", put)).status).toBe(200);
    await call("/api/queues/pause", put);
    expect(new Set(await paused())).toEqual(new Set([true]));
    await call("/api/queues/resume", put);
    expect(new Set(await paused())).toEqual(new Set([false]));

    await call("/api/queues/mail/concurrency", { ...put, json: { concurrency: 3 } });
    await call("/api/queues/mail/rate-limit", { ...put, json: { max: 10, duration: 1_000 } });
    expect(await mill.policies.get("mail")).toMatchObject({ concurrency: 3, rate: { max: 10, perMs: 1_000 } });
    expect((await queueOf(call, "mail")).globalConcurrency).toBe(3);
    expect((await call("/api/queues/mail/rate-limit")).body).toMatchObject({ rateLimit: { max: 10, duration: 1_000 } });
    await call("/api/queues/mail/concurrency", { ...put, json: { concurrency: 0 } });
    await call("/api/queues/mail/rate-limit", { ...put, json: { max: null } });
    expect(await mill.policies.get("mail")).toMatchObject({ concurrency: null, rate: null });
    expect((await call("/api/queues/mail/concurrency", { ...put, json: { concurrency: -1 } })).status).toBe(400);
    expect((await call("/api/queues/mail/rate-limit/release", put)).status).toBe(400);
  });

  test("add job takes BullMQ's options, and refuses those that would promise what does not happen", async () => {
    const { mill, call } = await setUp();
    await using _ = mill;
    await mill.enqueue("x", 0, { queue: "idle" });
    const add = (json: object) => call("/api/queues/idle/add", { json });
    const options = { attempts: 5, priority: 2, delay: 60_000, backoff: { type: "fixed", delay: 10 }, jobId: "once" };
    const { status, body } = await add({ name: "x", data: { a: 1 }, options });
    expect(status).toBe(200);
    const { id } = body["job"] as { id: string };
    expect(await mill.job(id)).toMatchObject({ status: "delayed", queue: "idle", maxAttempts: 5, priority: -2 });
    expect(((await add({ name: "x", data: 2, options })).body["job"] as { id: string }).id).toBe(id);
    // The task's own attempts, not BullMQ's.
    const own = await add({ name: "send", data: {}, options: {} });
    expect(own.body["job"]).toMatchObject({ opts: { attempts: 25 } });
    for (const wrong of [
      { name: "x", options: { removeOnComplete: true } },
      { name: "x", options: { attempts: 0 } },
      { name: "x", options: { backoff: "soon" } },
      { name: "x", options: { jobId: 7 } },
      { name: "", options: {} },
      {},
    ]) {
      const refused = await add(wrong);
      expect([wrong, refused.status]).toEqual([wrong, 400]);
    }
    expect(
      (await call("/api/queues/idle/add", { body: "{", headers: { "content-type": "application/json" } })).status,
    ).toBe(400);
  });
});

test("schedules are its job schedulers: listed, run, changed, removed; those of the code stay", async () => {
  const { mill, call } = await setUp();
  await using _ = mill;
  await mill.schedules.create({ name: "often", task: "x", every: "30s", queue: "mail", input: { a: 1 } });
  const { body } = await call<{ schedulers: object[] }>("/api/job-schedulers?queueName=mail");
  expect(body.schedulers).toMatchObject([
    {
      id: "nightly",
      name: "send",
      queueName: "mail",
      pattern: "0 3 * * *",
      tz: "Europe/Berlin",
      next: expect.any(Number),
    },
    { id: "often", name: "x", every: 30_000, template: { data: { a: 1 } } },
  ]);
  expect((await queueOf(call, "mail")).jobSchedulerCount).toBe(2);
  const path = "/api/queues/mail/job-schedulers";
  const run = await call(`${path}/often/run`, put);
  expect(run.body).toMatchObject({ job: { name: "x", data: { a: 1 } } });
  const patch = (json: object) => call(`${path}/often`, { method: "PATCH", json });
  expect((await patch({ pattern: "*/5 * * * *", tz: "Asia/Tokyo" })).status).toBe(204);
  expect(await mill.schedules.get("often")).toMatchObject({ cron: "*/5 * * * *", everyMs: null, zone: "Asia/Tokyo" });
  const wrong = await patch({ pattern: "61 * * * *" });
  expect([wrong.status, wrong.body["message"]]).toEqual([400, expect.stringContaining("61")]);
  expect((await patch({ every: 60_000, limit: 3 })).status).toBe(400);
  expect((await patch({ every: 60_000 })).status).toBe(204);
  const inCode = await call(`${path}/nightly/remove`, put);
  expect([inCode.status, inCode.body["message"]]).toEqual([409, expect.stringContaining("defined in the app's code")]);
  expect((await call(`${path}/often/remove`, put)).status).toBe(204);
  for (const gone of ["often/remove", "often/run"]) expect((await call(`${path}/${gone}`, put)).status).toBe(404);
  expect((await call("/api/queues/billing/job-schedulers/nightly/run", put)).status).toBe(404);
});

describe("who may", () => {
  test("viewers look, operators change, and pages of other sites do neither", async () => {
    await using mill = await file.open([]);
    await mill.enqueue("x", 1, { queue: "idle" });
    const tokens = new Tokens(mill.db, []);
    const made = async (role: "viewer" | "operator"): Promise<Record<string, string>> => ({
      authorization: `Bearer ${(await tokens.create({ name: role, role })).token}`,
    });
    const [viewer, operator] = [await made("viewer"), await made("operator")];
    const call = callerOf(createApi(mill, { log: recorder(), trustMachine: false }));
    const [queues, pause] = ["/admin/queues/api/queues", "/admin/queues/api/queues/idle/pause"];
    const shown = async (headers: Record<string, string>): Promise<boolean | undefined> =>
      (await call<{ queues: BoardQueue[] }>(queues, { headers })).body.queues[0]?.readOnlyMode;

    expect((await call("/admin/queues")).status).toBe(401);
    expect((await call("/admin/queues/static/favicon.ico")).status).toBe(401);
    for (const method of ["GET", "HEAD"])
      expect((await call("/admin/queues", { method, headers: viewer })).status).toBe(200);
    expect([await shown(viewer), await shown(operator)]).toEqual([true, false]);
    const refused = await call(pause, { ...put, headers: viewer });
    expect([refused.status, refused.body["code"]]).toEqual([403, "FORBIDDEN"]);
    for (const foreign of [{ "sec-fetch-site": "cross-site" }, { origin: "https://elsewhere.example" }]) {
      expect((await call(pause, { ...put, headers: { ...operator, ...foreign } })).status).toBe(403);
      expect((await call(queues, { headers: { ...operator, ...foreign } })).status).toBe(403);
    }
    expect(await mill.stats("idle")).toMatchObject([{ paused: false }]);
    const link = { "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate" };
    expect((await call("/admin/queues", { headers: { ...viewer, ...link } })).status).toBe(200);
    expect((await call(pause, { ...put, headers: { ...operator, ...link } })).status).toBe(403);
    expect((await call(pause, { ...put, headers: operator })).status).toBe(200);
    expect((await call("/admin/queues", { headers: operator, method: "DELETE" })).status).toBe(405);
  });

  test("is on record: every change with who, from where, what and what came of it, and the orders name them too", async () => {
    await using mill = await file.open([]);
    const { id } = await mill.enqueue("x", 1, { queue: "idle", delay: "1h" });
    const givenTokens = (["viewer", "operator"] as const).map((role) => ({ token: role.repeat(3), role, name: role }));
    const call = callerOf(createApi(mill, { log: recorder(), trustMachine: true, givenTokens }));
    const bearer = (role: string) => ({ authorization: `Bearer ${role.repeat(3)}`, "x-request-id": `r-${role}` });
    const change = (path: string, headers: Record<string, string>, method = "PUT") =>
      call(`/admin/queues/api/queues${path}`, { method, headers, from: "192.0.2.7" });
    await change("/idle/pause?secret=hunter2", bearer("operator"));
    await change("/idle/resume", bearer("operator"));
    await change(`/idle/${id}/promote`, bearer("operator"));
    await change(`/idle/${id}/promote`, bearer("operator"));
    await change("/idle/pause", bearer("viewer"));
    await change("/idle/pause", { authorization: "Bearer wrong" });
    await change("/idle/pause", { ...bearer("operator"), origin: "https://elsewhere.example" });
    await call("/admin/queues/api/queues/idle/pause", put);
    await call("/admin/queues/api/queues", { headers: bearer("viewer") });

    const rows = (await listAudit(mill.db, {}, { limit: 100 })).toReversed();
    const requests = rows.filter(({ outcome }) => outcome !== null);
    expect(requests.map(({ actor, subject, outcome, details }) => [actor, subject, outcome, details])).toEqual([
      ["operator", "/admin/queues/api/queues/idle/pause", "allow", { status: 200 }],
      ["operator", "/admin/queues/api/queues/idle/resume", "allow", { status: 200 }],
      ["operator", `/admin/queues/api/queues/idle/${id}/promote`, "allow", { status: 204 }],
      ["operator", `/admin/queues/api/queues/idle/${id}/promote`, "error", { status: 409 }],
      ["viewer", "/admin/queues/api/queues/idle/pause", "deny", { status: 403, code: "FORBIDDEN" }],
      [null, "/admin/queues/api/queues/idle/pause", "deny", { status: 401, code: "UNAUTHORIZED" }],
      ["operator", "/admin/queues/api/queues/idle/pause", "deny", { status: 403, code: "FORBIDDEN" }],
      [null, "/admin/queues/api/queues/idle/pause", "allow", { status: 200 }],
    ]);
    expect(requests[0]).toMatchObject({
      action: "PUT /admin/queues/*",
      actorKind: "token",
      role: "operator",
      address: "192.0.2.7",
      requestId: "r-operator",
    });
    expect(requests.at(-1)).toMatchObject({ actorKind: "machine", address: "127.0.0.1" });
    const orders = rows.filter(({ outcome }) => outcome === null);
    expect(orders.map(({ action, by }) => [action, by])).toEqual([
      ["pause", "operator"],
      ["resume", "operator"],
      ["pause", "bull-board"],
    ]);
    expect(JSON.stringify(await mill.timeline(id))).toContain('"by":"operator"');
    expect(JSON.stringify(rows)).not.toContain("hunter2");
  });

  test("names the right one of many who ask at once", async () => {
    await using mill = await file.open([]);
    const names = Array.from({ length: 12 }, (_, n) => `person-${n}`);
    for (const name of names) await mill.enqueue("x", 1, { queue: name });
    const givenTokens = names.map((name) => ({ token: name.padEnd(20, "x"), role: "operator", name }) as const);
    const call = callerOf(createApi(mill, { log: recorder(), trustMachine: false, givenTokens }));
    await Promise.all(
      givenTokens.map(({ name, token }) =>
        call(`/admin/queues/api/queues/${name}/pause`, { ...put, headers: { authorization: `Bearer ${token}` } }),
      ),
    );
    const queues = await mill.db.query<{ name: string; by: string }>(
      sql`select name, paused_by as by from millrace.queues`,
    );
    expect(queues.map(({ by }) => by)).toEqual(queues.map(({ name }) => name));
    expect(queues).toHaveLength(names.length);
  });

  test("an address with a NUL is refused, wherever it stands", async () => {
    const { mill, call } = await setUp();
    await using _ = mill;
    for (const path of [
      "/api/queues?activeQueue=mail&status=%00",
      "/api/queues?activeQueue=%00",
      "/api/queues/%00/clean/failed",
    ]) {
      const answer = await call(path);
      expect([path, answer.status, answer.body["code"]]).toEqual([path, 400, "BAD_REQUEST"]);
    }
  });

  test("a body that is too large is refused; a database that is away and a surprise are told apart", async () => {
    await using mill = await file.open([], { maxPayloadBytes: 1_000 });
    await mill.enqueue("x", 1, { queue: "idle" });
    const log = recorder();
    const call = callerOf(createApi(mill, { log, trustMachine: true }));
    const large = await call("/admin/queues/api/queues/idle/add", { json: { name: "x", data: "y".repeat(1_000_000) } });
    expect([large.status, large.body["code"]]).toEqual([413, "PAYLOAD_TOO_LARGE"]);

    const query = vi.spyOn(mill.db, "query");
    const failing = async (error: Error): ReturnType<typeof call<Record<string, unknown>>> => {
      query.mockRejectedValueOnce(error);
      return call("/admin/queues/api/queues");
    };
    const away = await failing(Object.assign(new Error("connect"), { code: "ECONNREFUSED" }));
    expect([away.status, away.body]).toEqual([
      503,
      { error: "Failed", message: expect.stringContaining("DATABASE_URL") },
    ]);
    const surprise = await failing(new Error("a secret"));
    expect([surprise.status, JSON.stringify(surprise.body)]).toEqual([500, expect.not.stringContaining("secret")]);
    expect(log.lines).toContainEqual(expect.objectContaining({ level: "error", message: "board.failed" }));
    expect((await call("/admin/queues/api/queues")).status).toBe(200);
  });
});
