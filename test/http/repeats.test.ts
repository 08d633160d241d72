/** `Idempotency-Key`: a repeat of what changes something gets the first answer, and nothing is done again. */
import { expect, test, vi } from "vitest";
import { type Millrace, schedule, task } from "millrace";
import { maintain } from "../../src/app/maintenance.ts";
import { listAudit } from "../../src/audit/audit-store.ts";
import { sql } from "../../src/db/sql.ts";
import { endpoint } from "../../src/http/endpoint.ts";
import { problemOf } from "../../src/http/problem.ts";
import { Repeats } from "../../src/http/repeats.ts";
import { MillraceError } from "../../src/core/errors.ts";
import { Hono } from "hono";
import type { ApiEnv } from "../../src/http/env.ts";
import { useDatabase } from "../support/engine.ts";
import { type Caller, callerOf, createApi, recorder } from "./caller.ts";

const file = useDatabase();
const plain = task({ name: "plain", run: () => undefined });
const hourly = schedule({ name: "hourly", task: plain, every: "1h", overlap: "allow" });
const givenTokens = (["ada", "bob"] as const).map((name) => ({
  token: `${name}-${"x".repeat(20)}`,
  role: "admin" as const,
  name,
}));
const as = (name: string, key: string) => ({
  authorization: `Bearer ${name}-${"x".repeat(20)}`,
  "idempotency-key": key,
});

async function setUp(): Promise<{ mill: Millrace; call: Caller; log: ReturnType<typeof recorder> }> {
  const mill = await file.open([plain]);
  const log = recorder();
  const call = callerOf(createApi(mill, { log, givenTokens }));
  return { mill, call, log };
}

const kept = (mill: Millrace) => mill.db.query(sql`select k::text from millrace.kept_answers k`);
const replayed = (answer: { headers: Headers }) => answer.headers.get("idempotent-replayed");

test("a schedule that is run twice under one key runs once, and both are answered the same", async () => {
  const mill = await file.open([plain], {}, [hourly]);
  await using _ = mill;
  mill.work({ concurrency: 1 });
  await vi.waitFor(async () => expect(await mill.schedules.list({ limit: 10 })).toHaveLength(1), { timeout: 10_000 });
  const call = callerOf(createApi(mill, { log: recorder(), givenTokens }));
  const run = () => call("/scheduler/run", { json: { job_id: "hourly" }, headers: as("ada", "k-1") });
  const [first, second] = [await run(), await run()];
  expect([first.status, second.status]).toEqual([202, 202]);
  expect(second.body).toEqual(first.body);
  expect([replayed(first), replayed(second)]).toEqual([null, "true"]);
  expect(second.headers.get("content-type")).toBe(first.headers.get("content-type"));
  expect((await mill.schedules.runs("hourly", { limit: 10 })).length).toBe(1);
  const other = await call("/scheduler/run", { json: { job_id: "hourly" }, headers: as("bob", "k-1") });
  expect([other.status, replayed(other)]).toEqual([202, null]);
  expect(other.body).not.toEqual(first.body);
});

test("only the one that did something is on record as having done it", async () => {
  const { mill, call } = await setUp();
  await using _ = mill;
  await mill.enqueue("any", null, { queue: "mail" });
  for (let i = 0; i < 2; i += 1) await call("/api/queue/mail/pause", { method: "POST", headers: as("ada", "k-1") });
  const rows = (await listAudit(mill.db, {}, { limit: 10 })).filter(({ outcome }) => outcome !== null);
  expect(rows.map(({ details }) => details)).toEqual([{ status: 200, replayed: true }, { status: 200 }]);
});

