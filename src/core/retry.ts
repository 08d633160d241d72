/** When to try again, and whether to. Pure: chance comes in as an argument. */
import { MillraceError, NonRetryableError, RateLimitError, errorCodes } from "./errors.ts";
import { type Duration, durationMs } from "./duration.ts";
import { refuseUnknown } from "./options.ts";

/** How long to wait between attempts. */
export interface Backoff {
  /** `exponential` doubles the delay each time; `fixed` keeps it. Default `exponential`. */
  type?: "exponential" | "fixed";
  /** The first delay. Default `"2s"`. */
  delay?: Duration;
  /** No delay is longer. Default `"15m"`, or the first delay where that is longer. */
  max?: Duration;
  /** Share of the delay by which it may vary either way, 0 to 1, so that failures do not return in step. Default 0.2. */
  jitter?: number;
}

/** A backoff, read and complete. Times in milliseconds. */
export interface BackoffRule {
  readonly type: "exponential" | "fixed";
  readonly delayMs: number;
  readonly maxMs: number;
  readonly jitter: number;
}

/** 2 s, 4 s, 8 s … capped at 15 minutes, each ±20 %. */
export const defaultBackoff: BackoffRule = { type: "exponential", delayMs: 2_000, maxMs: 900_000, jitter: 0.2 };

const known: ReadonlySet<string> = new Set(["type", "delay", "max", "jitter"]);

export function backoffRule(given: Backoff | undefined): BackoffRule {
  if (given === undefined) return defaultBackoff;
  if (typeof given !== "object" || given === null)
    throw new MillraceError("OPTION_INVALID", 'backoff must be an object such as { delay: "2s", max: "15m" }.');
  refuseUnknown("backoff", given, known);
  const { type = "exponential", delay = 2_000, max, jitter = 0.2 } = given;
  if (type !== "exponential" && type !== "fixed")
    throw new MillraceError("OPTION_INVALID", 'backoff.type must be "exponential" or "fixed".');
  if (!(typeof jitter === "number" && jitter >= 0 && jitter <= 1))
    throw new MillraceError("OPTION_INVALID", "backoff.jitter must be a number from 0 to 1.");
  const delayMs = durationMs(delay, "backoff.delay");
  const maxMs = max === undefined ? Math.max(900_000, delayMs) : durationMs(max, "backoff.max");
  return { type, delayMs, maxMs, jitter };
}

/** Milliseconds to wait after attempt number `attempt` (from 1) failed. `chance` is a number from 0 to 1. */
export function retryDelayMs(rule: BackoffRule, attempt: number, chance: number): number {
  // 2 to the 50th is beyond every maximum, and a finite number: nothing times infinity is no delay at all.
  const times = rule.type === "fixed" ? 1 : 2 ** Math.min(attempt - 1, 50);
  const plain = Math.min(rule.delayMs * times, rule.maxMs);
  return Math.round(Math.min(plain * (1 + rule.jitter * (2 * chance - 1)), rule.maxMs));
}

/** What a thrown value means for the job that threw it. */
export interface Failure {
  readonly code: string;
  readonly message: string;
  readonly stack: string | null;
  readonly retryable: boolean;
  /** The least the retry has to wait, in milliseconds. */
  readonly retryAfterMs: number;
}

/** Thrown through the task to end its attempt and go on after a pause. */
export class Snooze extends Error {
  readonly pauseMs: number;
  constructor(pauseMs: number) {
    super("snoozed");
    this.pauseMs = pauseMs;
  }
}

/** An error that means here what the thrown one meant there. */
export function errorOf({ code, message, stack, retryable, retryAfterMs }: Failure): Error {
  const error = !retryable
    ? new NonRetryableError(message, { code })
    : code === "RATE_LIMIT"
      ? new RateLimitError(message, { retryAfterMs })
      : Object.assign(new Error(message), { code });
  error.stack = stack ?? "";
  return error;
}

const postgresCodes: ReadonlyMap<string, string> = new Map([
  ["40P01", "DB_DEADLOCK"],
  ["40001", "SERIALIZATION"],
]);
const networkCodes: ReadonlySet<string> = new Set([
  "ECONNREFUSED",
  "ECONNRESET",
  "ENOTFOUND",
  "EAI_AGAIN",
  "ETIMEDOUT",
  "EPIPE",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "UND_ERR_CONNECT_TIMEOUT",
]);

/** Longest error text kept per attempt. Stacks beyond it are cut: history must not grow by what a library prints. */
const longestText = 8_192;

/** No retry waits longer than the longest duration there is: beyond it, timestamps end. */
const longestWaitMs = 3650 * 86_400_000;

/** Reads anything a handler can throw. Unknown errors are retryable: a retry costs little, a lost job costs trust. */
export function readFailure(thrown: unknown): Failure {
  try {
    return read(thrown);
  } catch {
    // A proxy, a getter that throws. The attempt must end all the same.
    const message = "The task threw something that cannot be read.";
    return { code: "UNKNOWN", message, stack: null, retryable: true, retryAfterMs: 0 };
  }
}

function read(thrown: unknown): Failure {
  const error =
    thrown instanceof Error
      ? thrown
      : new Error(typeof thrown === "string" ? thrown : `The task threw ${describe(thrown)}.`);
  const code = failureCode(error);
  const facts = code in errorCodes ? errorCodes[code as keyof typeof errorCodes] : undefined;
  const retryable =
    !(error instanceof NonRetryableError) && !(facts !== undefined && "retryable" in facts && !facts.retryable);
  return {
    code,
    message: storable(error.message || error.name),
    stack: typeof error.stack === "string" && error.stack !== "" ? storable(error.stack) : null,
    retryable,
    retryAfterMs:
      error instanceof RateLimitError ? Math.min(Math.max(Number(error.retryAfterMs) || 0, 0), longestWaitMs) : 0,
  };
}

function failureCode(error: Error & { code?: unknown; status?: unknown; cause?: unknown }): string {
  const { code } = error;
  if (typeof code === "string") {
    const known = postgresCodes.get(code);
    if (known !== undefined) return known;
    if (networkCodes.has(code)) return "DEPENDENCY_DOWN";
    if (/^[A-Z][A-Z0-9_]{1,63}$/.test(code)) return code;
  }
  if (error.status === 429) return "RATE_LIMIT";
  if (error.name === "TimeoutError") return "TIMEOUT";
  // fetch() hides the socket's error in `cause`.
  if (error.cause instanceof Error && networkCodes.has(String((error.cause as { code?: unknown }).code)))
    return "DEPENDENCY_DOWN";
  return error instanceof NonRetryableError ? "NON_RETRYABLE" : "UNKNOWN";
}

/** PostgreSQL text holds neither NUL nor half surrogate pairs; an error message may. */
function storable(given: unknown): string {
  const text = typeof given === "string" ? given : describe(given);
  const cut = text.length > longestText ? `${text.slice(0, longestText)} …` : text;
  return cut.replaceAll("\0", "").replace(/\p{Surrogate}/gu, "\ufffd");
}

function describe(value: unknown): string {
  try {
    return JSON.stringify(value) ?? String(value);
  } catch {
    return Object.prototype.toString.call(value);
  }
}
