/** What people tell jobs to do over HTTP: one by one, and many at once. */
import { NonRetryableError, task } from "millrace";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Millrace } from "millrace";
import { useDatabase } from "../support/engine.ts";
import { StoreWorker } from "../support/store-worker.ts";
import { type Caller, callerOf, createApi, recorder } from "./caller.ts";

const plain = task({ name: "plain", run() {} });
const broken = task({
  name: "broken",
  queue: "breaking",
  run({ input }) {
    throw new NonRetryableError("no", { code: (input as { code: string }).code });
  },
});
const nowhere = "018f0000-0000-7000-8000-000000000000";

const file = useDatabase();
let mill: Millrace;
let call: Caller;
beforeAll(async () => {
  mill = await file.open([plain, broken], { maxPayloadBytes: 1_000 });
  call = callerOf(createApi(mill, { log: recorder() }));
});
afterAll(() => mill.close());

async function waiting(options = {}): Promise<string> {
  return (await mill.enqueue(plain, {}, { queue: "nobody", ...options })).id;
}

const problem = (code: string): object => expect.objectContaining({ code }) as object;

describe("who enqueued", () => {
  const bearer = { authorization: "Bearer token" };
  const told = async (id: string): Promise<unknown> =>
    (await call<{ story: { by: unknown }[] }>(`/jobs/${id}/timeline`)).body.story[0];
  const post = async <Body>(path: string, json: object, headers = {}): Promise<Body> => {
    const { status, body } = await call<Body>(path, { json, headers });
    expect([status, body]).toEqual([200, body]);
    return body;
  };

  test("is the caller, or whom the caller names; a program on this machine is nobody", async () => {
    const job = { task: "plain", queue: "nobody" };
    const byToken = await post<{ id: string }>("/jobs", job, bearer);
    const named = await post<{ id: string }>("/jobs", { ...job, by: "ann" }, bearer);
    const machine = await post<{ id: string }>("/jobs", job);
    expect(await told(byToken.id)).toMatchObject({ by: "runbook", summary: expect.stringContaining("by runbook in") });
    expect(await told(named.id)).toMatchObject({ by: "ann" });
    expect(await told(machine.id)).toMatchObject({ by: null });
  });

  test("of the jobs of a flow and a batch too", async () => {
    const job = { task: "plain", queue: "nobody" };
    const flow = await post<{ jobs: Record<string, string> }>(
      "/flows",
      { jobs: { a: job, b: { ...job, after: ["a"], by: "bob" } }, by: "ann" },
      bearer,
    );
    expect(await told(flow.jobs["a"] ?? "")).toMatchObject({ by: "ann" });
    expect(await told(flow.jobs["b"] ?? "")).toMatchObject({ by: "bob" });
    const batch = await post<{ ids: string[]; callback: string }>(
      "/batches",
      { ...job, inputs: [1], callback: job },
      bearer,
    );
    expect(await told(batch.ids[0] ?? "")).toMatchObject({ by: "runbook" });
    expect(await told(batch.callback)).toMatchObject({ by: "runbook" });
  });
});

