/** How the API says no: RFC 9457 problem documents, made from the one table of error codes. */
import { type ErrorCode, MillraceError, errorCodes } from "../core/errors.ts";
import { z } from "zod";
import type { Log } from "../core/log.ts";
import { isTransient } from "../db/database.ts";
import type { ApiContext } from "./env.ts";
import { snakeKey } from "./snake-case.ts";

/** What 429 and 503 ask callers to wait: long enough for a database to fail over or a deploy to pass, short enough to notice. */
const retryAfterSeconds = 5;

interface Extras {
  readonly headers?: Readonly<Record<string, string>>;
  /** Members beside the standard ones. */
  readonly members?: Readonly<Record<string, unknown>>;
}

/** A way to say no. */
export type Refuse = (c: ApiContext, code: ErrorCode, detail: string, extras: Extras) => Response;

const errorCode = z.enum(Object.keys(errorCodes) as [ErrorCode, ...ErrorCode[]]).meta({
  id: "ErrorCode",
  description: "Stable: a code keeps its meaning. Later versions have more of them.",
});
/** What every refusal looks like (RFC 9457). */
export const problemSchema = z
  .looseObject({
    type: z.string().describe("A name for `code` that is a URI."),
    title: z.string().describe("`code` in words."),
    status: z.int(),
    detail: z.string().describe("What happened, in a sentence."),
    code: errorCode,
    action: z.string().describe("What to do about it, in a sentence."),
    instance: z.string().optional().describe("The id of the request: the server's log has it as `request_id`."),
  })
  .meta({ id: "Problem" });

export function problem(c: ApiContext, code: ErrorCode, detail: string, extras: Extras = {}): Response {
  const { status } = errorCodes[code];
  const document = { ...problemDocument(code, detail, c.get("requestId")), ...extras.members };
  const headers = { "Content-Type": "application/problem+json", ...refusalHeaders(code, extras) };
  return c.body(JSON.stringify(document), status, headers);
}

/** `instance`: the id of the request. */
export function problemDocument(code: ErrorCode, detail: string, instance: string): object {
  const { status } = errorCodes[code];
  const action = aboutOptions.has(code) ? asTheApiSpells(errorCodes[code].action) : errorCodes[code].action;
  return { type: `urn:millrace:error:${code}`, title: titleOf(code), status, detail, code, action, instance };
}

/** What clients go by, whatever the body looks like. */
export function refusalHeaders(code: ErrorCode, { headers: more }: Extras): Record<string, string> {
  const { status } = errorCodes[code];
  const headers: Record<string, string> = { ...more };
  if (status === 401) headers["WWW-Authenticate"] = 'Bearer realm="millrace"';
  if (status === 429 || status === 503) headers["Retry-After"] ??= String(retryAfterSeconds);
  return headers;
}

/**
 * Everything a handler can throw, as `refuse` says it. What nobody expected is logged whole and told to the caller by its request id
 * only.
 */
export function problemOf(error: Error, c: ApiContext, log: Log, refuse: Refuse = problem): Response {
  const { code, detail } = read(error);
  const fields = { err: error, code, request_id: c.get("requestId"), method: c.req.method, path: c.req.path };
  if (code === "INTERNAL") log.error(fields, "request.failed");
  else if (errorCodes[code].status >= 500) log.warn(fields, "request.failed");
  const { retryAfterMs } = error as { retryAfterMs?: number };
  const wait =
    retryAfterMs === undefined ? {} : { headers: { "Retry-After": String(Math.ceil(retryAfterMs / 1_000)) } };
  return refuse(c, code, detail, wait);
}

/** What the problem of an error says. */
export const codeOf = (error: Error): ErrorCode => read(error).code;

function read(error: Error): { code: ErrorCode; detail: string } {
  if (error instanceof MillraceError) return { code: error.code, detail: detailOf(error) };
  if (isTransient(error)) return { code: "DATABASE_UNREACHABLE", detail: "The database does not answer right now." };
  return { code: "INTERNAL", detail: "Something failed that should not have; nothing more is known to tell you here." };
}

/** Codes by which the engine speaks of options, which it names as the library does. */
const aboutOptions: ReadonlySet<ErrorCode> = new Set([
  "OPTION_INVALID",
  "OPTION_UNKNOWN",
  "PAYLOAD_TOO_LARGE",
  "ENQUEUE_RATE_EXCEEDED",
  "SCHEDULE_INVALID",
]);

function detailOf({ code, message }: MillraceError): string {
  // The door has read the field as the caller wrote it.
  return aboutOptions.has(code) && !message.startsWith("Unknown field") ? asTheApiSpells(message) : message;
}

/** `maxAttempts must be …` → `max_attempts must be …`. What stands between quotes is somebody's value, but for the name of an option. */
function asTheApiSpells(sentence: string): string {
  return sentence
    .split(/("[^"]*")/)
    .map((part, i, all) =>
      i % 2 === 0 || /(unknown option|Did you mean) $/.test(all[i - 1] ?? "") ? spelt(part) : part,
    )
    .join("");
}

/** The API has it in this spelling only. */
const camelOnly: ReadonlySet<string> = new Set(["idempotencyKey"]);

function spelt(text: string): string {
  return text.replaceAll(/\b[a-z]+(?:[A-Z][a-z]+)+\b/g, (word) => (camelOnly.has(word) ? word : snakeKey(word)));
}

/** `JOB_NOT_FOUND` → `Job not found`. */
export function titleOf(code: ErrorCode): string {
  return code.charAt(0) + code.slice(1).toLowerCase().replaceAll("_", " ");
}
