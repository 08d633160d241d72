/** The client, against a server that it reaches as anybody does. */
import { once } from "node:events";
import { type RequestListener, createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { type Millrace, NonRetryableError, errorCodes, task } from "millrace";
import { ApiError, type Client, createClient } from "millrace/client";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { createApi } from "../../src/http/api.ts";
import { type Serving, serve } from "../../src/http/server.ts";
import { useDatabase } from "../support/engine.ts";
import { recorder } from "../http/caller.ts";

const double = task({ name: "double", input: z.object({ n: z.number() }), run: ({ input: { n } }) => n * 2 });
const broken = task({
  name: "broken",
  run: () => {
    throw new NonRetryableError("no such scene");
  },
});

const file = useDatabase();
const token = "a-token-of-an-operator";
let mill: Millrace;
let url: string;
let api: Client;
let serving: Serving;
beforeAll(async () => {
  mill = await file.open([double, broken]);
  mill.work();
  const log = recorder();
  const givenTokens = [{ token, role: "operator", name: "nightly" }] as const;
  serving = await serve(createApi(mill, { log, givenTokens }), { host: "127.0.0.1", ports: [0], log });
  url = serving.urls[0] as string;
  api = createClient({ url: `${url}/`, token });
});
afterAll(async () => {
  await serving.close(1_000);
  await mill.close();
});

/** What a call throws. */
async function errorOf(call: Promise<unknown>): Promise<ApiError> {
  const error = await call.then(
    () => "nothing",
    (thrown: unknown) => thrown,
  );
  if (error instanceof ApiError) return error;
  throw new Error(`Not an ApiError: ${String(error)}`, { cause: error });
}

describe("a job", () => {
  test("goes in, is waited for, and tells what happened to it", async () => {
    const { id, duplicate } = await api.post("/jobs", { body: { task: "double", input: { n: 21 } } });
    expect(duplicate).toBe(false);
    const params = { path: { id } };
    const done = await api.get("/jobs/{id}/wait", { params: { ...params, query: { within: "20s" } } });
    expect(done).toMatchObject({ id, status: "completed", result: 42 });
    const { story, attempts } = await api.get("/jobs/{id}/timeline", { params });
    expect(story.map(({ kind }) => kind)).toEqual(["Enqueued", "Attempt"]);
    expect(attempts).toMatchObject([{ attempt: 1, status: "succeeded" }]);
    expect(await api.get("/jobs/{id}/explain", { params })).toMatchObject({ because: "COMPLETED" });
    expect(await api.delete("/jobs/{id}", { params })).toBe(undefined);
    expect(await errorOf(api.get("/jobs/{id}", { params }))).toMatchObject({ code: "JOB_NOT_FOUND" });
  });

  test("is made once under an Idempotency-Key", async () => {
    const call = { params: { header: { "Idempotency-Key": "once" } }, body: { task: "double", input: { n: 1 } } };
    const first = await api.post("/jobs", call);
    expect(await api.post("/jobs", call)).toEqual({ ...first, duplicate: true });
  });

  test("that was given up is an error with its code, and a query finds it", async () => {
    const { id } = await api.post("/jobs", { body: { task: "broken", tags: ["a & b"] } });
    const waited = await errorOf(api.get("/jobs/{id}/wait", { params: { path: { id } } }));
    expect(waited).toMatchObject({
      code: "JOB_FAILED",
      status: 409,
      message: expect.stringContaining("no such scene"),
    });
    const page = await api.get("/jobs", { params: { query: { tag: "a & b", status: "failed", limit: 5 } } });
    expect(page.items.map((job) => job.id)).toEqual([id]);
  });
});

describe("what is no JSON", () => {
  test("is text, where the document says so", async () => {
    expect(await api.get("/metrics/prom")).toContain("millrace_database_up 1");
    expect(await api.get("/metrics")).toMatchObject({ queues: expect.any(Array) });
  });

  test("is a stream, where it has no end", async () => {
    const gone = new AbortController();
    const events = await api.get("/events", { signal: gone.signal });
    const { value } = await events.getReader().read();
    expect(new TextDecoder().decode(value)).toContain(": listening");
    gone.abort();
  });
});

describe("a refusal", () => {
  test("has the code, the advice and the request's id", async () => {
    const error = await errorOf(api.post("/jobs", { body: { task: "double", input: { n: "1" } } }));
    expect(error).toMatchObject({
      name: "ApiError",
      code: "BAD_PAYLOAD",
      status: 422,
      action: errorCodes.BAD_PAYLOAD.action,
      problem: { type: "urn:millrace:error:BAD_PAYLOAD" },
    });
    expect(error.requestId).toMatch(/^[\w-]{8,}$/);
    expect(error.requestId).toBe(error.problem?.instance);
  });

  test("of who has no token is UNAUTHORIZED", async () => {
    const stranger = createClient({ url, token: "another" });
    expect(await errorOf(stranger.get("/jobs"))).toMatchObject({ code: "UNAUTHORIZED", status: 401 });
  });

  test("says when trying again can help", async () => {
    const busy = await answering((_, response) => {
      const problem = { code: "TOO_MANY_REQUESTS", detail: "Slower.", action: "Wait.", status: 429 };
      response.writeHead(429, { "content-type": "application/problem+json", "retry-after": "7" });
      response.end(JSON.stringify(problem));
    });
    await using _ = busy;
    expect(await errorOf(busy.api.get("/jobs"))).toMatchObject({ message: "Slower.", retryAfterMs: 7_000 });
  });
});

test("a name in a path stays one name", async () => {
  const error = await errorOf(api.get("/api/queue/{name}/stats", { params: { path: { name: "a/../b" } } }));
  expect(error.code).toBe("QUEUE_NAME_INVALID");
});

describe("without an answer of Millrace", () => {
  test("nothing there is API_UNREACHABLE, with the reason", async () => {
    const nobody = await answering(() => {});
    await nobody[Symbol.asyncDispose]();
    const error = await errorOf(nobody.api.get("/jobs"));
    expect(error).toMatchObject({ code: "API_UNREACHABLE", action: errorCodes.API_UNREACHABLE.action });
    expect(error.message).toMatch(/^No Millrace answers at http:\/\/127\.0\.0\.1:\d+: .*ECONNREFUSED/);
    expect(error.status).toBe(undefined);
  });

  test.each([200, 502])("a proxy's page with status %i is API_ANSWER_INVALID", async (status) => {
    await using proxy = await answering((_, response) => {
      response.writeHead(status, { "content-type": "text/html" }).end("<h1>Sign in</h1>");
    });
    const error = await errorOf(proxy.api.get("/jobs"));
    expect(error).toMatchObject({ code: "API_ANSWER_INVALID", status, action: errorCodes.API_ANSWER_INVALID.action });
  });

  test("JSON that is none is API_ANSWER_INVALID too", async () => {
    await using proxy = await answering((_, response) => {
      response.writeHead(200, { "content-type": "application/json" }).end("{");
    });
    expect(await errorOf(proxy.api.get("/jobs"))).toMatchObject({ code: "API_ANSWER_INVALID", status: 200 });
  });

  test("one that breaks off is API_UNREACHABLE", async () => {
    await using lost = await answering((_, response) => {
      response.writeHead(200, { "content-type": "application/json", "content-length": "100" });
      response.write("{", () => response.destroy());
    });
    expect(await errorOf(lost.api.get("/jobs"))).toMatchObject({ code: "API_UNREACHABLE" });
  });

  test("a redirect takes the token nowhere", async () => {
    const seen: string[] = [];
    await using elsewhere = await answering((request, response) => {
      seen.push(request.headers.authorization ?? "");
      response.end();
    });
    await using proxy = await answering((_, response) => {
      response.writeHead(302, { location: elsewhere.url }).end();
    });
    expect(await errorOf(proxy.api.get("/jobs"))).toMatchObject({ code: "API_UNREACHABLE" });
    expect(seen).toEqual([]);
  });

  test("a call that is aborted throws the reason of its signal", async () => {
    await using silent = await answering(() => {});
    const reason = new Error("no longer wanted");
    await expect(silent.api.get("/jobs", { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  });
});

test("a page's changes show that they come from it; programs with a token need not", async () => {
  const sent: Record<string, string>[] = [];
  const fetch = async (request: Request): Promise<Response> => {
    sent.push(Object.fromEntries(request.headers));
    return new Response(null, { status: 204 });
  };
  await createClient({ url, fetch }).delete("/jobs/{id}", { params: { path: { id: "x" } } });
  await createClient({ url, fetch, token }).delete("/jobs/{id}", { params: { path: { id: "x" } } });
  expect(sent).toMatchObject([{ "x-millrace-csrf": "1" }, { authorization: `Bearer ${token}` }]);
  expect(sent[0]).not.toHaveProperty("authorization");
  expect(sent[1]).not.toHaveProperty("x-millrace-csrf");
});

test.each(["localhost:3003", "", "/api"])("%j is no address outside a page", (wrong) => {
  expect(() => createClient({ url: wrong })).toThrow(`not ${JSON.stringify(wrong)}`);
});

/** Something that is not Millrace, and a client that takes it for one. */
async function answering(listener: RequestListener) {
  const server = createServer(listener).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const at = `http://127.0.0.1:${port}`;
  return {
    url: at,
    api: createClient({ url: at, token }),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}