describe("POST /jobs/:id/cancel", () => {
  test("cancels a job that waits, with who and why", async () => {
    const id = await waiting();
    const { status, body } = await call(`/jobs/${id}/cancel`, { json: { by: "ann", reason: "not needed" } });
    expect([status, body]).toEqual([200, { job_id: id, id, status: "cancelled", ignored: false }]);
    expect((await call(`/jobs/${id}`)).body).toMatchObject({
      status: "cancelled",
      last_error_code: "CANCELLED",
      last_error_message: "Cancelled by ann: not needed",
    });
  });

  test("that names nobody is done by the caller", async () => {
    const id = await waiting();
    await call(`/jobs/${id}/cancel`, { method: "POST", headers: { authorization: "Bearer token" } });
    expect((await call(`/jobs/${id}`)).body).toMatchObject({ last_error_message: "Cancelled by runbook." });
  });

  test("needs no body; a second time is 409", async () => {
    const id = await waiting();
    expect((await call(`/jobs/${id}/cancel`, { method: "POST" })).status).toBe(200);
    const again = await call(`/jobs/${id}/cancel`, { method: "POST" });
    expect([again.status, again.body]).toEqual([409, problem("JOB_STATE")]);
  });

  test("of a running job that does not end within `wait` is 202", async () => {
    const id = await waiting({ queue: "held" });
    const worker = await StoreWorker.register(mill);
    await worker.claim(1, "held");
    const { status, body } = await call(`/jobs/${id}/cancel`, { json: { wait: 0 } });
    expect([status, body]).toEqual([202, { job_id: id, id, status: "cancelling", ignored: false }]);
  });

  test.each([
    ["nonsense", {}, 400, "BAD_REQUEST"],
    [nowhere, {}, 404, "JOB_NOT_FOUND"],
    [undefined, { why: "x" }, 400, "OPTION_UNKNOWN"],
    [undefined, { wait: "soon" }, 400, "BAD_REQUEST"],
    [undefined, { by: 1 }, 400, "BAD_REQUEST"],
    [undefined, { reason: "x".repeat(1_001) }, 400, "OPTION_INVALID"],
  ])("of %s with %j is refused", async (id, json, status, code) => {
    const target = id ?? (await waiting());
    const answer = await call(`/jobs/${target}/cancel`, { json });
    expect([answer.status, answer.body]).toEqual([status, problem(code)]);
  });
});

describe("PATCH /jobs/:id", () => {
  test("puts a job elsewhere in line, under our names or those of runbook 004", async () => {
    const id = await waiting();
    const runAt = "2031-01-31T08:00:00.000Z";
    const { status, body } = await call(`/jobs/${id}`, {
      method: "PATCH",
      json: { run_at: runAt, priority: 4, queue: "other", by: "ann" },
    });
    expect(status).toBe(200);
    expect(body).toMatchObject({ job_id: id, id, run_at: runAt, priority: 4, queue: "other", status: "delayed" });
    expect((await call(`/jobs/${id}`, { method: "PATCH", json: { delay: "1ms" } })).status).toBe(200);
  });

  test.each([
    [{}, 400, "OPTION_INVALID"],
    [{ runAt: "2031-01-31T08:00:00Z", run_at: "2031-01-31T08:00:00Z" }, 400, "BAD_REQUEST"],
    [{ delay: "1s", run_at: "2031-01-31T08:00:00Z" }, 400, "OPTION_INVALID"],
    [{ run_at: "2031-01-31T08:00:00" }, 400, "BAD_REQUEST"],
    [{ priority: 1.5 }, 400, "OPTION_INVALID"],
    [{ prio: 1 }, 400, "OPTION_UNKNOWN"],
    [{ queue: "no spaces" }, 400, "QUEUE_NAME_INVALID"],
  ])("refuses %j", async (json, status, code) => {
    const id = await waiting();
    const answer = await call(`/jobs/${id}`, { method: "PATCH", json });
    expect([answer.status, answer.body]).toEqual([status, problem(code)]);
    expect((await call(`/jobs/${id}`)).body).toMatchObject({ status: "waiting", priority: 0, queue: "nobody" });
  });

  test("of a job that has ended is 409, of none 404", async () => {
    const id = await waiting();
    await mill.cancel(id);
    expect((await call(`/jobs/${id}`, { method: "PATCH", json: { priority: 1 } })).status).toBe(409);
    expect((await call(`/jobs/${nowhere}`, { method: "PATCH", json: { priority: 1 } })).status).toBe(404);
  });
});

