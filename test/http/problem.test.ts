import { Millrace, defineApp } from "millrace";
import { beforeAll, describe, expect, test } from "vitest";
import { useDatabase, withinAMinute } from "../support/engine.ts";
import { callerOf, createApi, recorder } from "./caller.ts";

const file = useDatabase();
let mill: Millrace;
beforeAll(async () => {
  mill = await file.open();
  return () => mill.close();
});

/** An API whose database answers everything with this error. */
function failingWith(error: Error) {
  const failing = new Millrace(
    defineApp({ tasks: [] }),
    { ...mill.db, query: () => Promise.reject(error), rows: () => Promise.reject(error) },
    {
      log: recorder(),
      now: Date.now,
      random: Math.random,
      maxPayloadBytes: 1_000,
      maxEnqueuePerMinute: null,
      scheduler: false,
      maintenance: { everyMs: 0, archiveAfterMs: 0, pruneAfterMs: 0, keepFailedMs: 0 },
    },
  );
  const log = recorder();
  return { log, call: callerOf(createApi(failing, { log })) };
}

test.each(["/jobs", "/livez", "/nowhere", "/jobs/nonsense", "/auth/session"])(
  "the answer of %s is not kept by anybody, and not taken for something else",
  async (path) => {
    const { headers } = await callerOf(createApi(mill, { log: recorder() }))(path);
    expect([headers.get("cache-control"), headers.get("x-content-type-options")]).toEqual(["no-store", "nosniff"]);
  },
);

describe("a problem", () => {
  test("is a whole RFC 9457 document", async () => {
    const call = callerOf(createApi(mill, { log: recorder() }));
    const { status, headers, body } = await call("/nowhere", { headers: { "X-Request-Id": "trace-1" } });

    expect(status).toBe(404);
    expect(headers.get("content-type")).toBe("application/problem+json");
    expect(body).toEqual({
      type: "urn:millrace:error:ROUTE_NOT_FOUND",
      title: "Route not found",
      status: 404,
      detail: "There is nothing at GET /nowhere.",
      code: "ROUTE_NOT_FOUND",
      action: expect.any(String),
      instance: "trace-1",
    });
  });

  test.each([
    ["POST", "/jobs", { task: "t", max_attempts: 0 }, "max_attempts must be"],
    ["POST", "/jobs", { task: "t", run_at: "2027-01-01T00:00:00Z", delay: "1s" }, "Give delay or run_at, not both."],
    ["POST", "/jobs", { task: "t", concurrency_key: "" }, "concurrency_key must be"],
    ["POST", "/jobs", { task: "t", idempotencyKey: "", tags: [] }, "idempotencyKey must be"],
    ["PATCH", "/api/queue/q/policy", { key_concurrency: -1 }, "key_concurrency must be"],
    ["POST", "/api/bulk", { action: "retry", all: true, per_second: 0 }, "per_second must be"],
    ["POST", "/api/bulk", { action: "retry", all: true, run_at: "2027-01-01T00:00:00Z" }, 'unknown option "run_at"'],
    ["POST", "/api/bulk", { action: "retry", filter: { older_than: -1 } }, "older_than must be"],
    // What stands in quotes is the caller's.
    ["POST", "/jobs", { task: "t", queue: "noSuchName!" }, '"noSuchName!"'],
    ["POST", "/jobs", { task: "t", maxAttempt: 1 }, 'Unknown field "maxAttempt"'],
  ])("of %s %s with %j names fields as the API does", async (method, path, json, told) => {
    const call = callerOf(createApi(mill, { log: recorder() }));
    const { status, body } = await call<{ detail: string }>(path, { method, json });
    expect([status, body.detail]).toEqual([400, expect.stringContaining(told)]);
  });

  test("of a queue that is full or takes less says which limit of its policy that is", async () => {
    const call = callerOf(createApi(mill, { log: recorder() }));
    await mill.policies.set("narrow", { maxPayloadBytes: 10 });
    const { body } = await call("/jobs", { json: { task: "t", queue: "narrow", input: "x".repeat(20) } });
    expect(body).toMatchObject({
      code: "PAYLOAD_TOO_LARGE",
      detail: "The input is 22 bytes of JSON; the queue's policy takes 10 (max_payload_bytes).",
      action:
        "Reduce the payload, or raise the limit that the message names: MILLRACE_MAX_PAYLOAD_BYTES, or max_payload_bytes of the queue's policy.",
    });
    await mill.policies.set("few", { maxEnqueuePerMinute: 1 });
    await withinAMinute(mill, async () => {
      await mill.enqueue("t", {}, { queue: "few" });
      const full = await call("/jobs", { json: { task: "t", queue: "few" } });
      expect(full.body).toMatchObject({
        code: "ENQUEUE_RATE_EXCEEDED",
        action: expect.stringContaining("raise the queue's max_enqueue_per_minute."),
      });
    });
  });

  test("names the methods a path does have", async () => {
    const call = callerOf(createApi(mill, { log: recorder() }));
    const { status, headers, body } = await call("/jobs", { method: "PUT" });

    expect(status).toBe(405);
    expect(headers.get("allow")?.split(", ").toSorted()).toEqual(["GET", "HEAD", "POST"]);
    expect(body).toMatchObject({ code: "METHOD_NOT_ALLOWED" });
  });

  test("of a defect tells the caller nothing but where to look, and the log everything", async () => {
    const error = new Error("relation secret does not exist");
    const { log, call } = failingWith(error);
    const { status, body } = await call("/jobs", { headers: { "X-Request-Id": "trace-2" } });

    expect(status).toBe(500);
    expect(body).toMatchObject({ code: "INTERNAL", instance: "trace-2" });
    expect(JSON.stringify(body)).not.toMatch(/secret|at .*:\d+/);
    expect(log.lines).toContainEqual({
      level: "error",
      message: "request.failed",
      fields: expect.objectContaining({ err: error, request_id: "trace-2", path: "/jobs" }),
    });
  });

  test("of a database that is away asks to come back", async () => {
    const { call } = failingWith(Object.assign(new Error("connect"), { code: "ECONNREFUSED" }));
    for (const answer of [await call("/jobs"), await call("/jobs", { json: { task: "a" } })]) {
      expect(answer).toMatchObject({ status: 503, body: { code: "DATABASE_UNREACHABLE" } });
      expect(answer.headers.get("retry-after")).toBe("5");
    }
  });

  test("of a Millrace that was closed asks to come back", async () => {
    const closed = await file.open();
    const call = callerOf(createApi(closed, { log: recorder() }));
    await closed.close();
    const { status, headers, body } = await call("/jobs");

    expect({ status, body }).toMatchObject({ status: 503, body: { code: "CLOSED" } });
    expect(headers.get("retry-after")).toBe("5");
  });
});

