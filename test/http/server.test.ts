import { once } from "node:events";
import { Agent, request } from "node:http";
import { type Socket, connect, createServer } from "node:net";
import { networkInterfaces } from "node:os";
import { text } from "node:stream/consumers";
import { Hono } from "hono";
import { MillraceError } from "millrace";
import { describe, expect, test, vi } from "vitest";
import type { ApiContext, ApiEnv } from "../../src/http/env.ts";
import { type ServeOptions, endless, serve } from "../../src/http/server.ts";
import { gate, useDatabase } from "../support/engine.ts";
import { createApi, recorder } from "./caller.ts";

const file = useDatabase();

const here = { host: "127.0.0.1", ports: [0], log: recorder() } satisfies ServeOptions;

/** A server with one route that answers when `finish` is opened, and says when it was `reached`. */
async function slowServer() {
  const [reached, finish] = [gate(), gate()];
  const api = new Hono<ApiEnv>().get("/slow", async (c) => {
    reached.open();
    await finish.opened;
    return c.text("done");
  });
  const patienceMs = { headers: 10_000, request: 30_000, answer: 30_000, idle: 3_600_000 };
  const serving = await serve(api, { ...here, patienceMs });
  return { serving, reached, finish, url: serving.urls[0] as string };
}

function portOf(url: string): number {
  return Number(new URL(url).port);
}

async function openSocket(url: string): Promise<Socket> {
  const socket = connect(portOf(url), "127.0.0.1");
  await once(socket, "connect");
  return socket;
}

const socketOf = (c: ApiContext): Socket => c.env.incoming?.socket as Socket;

/** What a thrown error is called, without `rejects.toThrow`, which compares messages only. */
async function codeOf(work: Promise<unknown>): Promise<string> {
  const error = await work.catch((thrown: unknown) => thrown);
  return error instanceof MillraceError ? error.code : `not a MillraceError: ${String(error)}`;
}

describe("serving", () => {
  test("answers on every port with the same API", async () => {
    await using mill = await file.open();
    const serving = await serve(createApi(mill, { log: recorder() }), { ...here, ports: [0, 0] });
    const [first, second] = serving.urls as [string, string];

    expect(new Set(serving.urls).size).toBe(2);
    const posted = await fetch(`${first}/jobs`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ job_type: "ok", payload_json: { n: 1 } }),
    });
    const { id } = (await posted.json()) as { id: string };
    expect(posted.status).toBe(200);
    expect(await (await fetch(`${second}/jobs/${id}`)).json()).toMatchObject({ id, status: "waiting" });
    await serving.close(1_000);
  });

  test("tells the client of a body that is too long, even while it is still sending", async () => {
    await using mill = await file.open([], { maxPayloadBytes: 1_000 });
    const serving = await serve(createApi(mill, { log: recorder() }), here);
    const body = new Uint8Array(5_000_000).fill(32);
    const send = (init: object) =>
      fetch(`${serving.urls[0]}/jobs`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        duplex: "half",
        ...init,
      } as RequestInit);

    expect((await send({ body })).status).toBe(413);
    expect((await send({ body: new Blob([body]).stream() })).status).toBe(413);
    await serving.close(1_000);
  });

  test.each(["0.0.0.0", "::", "192.0.2.4", "queue.example", "127.0.0.1.example", ""])(
    "refuses to listen on %j, which others may reach",
    async (host) => {
      expect(await codeOf(serve(new Hono<ApiEnv>(), { ...here, host }))).toBe("CONFIG_INVALID");
    },
  );

  const hasIpv6 = Object.values(networkInterfaces()).some((all) => all?.some(({ address }) => address === "::1"));
  test.each(["localhost", "127.0.0.1", ...(hasIpv6 ? ["::1", "[::1]"] : [])])("listens on %s", async (host) => {
    const serving = await serve(new Hono<ApiEnv>(), { ...here, host });
    expect(await fetch(serving.urls[0] as string)).toMatchObject({ status: 404 });
    await serving.close(0);
  });

  test("names the port that is taken, and leaves the others free", async () => {
    const other = createServer().listen(0, "127.0.0.1");
    await once(other, "listening");
    const taken = (other.address() as { port: number }).port;
    const probe = await serve(new Hono<ApiEnv>(), here);
    const free = portOf(probe.urls[0] as string);
    await probe.close(0);

    const attempt = serve(new Hono<ApiEnv>(), { ...here, ports: [free, taken] });
    await expect(attempt).rejects.toThrow(`Port ${taken}`);
    expect(await codeOf(attempt)).toBe("PORT_IN_USE");
    const next = await serve(new Hono<ApiEnv>(), { ...here, ports: [free, free] });
    expect(next.urls).toEqual([`http://127.0.0.1:${free}`]);
    await next.close(0);
    other.close();
  });

  test("hangs up on a client that never finishes its headers", async () => {
    const patienceMs = { headers: 100, request: 200, answer: 1_000, idle: 1_000 };
    const serving = await serve(new Hono<ApiEnv>(), { ...here, patienceMs });
    const socket = await openSocket(serving.urls[0] as string);
    let answer = "";
    socket.setEncoding("utf8").on("data", (chunk: string) => (answer += chunk));
    socket.write("GET / HTTP/1.1\r\nHost: localhost\r\nX-Never-");
    await once(socket, "close");

    expect(answer).toMatch(/^HTTP\/1\.1 408 [^]*"code":"REQUEST_TIMEOUT"/);
    await serving.close(0);
  });
});