describe("POST /jobs/:id/replay", () => {
  test("answers with the new job and the old one", async () => {
    const id = await waiting();
    const { status, body } = await call<{ new_job_id: string }>(`/jobs/${id}/replay`, {
      json: { queue: "replays", run_at: "2031-01-31T08:00:00Z", payload_json: { n: 2 } },
    });
    expect(status).toBe(200);
    expect(body).toEqual({ new_job_id: expect.any(String), replay_of_job_id: id, job_id: body.new_job_id });
    expect((await call(`/jobs/${body.new_job_id}`)).body).toMatchObject({
      queue: "replays",
      status: "delayed",
      input: { n: 2 },
      replay_of_job_id: id,
    });
  });

  test("needs no body, and takes null for an input", async () => {
    const id = (await mill.enqueue(plain, { n: 1 }, { queue: "nobody" })).id;
    const plainReplay = await call<{ new_job_id: string }>(`/jobs/${id}/replay`, { method: "POST" });
    expect((await call(`/jobs/${plainReplay.body.new_job_id}`)).body).toMatchObject({ input: { n: 1 } });
    const empty = await call<{ new_job_id: string }>(`/jobs/${id}/replay`, { json: { input: null } });
    expect((await call(`/jobs/${empty.body.new_job_id}`)).body).toMatchObject({ input: null });
  });

  test("of no job is 404; an input that is too large is 413; a field that is none 400", async () => {
    const id = await waiting();
    expect((await call(`/jobs/${nowhere}/replay`, { json: {} })).status).toBe(404);
    expect((await call(`/jobs/${id}/replay`, { json: { input: "x".repeat(2_000) } })).status).toBe(413);
    expect((await call(`/jobs/${id}/replay`, { json: { inptu: 1 } })).body).toMatchObject({ code: "OPTION_UNKNOWN" });
  });
});