test("another request under the key is refused: another body, query or path; the same one in other words is not", async () => {
  const { mill, call } = await setUp();
  await using _ = mill;
  for (const queue of ["mail", "post"]) await mill.enqueue("any", null, { queue });
  const pause = (queue: string, body: string) =>
    call(`/api/queue/${queue}/pause`, {
      method: "POST",
      body,
      headers: { ...as("ada", "k-1"), "content-type": "application/json" },
    });
  await pause("mail", `{"by":"ada","reason":"x"}`);
  const refusal = { status: 422, body: { code: "IDEMPOTENCY_KEY_REUSED" } };
  expect(await pause("mail", `{"by":"ada","reason":"y"}`)).toMatchObject(refusal);
  expect(await pause("post", `{"by":"ada","reason":"x"}`)).toMatchObject(refusal);
  expect(replayed(await pause("mail", ` { "reason" : "x", "by":"ada" } `))).toBe("true");
  const clean = (query: string) => call(`/api/queue/clean-all${query}`, { method: "POST", headers: as("ada", "k-2") });
  await clean("?grace=1000");
  expect(await clean("?grace=2000")).toMatchObject(refusal);
  // A key belongs to an operation.
  expect((await call("/api/queue/pause-all", { method: "POST", headers: as("ada", "k-1") })).status).toBe(200);
});

test("a refusal is repeated as well, and what was not understood leaves its key free", async () => {
  const { mill, call } = await setUp();
  await using _ = mill;
  const pause = () => call("/api/queue/mail/pause", { method: "POST", headers: as("ada", "k-1") });
  const first = await pause();
  await mill.enqueue("any", null, { queue: "mail" });
  const second = await pause();
  expect(second).toMatchObject({ status: 404, body: { code: "QUEUE_NOT_FOUND" } });
  expect([second.body, replayed(second)]).toEqual([first.body, "true"]);
  const headers = as("ada", "k-2");
  expect((await call("/api/queue/mail/pause", { json: { raeson: "x" }, headers })).status).toBe(400);
  expect((await call("/api/queue/mail/pause", { json: { reason: "x" }, headers })).status).toBe(200);
});

test("what has no body is repeated without one", async () => {
  const { mill, call } = await setUp();
  await using _ = mill;
  const { id } = await mill.enqueue(plain, null, { delay: "1h" });
  const remove = () => call(`/jobs/${id}`, { method: "DELETE", headers: as("ada", "k-1") });
  expect((await remove()).status).toBe(204);
  const second = await remove();
  expect([second.status, second.body, replayed(second)]).toEqual([204, "", "true"]);
});

test("a token is told once: a repeat makes none, and the answer is nowhere", async () => {
  const { mill, call } = await setUp();
  await using _ = mill;
  const make = () => call<{ token: string }>("/api/tokens", { json: { name: "ci" }, headers: as("ada", "k-1") });
  const first = await make();
  expect(await make()).toMatchObject({ status: 409, body: { code: "IDEMPOTENCY_CONFLICT" } });
  expect((await call<{ items: object[] }>("/api/tokens", { headers: as("ada", "k-1") })).body.items).toHaveLength(1);
  const rows = JSON.stringify(await kept(mill));
  expect(rows).toContain("201");
  for (const secret of [first.body.token, first.body.token.slice(-43), "k-1"]) expect(rows).not.toContain(secret);
});

test.each(["", "x".repeat(256)])("a key of the wrong length is refused, and nothing is done (%#)", async (key) => {
  const { mill, call } = await setUp();
  await using _ = mill;
  expect(await call("/events", { json: { event: "e" }, headers: as("ada", key) })).toMatchObject({
    status: 400,
    body: { code: "BAD_REQUEST" },
  });
  expect(await mill.db.query(sql`select from millrace.emitted_events`)).toEqual([]);
});

/** One operation that does as the test says. */
async function scripted() {
  const mill = await file.open([]);
  const log = recorder();
  const repeats = new Repeats(mill.db, log);
  let done = 0;
  let next: () => unknown = () => ({ done });
  const one = endpoint("Test", "POST /do", {
    summary: "Do",
    role: "viewer",
    answers: { 200: null },
    handle: () => {
      done += 1;
      return next();
    },
  });
  const api = new Hono<ApiEnv>()
    .onError((error, c) => problemOf(error, c, log))
    .post("/do", (c) => one.handle(c, repeats.of(c, one)));
  const ask = async (key?: string) =>
    api.request("/do", { method: "POST", headers: key === undefined ? {} : { "idempotency-key": key } });
  return { mill, log, ask, done: () => done, does: (what: () => unknown) => (next = what) };
}

