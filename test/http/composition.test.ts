/** Results, flows, steps, keys and events over HTTP. */
import { type Millrace, NonRetryableError, type Worker, task } from "millrace";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { useDatabase } from "../support/engine.ts";
import { type Caller, callerOf, createApi, recorder } from "./caller.ts";

const add = task({
  name: "add",
  queue: "sums",
  input: z.object({ n: z.number() }),
  async run({ input, dependencies }) {
    const found = await dependencies();
    return found.reduce((sum, { result }) => sum + Number(result), input.n);
  },
});
const fails = task({
  name: "fails",
  run() {
    throw new NonRetryableError("no funds", { code: "NO_FUNDS" });
  },
});
const nothing = task({ name: "nothing", run: () => undefined });
const order = task({
  name: "order",
  async run({ step }) {
    const paid = await step.run("pay", () => ({ euros: 5 }));
    return [paid, await step.waitForEvent("shipped", { event: "order.1.shipped" })];
  },
});

const file = useDatabase();
let mill: Millrace;
let worker: Worker;
let call: Caller;
beforeAll(async () => {
  mill = await file.open([add, fails, nothing, order], { maxPayloadBytes: 1_000 });
  call = callerOf(createApi(mill, { log: recorder() }));
  worker = mill.work();
});
afterAll(async () => {
  await worker.stop();
  await mill.close();
});

const unknown = "018f0000-0000-7000-8000-000000000000";

async function post<Body = { id: string }>(path: string, json: object): Promise<Body> {
  const { status, body } = await call<Body>(path, { json });
  expect([status, body]).toEqual([200, body]);
  return body;
}

describe("a result", () => {
  test("is waited for, and is then with the job and by itself", async () => {
    const { id } = await post("/jobs", { task: "add", input: { n: 3 } });
    const waited = await call(`/jobs/${id}/wait?within=20s`);
    expect([waited.status, waited.body]).toEqual([200, { job_id: id, id, status: "completed", result: 3 }]);
    expect((await call(`/jobs/${id}/result`)).body).toEqual({ job_id: id, id, status: "completed", result: 3 });
    const { body } = await call(`/jobs/${id}`);
    expect(body).toMatchObject({ status: "completed", result: 3 });
    expect(body).not.toHaveProperty("dependencies");
  });

  test("that is nothing is no field, and neither is one that is still to come", async () => {
    const { id } = await post("/jobs", { task: "nothing" });
    expect((await call(`/jobs/${id}/wait`)).body).toEqual({ job_id: id, id, status: "completed" });
    const later = await post("/jobs", { task: "nothing", delay: "1h" });
    expect((await call(`/jobs/${later.id}/result`)).body).toEqual({
      job_id: later.id,
      id: later.id,
      status: "delayed",
    });
    expect((await call(`/jobs/${id}`)).body).not.toHaveProperty("result");
  });

  test("of a job that fails, is cancelled, or does not come in time is a problem", async () => {
    const { id } = await post("/jobs", { task: "fails" });
    const failed = await call(`/jobs/${id}/wait?within=20000`);
    expect([failed.status, failed.body]).toEqual([
      409,
      expect.objectContaining({ code: "JOB_FAILED", detail: `Job ${id} was given up (NO_FUNDS): no funds` }),
    ]);
    const later = await post("/jobs", { task: "nothing", delay: "1h" });
    const late = await call(`/jobs/${later.id}/wait?within=20ms`);
    expect([late.status, late.body["code"]]).toEqual([504, "WAIT_TIMEOUT"]);
    await mill.cancel(later.id);
    const cancelled = await call(`/jobs/${later.id}/wait`);
    expect([cancelled.status, cancelled.body["code"]]).toEqual([409, "JOB_CANCELLED"]);
    const gone = await call(`/jobs/${unknown}/wait`);
    expect([gone.status, gone.body["code"]]).toEqual([404, "JOB_NOT_FOUND"]);
  });

  test.each(["result", "dependencies", "steps"])("%s: an unknown job is 404, what is no id 400", async (aspect) => {
    const missing = await call(`/jobs/${unknown}/${aspect}`);
    expect([missing.status, missing.body["code"]]).toEqual([404, "JOB_NOT_FOUND"]);
    expect((await call(`/jobs/nonsense/${aspect}`)).status).toBe(400);
  });

  test.each(["within=soon", "within=-1", "wihtin=3s"])("a wait of %s is refused", async (query) => {
    expect((await call(`/jobs/${unknown}/wait?${query}`)).status).toBe(400);
  });
});

