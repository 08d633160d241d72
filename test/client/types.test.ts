/** What the compiler refuses, and what it knows of the answers: `tsc` reads the tests too. */
import {
  type ApiError,
  type ErrorCode,
  type Explanation,
  type Job,
  type Timeline,
  createClient,
} from "millrace/client";
import { errorCodes } from "millrace";
import { expect, expectTypeOf, test } from "vitest";
import type { ErrorCode as ServerCode } from "millrace";

const api = createClient({ url: "http://localhost:3003" });
const path = { id: "019ad9a0-0000-7000-8000-000000000000" };

/** Never called. */
const compiled = (call: () => unknown): void => expect(call).toBeTypeOf("function");

test("a wrong path, parameter or body does not compile", () => {
  compiled(() => api.get("/jobs", { params: { query: { limit: 5, status: "failed" } } }));
  // @ts-expect-error: there is no such path
  compiled(() => api.get("/job"));
  // @ts-expect-error: nothing is patched there
  compiled(() => api.patch("/jobs"));
  // @ts-expect-error: pages are for people
  compiled(() => api.get("/"));
  // @ts-expect-error: there is no such condition
  compiled(() => api.get("/jobs", { params: { query: { colour: "red" } } }));
  // @ts-expect-error: there is no such status
  compiled(() => api.get("/jobs", { params: { query: { status: "tired" } } }));
  // @ts-expect-error: which job?
  compiled(() => api.get("/jobs/{id}"));
  // @ts-expect-error: which job?
  compiled(() => api.get("/jobs/{id}", { params: { path: {} } }));
  // @ts-expect-error: a GET has no body
  compiled(() => api.get("/jobs", { body: {} }));
  // @ts-expect-error: a job has a body
  compiled(() => api.post("/jobs"));
  // @ts-expect-error: a misspelt option
  compiled(() => api.post("/jobs", { boddy: {}, body: {} }));
  // @ts-expect-error: a misspelt field
  compiled(() => api.post("/jobs", { body: { task: "a", prioritee: 1 } }));
  // @ts-expect-error: a schedule has a name
  compiled(() => api.post("/api/schedules", { body: { task: "a", every: "1h" } }));
  // @ts-expect-error: no such header
  compiled(() => api.post("/jobs", { body: {}, params: { header: { "Idempotence-Key": "a" } } }));
  compiled(() => api.post("/jobs/{id}/cancel", { params: { path } }));
  compiled(() => api.post("/jobs/{id}/cancel", { params: { path }, body: { reason: "late" } }));
});

test("answers have the types of the document", () => {
  compiled(async () => {
    expectTypeOf((await api.get("/jobs")).items).toEqualTypeOf<Job[]>();
    expectTypeOf(await api.get("/jobs/{id}/timeline", { params: { path } })).toEqualTypeOf<Timeline>();
    expectTypeOf(await api.get("/jobs/{id}/explain", { params: { path } })).toEqualTypeOf<Explanation>();
    expectTypeOf((await api.post("/jobs/{id}/cancel", { params: { path } })).status).toEqualTypeOf<
      "cancelled" | "completed" | "failed" | "cancelling"
    >();
    expectTypeOf(await api.delete("/jobs/{id}", { params: { path } })).toBeUndefined();
    expectTypeOf(await api.get("/metrics/prom")).toBeString();
    expectTypeOf((await api.get("/metrics")).queues).toBeArray();
    expectTypeOf(await api.get("/events")).toEqualTypeOf<ReadableStream<Uint8Array>>();
  });
});

test("the code of an error is one of the server's", () => {
  expectTypeOf<ApiError["code"]>().toEqualTypeOf<ErrorCode>();
  expectTypeOf<ErrorCode>().toEqualTypeOf<ServerCode>();
  expectTypeOf<ErrorCode>().toEqualTypeOf<keyof typeof errorCodes>();
});
