/** Questions about one job over HTTP: the documents under our names and under those of runbook 004. */
import { type Millrace, task } from "millrace";
import { afterAll, beforeAll, expect, test } from "vitest";
import { sql } from "../../src/db/sql.ts";
import { writeNotes } from "../../src/jobs/notes-store.ts";
import { useDatabase } from "../support/engine.ts";
import { StoreWorker } from "../support/store-worker.ts";
import { type Caller, callerOf, createApi, recorder } from "./caller.ts";

const pay = task({ name: "pay", queue: "payments", maxAttempts: 2, run() {} });

const file = useDatabase();
let mill: Millrace;
let call: Caller;
let worker: StoreWorker;
beforeAll(async () => {
  mill = await file.open([pay]);
  call = callerOf(createApi(mill, { log: recorder() }));
  worker = await StoreWorker.register(mill, "w1");
});
afterAll(() => mill.close());

/** A job that failed once, or twice and was given up. */
async function failed(times: 1 | 2): Promise<string> {
  const { id } = await mill.enqueue(pay, {});
  for (let i = 1; i <= times; i += 1) {
    const delayMs = i === times ? 600_000 : 0;
    const claim = await worker.claim(1, "payments");
    await worker.settle(claim, { [id]: { next: "retry", code: "DEPENDENCY_DOWN", message: "No bank.", delayMs } });
  }
  return id;
}

const advice = "Check the service the task calls; the job is tried again by itself.";

test("GET /jobs/:id/timeline has every field of runbook 004, and ours", async () => {
  const id = await failed(1);
  await mill.db.query(sql`
    insert into millrace.policy_decisions (queue, job_id, at, decision, reason_code, details)
    select j.queue, j.id, a.finished_at, 'THROTTLED', 'RETRY_RATE_EXCEEDED', '{"max_attempts_per_minute": 1}'
    from millrace.jobs j join millrace.attempts a on a.job_id = j.id where j.id = ${id}::uuid`);
  const { status, body } = await call(`/jobs/${id}/timeline`);
  expect(status).toBe(200);
  const attempt = {
    id: expect.any(String),
    attempt: 1,
    attempt_no: 1,
    status: "failed",
    started_at: expect.any(String),
    finished_at: expect.any(String),
    took_ms: expect.any(Number),
    latency_ms: expect.any(Number),
    worker: "w1",
    worker_id: "w1",
    error_code: "DEPENDENCY_DOWN",
    error_message: "No bank.",
    suggested_action: advice,
    retry_at: expect.any(String),
  };
  expect(body).toEqual({
    job_id: id,
    status: "delayed",
    queue: "payments",
    task: "pay",
    job_type: "pay",
    run_at: expect.any(String),
    next_run_at: body["run_at"],
    last_worker: "w1",
    last_worker_id: "w1",
    last_error: { error_code: "DEPENDENCY_DOWN", error_message: "No bank." },
    dead_letter_reason: null,
    dlq_reason_code: null,
    suggested_action: advice,
    attempts: [attempt],
    story: [
      {
        kind: "Enqueued",
        at: expect.any(String),
        summary: 'Enqueued in queue "payments" for task "pay".',
        queue: "payments",
        priority: 0,
        task: "pay",
        run_at: expect.any(String),
        replay_of: null,
        by: null,
        reason: null,
        needs: null,
        needed_by: null,
        schedule: null,
      },
      {
        kind: "PolicyDecision",
        at: expect.any(String),
        summary: "Storm control: THROTTLED, RETRY_RATE_EXCEEDED.",
        id: expect.any(String),
        decision: "THROTTLED",
        reason_code: "RETRY_RATE_EXCEEDED",
        details: { max_attempts_per_minute: 1 },
        details_json: { max_attempts_per_minute: 1 },
      },
      { kind: "Attempt", at: expect.any(String), summary: expect.any(String), ...attempt },
    ],
    result_bytes: null,
    note: null,
  });
});

test("GET /jobs/:id/explain has every field of runbook 004, and ours", async () => {
  const id = await failed(1);
  const { status, body } = await call(`/jobs/${id}/explain`);
  expect(status).toBe(200);
  expect(body).toEqual({
    job_id: id,
    status: "delayed",
    queue: "payments",
    task: "pay",
    job_type: "pay",
    because: "RETRY_SCHEDULED",
    summary: expect.stringMatching(/^Retry scheduled after DEPENDENCY_DOWN: attempt 2 of 2 is due at /),
    what_next: "Nothing: it runs by itself then. Promote it to run it now.",
    also: [],
    facts: {
      due_at: body["next_run_at"],
      since: expect.any(String),
      error_code: "DEPENDENCY_DOWN",
      attempt: 2,
      max_attempts: 2,
    },
    attempts: 1,
    failed_attempts: 1,
    next_run_at: expect.any(String),
    last_error: { error_code: "DEPENDENCY_DOWN", error_message: "No bank." },
    dead_letter_reason: null,
    dlq_reason_code: null,
    suggested_action: advice,
  });
});

test("a dead letter carries its reason, its error and what to do: by itself, in the list, and in both answers", async () => {
  const id = await failed(2);
  const facts = { dlq_reason_code: "MAX_ATTEMPTS_EXCEEDED", suggested_action: advice };
  const listed = (await call<{ items: { id: string }[] }>("/dlq?limit=500")).body.items.find((item) => item.id === id);
  expect(listed).toMatchObject({ ...facts, last_error_code: "DEPENDENCY_DOWN" });
  expect((await call(`/jobs/${id}`)).body).toMatchObject({ ...facts, last_error_code: "DEPENDENCY_DOWN" });
  expect((await call(`/jobs/${id}/explain`)).body).toMatchObject({ ...facts, because: "GAVE_UP" });
  expect((await call(`/jobs/${id}/timeline`)).body).toMatchObject({ ...facts, status: "failed", next_run_at: null });
});

