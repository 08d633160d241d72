/** A schedule as its users write it, in code or at run time, and as it is stored. Pure. */
import { type Duration, durationMs } from "../core/duration.ts";
import { type ErrorCode, MillraceError } from "../core/errors.ts";
import { storableJson } from "../core/json.ts";
import { checkedName, refuseUnknown, show, wholeNumber } from "../core/options.ts";
import { type Backoff, type BackoffRule, backoffRule } from "../core/retry.ts";
import { checkedKey, checkedTags } from "../jobs/enqueue-options.ts";
import { type AnyTask, type Task, defaultMaxAttempts, highestPriority } from "../jobs/task.ts";
import { checkCron, checkedZone } from "./ticks.ts";

const overlaps = ["allow", "skip", "queue"] as const;
const catchUps = ["none", "last", "all"] as const;
type Overlap = (typeof overlaps)[number];
type CatchUp = (typeof catchUps)[number];

/** When it ticks, what it enqueues, and what happens when a tick comes too soon or too late. */
export interface ScheduleFields {
  /** Five fields, or six with seconds first, or `@daily` and its like. Not together with `every`. */
  cron?: string;
  /** An interval, counted from when the schedule was made, so that it does not drift. A second at least. */
  every?: Duration;
  /** IANA time zone of `cron`. Default `"UTC"`. */
  zone?: string;
  input?: unknown;
  /** Default: the task's. */
  queue?: string;
  /** Default: the task's, or the queue's. */
  priority?: number;
  /** Total tries of each job. Default: the task's. */
  maxAttempts?: number;
  /** Of each job. Default: the task's. */
  backoff?: Backoff;
  /** For one attempt. Default: the task's. */
  timeout?: Duration;
  /** Up to 20 words to find its jobs by. */
  tags?: readonly string[];
  concurrencyKey?: string;
  /** When the tick before still runs: run beside it, skip this one (default), or queue it behind. */
  overlap?: Overlap;
  /** Runs of this schedule at once, for `skip` and `queue`. Default 1. */
  concurrency?: number;
  /** Of ticks that came later than `startGrace`: run none, one for all (default), or each. */
  catchUp?: CatchUp;
  /** Each run comes up to so much later than its tick, at random. Default 0. */
  jitter?: Duration;
  /** A tick later than this is missed. Default `"60s"`. */
  startGrace?: Duration;
  /** A run that has not ended after so long is shown as overdue. Default: never. */
  runGrace?: Duration;
}

export interface ScheduleOptions<Input = unknown> extends ScheduleFields {
  /** 1 to 128 letters, digits, dots, dashes, underscores or colons. */
  name: string;
  /** A task, or its name. */
  task: Task<Input, unknown> | string;
  input?: NoInfer<Input>;
  /** It begins paused: an operator lets it run. */
  paused?: boolean;
}

/** Everything about a schedule, complete, as stored. Times in ms. */
export interface Spec {
  readonly task: string;
  readonly queue: string;
  readonly cron: string | null;
  readonly everyMs: number | null;
  readonly zone: string;
  readonly input: unknown;
  /** Null: nobody asked for one. */
  readonly priority: number | null;
  readonly maxAttempts: number;
  readonly timeoutMs: number | null;
  readonly backoff: BackoffRule | null;
  readonly tags: readonly string[] | null;
  readonly concurrencyKey: string | null;
  readonly overlap: Overlap;
  readonly concurrency: number;
  readonly catchUp: CatchUp;
  readonly jitterMs: number;
  readonly startGraceMs: number;
  readonly runGraceMs: number | null;
}

/** A schedule of an app's code. */
export interface Schedule {
  readonly name: string;
  readonly spec: Spec;
  readonly paused: boolean;
  /** To check the input with. */
  readonly task: AnyTask | undefined;
}

const fieldNames = [
  "cron",
  "every",
  "zone",
  "input",
  "queue",
  "priority",
  "maxAttempts",
  "backoff",
  "timeout",
  "tags",
  "concurrencyKey",
  "overlap",
  "concurrency",
  "catchUp",
  "jitter",
  "startGrace",
  "runGrace",
] as const satisfies readonly (keyof ScheduleFields)[];
const known: ReadonlySet<string> = new Set(["name", "task", "paused", ...fieldNames]);

const minuteMs = 60_000;
const yearMs = 366 * 86_400_000;

/** Defines a schedule. Throws `SCHEDULE_INVALID`, `OPTION_UNKNOWN`, `OPTION_INVALID`; nothing is connected or stored. */
export function schedule<Input = unknown>(options: ScheduleOptions<Input>): Schedule {
  const name = checkedName(options.name, "schedule");
  const where = `schedule "${name}"`;
  refuseUnknown(where, options, known);
  const task = typeof options.task === "string" ? undefined : (options.task as unknown as AnyTask);
  const { name: _, task: __, paused = false, ...fields } = options;
  if (typeof paused !== "boolean") throw invalid(`${where}: paused must be true or false, not ${show(paused)}.`);
  if (task === undefined && typeof options.task !== "string")
    throw invalid(`${where}: task must come from task({ name, run }), or be a task's name.`);
  const spec = specOf({ ...readFields(fields, where), task: task?.name ?? (options.task as string) }, task, where);
  return Object.freeze({ name, spec, paused, task });
}

