/** A queue's policy as its users write it. */
import { type Duration, durationMs } from "../core/duration.ts";
import { MillraceError } from "../core/errors.ts";
import { refuseUnknown, show, wholeNumber } from "../core/options.ts";
import type { PolicyRow, StoredPolicy } from "./policy-store.ts";
import { highestPriority } from "./task.ts";

/** At most `max` starts in any window of `per`. */
interface Rate {
  max: number;
  per: Duration;
}

/** What is left out stays as it is; null takes a limit away. */
export interface PolicyChanges {
  /** Jobs running at once, over all workers. 0 lets nothing start. */
  concurrency?: number | null;
  /** Jobs running at once of one `concurrencyKey`. */
  keyConcurrency?: number | null;
  rate?: Rate | null;
  /** Of one `concurrencyKey`. */
  keyRate?: Rate | null;
  /** Storm control: with so many running, the queue holds its breath for `throttleDelay`, and the decision is recorded. */
  maxInFlight?: number | null;
  /** Storm control: as many attempts in a minute, retries included. */
  maxAttemptsPerMinute?: number | null;
  /** Default 500 ms. */
  throttleDelay?: Duration;
  /** Admission: larger inputs are refused with `PAYLOAD_TOO_LARGE`. */
  maxPayloadBytes?: number | null;
  /** Admission: more jobs than this in one minute of the clock are refused with `ENQUEUE_RATE_EXCEEDED`. */
  maxEnqueuePerMinute?: number | null;
  /** For jobs that are enqueued without one, by a task without one. */
  priority?: number | null;
  /** Completed jobs are deleted after so long. */
  keepCompleted?: Duration | null;
  /** Dead letters are deleted after so long. */
  keepFailed?: Duration | null;
}

/** The policy of one queue. Durations in ms; null: no limit. */
export interface Policy {
  readonly queue: string;
  readonly concurrency: number | null;
  readonly keyConcurrency: number | null;
  readonly rate: { readonly max: number; readonly perMs: number } | null;
  readonly keyRate: { readonly max: number; readonly perMs: number } | null;
  readonly maxInFlight: number | null;
  readonly maxAttemptsPerMinute: number | null;
  readonly throttleDelayMs: number;
  readonly maxPayloadBytes: number | null;
  readonly maxEnqueuePerMinute: number | null;
  readonly priority: number | null;
  readonly keepCompletedMs: number | null;
  readonly keepFailedMs: number | null;
  readonly updatedAt: Date;
  readonly updatedBy: string | null;
}

const most = 2 ** 31 - 1;
const known: ReadonlySet<string> = new Set([
  "concurrency",
  "keyConcurrency",
  "rate",
  "keyRate",
  "maxInFlight",
  "maxAttemptsPerMinute",
  "throttleDelay",
  "maxPayloadBytes",
  "maxEnqueuePerMinute",
  "priority",
  "keepCompleted",
  "keepFailed",
]);

/** Throws `OPTION_UNKNOWN`, `OPTION_INVALID`; nothing is stored. */
export function readChanges(changes: PolicyChanges): Partial<StoredPolicy> {
  refuseUnknown("policy", changes, known);
  if (Object.values(changes).every((value) => value === undefined))
    throw new MillraceError("OPTION_INVALID", "A change of policy needs at least one setting.");
  const number = (value: number | null | undefined, name: string, column: string, least: number, highest = most) =>
    value === undefined ? {} : { [column]: value === null ? null : wholeNumber(value, name, least, highest) };
  const time = (value: Duration | null | undefined, name: string, column: string, least: number, highest: number) =>
    value === undefined ? {} : { [column]: value === null ? null : wholeMs(value, name, least, highest) };
  const rate = (value: Rate | null | undefined, name: string, column: string) => {
    if (value === undefined) return {};
    if (value === null) return { [`${column}_max`]: null, [`${column}_per_ms`]: null };
    if (typeof value !== "object")
      throw new MillraceError("OPTION_INVALID", `${name} must be { max, per }, not ${show(value)}.`);
    refuseUnknown(name, value, new Set(["max", "per"]));
    return {
      [`${column}_max`]: wholeNumber(value.max, `${name}.max`, 1, most),
      [`${column}_per_ms`]: wholeMs(value.per, `${name}.per`, 1, dayMs),
    };
  };
  return {
    ...number(changes.concurrency, "concurrency", "concurrency", 0),
    ...number(changes.keyConcurrency, "keyConcurrency", "key_concurrency", 1),
    ...rate(changes.rate, "rate", "rate"),
    ...rate(changes.keyRate, "keyRate", "key_rate"),
    ...number(changes.maxInFlight, "maxInFlight", "max_in_flight", 1),
    ...number(changes.maxAttemptsPerMinute, "maxAttemptsPerMinute", "max_attempts_per_minute", 1),
    ...time(changes.throttleDelay, "throttleDelay", "throttle_delay_ms", 1, hourMs),
    ...number(changes.maxPayloadBytes, "maxPayloadBytes", "max_payload_bytes", 1),
    ...number(changes.maxEnqueuePerMinute, "maxEnqueuePerMinute", "max_enqueue_per_minute", 1),
    ...number(changes.priority, "priority", "priority", -highestPriority, highestPriority),
    ...time(changes.keepCompleted, "keepCompleted", "keep_completed_ms", 0, 3_650 * dayMs),
    ...time(changes.keepFailed, "keepFailed", "keep_failed_ms", 0, 3_650 * dayMs),
  };
}

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;

function wholeMs(value: Duration, name: string, least: number, highest: number): number {
  const ms = Math.round(durationMs(value, name));
  if (ms >= least && ms <= highest) return ms;
  throw new MillraceError("OPTION_INVALID", `${name} must be between ${least} and ${highest} milliseconds, not ${ms}.`);
}

export function policyOf(row: PolicyRow): Policy {
  return {
    queue: row.queue,
    concurrency: row.concurrency,
    keyConcurrency: row.key_concurrency,
    rate: row.rate_max === null ? null : { max: row.rate_max, perMs: row.rate_per_ms ?? 0 },
    keyRate: row.key_rate_max === null ? null : { max: row.key_rate_max, perMs: row.key_rate_per_ms ?? 0 },
    maxInFlight: row.max_in_flight,
    maxAttemptsPerMinute: row.max_attempts_per_minute,
    throttleDelayMs: row.throttle_delay_ms,
    maxPayloadBytes: row.max_payload_bytes,
    maxEnqueuePerMinute: row.max_enqueue_per_minute,
    priority: row.priority,
    keepCompletedMs: row.keep_completed_ms,
    keepFailedMs: row.keep_failed_ms,
    updatedAt: row.updated_at,
    updatedBy: row.updated_by,
  };
}