describe("a flow", () => {
  test("is made of jobs by name, under our names and those of runbook 004", async () => {
    const { jobs } = await post<{ jobs: Record<string, string> }>("/flows", {
      jobs: {
        one: { task: "add", input: { n: 1 } },
        two: { job_type: "add", payload_json: { n: 2 }, max_attempts: 3, priority: 5 },
        sum: { task: "add", input: { n: 10 }, after: ["one", "two"], on_failure: "ignore", tags: ["sum"] },
      },
    });
    const { sum = "", one = "", two = "" } = jobs;
    expect((await call(`/jobs/${sum}/wait`)).body).toMatchObject({ result: 13 });
    expect((await call(`/jobs/${two}`)).body).toMatchObject({ queue: "sums", max_attempts: 3, priority: 5 });
    expect((await call(`/jobs/${sum}`)).body).toMatchObject({
      tags: ["sum"],
      dependencies: { total: 2, open: 0, completed: 2, failed: 0 },
    });
    expect((await call(`/jobs/${sum}/dependencies`)).body).toEqual({
      items: [
        { place: 1, name: "one", id: one, state: "completed", on_failure: "ignore" },
        { place: 2, name: "two", id: two, state: "completed", on_failure: "ignore" },
      ],
      next: null,
      total: 2,
      open: 0,
      completed: 2,
      failed: 0,
    });
    const first = await call<{ items: unknown[]; next: string }>(`/jobs/${sum}/dependencies?limit=1`);
    expect(first.body.next).toBe("1");
    expect((await call(`/jobs/${sum}/dependencies?limit=1&after=${first.body.next}`)).body).toMatchObject({
      items: [{ name: "two" }],
    });
  });

  const refused: [string, object, number, string][] = [
    ["no jobs", {}, 400, "BAD_REQUEST"],
    ["an empty flow", { jobs: {} }, 400, "FLOW_INVALID"],
    ["a circle", { jobs: { a: { task: "x", after: ["b"] }, b: { task: "x", after: ["a"] } } }, 400, "FLOW_CYCLE"],
    ["a job without a task", { jobs: { a: {} } }, 400, "BAD_REQUEST"],
    ["a job that is not there", { jobs: { a: { task: "x", after: ["b"] } } }, 400, "FLOW_INVALID"],
    ["a key", { jobs: { a: { task: "x", unique: { key: "k" } } } }, 400, "OPTION_UNKNOWN"],
    ["a policy it does not know", { jobs: { a: { task: "x", on_failure: "panic" } } }, 400, "BAD_REQUEST"],
    ["an input that does not fit", { jobs: { a: { task: "add", input: {} } } }, 422, "BAD_PAYLOAD"],
    ["an input too long", { jobs: { a: { task: "x", input: "x".repeat(2_000) } } }, 413, "PAYLOAD_TOO_LARGE"],
  ];
  test.for(refused)("with %s is refused", async ([, json, status, code]) => {
    const answer = await call("/flows", { json });
    expect([answer.status, answer.body["code"]]).toEqual([status, code]);
  });
});

describe("a batch", () => {
  test("is many jobs and a last one, which finds their results", async () => {
    const inputs = Array.from({ length: 20 }, (_, n) => ({ n }));
    const { ids, callback } = await post<{ ids: string[]; callback: string }>("/batches", {
      task: "add",
      inputs,
      tags: ["batch"],
      callback: { task: "add", input: { n: 0 } },
    });
    expect(ids).toHaveLength(20);
    expect((await call(`/jobs/${callback}/wait`)).body).toMatchObject({ result: 190 });
    expect((await call(`/jobs/${ids[0]}`)).body).toMatchObject({ tags: ["batch"], queue: "sums" });
  });

  test("without a callback, or with one that names others, is refused", async () => {
    expect((await call("/batches", { json: { task: "add", inputs: [] } })).body["code"]).toBe("BAD_REQUEST");
    const after = { task: "add", inputs: [{ n: 1 }], callback: { task: "nothing", after: ["1"] } };
    expect((await call("/batches", { json: after })).body["code"]).toBe("FLOW_INVALID");
    const input = { task: "add", inputs: [], input: 1, callback: { task: "nothing" } };
    expect((await call("/batches", { json: input })).body["code"]).toBe("OPTION_UNKNOWN");
  });
});

