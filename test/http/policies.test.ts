import { task } from "millrace";
import { describe, expect, test } from "vitest";
import { useDatabase } from "../support/engine.ts";
import { callerOf, createApi, recorder } from "./caller.ts";

const file = useDatabase();
const plain = task({ name: "plain", run: () => undefined });

async function setUp(options: { maxPayloadBytes?: number } = {}) {
  const mill = await file.open([plain], options);
  return { mill, call: callerOf(createApi(mill, { log: recorder() })) };
}

describe("the policy of a queue", () => {
  test("is set, changed in part, listed, read and removed", async () => {
    const { mill, call } = await setUp();
    await using _ = mill;
    const path = "/api/queue/mail/policy";
    const set = await call(path, {
      method: "PATCH",
      json: { concurrency: 5, rate: { max: 10, per: "1s" }, by: "ada" },
    });
    expect(set).toMatchObject({
      status: 200,
      body: { queue: "mail", concurrency: 5, rate: { max: 10, per_ms: 1_000 }, key_rate: null, updated_by: "ada" },
    });
    const changed = await call(path, { method: "PATCH", json: { concurrency: null, max_enqueue_per_minute: 100 } });
    expect(changed.body).toMatchObject({ concurrency: null, rate: { max: 10 }, max_enqueue_per_minute: 100 });
    expect(await call(path)).toMatchObject({ status: 200, body: changed.body });
    expect(await call("/api/policies")).toMatchObject({ status: 200, body: { items: [changed.body] } });
    expect(await call(`${path}?by=bob`, { method: "DELETE" })).toMatchObject({ status: 204 });
    expect(await call(path, { method: "DELETE" })).toMatchObject({ status: 404, body: { code: "POLICY_NOT_FOUND" } });
    expect(await call(path)).toMatchObject({ status: 404, body: { code: "POLICY_NOT_FOUND" } });
  });

  test.each<[string, object, number, string]>([
    ["an unknown field", { concurency: 1 }, 400, "OPTION_UNKNOWN"],
    ["a limit below zero", { concurrency: -1 }, 400, "OPTION_INVALID"],
    ["nothing", {}, 400, "OPTION_INVALID"],
    ["a rate without its time", { rate: { max: 1 } }, 400, "BAD_REQUEST"],
    ["a text for a number", { concurrency: "many" }, 400, "BAD_REQUEST"],
  ])("refuses %s", async (_name, body, status, code) => {
    const { mill, call } = await setUp();
    await using _ = mill;
    expect(await call("/api/queue/default/policy", { method: "PATCH", json: body })).toMatchObject({
      status,
      body: { code },
    });
    expect(await mill.policies.list()).toEqual([]);
  });

  test("of a queue that does not exist is 404, and of an impossible name 400", async () => {
    const { mill, call } = await setUp();
    await using _ = mill;
    expect(await call("/api/queue/nowhere/policy")).toMatchObject({
      status: 404,
      body: { code: "QUEUE_NOT_FOUND" },
    });
    expect(await call("/api/queue/no%20way/policy", { method: "PATCH", json: { concurrency: 1 } })).toMatchObject({
      status: 400,
      body: { code: "QUEUE_NAME_INVALID" },
    });
  });
});

describe("what is not let in", () => {
  test("is 413 or 429, and on record under /ingest/decisions with the names of runbook 004", async () => {
    const { mill, call } = await setUp({ maxPayloadBytes: 100 });
    await using _ = mill;
    await mill.policies.set("busy", { maxEnqueuePerMinute: 1 });
    const large = await call("/jobs", { method: "POST", json: { job_type: "plain", payload_json: "x".repeat(200) } });
    expect(large).toMatchObject({ status: 413, body: { code: "PAYLOAD_TOO_LARGE" } });
    // Three in at most two minutes of the clock: one is too many.
    const answers = [];
    for (let n = 0; n < 3; n += 1)
      answers.push(
        await call("/jobs", { method: "POST", json: { job_type: "plain", payload_json: n, queue: "busy" } }),
      );
    const refused = answers.find(({ status }) => status === 429);
    expect(refused).toMatchObject({ body: { code: "ENQUEUE_RATE_EXCEEDED" } });
    expect(Number(refused?.headers.get("retry-after"))).toBeGreaterThan(0);
    expect(Number(refused?.headers.get("retry-after"))).toBeLessThanOrEqual(60);
    const decisions = await call("/ingest/decisions?limit=500");
    expect(decisions.body).toContainEqual(
      expect.objectContaining({
        queue: "default",
        decision: "DENIED",
        reason_code: "PAYLOAD_TOO_LARGE",
        details_json: { payload_bytes: 202, max_payload_bytes: 100, jobs: 1 },
      }),
    );
    const ofBusy = (await call<{ reason_code: string }[]>("/ingest/decisions?queue=busy")).body;
    expect(new Set(ofBusy.map(({ reason_code }) => reason_code))).toEqual(new Set(["ENQUEUE_RATE_EXCEEDED"]));
    expect(await call("/ingest/decisions?limit=0")).toMatchObject({ status: 400 });
  });
});

test("decisions of storm control are told per queue", async () => {
  const { mill, call } = await setUp();
  await using _ = mill;
  await mill.enqueue(plain, 1);
  expect(await call("/api/queue/default/decisions")).toMatchObject({ status: 200, body: { items: [] } });
  expect(await call("/api/queue/nowhere/decisions")).toMatchObject({ status: 404 });
});