describe("dead letters and bulk operations", () => {
  const failed = async (count: number, code: string): Promise<string[]> => {
    const ids = await mill.enqueueMany(
      broken,
      Array.from({ length: count }, () => ({ code })),
    );
    const all = new Set(ids);
    const worker = mill.work({ queues: ["breaking"] });
    await expect
      .poll(
        async () => (await mill.jobs({ status: "failed", limit: 500 })).jobs.filter(({ id }) => all.has(id)).length,
        {
          interval: 5,
          timeout: 20_000,
        },
      )
      .toBe(count);
    await worker.stop();
    return ids;
  };
  type Bulk = { id: string; status: string; changed: number };
  const finished = async (id: string): Promise<Bulk> => {
    const worker = mill.work({ queues: ["maintenance"] });
    const status = async (): Promise<string> => (await call<Bulk>(`/api/bulk/${id}`)).body.status;
    await expect.poll(status, { interval: 5, timeout: 20_000 }).toBe("completed");
    await worker.stop();
    return (await call<Bulk>(`/api/bulk/${id}`)).body;
  };

  test("GET /dlq counts them by what they have in common, and finds them by it", async () => {
    await failed(3, "E_ONE");
    await failed(2, "E_TWO");
    const { body } = await call("/dlq?group=error_code&queue=breaking");
    expect(body).toEqual({
      group: "error_code",
      groups: [
        { value: "E_ONE", count: 3, oldest: expect.any(String), newest: expect.any(String) },
        { value: "E_TWO", count: 2, oldest: expect.any(String), newest: expect.any(String) },
      ],
      total: 5,
    });
    expect((await call("/dlq?group=reason")).body).toMatchObject({ groups: [{ value: "NON_RETRYABLE", count: 5 }] });
    expect((await call("/dlq?group=task&error_code=E_TWO")).body).toMatchObject({
      groups: [{ value: "broken", count: 2 }],
    });
    expect((await call<{ items: unknown[] }>("/dlq?error_code=E_TWO&reason=NON_RETRYABLE")).body.items).toHaveLength(2);
    expect((await call("/dlq?group=colour")).status).toBe(400);
    expect((await call("/dlq?group=task&limit=5")).status).toBe(400);
  });

  test("POST /dlq/replay and /dlq/retry take a filter, count first, and refuse to mean all by accident", async () => {
    const ids = await failed(4, "E_MANY");
    for (const path of ["/dlq/retry", "/dlq/replay", "/dlq/purge"])
      for (const call_ of [
        { method: "POST" },
        { json: {} },
        { json: { preview: true } },
        { json: { older_than: "0s" } },
        { json: { older_than: 0, preview: true } },
      ])
        expect((await call(path, call_)).body).toMatchObject({ code: "FILTER_TOO_WIDE", status: 400 });
    for (const path of ["/dlq/retry", "/dlq/replay", "/dlq/purge"]) {
      expect((await call(path, { json: { queue: "nothere" } })).body).toMatchObject({ code: "QUEUE_NOT_FOUND" });
      expect((await call(path, { json: { task: "nothere" } })).body).toMatchObject({ code: "TASK_NOT_FOUND" });
    }
    expect((await call("/dlq?queue=nothere")).body).toMatchObject({ items: [] });
    const preview = await call("/dlq/retry", { json: { error_code: "E_MANY", preview: true } });
    expect([preview.status, preview.body]).toEqual([
      200,
      { preview: true, action: "retry", expected: 4, more_than_expected: false },
    ]);
    const replay = await call<Bulk>("/dlq/replay", {
      json: { error_code: "E_MANY", to_queue: "replayed", delay: "1h", by: "ann" },
    });
    expect(replay.status).toBe(202);
    expect(replay.body).toMatchObject({
      action: "replay",
      filter: { status: "failed", error_code: "E_MANY" },
      options: { queue: "replayed", delay: 3_600_000 },
      status: "waiting",
      expected: 4,
      created_by: "ann",
    });
    expect(await finished(replay.body.id)).toMatchObject({ looked_at: 4, changed: 4 });
    expect((await mill.jobs({ queue: "replayed", status: "delayed" })).jobs).toHaveLength(4);
    const retry = await call<Bulk>("/dlq/retry", { json: { error_code: "E_MANY" } });
    expect(await finished(retry.body.id)).toMatchObject({ changed: 4 });
    for (const id of ids) expect(await mill.job(id)).toMatchObject({ status: "waiting" });
    await mill.bulk("cancel", { queue: "breaking" });
  });

  test("POST /dlq/purge spares what failed within a day, unless it is told otherwise", async () => {
    await failed(2, "E_OLD");
    const counted = async (json: object): Promise<unknown> =>
      (await call<{ expected: number }>("/dlq/purge", { json: { error_code: "E_OLD", preview: true, ...json } })).body
        .expected;
    expect(await counted({})).toBe(0);
    expect(await counted({ older_than: "1ms" })).toBe(2);
  });

  test("POST /api/bulk begins an operation that can be watched, listed and stopped", async () => {
    const ids = [await waiting({ tags: ["bulk"] }), await waiting({ tags: ["bulk"] })];
    const body = { action: "reprioritise", filter: { tag: "bulk", status: "queued" }, priority: 3 };
    expect((await call("/api/bulk", { json: { ...body, preview: true } })).body).toMatchObject({ expected: 2 });
    const begun = await call<Bulk>("/api/bulk", { json: { ...body, by: "ann", reason: "sooner", per_second: 100 } });
    expect([begun.status, begun.body]).toEqual([
      202,
      {
        id: expect.any(String),
        action: "reprioritise",
        filter: { tag: "bulk", status: "waiting" },
        options: { priority: 3, reason: "sooner" },
        status: "waiting",
        expected: 2,
        more_than_expected: false,
        looked_at: 0,
        changed: 0,
        per_second: 100,
        created_at: expect.any(String),
        created_by: "ann",
        started_at: null,
        finished_at: null,
        stop_asked_at: null,
        stopped_by: null,
        error: null,
      },
    ]);
    expect((await call<{ items: unknown[] }>("/api/bulk?limit=1")).body).toMatchObject({
      items: [begun.body],
      next: begun.body.id,
    });
    await finished(begun.body.id);
    for (const id of ids) expect(await mill.job(id)).toMatchObject({ priority: 3 });
    const stopped = await call<Bulk>("/api/bulk", { json: { ...body, priority: 4 } });
    expect((await call(`/api/bulk/${stopped.body.id}/stop`, { json: { by: "bob" } })).body).toMatchObject({
      status: "stopped",
      stopped_by: "bob",
      changed: 0,
    });
  });

  test.each([
    [{ action: "cancel" }, 400, "FILTER_TOO_WIDE"],
    [{ action: "cancel", filter: {} }, 400, "FILTER_TOO_WIDE"],
    [{ action: "cancel", filter: { older_than: "0s" } }, 400, "FILTER_TOO_WIDE"],
    [{ action: "retry", filter: { status: "failed" } }, 400, "FILTER_TOO_WIDE"],
    [{ action: "cancel", filter: { queue: "nothere" } }, 404, "QUEUE_NOT_FOUND"],
    [{ action: "cansel", filter: { queue: "a" } }, 400, "BAD_REQUEST"],
    [{ filter: { queue: "a" } }, 400, "BAD_REQUEST"],
    [{ action: "cancel", filter: { qeue: "a" } }, 400, "OPTION_UNKNOWN"],
    [{ action: "cancel", filtre: { queue: "a" } }, 400, "OPTION_UNKNOWN"],
    [{ action: "cancel", filter: { status: "lost" } }, 400, "BAD_REQUEST"],
    [{ action: "cancel", filter: { ids: ["x"] } }, 400, "OPTION_INVALID"],
    [{ action: "cancel", filter: { queue: "a" }, priority: 1 }, 400, "OPTION_UNKNOWN"],
    [{ action: "move", filter: { queue: "a" } }, 400, "OPTION_INVALID"],
    [{ action: "cancel", filter: { queue: "a" }, per_second: 0 }, 400, "OPTION_INVALID"],
  ])("POST /api/bulk refuses %j", async (json, status, code) => {
    const answer = await call("/api/bulk", { json });
    expect([answer.status, answer.body]).toEqual([status, problem(code)]);
  });

  test("an operation there is none of is 404", async () => {
    for (const path of [`/api/bulk/${nowhere}`, "/api/bulk/nonsense"]) {
      expect((await call(path)).body).toMatchObject({ code: "BULK_NOT_FOUND", status: 404 });
      expect((await call(`${path}/stop`, { method: "POST" })).status).toBe(404);
    }
  });
});

