/** What may be said about a job when it is enqueued, and how it is read. */
import { type Duration, durationMs } from "../core/duration.ts";
import { MillraceError } from "../core/errors.ts";
import { isText, refuseUnknown, show, textOrNull } from "../core/options.ts";
import { type Backoff, backoffRule } from "../core/retry.ts";
import type { ForeignTransaction } from "../db/database.ts";
import type { IdempotencyKey, SpecialJob } from "./enqueue-store.ts";
import { type JobStatus, jobStatuses } from "./read-store.ts";
import type { UniqueRule } from "./unique-store.ts";

/** The key counts for the jobs of one task. 1 to 255 characters. */
export interface UniqueOptions {
  key: string;
  /** The statuses in which a job keeps its key. Default: waiting, delayed, blocked and active, which is until it has ended. */
  while?: readonly JobStatus[];
  /** It loses the key so long after it was enqueued, whatever its status. Default: never. */
  within?: Duration;
}

export interface DebounceOptions {
  key: string;
  /** How long it must have been quiet. */
  wait: Duration;
  /** It runs so long after the first call at the latest. Default: no limit. */
  maxWait?: Duration;
}

export interface ThrottleOptions {
  key: string;
  per: Duration;
}

export interface EnqueueOptions {
  /** Default: the task's queue. */
  queue?: string;
  /** Run this much later. Not together with `runAt`. */
  delay?: Duration;
  /** Run then; a time in the past means now. */
  runAt?: Date | string;
  /** Higher runs first, -32 767 to 32 767. */
  priority?: number;
  /** Total tries. */
  maxAttempts?: number;
  backoff?: Backoff;
  /** For one attempt. */
  timeout?: Duration;
  /** The first enqueue of this task under this key wins; later ones get its job for `idempotencyKeep` (default 24 hours). */
  idempotencyKey?: string;
  idempotencyKeep?: Duration;
  /** Up to 20 words to find the job by. */
  tags?: readonly string[];
  /** Jobs of one key are limited together, and take turns with those of other keys; see the queue's `keyConcurrency` and `keyRate`. */
  concurrencyKey?: string;
  /** Who enqueues it, up to 200 characters: for its timeline. */
  by?: string;
  /** While a job that got the key has not ended, enqueue answers with that job and makes no other. */
  unique?: UniqueOptions;
  /**
   * Waits until nobody has enqueued under the key for a while; then one job runs, with the input given last. A job that is due keeps its
   * place and takes the new input; one that has begun is left alone, and the next call makes another.
   */
  debounce?: DebounceOptions;
  /** At most one job under the key in a time; what comes too soon is answered with the job that came first. */
  throttle?: ThrottleOptions;
  /** Your own transaction: the job exists if and only if it commits. */
  tx?: ForeignTransaction;
}

const known: ReadonlySet<string> = new Set([
  "queue",
  "delay",
  "runAt",
  "priority",
  "maxAttempts",
  "backoff",
  "timeout",
  "idempotencyKey",
  "idempotencyKeep",
  "tags",
  "concurrencyKey",
  "by",
  "unique",
  "debounce",
  "throttle",
  "tx",
]);
const dayMs = 86_400_000;

export function readSpecial(options: EnqueueOptions): SpecialJob | undefined {
  refuseUnknown("enqueue", options, known);
  const { runAt, backoff, timeout, tags, concurrencyKey } = options;
  const by = textOrNull(options.by, "by", 200);
  const delay = options.debounce === undefined ? options.delay : firstWaitMs(options.debounce);
  if (delay !== undefined && runAt !== undefined)
    throw new MillraceError("OPTION_INVALID", "Give delay or runAt, not both.");
  if (
    delay === undefined &&
    runAt === undefined &&
    backoff === undefined &&
    timeout === undefined &&
    tags === undefined &&
    concurrencyKey === undefined &&
    by === null
  )
    return undefined;
  return {
    ...(delay === undefined ? {} : { delayMs: durationMs(delay, "delay") }),
    ...(runAt === undefined ? {} : { runAt: readInstant(runAt) }),
    ...(tags === undefined ? {} : { tags: checkedTags(tags) }),
    ...(concurrencyKey === undefined ? {} : { key: checkedKey(concurrencyKey, "concurrencyKey") }),
    ...(backoff === undefined && timeout === undefined && by === null
      ? {}
      : {
          options: {
            ...(timeout === undefined ? {} : { timeout_ms: durationMs(timeout, "timeout") }),
            ...(backoff === undefined ? {} : { backoff: backoffRule(backoff) }),
            ...(by === null ? {} : { by }),
          },
        }),
  };
}

