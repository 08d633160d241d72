/** Runs one task by itself: no database, no queue, the context a job would have. */
import { MillraceError } from "../core/errors.ts";
import { storableJson } from "../core/json.ts";
import { type Log, silent } from "../core/log.ts";
import { progressJson } from "../core/progress.ts";
import { checkedName, refuseUnknown, wholeNumber } from "../core/options.ts";
import { readFailure } from "../core/retry.ts";
import { uuidv7 } from "../core/uuid.ts";
import type { ForeignTransaction } from "../db/database.ts";
import type { Dependency } from "../jobs/dependencies-store.ts";
import { IsolatedTasks } from "../jobs/isolated.ts";
import { Lease } from "../jobs/ledger.ts";
import { RunningJob } from "../jobs/running.ts";
import type { Task } from "../jobs/task.ts";
import type { NewStep, StepRecord, StepStore } from "../steps/steps.ts";

export interface RunTaskOptions {
  /** Default 1. */
  attempt?: number;
  /** Default: the task's. */
  maxAttempts?: number;
  /** Default: the task's. */
  queue?: string;
  id?: string;
  /** When it aborts, so does the job's own signal, as when somebody cancels the job. */
  signal?: AbortSignal;
  /** What the jobs that it waited for have left. */
  dependencies?: readonly Dependency[];
  /** Payloads of the events that have come. A step that waits for another one is told that the time is over. Steps never sleep. */
  events?: Readonly<Record<string, unknown>>;
  /** Hears what the task logs, beside `logs`. */
  log?: Log;
  /** Chance for jitter, 0 to 1. Default: always the middle. */
  random?: () => number;
}

export interface LogLine {
  readonly level: keyof Log;
  readonly fields: object;
  readonly message: string;
}

/** What a worker would have made of the attempt. */
export interface TaskAttempt<Output> {
  /** `dead`: given up, whatever attempts are left. */
  readonly outcome: "succeeded" | "retry" | "dead" | "snoozed" | "cancelled";
  /** What `run` returned. */
  readonly result: Output | undefined;
  /** What `run` threw; undefined when it returned or snoozed. */
  readonly error: unknown;
  /** Of the attempt: its own, or the one Millrace gives. Undefined when it succeeded or snoozed. */
  readonly code: string | undefined;
  /** Until the job is due again, in ms, for `retry` and `snoozed`. */
  readonly delayMs: number | undefined;
  /** The transactions that `complete` was called with: one, or none. */
  readonly completedIn: readonly ForeignTransaction[];
  /** The newest that it said with `progress`; undefined: nothing. */
  readonly progress: unknown;
  readonly logs: readonly LogLine[];
}

const known: ReadonlySet<string> = new Set([
  "attempt",
  "maxAttempts",
  "queue",
  "id",
  "signal",
  "dependencies",
  "events",
  "log",
  "random",
]);

/**
 * Runs a task with this input and returns what it returns. Throws what it throws; `BAD_PAYLOAD` when its schema refuses the input,
 * `TIMEOUT` when it takes longer than its timeout in real time, and an error that says so when it snoozes: see `attemptTask`.
 */
export async function runTask<Input, Output>(
  task: Task<Input, Output>,
  input: NoInfer<Input>,
  options: RunTaskOptions = {},
): Promise<Output> {
  const attempt = await attemptTask(task, input, options);
  if (attempt.outcome === "succeeded") return attempt.result as Output;
  if (attempt.error !== undefined) throw attempt.error;
  if (attempt.outcome === "snoozed")
    throw new MillraceError(
      "JOB_STATE",
      `Task "${task.name}" snoozed for ${attempt.delayMs} ms; attemptTask would say so.`,
    );
  const code = attempt.outcome === "cancelled" ? "CANCELLED" : "TIMEOUT";
  throw new MillraceError(code, `Task "${task.name}" was told to end, and returned as if it had done its work.`);
}

