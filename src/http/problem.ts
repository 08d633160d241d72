/** How the API says no: RFC 9457 problem documents, made from the one table of error codes. */
import { type ErrorCode, MillraceError, errorCodes } from "../core/errors.ts";
import { z } from "zod";
import type { Log } from "../core/log.ts";
import { isTransient } from "../db/database.ts";
import type { ApiContext } from "./env.ts";

/** What 429 and 503 ask callers to wait: long enough for a database to fail over or a deploy to pass, short enough to notice. */
const retryAfterSeconds = 5;

interface Extras {
  readonly headers?: Readonly<Record<string, string>>;
  /** Members beside the standard ones. */
  readonly members?: Readonly<Record<string, unknown>>;
}

/** What every refusal looks like (RFC 9457). */
export const problemSchema = z.looseObject({
  type: z.string(),
  title: z.string(),
  status: z.int(),
  detail: z.string(),
  /** Stable; the list is docs/reference/errors.md. */
  code: z.string(),
  action: z.string(),
  instance: z.string().optional(),
});

export function problem(c: ApiContext, code: ErrorCode, detail: string, extras: Extras = {}): Response {
  const { status } = errorCodes[code];
  const document = { ...problemDocument(code, detail, c.get("requestId")), ...extras.members };
  const headers: Record<string, string> = { "Content-Type": "application/problem+json", ...extras.headers };
  if (status === 401) headers["WWW-Authenticate"] = 'Bearer realm="millrace"';
  if (status === 429 || status === 503) headers["Retry-After"] ??= String(retryAfterSeconds);
  return c.body(JSON.stringify(document), status, headers);
}

/** `instance`: the id of the request. */
export function problemDocument(code: ErrorCode, detail: string, instance: string): object {
  const { status, action } = errorCodes[code];
  return { type: `urn:millrace:error:${code}`, title: titleOf(code), status, detail, code, action, instance };
}

/** Everything a handler can throw, as a problem. What nobody expected is logged whole and told to the caller by its request id only. */
export function problemOf(error: Error, c: ApiContext, log: Log): Response {
  const { code, detail } = read(error);
  const fields = { err: error, code, request_id: c.get("requestId"), method: c.req.method, path: c.req.path };
  if (code === "INTERNAL") log.error(fields, "request.failed");
  else if (errorCodes[code].status >= 500) log.warn(fields, "request.failed");
  const { retryAfterMs } = error as { retryAfterMs?: number };
  const wait =
    retryAfterMs === undefined ? {} : { headers: { "Retry-After": String(Math.ceil(retryAfterMs / 1_000)) } };
  return problem(c, code, detail, wait);
}

/** What the problem of an error says. */
export const codeOf = (error: Error): ErrorCode => read(error).code;

function read(error: Error): { code: ErrorCode; detail: string } {
  if (error instanceof MillraceError) return { code: error.code, detail: error.message };
  if (isTransient(error)) return { code: "DATABASE_UNREACHABLE", detail: "The database does not answer right now." };
  return { code: "INTERNAL", detail: "Something failed that should not have; nothing more is known to tell you here." };
}

/** `JOB_NOT_FOUND` → `Job not found`. */
function titleOf(code: ErrorCode): string {
  return code.charAt(0) + code.slice(1).toLowerCase().replaceAll("_", " ");
}