describe("a request", () => {
  test("keeps the id it came with, unless that could not stand in a log", async () => {
    const call = callerOf(createApi(mill, { log: recorder() }));
    const idOf = async (headers: Record<string, string>) =>
      (await call("/health", { headers })).headers.get("x-request-id");

    expect(await idOf({ "X-Request-Id": "abc_123-x" })).toBe("abc_123-x");
    for (const id of ["two words", "<script>", "x".repeat(256)])
      expect(await idOf({ "X-Request-Id": id })).toMatch(/^[0-9a-f]{8}-[0-9a-f-]{27}$/);
    expect(await idOf({})).toMatch(/^[0-9a-f]{8}-[0-9a-f-]{27}$/);
  });

  test("leaves one line in the log, with its route and not its path", async () => {
    const log = recorder();
    const call = callerOf(createApi(mill, { log }));
    await call("/jobs/01890000-0000-7000-8000-000000000000", { headers: { "X-Request-Id": "trace-3" } });
    await call("/jobs/01890000-0000-7000-8000-000000000000", { from: "192.0.2.4" });
    await call("/health");
    await call("/nowhere");

    expect(
      log.lines.map(({ message, fields }) => [message, fields["method"], fields["route"], fields["status"]]),
    ).toEqual([
      ["request.completed", "GET", "/jobs/:id", 404],
      ["request.completed", "GET", "/jobs/:id", 401],
      ["request.completed", "GET", "/health", 200],
      ["request.completed", "GET", "unmatched", 404],
    ]);
    expect(log.lines[0]?.fields).toEqual({
      request_id: "trace-3",
      method: "GET",
      route: "/jobs/:id",
      status: 404,
      duration_ms: expect.any(Number),
    });
  });
});
