/** BullMQ's job options, and what they are called in the engine. */
import { MillraceError } from "../core/errors.ts";
import { wholeNumber } from "../core/options.ts";
import type { Backoff } from "../core/retry.ts";
import type { EnqueueOptions } from "../jobs/enqueue-options.ts";
import { highestPriority } from "../jobs/task.ts";
import { refuseForeign } from "./refusal.ts";

export interface BackoffOptions {
  type: "fixed" | "exponential";
  /** Milliseconds. */
  delay: number;
}

export interface JobsOptions {
  /** Milliseconds. */
  delay?: number;
  /** 1 is the highest, 32 767 the lowest; jobs without one, or with 0, run before all that have one. */
  priority?: number;
  /** Total tries. Default 3. */
  attempts?: number;
  /** A number is a fixed pause in milliseconds. Default: exponential from 2 000. */
  backoff?: number | BackoffOptions;
  /** A second job of this name under this id is not added, as long as the first one is there and due less than 7 days ago. */
  jobId?: string;
}

export type DefaultJobOptions = Omit<JobsOptions, "jobId">;

const defaultNames: ReadonlySet<string> = new Set(["delay", "priority", "attempts", "backoff"]);
const known: ReadonlySet<string> = new Set([...defaultNames, "jobId"]);
const backoffNames: ReadonlySet<string> = new Set(["type", "delay"]);

export const usual = { attempts: 3, backoff: { type: "exponential", delay: 2_000 } } as const satisfies JobsOptions;

const dayMs = 86_400_000;
const keepMs = 7 * dayMs;
/** The engine's longest duration. */
const longestMs = 3650 * dayMs;

/** The defaults of a manager. Throws `OPTION_UNKNOWN`, `OPTION_INVALID`. */
export function withUsual(given: DefaultJobOptions): JobsOptions {
  refuseForeign("defaultJobOptions", given, defaultNames);
  const defaults = { ...usual, ...given };
  enqueueOptions("", defaults);
  return defaults;
}

/** What the engine is asked for, without the queue. `given` has its defaults already. Throws `OPTION_UNKNOWN`, `OPTION_INVALID`. */
export function enqueueOptions(queue: string, given: JobsOptions): EnqueueOptions {
  refuseForeign("queue.add", given, known);
  const { delay = 0, priority = 0, attempts = usual.attempts, backoff = usual.backoff, jobId } = given;
  const rule = readBackoff(backoff);
  return {
    // There 1 runs before 2, and none before both; here the higher number does. So: 0 for none, and minus the number.
    priority: 0 - wholeNumber(priority, "priority", 0, highestPriority),
    maxAttempts: wholeNumber(attempts, "attempts", 1, 32_767),
    ...(wholeNumber(delay, "delay", 0, longestMs) === 0 ? {} : { delay }),
    // The usual one is the worker's own: jobs that carry nothing special are inserted many at a time.
    ...(rule.type === usual.backoff.type && rule.delay === usual.backoff.delay ? {} : { backoff: backoffOf(rule) }),
    ...(jobId === undefined
      ? {}
      : { idempotencyKey: keyOf(queue, jobId), idempotencyKeep: Math.min(delay + keepMs, longestMs) }),
  };
}

function readBackoff(given: number | BackoffOptions): BackoffOptions {
  if (typeof given === "number") return { type: "fixed", delay: wholeNumber(given, "backoff", 0, longestMs) };
  if (typeof given !== "object" || given === null || (given.type !== "fixed" && given.type !== "exponential"))
    throw new MillraceError(
      "OPTION_INVALID",
      'backoff must be milliseconds, or { type: "fixed" or "exponential", delay: milliseconds }.',
    );
  refuseForeign("backoff", given, backoffNames);
  return { type: given.type, delay: wholeNumber(given.delay, "backoff.delay", 0, longestMs) };
}

/** BullMQ's pauses have neither a ceiling nor, unless asked for, any jitter. */
export function backoffOf({ type, delay }: BackoffOptions): Backoff {
  return { type, delay, max: longestMs, jitter: 0 };
}

/** Ids are unique per queue there, keys per task here. A queue's name holds no slash. */
export function keyOf(queue: string, jobId: string): string {
  if (typeof jobId === "string" && jobId !== "" && queue.length + jobId.length < 255) return `${queue}/${jobId}`;
  throw new MillraceError("OPTION_INVALID", `jobId must be a text of 1 to ${254 - queue.length} characters.`);
}