/** What was said about a schedule; null takes a field back to its default. */
export type Said = { readonly [Field in keyof Spec]?: Spec[Field] | null };

/** Reads what is given and says nothing about the rest. Null: back to the default. Throws `OPTION_UNKNOWN`, `OPTION_INVALID`, `SCHEDULE_INVALID`. */
export function readFields(
  given: { readonly [Field in keyof ScheduleFields]?: ScheduleFields[Field] | null } & { task?: string },
  where: string,
  maxInputBytes = Number.MAX_SAFE_INTEGER,
): Said {
  refuseUnknown(where, given, new Set(["task", ...fieldNames]));
  const said: Record<string, unknown> = {};
  const read = <Field extends keyof typeof given>(
    field: Field,
    as: keyof Spec,
    reader: (value: NonNullable<(typeof given)[Field]>) => unknown,
  ): void => {
    const value = given[field];
    if (value !== undefined) said[as] = value === null ? null : reader(value as NonNullable<(typeof given)[Field]>);
  };
  const ms =
    (what: string, least: number, most: number) =>
    (value: Duration): number => {
      const found = Math.round(durationMs(value, `${where}: ${what}`));
      if (found >= least && found <= most) return found;
      throw invalid(`${where}: ${what} must be between ${least} and ${most} milliseconds, not ${found}.`);
    };
  const word =
    <Word extends string>(what: string, words: readonly Word[]) =>
    (value: Word): Word => {
      if (words.includes(value)) return value;
      throw invalid(`${where}: ${what} must be one of ${words.join(", ")}, not ${show(value)}.`);
    };
  read("task", "task", (value) => checkedName(value, "task"));
  read("cron", "cron", (value) => {
    if (typeof value === "string" && value.length <= 200) return value.trim();
    throw invalid(`${where}: cron must be a text such as "0 8 * * *", not ${show(value)}.`);
  });
  read("every", "everyMs", ms("every", 1_000, yearMs));
  read("zone", "zone", checkedZone);
  if ("input" in given) said["input"] = JSON.parse(storableJson(given.input, maxInputBytes)) as unknown;
  read("queue", "queue", (value) => checkedName(value, "queue"));
  read("priority", "priority", (value) => wholeNumber(value, `${where}: priority`, -highestPriority, highestPriority));
  read("maxAttempts", "maxAttempts", (value) => wholeNumber(value, `${where}: maxAttempts`, 1, 32_767));
  read("backoff", "backoff", backoffRule);
  read("timeout", "timeoutMs", ms("timeout", 0, yearMs));
  read("tags", "tags", checkedTags);
  read("concurrencyKey", "concurrencyKey", (value) => checkedKey(value, "concurrencyKey"));
  read("overlap", "overlap", word("overlap", overlaps));
  read("concurrency", "concurrency", (value) => wholeNumber(value, `${where}: concurrency`, 1, 1_000));
  read("catchUp", "catchUp", word("catchUp", catchUps));
  read("jitter", "jitterMs", ms("jitter", 0, 86_400_000));
  read("startGrace", "startGraceMs", ms("startGrace", 0, yearMs));
  read("runGrace", "runGraceMs", ms("runGrace", 1, yearMs));
  // One of the two is said; that takes the other away.
  if (typeof said["cron"] === "string" && said["everyMs"] === undefined) said["everyMs"] = null;
  if (typeof said["everyMs"] === "number" && said["cron"] === undefined) said["cron"] = null;
  return said;
}

/** Lays what was said over the defaults. Throws `SCHEDULE_INVALID`. */
export function specOf(said: Said, task: AnyTask | undefined, where: string): Spec {
  const spec: Spec = {
    task: checkedName(said.task, "task"),
    queue: said.queue ?? task?.queue ?? "default",
    cron: said.cron ?? null,
    everyMs: said.everyMs ?? null,
    zone: said.zone ?? "UTC",
    input: said.input ?? null,
    priority: said.priority ?? (task === undefined || task.priority === 0 ? null : task.priority),
    maxAttempts: said.maxAttempts ?? task?.maxAttempts ?? defaultMaxAttempts,
    timeoutMs: said.timeoutMs ?? null,
    backoff: said.backoff ?? null,
    tags: said.tags ?? null,
    concurrencyKey: said.concurrencyKey ?? null,
    overlap: said.overlap ?? "skip",
    concurrency: said.concurrency ?? 1,
    catchUp: said.catchUp ?? "last",
    jitterMs: said.jitterMs ?? 0,
    startGraceMs: said.startGraceMs ?? minuteMs,
    runGraceMs: said.runGraceMs ?? null,
  };
  if ((spec.cron === null) === (spec.everyMs === null))
    throw invalid(`${where}: give ${spec.cron === null ? "cron or every" : "cron or every, not both"}.`);
  if (spec.everyMs !== null && spec.jitterMs >= spec.everyMs)
    throw invalid(`${where}: jitter must be shorter than the interval.`);
  if (spec.cron !== null) checkCron(spec.cron, spec.jitterMs);
  return spec;
}

function invalid(message: string): MillraceError {
  return new MillraceError("SCHEDULE_INVALID" satisfies ErrorCode, message);
}
