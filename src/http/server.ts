/** Listens: the same API on any number of ports of this machine, all of them or none. */
import { type Server, type ServerResponse, createServer } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { getRequestListener } from "@hono/node-server";
import type { Hono } from "hono";
import { MillraceError } from "../core/errors.ts";
import type { Log } from "../core/log.ts";
import { isLoopbackInterface } from "./access.ts";
import { within } from "./deadline.ts";
import { isProbe } from "./endpoint.ts";
import type { ApiEnv } from "./env.ts";
import { Refusals, refusalOf } from "./refusals.ts";
import { pace } from "./pace.ts";
import { inTurn } from "./turns.ts";

export interface ServeOptions {
  readonly host: string;
  /** 0 takes any free port. */
  readonly ports: readonly number[];
  readonly log: Log;
  /** Callers need credentials, and there are some: others than this machine may be let near. */
  readonly guarded?: boolean;
  readonly patienceMs?: Patience;
}

/**
 * How long a client may take to send its headers and its whole request (a slower one gets a 408), how long nothing of an answer may get
 * through to it, and how long it may stay idle.
 */
interface Patience {
  readonly headers: number;
  readonly request: number;
  readonly answer: number;
  readonly idle: number;
}

const defaultPatienceMs: Patience = { headers: 10_000, request: 30_000, answer: 30_000, idle: 5_000 };

/** Of one port. Each may hold one answer in memory; beyond that, new ones are closed unanswered. */
const connectionsMax = 1_000;

export interface Serving {
  /** One per port, without a slash at the end. */
  readonly urls: string[];
  /** Waits for the requests that are under way, for `withinMs` at most, and goes on taking others. */
  drain(withinMs: number): Promise<void>;
  /** Takes no more connections, lets open requests finish, and cuts off those that have not within `withinMs`. */
  close(withinMs: number): Promise<void>;
}

/** Throws `CONFIG_INVALID` for an interface that others can reach while nobody has credentials, `PORT_IN_USE` for a port that is taken. */
export async function serve(api: Hono<ApiEnv>, options: ServeOptions): Promise<Serving> {
  const { host, ports, log, guarded = false } = options;
  const address = host.replace(/^\[(.*)\]$/, "$1");
  if (!guarded && !isLoopbackInterface(host)) {
    throw new MillraceError(
      "CONFIG_INVALID",
      `Nobody has credentials, so the API listens only on this machine: make a token first (\`millrace token create\`, or API_TOKENS), let people sign in (OIDC_ISSUER), or set the host to 127.0.0.1 instead of ${JSON.stringify(host)}.`,
    );
  }
  const distinct = ports.filter((port, i) => port === 0 || ports.indexOf(port) === i);
  const doors = distinct.map((port) => ({ port, ...makeDoor(api, options) }));
  const opened = await Promise.allSettled(doors.map(({ port, server }) => listen(server, address, port)));
  const failed = opened.find((result) => result.status === "rejected");
  if (failed !== undefined) {
    await Promise.all(doors.map((door) => door.close(0)));
    throw failed.reason;
  }
  for (const { server } of doors) server.on("error", (error) => log.error({ err: error }, "server.error"));

  let closed: Promise<unknown> | undefined;
  return {
    urls: doors.map(({ server }) => urlOf(server)),
    drain: async (withinMs) => void (await within(withinMs, Promise.all(doors.map((door) => door.underWay())))),
    close: async (withinMs) => {
      closed ??= Promise.all(doors.map((door) => door.close(withinMs)));
      await closed;
    },
  };
}

/**
 * Answers that have no end to wait for: they are cut off as soon as the server closes, and their clients connect again elsewhere. Until
 * what they tell is `closed`, it is for them to end a client that does not read.
 */
export const endless = new WeakMap<object, { readonly closed: boolean }>();

interface Door {
  readonly server: Server;
  /** Resolves when everything that is being answered now has been, but for what has no end. */
  underWay(): Promise<unknown>;
  close(withinMs: number): Promise<void>;
}

function makeDoor(api: Hono<ApiEnv>, { log, patienceMs = defaultPatienceMs }: ServeOptions): Door {
  const responses = new Set<ServerResponse>();
  const refusals = new Refusals(log);
  const answer = getRequestListener(api.fetch, { errorHandler: refusals.response });
  const take = inTurn(
    (incoming, response) => {
      responses.add(response);
      response.once("close", () => responses.delete(response));
      // After its last answer a kept-alive connection would hold a closing server open.
      response.on("finish", () => server.listening || setImmediate(() => server.closeIdleConnections()));
      response.on("timeout", (socket: Socket) => {
        if (response.writableLength > 0 && endless.get(response)?.closed !== false) socket.destroy();
        else socket.setTimeout(patienceMs.answer);
      });
      const refusal = refusalOf(incoming);
      if (refusal !== undefined) refusals.answer(response, refusal);
      else if (isProbe(incoming.url?.split("?", 1)[0] ?? "")) void answer(incoming, response);
      else pace.run(() => void answer(incoming, response));
    },
    ({ remoteAddress }) => log.warn({ address: remoteAddress }, "connection.cut: too many requests sent ahead"),
  );
  const server = createServer(
    {
      // Refused by us, with a reason.
      requireHostHeader: false,
      headersTimeout: patienceMs.headers,
      requestTimeout: patienceMs.request,
      keepAliveTimeout: patienceMs.idle,
      connectionsCheckingInterval: Math.min(patienceMs.headers / 2, 5_000),
    },
    take,
  );
  server.on("checkExpectation", take);
  server.on("clientError", (error, socket: Socket) => {
    const isAnswering = [...responses].some((response) => response.socket === socket && response.headersSent);
    refusals.hangUp(error, socket, isAnswering);
  });
  server.timeout = patienceMs.answer;
  server.maxConnections = connectionsMax;
  let full = false;
  server.on("drop", () => {
    if (!full) log.warn({ connections: connectionsMax }, "server.full: new connections are closed unanswered");
    full = true;
  });
  const sockets = new Set<Socket>();
  server.on("connection", (socket) => {
    pace.connected();
    full = false;
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });

  const underWay = (): Promise<unknown> => {
    const open = [...responses].filter((response) => !endless.has(response));
    return Promise.all(open.map((response) => new Promise<void>((resolve) => response.once("close", resolve))));
  };
  const close = async (withinMs: number): Promise<void> => {
    if (!server.listening) return;
    for (const response of responses) if (endless.has(response)) response.destroy();
    const timer = setTimeout(() => server.closeAllConnections(), withinMs);
    await new Promise((resolve) => {
      server.close(resolve);
      // Node closes connections that are idle after a request, but not those that browsers open before they have one.
      for (const socket of sockets) if (socket.bytesRead === 0) socket.destroy();
    });
    clearTimeout(timer);
  };
  return { server, underWay, close };
}

async function listen(server: Server, host: string, port: number): Promise<void> {
  try {
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(port, host, () => {
        server.off("error", reject);
        resolve();
      });
    });
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === "EADDRINUSE")
      throw new MillraceError("PORT_IN_USE", `Port ${port} of ${host} is in use by another program.`, { cause });
    throw new MillraceError("CONFIG_INVALID", `Cannot listen on port ${port} of ${host}: ${message}.`, { cause });
  }
}

function urlOf(server: Server): string {
  const { address, family, port } = server.address() as AddressInfo;
  return `http://${family === "IPv6" ? `[${address}]` : address}:${port}`;
}