test("while the first is under way a repeat is asked to wait, and is not done", async () => {
  const { mill, ask, done, does } = await scripted();
  await using _ = mill;
  let resolve: ((value: object) => void) | undefined;
  let first: Promise<Response> | undefined;
  await new Promise<void>((started) => {
    does(() => {
      started();
      return new Promise((done) => (resolve = done));
    });
    first = ask("k");
  });
  const second = await ask("k");
  expect([second.status, second.headers.get("retry-after")]).toEqual([409, "1"]);
  expect(await second.json()).toMatchObject({ code: "IDEMPOTENCY_CONFLICT" });
  resolve?.({ ok: true });
  expect(await (await first)?.json()).toEqual({ ok: true });
  const third = await ask("k");
  expect([await third.json(), replayed(third), done()]).toEqual([{ ok: true }, "true", 1]);
});

test("of many at once, one is done", async () => {
  const { mill, ask, done } = await scripted();
  await using _ = mill;
  const answers = await Promise.all(Array.from({ length: 8 }, () => ask("k")));
  expect(done()).toBe(1);
  expect(answers.filter((one) => one.status === 200 && replayed(one) === null)).toHaveLength(1);
});

test.each(["INTERNAL", "DATABASE_UNREACHABLE", "ENQUEUE_RATE_EXCEEDED"] as const)(
  "after %s the next one is done",
  async (code) => {
    const { mill, ask, done, does } = await scripted();
    await using _ = mill;
    does(() => {
      throw new MillraceError(code, "Not now.");
    });
    expect((await ask("k")).ok).toBe(false);
    does(() => ({ ok: true }));
    const second = await ask("k");
    expect([second.status, replayed(second), done()]).toEqual([200, null, 2]);
  },
);

test("an answer too long to be kept is not done again either", async () => {
  const { mill, ask, done, does } = await scripted();
  await using _ = mill;
  does(() => ({ text: "é".repeat(40_000) }));
  expect((await ask("k")).status).toBe(200);
  const second = await ask("k");
  expect([second.status, second.headers.get("retry-after"), done()]).toEqual([409, null, 1]);
});

test("an answer that cannot be kept is given all the same, and the log says so", async () => {
  const { mill, log, ask, does } = await scripted();
  await using _ = mill;
  await mill.db.script("alter table millrace.kept_answers add constraint full_ check (status is null)");
  does(() => ({ ok: true }));
  expect(await (await ask("k")).json()).toEqual({ ok: true });
  expect(log.lines.map(({ message }) => message)).toEqual(["answer.not_kept"]);
});

test("what its process left under way is done again after five minutes; an answer is forgotten after a day", async () => {
  const { mill, log, ask, done, does } = await scripted();
  await using _ = mill;
  await mill.db.script("alter table millrace.kept_answers add constraint full_ check (status is null)");
  does(() => ({ ok: true }));
  await ask("k");
  await mill.db.script("alter table millrace.kept_answers drop constraint full_");
  const later = (ms: number) =>
    mill.db.query(
      sql`update millrace.kept_answers set expires_at = expires_at - ${ms}::float8 * interval '1 millisecond'`,
    );
  await later(290_000);
  expect([(await ask("k")).status, done()]).toEqual([409, 1]);
  await later(10_000);
  expect([(await ask("k")).status, done()]).toEqual([200, 2]);
  await later(86_390_000);
  const settings = { everyMs: 0, archiveAfterMs: 1e9, pruneAfterMs: 1e9, keepFailedMs: 1e9 };
  const sweep = () => maintain(mill.db, settings, log, AbortSignal.timeout(60_000));
  await sweep();
  expect(replayed(await ask("k"))).toBe("true");
  await later(10_000);
  await sweep();
  expect(await kept(mill)).toEqual([]);
});

test("without the header nothing is written, and every operation that heeds it says so in the document", async () => {
  const { mill, call } = await setUp();
  await using _ = mill;
  await call("/api/queue/pause-all", { method: "POST" });
  expect(await kept(mill)).toEqual([]);
  interface Document {
    paths: Record<string, Record<string, { parameters: { name: string; in: string }[] }>>;
  }
  const { paths } = (await call<Document>("/openapi.json")).body;
  const without = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods)
      .filter(
        ([method, { parameters }]) => method !== "get" && !parameters.some(({ name }) => name === "Idempotency-Key"),
      )
      .map(([method]) => `${method} ${path}`),
  );
  expect(without).toEqual(["post /auth/logout"]);
});