function firstWaitMs({ wait, maxWait }: DebounceOptions): number {
  const waitMs = durationMs(wait, "debounce: wait");
  return maxWait === undefined ? waitMs : Math.min(waitMs, durationMs(maxWait, "debounce: maxWait"));
}

export function readInstant(value: Date | string, name = "runAt"): Date {
  // new Date(null) is 1970, and a number could be meant as a delay.
  const at = value instanceof Date ? value : new Date(typeof value === "string" ? value : Number.NaN);
  const year = at.getUTCFullYear();
  if (year >= 1970 && year < 10_000) return at;
  throw new MillraceError(
    "OPTION_INVALID",
    `${name} must be a Date or an ISO 8601 time between 1970 and 9999, not ${show(value)}.`,
  );
}

export function checkedTags(tags: readonly string[]): readonly string[] {
  const fine = Array.isArray(tags) && tags.length <= 20 && tags.every((tag) => isText(tag, 100, 1));
  if (fine) return tags;
  throw new MillraceError("OPTION_INVALID", "tags must be up to 20 texts of 1 to 100 characters.");
}

export function readKey({
  idempotencyKey: text,
  idempotencyKeep: keep = dayMs,
}: EnqueueOptions): IdempotencyKey | undefined {
  if (text === undefined) return undefined;
  return { text: checkedKey(text, "idempotencyKey"), keepMs: durationMs(keep, "idempotencyKeep") };
}

export function checkedKey(text: unknown, name: string): string {
  if (isText(text, 255, 1)) return text;
  throw new MillraceError("OPTION_INVALID", `${name} must be a text of 1 to 255 characters.`);
}

const notEnded: readonly JobStatus[] = ["waiting", "delayed", "blocked", "active"];
const waits: readonly JobStatus[] = ["waiting", "delayed"];
const uniqueNames: ReadonlySet<string> = new Set(["key", "while", "within"]);
const debounceNames: ReadonlySet<string> = new Set(["key", "wait", "maxWait"]);
const throttleNames: ReadonlySet<string> = new Set(["key", "per"]);

function objectOf<Options extends object>(value: Options, name: string): Options {
  if (typeof value === "object" && value !== null) return value;
  throw new MillraceError("OPTION_INVALID", `${name} must be an object with a key, not ${show(value)}.`);
}

/** What the options say about other jobs under the same key. */
export function readUnique(options: EnqueueOptions): UniqueRule | undefined {
  const { unique, debounce, throttle, idempotencyKey } = options;
  const given = [unique, debounce, throttle, idempotencyKey].filter((one) => one !== undefined);
  if (given.length > 1)
    throw new MillraceError("OPTION_INVALID", "Give one of unique, debounce, throttle and idempotencyKey.");
  if (unique !== undefined) {
    refuseUnknown("unique", objectOf(unique, "unique"), uniqueNames);
    const { key, within, while: statuses = notEnded } = unique;
    if (!Array.isArray(statuses) || !statuses.every((status) => jobStatuses.includes(status)))
      throw new MillraceError("OPTION_INVALID", `unique: while must be a list of ${jobStatuses.join(", ")}.`);
    const keepMs = within === undefined ? null : durationMs(within, "unique: within");
    return { key: checkedKey(key, "unique: key"), statuses, keepMs, debounce: undefined };
  }
  if (throttle !== undefined) {
    refuseUnknown("throttle", objectOf(throttle, "throttle"), throttleNames);
    const { key, per } = throttle;
    const keepMs = durationMs(per, "throttle: per");
    return { key: checkedKey(key, "throttle: key"), statuses: jobStatuses, keepMs, debounce: undefined };
  }
  if (debounce === undefined) return undefined;
  refuseUnknown("debounce", objectOf(debounce, "debounce"), debounceNames);
  if (options.delay !== undefined || options.runAt !== undefined)
    throw new MillraceError("OPTION_INVALID", "debounce says when the job runs; give no delay or runAt with it.");
  const waitMs = durationMs(debounce.wait, "debounce: wait");
  const maxWaitMs = debounce.maxWait === undefined ? null : durationMs(debounce.maxWait, "debounce: maxWait");
  return {
    key: checkedKey(debounce.key, "debounce: key"),
    statuses: waits,
    keepMs: null,
    debounce: { waitMs, maxWaitMs },
  };
}
