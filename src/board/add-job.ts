/** The form "Add job": BullMQ's options for a task of this app, or for one that somebody else has. */
import { MillraceError } from "../core/errors.ts";
import { show, wholeNumber } from "../core/options.ts";
import type { Backoff } from "../core/retry.ts";
import { backoffOf, keyOf } from "../bullmq/job-options.ts";
import { refuseForeign } from "../bullmq/refusal.ts";
import type { EnqueueOptions } from "../jobs/enqueue-options.ts";
import { highestPriority } from "../jobs/task.ts";

const known: ReadonlySet<string> = new Set(["delay", "priority", "attempts", "backoff", "jobId"]);
const longestMs = 3650 * 86_400_000;

/** What is not said is the task's. Throws `OPTION_UNKNOWN`, `OPTION_INVALID`. */
export function readOptions(queue: string, given: Readonly<Record<string, unknown>>): EnqueueOptions {
  const said = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined && value !== null));
  refuseForeign("add job", said, known);
  const { delay, priority, attempts, backoff, jobId } = said;
  return {
    queue,
    ...(delay === undefined ? {} : { delay: wholeNumber(delay as number, "delay", 0, longestMs) }),
    // There 1 runs before 2, and none before both; here the higher number does.
    ...(priority === undefined
      ? {}
      : { priority: 0 - wholeNumber(priority as number, "priority", -highestPriority, highestPriority) }),
    ...(attempts === undefined ? {} : { maxAttempts: wholeNumber(attempts as number, "attempts", 1, 32_767) }),
    ...(backoff === undefined ? {} : { backoff: readBackoff(backoff) }),
    ...(jobId === undefined ? {} : { idempotencyKey: keyOf(queue, jobId as string) }),
  };
}

function readBackoff(given: unknown): Backoff {
  const { type, delay } =
    typeof given === "number" ? { type: "fixed", delay: given } : (given as Partial<Record<string, unknown>>);
  if (type !== "fixed" && type !== "exponential")
    throw new MillraceError("OPTION_INVALID", `backoff.type must be "fixed" or "exponential", not ${show(type)}.`);
  return backoffOf({ type, delay: wholeNumber(delay as number, "backoff.delay", 0, longestMs) });
}