test("whoever only looks changes nothing", async () => {
  const looks = createApi(mill, { log: recorder(), givenTokens: [{ token: "look", role: "viewer", name: "eve" }] });
  const viewer = callerOf(looks);
  const headers = { authorization: "Bearer look" };
  const id = await waiting();
  expect((await viewer(`/jobs/${id}/explain`, { headers })).status).toBe(200);
  const changes: [string, string][] = [
    ["POST", "/jobs"],
    ["PATCH", `/jobs/${id}`],
    ["DELETE", `/jobs/${id}`],
    ["POST", `/jobs/${id}/cancel`],
    ["POST", `/jobs/${id}/retry`],
    ["POST", `/jobs/${id}/replay`],
    ["POST", "/flows"],
    ["POST", "/batches"],
    ["POST", "/events"],
    ["POST", "/dlq/retry"],
    ["POST", "/dlq/replay"],
    ["POST", "/dlq/purge"],
    ["POST", "/api/bulk"],
    ["POST", "/api/bulk/one/stop"],
  ];
  for (const [method, path] of changes)
    expect([path, (await viewer(path, { method, headers })).status]).toEqual([path, 403]);
  expect(await mill.job(id)).toMatchObject({ status: "waiting" });
});

test("a page of another site cannot cancel anything", async () => {
  const id = await waiting();
  const headers = { "sec-fetch-site": "cross-site", origin: "https://elsewhere.example" };
  expect((await call(`/jobs/${id}/cancel`, { method: "POST", headers })).status).toBe(401);
  expect(await mill.job(id)).toMatchObject({ status: "waiting" });
});