/** Runs a task with this input and says what a worker would make of it. Never throws what the task throws. */
export async function attemptTask<Input, Output>(
  task: Task<Input, Output>,
  input: NoInfer<Input>,
  options: RunTaskOptions = {},
): Promise<TaskAttempt<Output>> {
  refuseUnknown("runTask", options, known);
  const attempt = wholeNumber(options.attempt ?? 1, "attempt", 1, 32_767);
  const maxAttempts = wholeNumber(options.maxAttempts ?? task.maxAttempts, "maxAttempts", 1, 32_767);
  const queue = checkedName(options.queue ?? task.queue, "queue");
  const id = options.id ?? uuidv7(Date.now());
  const logs: LogLine[] = [];
  const completedIn: ForeignTransaction[] = [];
  let progress: unknown;
  const engine = {
    maxResultBytes: Number.POSITIVE_INFINITY,
    stepsOf: () => stepsInMemory(options.events ?? {}),
    dependenciesOf: async () => [...(options.dependencies ?? [])],
  };
  const isolated = new IsolatedTasks(
    silent,
    engine,
    () => 1,
    (running) => (running.startedAt = performance.now()),
  );
  const job = new RunningJob(
    [1, id, 0, storableJson(input, Number.POSITIVE_INFINITY), attempt, maxAttempts, null],
    new Lease("0", 0, queue, performance.now(), 1),
    task,
    {
      log: noting(logs, options.log ?? silent),
      random: options.random ?? (() => 0.5),
      runIsolated: (running) => isolated.run(running),
      ...engine,
      notesOf: () => ({ mark: (value) => (progress = JSON.parse(progressJson(value))), say() {} }),
      worker: "test",
      tracing: undefined,
      completeWithin: async (tx) => completedIn.push(tx) > 0,
    },
  );
  const cancel = (): void => job.interrupt("cancelled");
  const { signal } = options;
  if (signal?.aborted) cancel();
  signal?.addEventListener("abort", cancel);
  const { timeoutMs } = task;
  const timer =
    timeoutMs > 0 ? setTimeout(() => job.interrupt("timeout"), Math.min(timeoutMs, 2 ** 31 - 1)) : undefined;
  job.startedAt = performance.now();
  let ended: { readonly value: unknown } | { readonly thrown: unknown };
  try {
    ended = { value: await job.execute() };
    job.output = ended.value;
    if (job.halted) ended = { thrown: job.halted };
  } catch (thrown) {
    ended = { thrown: job.halted ?? thrown };
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", cancel);
    await isolated.close();
  }
  return judged<Output>(job, ended, { completedIn, progress, logs });
}

function judged<Output>(
  job: RunningJob,
  ended: { readonly value: unknown } | { readonly thrown: unknown },
  seen: Pick<TaskAttempt<Output>, "completedIn" | "progress" | "logs">,
): TaskAttempt<Output> {
  const result = job.result(performance.now(), "thrown" in ended ? ended : undefined);
  // There is no transaction here that could have been rolled back.
  const succeeded = result.next === "done" || ("value" in ended && job.completed && job.interrupted === undefined);
  if (succeeded)
    return {
      ...seen,
      outcome: "succeeded",
      result: ("value" in ended ? ended.value : undefined) as Output,
      error: undefined,
      code: undefined,
      delayMs: undefined,
    };
  const snoozed = result.outcome === "snoozed";
  const givenUp = result.next === "retry" && job.attempt >= job.maxAttempts;
  return {
    ...seen,
    outcome: snoozed
      ? "snoozed"
      : result.next === "cancelled"
        ? "cancelled"
        : givenUp || result.next === "dead"
          ? "dead"
          : "retry",
    result: undefined,
    error: "thrown" in ended && !snoozed ? ended.thrown : undefined,
    code: snoozed ? undefined : (result.code ?? ("thrown" in ended ? readFailure(ended.thrown).code : undefined)),
    delayMs: snoozed || (result.next === "retry" && !givenUp) ? result.delayMs : undefined,
  };
}

/** Steps of a run that is never interrupted: nothing sleeps, and what has not come by now never comes. */
function stepsInMemory(events: Readonly<Record<string, unknown>>): StepStore<ForeignTransaction> {
  const over = ({ place, name, kind, event = "" }: NewStep): StepRecord => ({
    place,
    name,
    kind,
    finished: true,
    result: Object.hasOwn(events, event) ? events[event] : undefined,
    failure: null,
    event,
    leftMs: 0,
  });
  return {
    load: async () => [],
    keep: async () => 0,
    await: async (step) => over(step),
    giveUp: async (place) => over({ place, name: "", kind: "event", finished: true }),
    within: (step) =>
      Promise.reject(
        new MillraceError("STEP_INVALID", `Step "${step.name}" needs a database: test it with testMillrace instead.`),
      ),
  };
}

function noting(logs: LogLine[], log: Log): Log {
  const at =
    (level: keyof Log): Log["info"] =>
    (fields, message) => {
      logs.push({ level, fields, message });
      log[level](fields, message);
    };
  return { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
}
