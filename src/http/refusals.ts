/**
 * Requests that are refused before the API sees them: Node cannot read them, or what they ask for is not what their Host says. They are
 * told why in the shape of all refusals, and each is one line of the log.
 */
import { randomUUID } from "node:crypto";
import { type IncomingMessage, STATUS_CODES, type ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { RequestError } from "@hono/node-server";
import { type ErrorCode, errorCodes } from "../core/errors.ts";
import type { Log } from "../core/log.ts";
import { problemDocument } from "./problem.ts";

type Refusal = readonly [code: ErrorCode, detail: string];

/** By Node's code of the failure; any other is a request that is none. */
const unreadable: Readonly<Record<string, Refusal>> = {
  ERR_HTTP_REQUEST_TIMEOUT: ["REQUEST_TIMEOUT", "The request did not arrive in time."],
  HPE_HEADER_OVERFLOW: ["HEADERS_TOO_LARGE", "The headers, with the path, are longer than this server reads."],
  HPE_CHUNK_EXTENSIONS_OVERFLOW: [
    "PAYLOAD_TOO_LARGE",
    "The extensions of the body's chunks are longer than this server reads.",
  ],
};

/** What is wrong with a request that Node could read; undefined when nothing is. */
export function refusalOf({ url = "", headers }: IncomingMessage): Refusal | undefined {
  const { host, expect } = headers;
  if (expect !== undefined && !/(?:^|\W)100-continue(?:$|\W)/i.test(expect))
    return ["EXPECTATION_FAILED", "The header Expect asks for something else than 100-continue."];
  if (host === undefined) return ["BAD_REQUEST", "The request has no Host header."];
  if (url.startsWith("/")) return undefined;
  if (!/^https?:\/\//i.test(url)) return ["BAD_REQUEST", "What is asked for is no path: it must begin with /."];
  // Whoever is trusted or routed by the Host header must not mean another host.
  const asked = hostOf(url);
  if (asked !== undefined && asked === hostOf(`http://${host}`)) return undefined;
  return ["BAD_REQUEST", "The address that is asked for names another host than the Host header."];
}

const hostOf = (url: string): string | undefined => (URL.canParse(url) ? new URL(url).host : undefined);

export class Refusals {
  readonly #log: Log;

  constructor(log: Log) {
    this.#log = log;
  }

  answer(outgoing: ServerResponse, refusal: Refusal): void {
    const { status, headers, body } = this.#told(refusal, outgoing.req.socket);
    outgoing.writeHead(status, headers).end(body);
  }

  /** For what Node cannot read. `isAnswering`: the beginning of an answer is out already, and nothing else may follow it. */
  hangUp(error: NodeJS.ErrnoException, socket: Socket, isAnswering: boolean): void {
    if (!socket.writable || isAnswering || error.code === "ECONNRESET") return void socket.destroy();
    const found = unreadable[error.code ?? ""] ?? ["BAD_REQUEST", `This is no HTTP request: ${error.message}.`];
    const { status, headers, body } = this.#told(found, socket, error.code);
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
    socket.write(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${lines.join("")}\r\n${body}`);
    socket.destroySoon();
  }

  /** For what the adapter between Node and the API refuses, or fails at. */
  readonly response = (error: unknown): Response => {
    const known = error instanceof RequestError;
    if (!known) this.#log.error({ err: error }, "request.failed");
    const refusal: Refusal = known
      ? ["BAD_REQUEST", `The request cannot be read: ${error.message}.`]
      : ["INTERNAL", "Something failed that should not have."];
    const { status, headers, body } = this.#told(refusal);
    return new Response(body, { status, headers });
  };

  #told([code, detail]: Refusal, socket?: Socket, reason?: string) {
    const id = randomUUID();
    const { status } = errorCodes[code];
    this.#log.info(
      { request_id: id, status, code, address: socket?.remoteAddress, ...(reason === undefined ? {} : { reason }) },
      "request.refused",
    );
    const body = JSON.stringify(problemDocument(code, detail, id));
    const headers = {
      "Content-Type": "application/problem+json",
      "Content-Length": String(Buffer.byteLength(body)),
      "X-Request-Id": id,
      "X-Content-Type-Options": "nosniff",
      "Cache-Control": "no-store",
      Connection: "close",
    };
    return { status, headers, body };
  }
}