describe("steps and events", () => {
  test("a run's steps are listed, and an event that comes in lets it go on", async () => {
    const { id } = await post("/jobs", { task: "order" });
    const steps = () => call<{ items: Record<string, unknown>[]; next: string | null }>(`/jobs/${id}/steps`);
    await expect.poll(async () => (await steps()).body.items.length, { timeout: 10_000 }).toBe(2);
    expect((await steps()).body).toEqual({
      items: [
        {
          place: 1,
          name: "pay",
          kind: "run",
          until: null,
          event: null,
          result: { euros: 5 },
          failure: null,
          attempt: 1,
          started_at: expect.any(String),
          finished_at: expect.any(String),
        },
        expect.objectContaining({
          place: 2,
          name: "shipped",
          kind: "event",
          event: "order.1.shipped",
          until: expect.any(String),
          finished_at: null,
          result: null,
          failure: null,
        }),
      ],
      next: null,
    });
    expect((await call<{ next: string }>(`/jobs/${id}/steps?limit=1`)).body.next).toBe("1");
    const event = { event: "order.1.shipped", payload: { truck: 7 }, by: "depot" };
    expect(await post("/events", event)).toEqual({ event: "order.1.shipped", duplicate: false, woken: 1 });
    expect(await post("/events", event)).toMatchObject({ duplicate: true, woken: 0 });
    expect((await call(`/jobs/${id}/wait`)).body).toMatchObject({ result: [{ euros: 5 }, { truck: 7 }] });
    expect((await mill.steps(id, { after: 1 })).map(({ name }) => name)).toEqual(["shipped"]);
  });

  test.each([
    [{}, 400, "BAD_REQUEST"],
    [{ event: "" }, 400, "OPTION_INVALID"],
    [{ event: "e", paylaod: 1 }, 400, "OPTION_UNKNOWN"],
    [{ event: "e", by: "a\0" }, 400, "OPTION_INVALID"],
    [{ event: "e", payload: "x".repeat(2_000) }, 413, "PAYLOAD_TOO_LARGE"],
  ])("an event that is %j is refused", async (json, status, code) => {
    const answer = await call("/events", { json });
    expect([answer.status, answer.body["code"]]).toEqual([status, code]);
  });
});

describe("keys", () => {
  const keyed: [string, object][] = [
    ["unique", { unique: { key: "u", while: ["queued", "delayed"], within: "1h" }, delay: "1h" }],
    ["debounce", { debounce: { key: "d", wait: "1h", maxWait: "2h" } }],
    ["debounce in snake case", { debounce: { key: "s", wait: 3_600_000, max_wait: "2h" } }],
    ["throttle", { throttle: { key: "t", per: "1h" }, delay: "1h" }],
  ];
  test.for(keyed)("%s: the second call gets the job of the first", async ([, options]) => {
    const first = await post("/jobs", { task: "nothing", ...options });
    expect(first).toMatchObject({ duplicate: false });
    expect(await post("/jobs", { task: "nothing", ...options })).toEqual({ ...first, duplicate: true });
  });

  test("what is wrong with one is refused", async () => {
    const bad: [object, string][] = [
      [{ unique: { key: "u", while: ["done"] } }, "BAD_REQUEST"],
      [{ unique: {} }, "BAD_REQUEST"],
      [{ debounce: { key: "d", wait: "1h", maxWait: "1h", max_wait: "1h" } }, "BAD_REQUEST"],
      [{ throttle: { key: "t", per: "1h" }, unique: { key: "u" } }, "OPTION_INVALID"],
      [{ debounce: { key: "d", wait: "1h", wiat: 1 } }, "OPTION_UNKNOWN"],
    ];
    for (const [options, code] of bad)
      expect((await call("/jobs", { json: { task: "nothing", ...options } })).body["code"]).toBe(code);
  });
});