describe("a connection", () => {
  const get = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
  const stalls = { headers: 10_000, request: 10_000, answer: 100, idle: 10_000 };

  test("has its requests handled one after the other, and answered in their order", async () => {
    let [underWay, most, count] = [0, 0, 0];
    const api = new Hono<ApiEnv>().get("/", async (c) => {
      most = Math.max(most, (underWay += 1));
      await new Promise((resolve) => setImmediate(resolve));
      underWay -= 1;
      return c.text(`answer ${(count += 1)};`);
    });
    const serving = await serve(api, here);
    const socket = await openSocket(serving.urls[0] as string);
    socket.write(get.repeat(9) + get.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"));
    const said = await text(socket);

    expect([...said.matchAll(/answer (\d+);/g)].map(([, n]) => Number(n))).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    expect(most).toBe(1);
    await serving.close(1_000);
  });

  test("that sends a thousand requests ahead is cut off, and most are never handled", async () => {
    let handled = 0;
    const cutOff = gate();
    const api = new Hono<ApiEnv>().get("/", async (c) => {
      handled += 1;
      socketOf(c).once("close", () => cutOff.open());
      await cutOff.opened;
      return c.text("late");
    });
    const log = recorder();
    const serving = await serve(api, { ...here, log });
    const socket = await openSocket(serving.urls[0] as string);
    socket.on("error", () => undefined).pause();
    socket.write(get.repeat(1_500));
    await cutOff.opened;
    await serving.close(1_000);

    expect(handled).toBe(1);
    expect(log.lines.filter(({ message }) => message.startsWith("connection.cut"))).toHaveLength(1);
  });

  /** What a client that does not read is told, and when its connection is closed; `told` is what may be said to have no end. */
  async function unread(told?: { closed: boolean }) {
    const [closed, timedOut] = [gate(), gate()];
    const api = new Hono<ApiEnv>().get("/", (c) => {
      if (told && c.env.outgoing) endless.set(c.env.outgoing, told);
      socketOf(c)
        .once("close", () => closed.open())
        .on("timeout", () => timedOut.open());
      return c.body(new Uint8Array(32_000_000));
    });
    const serving = await serve(api, { ...here, patienceMs: stalls });
    const socket = await openSocket(serving.urls[0] as string);
    socket.on("error", () => undefined).pause();
    socket.write(get);
    return { closed: closed.opened, timedOut: timedOut.opened, end: () => serving.close(0) };
  }

  test("whose answer does not move is closed", async () => {
    const { closed, end } = await unread();
    await closed;
    await end();
  });

  test("is left to what it is told, which ends it, and closed once that is over", async () => {
    const told = { closed: false };
    const { closed, timedOut, end } = await unread(told);
    await timedOut;
    const nextTurn = new Promise((resolve) => setImmediate(() => resolve("open still")));
    expect(await Promise.race([closed, nextTurn])).toBe("open still");
    told.closed = true;
    await closed;
    await end();
  });

  test("may wait for its answer for longer than an answer may stand still", async () => {
    const timedOut = gate();
    const api = new Hono<ApiEnv>().get("/", async (c) => {
      socketOf(c).once("timeout", () => timedOut.open());
      await timedOut.opened;
      return c.text("at last");
    });
    const serving = await serve(api, { ...here, patienceMs: stalls });
    expect(await (await fetch(serving.urls[0] as string)).text()).toBe("at last");
    await serving.close(1_000);
  });
});

describe("what is no request for the API", () => {
  const path = "GET /health HTTP/1.1\r\n";
  test.each<[string, string, number, string]>([
    ["no HTTP", "hello\r\n\r\n", 400, "BAD_REQUEST"],
    ["headers beyond 16 KiB", `${path}Host: localhost\r\nX: ${"a".repeat(20_000)}\r\n\r\n`, 431, "HEADERS_TOO_LARGE"],
    ["no Host", `${path}\r\n`, 400, "BAD_REQUEST"],
    ["a Host that is none", `${path}Host: a b/c?d#\r\n\r\n`, 400, "BAD_REQUEST"],
    ["OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "BAD_REQUEST"],
    ["an unknown Expect", `${path}Host: localhost\r\nExpect: 200-ok\r\n\r\n`, 417, "EXPECTATION_FAILED"],
    ["another host in the target", "GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "BAD_REQUEST"],
    ["another port in the target", "GET http://localhost:81/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "BAD_REQUEST"],
  ])("%s is refused as a problem, and leaves a line", async (_, request, status, code) => {
    const log = recorder();
    const reached = vi.fn<() => Response>(() => new Response());
    const serving = await serve(new Hono<ApiEnv>().all("*", reached), { ...here, log });
    const socket = await openSocket(serving.urls[0] as string);
    socket.write(request);
    const [head = "", body = ""] = (await text(socket)).split("\r\n\r\n");
    await serving.close(1_000);

    expect(head).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
    expect(head).toMatch(/^content-type: application\/problem\+json$/im);
    const [, id] = /^x-request-id: (.*)$/im.exec(head) ?? [];
    expect(JSON.parse(body)).toMatchObject({ status, code, instance: id, detail: expect.any(String) as string });
    expect(log.lines).toMatchObject([{ message: "request.refused", fields: { request_id: id, status, code } }]);
    expect(reached).not.toHaveBeenCalled();
  });

  test.each(["localhost", "LOCALHOST:80"])("a whole address is taken where its host is the Host, %s", async (host) => {
    const serving = await serve(
      new Hono<ApiEnv>().get("/there", (c) => c.text("here")),
      here,
    );
    const socket = await openSocket(serving.urls[0] as string);
    socket.write(`GET http://localhost/there HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);
    expect(await text(socket)).toMatch(/^HTTP\/1\.1 200 [^]*here/);
    await serving.close(1_000);
  });
});

describe("closing", () => {
  test("finishes what was asked, takes nothing new, and does not wait for idle connections", async () => {
    const { serving, reached, finish, url } = await slowServer();
    const agent = new Agent({ keepAlive: true });
    const idle = await openSocket(url);
    const asked = request(`${url}/slow`, { agent }).end();
    await reached.opened;

    const closed = serving.close(3_600_000);
    await once(idle.resume(), "close");
    const refused = connect(portOf(url), "127.0.0.1");
    expect(await once(refused, "error")).toMatchObject([{ code: "ECONNREFUSED" }]);
    finish.open();

    const [response] = await once(asked, "response");
    response.resume();
    expect(response.statusCode).toBe(200);
    // The agent keeps its connection for more requests, and the server would too, for an hour.
    await closed;
    agent.destroy();
  });

  test("waits before that for what is under way, and takes other requests all the while", async () => {
    const { serving, reached, finish, url } = await slowServer();
    const asked = fetch(`${url}/slow`);
    await reached.opened;
    let isDrained = false;
    const drained = serving.drain(3_600_000).then(() => (isDrained = true));

    expect((await fetch(`${url}/another`)).status).toBe(404);
    expect(isDrained).toBe(false);
    finish.open();
    await drained;
    expect((await asked).status).toBe(200);
    await serving.close(1_000);
  });

  test("does not wait for longer than it is told, nor for what has no end", async () => {
    const { serving, reached, finish, url } = await slowServer();
    const asked = fetch(`${url}/slow`);
    await reached.opened;
    await serving.drain(10);
    finish.open();
    expect((await asked).status).toBe(200);
    await serving.close(1_000);

    const api = new Hono<ApiEnv>().get("/", (c) => {
      endless.set(c.env.outgoing as object, { closed: false });
      return c.body(new ReadableStream({ start: (controller) => controller.enqueue(new Uint8Array(1)) }));
    });
    const streaming = await serve(api, here);
    const { body } = await fetch(streaming.urls[0] as string);
    await streaming.drain(3_600_000);
    await streaming.close(1_000);
    await expect(body?.getReader().closed).rejects.toThrow();
  });

  test("cuts off what does not finish in time", async () => {
    const { serving, reached, url } = await slowServer();
    const asked = request(`${url}/slow`).end();
    await reached.opened;

    const [[error]] = await Promise.all([once(asked, "error"), serving.close(10)]);
    expect(error).toMatchObject({ code: "ECONNRESET" });
  });

  test("may be asked for twice", async () => {
    const serving = await serve(new Hono<ApiEnv>(), here);
    await Promise.all([serving.close(1_000), serving.close(1_000)]);
    await expect(serving.close(1_000)).resolves.toBeUndefined();
  });
});
