import { Millrace, defineApp } from "millrace";
import { beforeAll, describe, expect, test } from "vitest";
import { useDatabase } from "../support/engine.ts";
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