test.each(["timeline", "explain"])(
  "%s: an unknown job is 404, what is no id 400, another method 405",
  async (question) => {
    const unknown = await call(`/jobs/018f0000-0000-7000-8000-000000000000/${question}`);
    expect([unknown.status, unknown.body["code"]]).toEqual([404, "JOB_NOT_FOUND"]);
    const bad = await call(`/jobs/nonsense/${question}`);
    expect([bad.status, bad.body["code"]]).toEqual([400, "BAD_REQUEST"]);
    expect((await call(`/jobs/nonsense/${question}`, { method: "POST", json: {} })).status).toBe(405);
  },
);

test("GET /jobs/:id/logs is a page of lines; progress keeps the task's own names everywhere", async () => {
  const { id } = await mill.enqueue(pay, {}, { queue: "logged" });
  const claim = await worker.claim(1, "logged");
  const line = {
    place: 1,
    agoMs: 0,
    level: "info",
    message: "one",
    fields: '{"cardNo":7}',
    missed: undefined,
  } as const;
  const lines = [line, { ...line, place: 2, fields: undefined, message: "two" }];
  const mark = { progress: '{"rowsDone":1}', progressAgoMs: 0 };
  await writeNotes(mill.db, worker.id, [{ lease: claim.lease, jobId: id, attempt: 1, most: 200, lines, ...mark }]);
  const one = {
    n: 1,
    at: expect.any(String),
    level: "info",
    message: "one",
    fields: { cardNo: 7 },
    attempt: 1,
    missed: null,
  };
  const two = { ...one, n: 2, message: "two", fields: null };
  expect((await call(`/jobs/${id}/logs`)).body).toEqual({ items: [one, two], next: null });
  expect((await call(`/jobs/${id}/logs?limit=1`)).body).toEqual({ items: [one], next: 1 });
  expect((await call(`/jobs/${id}/logs?after=1`)).body).toEqual({ items: [two], next: null });
  expect((await call(`/jobs/${id}/logs?after=-1`)).status).toBe(400);
  expect((await call(`/jobs/${id}/logs?limit=1001`)).status).toBe(400);
  const none = "01a00000-0000-7000-8000-000000000000";
  expect(await call(`/jobs/${none}/logs`)).toMatchObject({ status: 404, body: { code: "JOB_NOT_FOUND" } });
  expect((await call(`/jobs/${id}`)).body).toMatchObject({
    progress: { rowsDone: 1 },
    progress_at: expect.any(String),
  });
  expect((await call(`/jobs/${id}/explain`)).body).toMatchObject({
    because: "RUNNING",
    facts: { progress: { rowsDone: 1 }, progress_at: expect.any(String) },
  });
  const { story } = (await call<{ story: object[] }>(`/jobs/${id}/timeline`)).body;
  expect(story).toContainEqual({
    kind: "Progress",
    at: expect.any(String),
    attempt: 1,
    progress: { rowsDone: 1 },
    summary: 'Progress of attempt 1: {"rowsDone":1}.',
  });
});

test("the answers about jobs in every kind of place are as documented", async () => {
  type Flow = { jobs: { first: string; second: string } };
  const told = async (id: string) => {
    const { because } = (await call<{ because: string }>(`/jobs/${id}/explain`)).body;
    const { story } = (await call<{ story: { kind: string }[] }>(`/jobs/${id}/timeline`)).body;
    return [because, ...story.map(({ kind }) => kind)];
  };
  const enqueued = async (options = {}) => (await mill.enqueue(pay, {}, { queue: "everywhere", ...options })).id;
  const claimed = async () => worker.claim(1, "everywhere");
  const jobs = { first: { task: "pay", delay: "1h" }, second: { task: "pay", after: ["first"] } };
  const { first, second } = (await call<Flow>("/flows", { json: { jobs } })).body.jobs;
  expect(await told(first)).toEqual(["NOT_DUE", "Enqueued"]);
  expect(await told(second)).toEqual(["BLOCKED", "Enqueued"]);
  await call(`/jobs/${first}`, { method: "PATCH", json: { delay: "2h", by: "ann" } });
  expect(await told(first)).toEqual(["RESCHEDULED", "Enqueued", "Operation"]);
  await call(`/jobs/${first}/cancel`, { method: "POST" });
  expect((await told(first)).slice(0, 2)).toEqual(["CANCELLED", "Enqueued"]);

  const done = await enqueued();
  await worker.settle(await claimed(), { [done]: { next: "done" } });
  expect(await told(done)).toEqual(["COMPLETED", "Enqueued", "Attempt"]);
  await call(`/jobs/${done}/replay`, { json: { delay: "1h" } });
  expect(await told(done)).toContain("Replayed");

  const dead = await enqueued();
  await worker.settle(await claimed(), { [dead]: { next: "dead", code: "NO_FUNDS", message: "No funds." } });
  expect(await told(dead)).toEqual(["GAVE_UP", "Enqueued", "Attempt", "DeadLettered"]);

  const running = await enqueued();
  await claimed();
  await call(`/jobs/${running}/cancel`, { json: { wait: 0, reason: "late" } });
  expect(await told(running)).toEqual(["CANCEL_ASKED", "Enqueued", "Attempt", "CancelRequested"]);

  const waiting = await enqueued();
  expect((await told(waiting))[0]).toBe("IN_LINE");
  await mill.pause("everywhere", { by: "ann" });
  expect((await told(waiting))[0]).toBe("QUEUE_PAUSED");
});
