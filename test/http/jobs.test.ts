import { NonRetryableError, task } from "millrace";
import { beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { gate, useDatabase } from "../support/engine.ts";
import { type Caller, callerOf, createApi, recorder } from "./caller.ts";

const greet = task({
  name: "greet",
  queue: "greetings",
  maxAttempts: 3,
  input: z.object({ name: z.string() }),
  run() {},
});

const file = useDatabase();
let call: Caller;
beforeAll(async () => {
  const mill = await file.open([greet], { maxPayloadBytes: 1_000 });
  call = callerOf(createApi(mill, { log: recorder() }));
  return () => mill.close();
});

type Posted = { job_id: string; id: string; duplicate: boolean };
type Page = { items: Record<string, unknown>[]; next: string | null; next_cursor: string | null };

async function post(json: object): Promise<string> {
  const { body } = await call<Posted>("/jobs", { json });
  return body.id;
}

async function listed(query: string): Promise<unknown[]> {
  const { body } = await call<Page>(query);
  return body.items.map(({ id }) => id);
}

describe("POST /jobs", () => {
  test("takes a job under the names of runbook 004", async () => {
    const runAt = "2031-01-31T08:00:00.000Z";
    const { status, body } = await call<Posted>("/jobs", {
      json: { queue: "q4", job_type: "ok", payload_json: { user_id: 1 }, run_at: runAt, priority: 7, max_attempts: 4 },
    });

    expect(status).toBe(200);
    expect(body).toEqual({ job_id: body.id, id: body.id, duplicate: false });
    expect((await call(`/jobs/${body.id}`)).body).toMatchObject({
      queue: "q4",
      job_type: "ok",
      payload_json: { user_id: 1 },
      run_at: runAt,
      status: "delayed",
      priority: 7,
      max_attempts: 4,
    });
  });

  test("takes a job under our own names", async () => {
    const id = await post({
      task: "ours",
      input: [1, "two"],
      queue: "q-ours",
      delay: "10m",
      priority: -3,
      maxAttempts: 9,
      backoff: { type: "fixed", delay: "1s" },
      timeout: "30s",
      tags: ["red", "blue"],
    });

    expect((await call(`/jobs/${id}`)).body).toMatchObject({
      queue: "q-ours",
      task: "ours",
      input: [1, "two"],
      status: "delayed",
      priority: -3,
      max_attempts: 9,
      tags: ["red", "blue"],
    });
  });

  test("gives a job of a task the app knows that task's queue and attempts", async () => {
    const id = await post({ job_type: "greet", payload_json: { name: "Ada" } });
    expect((await call(`/jobs/${id}`)).body).toMatchObject({ queue: "greetings", max_attempts: 3 });
  });

  test("leaves a task the app does not know to the default queue and the default attempts", async () => {
    const id = await post({ job_type: "elsewhere" });
    expect((await call(`/jobs/${id}`)).body).toMatchObject({ queue: "default", max_attempts: 25, input: null });
  });

  test("counts null as left out, as some clients write it", async () => {
    const id = await post({ job_type: "nulls", task: null, queue: null, run_at: null, tags: null, max_attempts: null });
    expect((await call(`/jobs/${id}`)).body).toMatchObject({ task: "nulls", queue: "default", status: "waiting" });
  });

  test("refuses an input that does not match its task's schema, and enqueues nothing", async () => {
    const { status, body } = await call("/jobs", { json: { task: "greet", queue: "mismatch", input: { name: 5 } } });

    expect(status).toBe(422);
    expect(body).toMatchObject({ code: "BAD_PAYLOAD", detail: expect.stringContaining("name:") });
    expect(await listed("/jobs?queue=mismatch")).toEqual([]);
  });

  test.each([
    ["no job_type", {}, "BAD_REQUEST", "job_type is required"],
    ["a blank job_type", { job_type: "  " }, "BAD_REQUEST", "job_type is required"],
    ["a job_type that cannot be a name", { job_type: "two words" }, "TASK_NAME_INVALID", "two words"],
    ["both names of a field", { task: "a", job_type: "b" }, "BAD_REQUEST", "task and job_type"],
    ["a field that does not exist", { task: "a", prioritty: 1 }, "OPTION_UNKNOWN", 'Did you mean "priority"?'],
    ["a backoff that does not exist", { task: "a", backoff: { dely: 1 } }, "OPTION_UNKNOWN", "dely"],
    ["no attempts", { task: "a", max_attempts: 0 }, "OPTION_INVALID", "max_attempts"],
    ["a priority out of range", { task: "a", priority: 40_000 }, "OPTION_INVALID", "priority"],
    ["a time without its zone", { task: "a", run_at: "2031-01-31T08:00:00" }, "BAD_REQUEST", "run_at: expected"],
    ["a duration that is none", { task: "a", delay: "soon" }, "BAD_REQUEST", "delay: expected a duration"],
    ["delay and run_at", { task: "a", delay: 5, run_at: "2031-01-31T08:00:00Z" }, "OPTION_INVALID", "not both"],
    ["a list", [], "BAD_REQUEST", "expected object"],
    ["a tag with half a surrogate pair", { task: "a", tags: ["\ud800"] }, "OPTION_INVALID", "tags"],
  ])("refuses %s", async (_, json, code, detail) => {
    const answer = await call("/jobs", { json });
    expect(answer.status).toBe(400);
    expect(answer.body).toMatchObject({ code, detail: expect.stringContaining(detail) });
  });

  test("answers a repeated Idempotency-Key with the first job", async () => {
    const send = () => call<Posted>("/jobs", { json: { task: "once" }, headers: { "Idempotency-Key": "order-1" } });
    const first = await send();
    const second = await send();
    const third = await call<Posted>("/jobs", { json: { task: "once", idempotencyKey: "order-1" } });

    expect(first.body.duplicate).toBe(false);
    expect(second.body).toEqual({ job_id: first.body.id, id: first.body.id, duplicate: true });
    expect(third.body).toEqual(second.body);
  });

  test("refuses two different idempotency keys", async () => {
    const { status } = await call("/jobs", {
      json: { task: "once", idempotencyKey: "a" },
      headers: { "Idempotency-Key": "b" },
    });
    expect(status).toBe(400);
  });

  test("refuses an input larger than the limit", async () => {
    const { status, body } = await call("/jobs", { json: { task: "a", input: "x".repeat(1_000) } });
    expect(status).toBe(413);
    expect(body).toMatchObject({ code: "PAYLOAD_TOO_LARGE", detail: expect.stringContaining("the limit is 1000") });
  });

  test("stops reading a body that is longer than any input could make it", async () => {
    let pulled = 0;
    const endless = new ReadableStream<Uint8Array>({
      pull(controller) {
        pulled += 1;
        controller.enqueue(new Uint8Array(10_000).fill(32));
      },
    });
    const { status, body } = await call("/jobs", { body: endless, headers: { "content-type": "application/json" } });

    expect(status).toBe(413);
    expect(body).toMatchObject({ code: "PAYLOAD_TOO_LARGE" });
    expect(pulled).toBeLessThan(20);
  });

  test("refuses a body that says it is too long without reading it", async () => {
    const headers = { "content-type": "application/json", "content-length": "1000000" };
    expect((await call("/jobs", { body: "{}", headers })).status).toBe(413);
  });

  test("refuses a body that is not JSON", async () => {
    const broken = await call("/jobs", { body: '{"task":', headers: { "content-type": "application/json" } });
    expect(broken.status).toBe(400);
    expect(broken.body).toMatchObject({ code: "BAD_REQUEST" });
  });

  test.each(["application/json", "application/json; charset=utf-8", "application/vnd.api+json"])(
    "takes %s",
    async (type) => {
      expect((await call("/jobs", { body: '{"task":"a"}', headers: { "content-type": type } })).status).toBe(200);
    },
  );

  test.each(["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""])(
    "refuses the media type %j, which a page of another site could send",
    async (type) => {
      const answer = await call("/jobs", { body: '{"task":"a"}', headers: { "content-type": type } });
      expect(answer.status).toBe(415);
      expect(answer.body).toMatchObject({ code: "UNSUPPORTED_MEDIA_TYPE" });
    },
  );
});

describe("GET /jobs", () => {
  test("lists the newest first, page by page, under either name of the cursor", async () => {
    const ids = [];
    for (let n = 0; n < 5; n += 1) ids.push(await post({ task: "paged", queue: "pages" }));

    const first = (await call<Page>("/jobs?queue=pages&limit=2")).body;
    const second = (await call<Page>(`/jobs?queue=pages&limit=2&after=${first.next}`)).body;
    const third = (await call<Page>(`/jobs?queue=pages&limit=2&cursor=${second.next_cursor}`)).body;

    expect([first, second, third].flatMap(({ items }) => items.map(({ id }) => id))).toEqual(ids.toReversed());
    expect(third.next).toBeNull();
  });

  test("shows a job under our names and under those of runbook 004, without its input", async () => {
    const id = await post({ task: "shown", queue: "view", input: 1, tags: ["t"] });
    const { body } = await call<Page>("/jobs?queue=view");

    const at = body.items[0]?.["created_at"];
    expect(body.items).toEqual([
      {
        id,
        queue: "view",
        task: "shown",
        job_type: "shown",
        status: "waiting",
        run_at: at,
        priority: 0,
        attempt: 1,
        max_attempts: 25,
        last_error_code: null,
        last_error_message: null,
        dlq_reason_code: null,
        suggested_action: null,
        created_at: at,
        updated_at: at,
        started_at: null,
        finished_at: null,
        worker_id: null,
        tags: ["t"],
        replay_of_job_id: null,
        progress: null,
        progress_at: null,
      },
    ]);
    expect(at).toMatch(/^\d{4}-\d\d-\d\dT.*Z$/);
  });

  test("filters by queue, task, tag and status, under every name of a status", async () => {
    const due = await post({ task: "due", queue: "filters", tags: ["keep"] });
    const later = await post({ task: "later", queue: "filters", delay: "1h" });

    expect(await listed("/jobs?queue=filters")).toEqual([later, due]);
    expect(await listed("/jobs?queue=filters&task=due")).toEqual([due]);
    expect(await listed("/jobs?queue=filters&job_type=later")).toEqual([later]);
    expect(await listed("/jobs?queue=filters&tag=keep")).toEqual([due]);
    for (const word of ["waiting", "queued"]) expect(await listed(`/jobs?queue=filters&status=${word}`)).toEqual([due]);
    for (const word of ["delayed", "scheduled"])
      expect(await listed(`/jobs?queue=filters&status=${word}`)).toEqual([later]);
    for (const word of ["active", "running", "completed", "succeeded", "failed", "dlq", "cancelled", "canceled"])
      expect(await listed(`/jobs?queue=filters&status=${word}`)).toEqual([]);
    expect(await listed("/jobs?queue=nothing-used-this-yet")).toEqual([]);
  });

  test("counts an empty parameter as left out", async () => {
    const id = await post({ task: "blank", queue: "blanks" });
    expect(await listed("/jobs?queue=blanks&status=&limit=")).toEqual([id]);
  });

  test.each([
    ["limit=0", "BAD_REQUEST", "limit"],
    ["limit=501", "BAD_REQUEST", "limit"],
    ["limit=many", "BAD_REQUEST", "limit"],
    ["status=asleep", "BAD_REQUEST", "status"],
    ["statsu=failed", "OPTION_UNKNOWN", 'Did you mean "status"?'],
    ["task=a&job_type=b", "BAD_REQUEST", "task and job_type"],
    ["after=bm90IG91cnM", "OPTION_INVALID", "after"],
    [`after=${Buffer.from('["","abc"]').toString("base64url")}`, "OPTION_INVALID", "after"],
    ["queue=%00", "BAD_REQUEST", "queue"],
    ["tag=%00", "BAD_REQUEST", "tag"],
  ])("refuses ?%s", async (query, code, detail) => {
    const answer = await call(`/jobs?${query}`);
    expect(answer.status).toBe(400);
    expect(answer.body).toMatchObject({ code, detail: expect.stringContaining(detail) });
  });
});

describe("GET /jobs/:id", () => {
  test("shows the input too, under both names", async () => {
    const id = await post({ task: "whole", input: { deep: [1] } });
    expect((await call(`/jobs/${id}`)).body).toMatchObject({
      id,
      input: { deep: [1] },
      payload_json: { deep: [1] },
      last_error_stack: null,
    });
  });

  test("is 404 for a job that does not exist and 400 for what is no id", async () => {
    const missing = await call("/jobs/01890000-0000-7000-8000-000000000000");
    expect(missing.status).toBe(404);
    expect(missing.body).toMatchObject({ code: "JOB_NOT_FOUND" });
    for (const id of ["1", "not-a-uuid", "%zz"]) expect((await call(`/jobs/${id}`)).status).toBe(400);
  });
});

describe("a dead letter", () => {
  test("is in /dlq with its reason, runs again after a retry, and can be deleted", async () => {
    const ran = gate();
    const refuse = task({
      name: "refuse",
      queue: "refused",
      run() {
        ran.open();
        throw new NonRetryableError("no such user", { code: "NO_USER" });
      },
    });
    await using mill = await file.open([refuse]);
    const local = callerOf(createApi(mill, { log: recorder() }));
    const { id } = (await local<Posted>("/jobs", { json: { task: "refuse" } })).body;
    const worker = mill.work();
    await ran.opened;
    await worker.stop();

    const { body } = await local<Page>("/dlq");
    expect(body.items).toEqual([
      expect.objectContaining({
        id,
        status: "failed",
        dlq_reason_code: "NON_RETRYABLE",
        last_error_code: "NO_USER",
        last_error_message: "no such user",
        attempt: 1,
        worker_id: worker.name,
      }),
    ]);
    expect((await local(`/jobs/${id}`)).body).toMatchObject({
      last_error_stack: expect.stringContaining("no such user"),
    });
    expect((await local("/dlq?status=waiting")).status).toBe(400);

    expect(await local(`/jobs/${id}/retry`, { method: "POST" })).toMatchObject({
      status: 200,
      body: { id, job_id: id },
    });
    expect((await local(`/jobs/${id}`)).body).toMatchObject({ status: "waiting", attempt: 2 });
    const again = await local(`/jobs/${id}/retry`, { method: "POST" });
    expect(again).toMatchObject({ status: 409, body: { code: "JOB_STATE" } });

    expect((await local(`/jobs/${id}`, { method: "DELETE" })).status).toBe(204);
    expect((await local(`/jobs/${id}`)).status).toBe(404);
    expect((await local(`/jobs/${id}`, { method: "DELETE" })).status).toBe(404);
    expect((await local(`/jobs/${id}/retry`, { method: "POST" })).status).toBe(404);
  });

  test("cannot be made of a job that runs: deleting it is refused", async () => {
    const [started, finish] = [gate(), gate()];
    const slow = task({
      name: "slow",
      async run() {
        started.open();
        await finish.opened;
      },
    });
    await using mill = await file.open([slow]);
    const local = callerOf(createApi(mill, { log: recorder() }));
    const { id } = (await local<Posted>("/jobs", { json: { task: "slow" } })).body;
    const worker = mill.work();
    await started.opened;

    expect(await local(`/jobs/${id}`, { method: "DELETE" })).toMatchObject({
      status: 409,
      body: { code: "JOB_STATE" },
    });
    finish.open();
    await worker.stop();
    expect((await local(`/jobs/${id}`)).body).toMatchObject({ status: "completed" });
  });
});
