/** Calls an API as if over a socket of this machine, and reads what it answers. */
import type { Log, Millrace } from "millrace";
import { silent } from "../../src/core/log.ts";
import { type ApiOptions, createApi as create } from "../../src/http/api.ts";
import { checked } from "./contract.ts";

type Api = ReturnType<typeof create>;

/** An API that trusts this machine on every backend, knows the token that runbook 001 sends, and keeps to its document. */
export function createApi(mill: Millrace, options: ApiOptions): Api {
  const givenTokens = [{ token: "token", role: "operator", name: "runbook" }] as const;
  const api = create(mill, { trustMachine: true, givenTokens, ...options });
  // Asked of another one: not every test can have one more line in its log.
  return checked(api, async () => create(mill, { log: silent }).request("/openapi.json"));
}

interface Call {
  /** Default: POST when there is a body, else GET. */
  method?: string;
  headers?: Record<string, string>;
  /** Sent as JSON. */
  json?: unknown;
  body?: string | ReadableStream<Uint8Array>;
  /** The other end of the socket; undefined: no socket. */
  from?: string | undefined;
}

interface Answer<Body> {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Body;
}

export type Caller = <Body = Record<string, unknown>>(path: string, call?: Call) => Promise<Answer<Body>>;

export function callerOf(api: Api): Caller {
  return async <Body>(path: string, call: Call = {}): Promise<Answer<Body>> => {
    const {
      from,
      json,
      body = json === undefined ? undefined : JSON.stringify(json),
    } = {
      from: "127.0.0.1",
      ...call,
    };
    const response = await api.request(
      path,
      {
        method: call.method ?? (body === undefined ? "GET" : "POST"),
        headers: {
          host: "localhost:3003",
          ...(json === undefined ? {} : { "content-type": "application/json" }),
          ...call.headers,
        },
        ...(body === undefined ? {} : { body, duplex: "half" }),
      } as RequestInit,
      from === undefined ? {} : { incoming: { socket: { remoteAddress: from } } },
    );
    const text = await response.text();
    const isJson = response.headers.get("content-type")?.includes("json");
    return {
      status: response.status,
      headers: response.headers,
      body: (isJson ? JSON.parse(text) : text) as Body,
    };
  };
}

export interface Line {
  readonly level: keyof Log;
  readonly message: string;
  readonly fields: Record<string, unknown>;
}

/** A log that remembers its lines. */
export function recorder(): Log & { readonly lines: readonly Line[] } {
  const lines: Line[] = [];
  const at = (level: keyof Log) => (fields: object, message: string) =>
    void lines.push({ level, message, fields: fields as Record<string, unknown> });
  return { lines, debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
}
