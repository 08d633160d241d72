/** One job on a worker, from claim to result. Cheap until used: the input is parsed, and a signal made, when the task asks. */
import { type Duration, describeMs, durationMs, wholeMs } from "../core/duration.ts";
import { MillraceError } from "../core/errors.ts";
import { storableJson } from "../core/json.ts";
import type { Log } from "../core/log.ts";
import { type BackoffRule, Snooze, readFailure, retryDelayMs } from "../core/retry.ts";
import type { ForeignTransaction } from "../db/database.ts";
import type { ClaimedOptions, ClaimedRow } from "./claim-store.ts";
import type { Dependency } from "./dependencies-store.ts";
import type { JobContext } from "./context.ts";
import type { Lease } from "./ledger.ts";
import { type Notes, taskLog } from "./notes.ts";
import type { Result } from "./settle-store.ts";
import type { RunSpan, Tracing } from "../telemetry/tracing.ts";
import { type StepContext, type StepStore, Steps, Suspension } from "../steps/steps.ts";
import { type AnyTask, validate } from "./task.ts";

/** What a job needs of its worker. */
export interface Host {
  readonly log: Log;
  readonly random: () => number;
  /** Largest JSON of what a task returns. */
  readonly maxResultBytes: number;
  completeWithin(tx: ForeignTransaction, job: RunningJob, result: string | null): Promise<boolean>;
  dependenciesOf(job: RunningJob): Promise<Dependency[]>;
  stepsOf(job: RunningJob): StepStore<ForeignTransaction>;
  notesOf(job: RunningJob): Notes;
  /** Runs a task that is not to run in this thread. */
  runIsolated(job: RunningJob): Promise<unknown>;
  readonly worker: string;
  readonly tracing: Tracing | undefined;
}

/** Why a running job was asked to end. */
export type Interruption = "timeout" | "shutdown" | "lease_lost" | "cancelled";

export class RunningJob implements JobContext {
  readonly id: string;
  readonly taskId: number;
  readonly attempt: number;
  readonly maxAttempts: number;
  /** Its number in the lease, from 0. */
  readonly place: number;
  readonly lease: Lease;
  /** Undefined when this worker's app has no such task. */
  readonly definition: AnyTask | undefined;
  readonly #host: Host;
  readonly #inputText: string;
  readonly #options: ClaimedOptions | undefined;
  #input: unknown;
  #abort: AbortController | undefined;
  #steps: Steps<ForeignTransaction> | undefined;
  #notes: Notes | undefined;
  #compared = false;
  /** The run is done, but was not the one that was begun. */
  #strayed: { thrown: unknown } | undefined;
  #interrupted: Interruption | undefined;
  /** performance.now() when it was asked to end. */
  interruptedAt = 0;
  /** performance.now() at the start of `run`. */
  startedAt = 0;
  completed = false;
  /** What `run` returned. */
  output: unknown;
  /** Started, and waiting for a thread or process of its own: its time has not begun. */
  queued = false;
  /** Of this run, when somebody takes spans. */
  span: RunSpan | undefined;
  /** Hears of the interruption. Unlike `signal`, it does not tell that the task has looked. */
  onInterrupt: ((reason: Error) => void) | undefined;

  constructor(row: ClaimedRow, lease: Lease, definition: AnyTask | undefined, host: Host) {
    this.place = row[0] - 1;
    this.id = row[1];
    this.taskId = row[2];
    this.#inputText = row[3];
    this.attempt = row[4];
    this.maxAttempts = row[5];
    this.#options = row[6] === null ? undefined : (JSON.parse(row[6]) as ClaimedOptions);
    this.lease = lease;
    this.definition = definition;
    this.#host = host;
  }

  /** Runs the task. Returns what `run` returned, which may be a promise; throws what it threw. */
  execute(): unknown {
    const { tracing, worker } = this.#host;
    if (tracing === undefined || !tracing.on) return this.#execute();
    const { id, task, queue, attempt } = this;
    const heldMs = this.startedAt - this.lease.claimedAt;
    const { trace, waited_ms: waitedMs = 0, delay_ms: delayMs = 0 } = this.#options ?? {};
    this.span = tracing.process({ id, task, queue, attempt, worker, heldMs, waitedMs, delayMs, trace });
    return this.span.within(() => this.#execute());
  }

  #execute(): unknown {
    const { definition } = this;
    if (definition === undefined)
      throw new MillraceError("UNKNOWN_JOB_TYPE", "This worker's app defines no task of this job's name.");
    if (definition.schema === undefined) return this.#run(definition);
    const valid = validate(definition.name, definition.schema, this.input);
    if (!(valid instanceof Promise)) {
      this.#input = valid;
      return this.#run(definition);
    }
    return valid.then((value: unknown) => {
      this.#input = value;
      return this.#run(definition);
    });
  }

  #run(definition: AnyTask): unknown {
    if (definition.isolate) return this.#host.runIsolated(this);
    return definition.run(this as JobContext as JobContext<never>);
  }

  /** Somebody waits for its end. */
  get watched(): boolean {
    return this.#options?.watched === true;
  }

  /** If it ends well, nothing is to be written but that. */
  get isPlain(): boolean {
    return this.output === undefined && !this.completed && !this.watched && this.#steps === undefined;
  }

  /** Steps of it were kept by an attempt before. */
  get hasSteps(): boolean {
    return this.#options?.steps === true;
  }

  /**
   * What has to be over before the attempt is: steps under way, and, when the run is done, a look whether it has left steps out. A
   * thread or process sees to both by itself.
   */
  rest(ended: { thrown: unknown } | undefined): Promise<void> | undefined {
    const underWay = this.#steps?.underWay;
    if (underWay !== undefined) return underWay.then(() => undefined);
    if (!this.hasSteps || this.definition?.isolate) return undefined;
    const leftOut = ended === undefined && !this.completed && this.halted === undefined;
    if (!leftOut || this.#compared) return undefined;
    this.#compared = true;
    return this.#ownSteps.ended().catch((error: unknown) => {
      this.#strayed = { thrown: error };
    });
  }

  get #ownSteps(): Steps<ForeignTransaction> {
    this.#steps ??= new Steps(this.#host.stepsOf(this), {
      hasRecords: this.hasSteps,
      maxBytes: this.#host.maxResultBytes,
      interrupted: this.#interrupted && interruption(this.#interrupted, this.timeoutMs),
    });
    return this.#steps;
  }

  /** With what its steps ended the attempt, whatever the task made of that. */
  get halted(): Error | undefined {
    return this.#steps?.halted;
  }

  get timeoutMs(): number {
    return this.#options?.timeout_ms ?? this.definition?.timeoutMs ?? 0;
  }

  get interrupted(): Interruption | undefined {
    return this.#interrupted;
  }

  /** Asks the task to end. What it does afterwards is judged by `result`. */
  interrupt(why: Interruption): void {
    if (this.#interrupted !== undefined) return;
    this.#interrupted = why;
    this.interruptedAt = performance.now();
    const reason = interruption(why, this.timeoutMs);
    this.#abort?.abort(reason);
    this.#steps?.interrupt(reason);
    this.onInterrupt?.(reason);
  }

  /** The task, which runs elsewhere, looked at its signal there. */
  looked(): void {
    this.#abort ??= new AbortController();
  }

  /** The result of an attempt that ended, normally (`thrown` absent) or by throwing. */
  result(now: number, how: { thrown: unknown } | undefined): Result {
    const ended = this.halted === undefined ? (how ?? this.#strayed) : { thrown: this.halted };
    const base = {
      lease: this.lease.id,
      jobId: this.id,
      attempt: this.attempt,
      startedMs: wholeMs(this.startedAt - this.lease.claimedAt),
      tookMs: wholeMs(now - this.startedAt),
      completed: this.completed,
      watched: this.watched,
      task: this.task,
    };
    // A task that caught its abort and returned looks like a success; believing it would lose the work.
    if (this.#interrupted === "timeout") {
      const message = `The attempt took longer than its timeout of ${describeMs(this.timeoutMs)}.`;
      return { ...base, outcome: "timed_out", next: "retry", code: "TIMEOUT", message, delayMs: this.#retryDelay(0) };
    }
    if (this.#interrupted === "shutdown" && (ended !== undefined || this.#abort !== undefined)) {
      return {
        ...base,
        outcome: "snoozed",
        next: "again",
        code: "WORKER_SHUTDOWN",
        message: "The worker stopped before the job was done.",
        delayMs: 0,
      };
    }
    // One that never looked at its signal and returned has done its work: the cancel came too late.
    if (this.#interrupted === "cancelled" && (ended !== undefined || this.#abort !== undefined))
      return { ...base, ...cancelledResult };
    if (ended?.thrown instanceof Suspension && !this.completed) return { ...base, ...suspended(ended.thrown) };
    if (ended === undefined && this.completed) {
      // History knows whether it is done. If not, the task kept quiet about its transaction having been rolled back.
      const message = "The task completed this job inside a transaction that did not commit.";
      return {
        ...base,
        outcome: "failed",
        next: "retry",
        code: "NOT_COMMITTED",
        message,
        delayMs: this.#retryDelay(0),
      };
    }
    if (ended === undefined) return { ...base, ...this.#success() };
    if (ended.thrown instanceof Snooze)
      return { ...base, outcome: "snoozed", next: "again", delayMs: ended.thrown.pauseMs };
    const { code, message, stack, retryable, retryAfterMs } = readFailure(ended.thrown);
    if (!retryable) return { ...base, outcome: "failed", next: "dead", code, message, stack };
    return { ...base, outcome: "failed", next: "retry", code, message, stack, delayMs: this.#retryDelay(retryAfterMs) };
  }

  /** The result of a job that is cancelled before it was started. */
  get cancelledUnstarted(): Result {
    const { lease, id, attempt, task, watched } = this;
    return { lease: lease.id, jobId: id, attempt, task, watched, startedMs: null, tookMs: 0, ...cancelledResult };
  }

  /** What it did is done, so that a result nobody can keep makes it a dead letter, not another try. */
  #success(): Pick<Result, "outcome" | "next" | "result" | "code" | "message"> {
    try {
      return { outcome: "succeeded", next: "done", result: this.#keepable(this.output) };
    } catch (error) {
      return { outcome: "failed", next: "dead", code: "RESULT_NOT_STORABLE", message: (error as Error).message };
    }
  }

  #keepable(output: unknown): string | undefined {
    if (output === undefined) return undefined;
    try {
      return storableJson(output, this.#host.maxResultBytes, "result");
    } catch (cause) {
      throw new MillraceError("RESULT_NOT_STORABLE", (cause as Error).message, { cause });
    }
  }

  #retryDelay(atLeastMs: number): number {
    const rule: BackoffRule | undefined = this.#options?.backoff ?? this.definition?.backoff;
    return Math.max(atLeastMs, rule ? retryDelayMs(rule, this.attempt, this.#host.random()) : 0);
  }

  // What the task sees ————————————————————————————————————————————————————————————————————————————————————————————————————

  get input(): unknown {
    if (this.#input === undefined) this.#input = JSON.parse(this.#inputText);
    return this.#input;
  }

  get task(): string {
    return this.definition?.name ?? "";
  }

  get queue(): string {
    return this.lease.queueName;
  }

  get schedule(): { name: string; at: Date } | undefined {
    const by = this.#options?.schedule;
    return by && { name: by.name, at: new Date(by.at) };
  }

  /** One AbortController per job costs a third of the drain rate, so there is none until somebody looks. */
  get signal(): AbortSignal {
    if (this.#abort === undefined) {
      this.#abort = new AbortController();
      if (this.#interrupted !== undefined) this.#abort.abort(interruption(this.#interrupted, this.timeoutMs));
    }
    return this.#abort.signal;
  }

  get log(): Log {
    return taskLog(this.#host.log, this, (level, fields, message) => {
      if (this.definition?.keepLogs) this.#ownNotes.say(level, fields, message);
    });
  }

  get progress(): (value: unknown) => void {
    return (value) => this.#ownNotes.mark(value);
  }

  get #ownNotes(): Notes {
    this.#notes ??= this.#host.notesOf(this);
    return this.#notes;
  }

  get snooze(): (pause: Duration) => never {
    return (pause) => {
      throw new Snooze(durationMs(pause, "snooze"));
    };
  }

  get step(): StepContext<ForeignTransaction> {
    return this.#ownSteps;
  }

  get dependencies(): () => Promise<Dependency[]> {
    return () => this.#host.dependenciesOf(this);
  }

  get complete(): (tx: ForeignTransaction, result?: unknown) => Promise<void> {
    return async (tx, result) => {
      const text = this.#keepable(result) ?? null;
      if (this.completed) throw new MillraceError("JOB_STATE", `Job ${this.id} was completed already.`);
      this.completed = true;
      const held = await this.#host.completeWithin(tx, this, text).catch((error: unknown) => {
        this.completed = false; // a transaction in which a statement failed cannot commit
        throw error;
      });
      if (held) return;
      throw new MillraceError("JOB_STATE", `Job ${this.id} is no longer this worker's; roll your transaction back.`);
    };
  }
}

/** A sleep, or a wait for an event that may come this very moment. */
function suspended({
  step,
  pauseMs,
}: Suspension): Pick<Result, "outcome" | "next" | "code" | "message" | "delayMs" | "waitPlace"> {
  const { kind, name, event, place } = step;
  const what = kind === "event" ? `Waits for event "${event}" in step "${name}".` : `Sleeps in step "${name}".`;
  return {
    outcome: "snoozed",
    next: "again",
    code: kind === "event" ? "STEP_WAITS" : "STEP_SLEEPS",
    message: what,
    delayMs: pauseMs,
    waitPlace: kind === "event" ? place : undefined,
  };
}

/** By whom and why, the database knows, and writes it in place of this message. */
const cancelledResult = {
  outcome: "cancelled",
  next: "cancelled",
  code: "CANCELLED",
  message: "Cancelled.",
} as const;

function interruption(why: Interruption, timeoutMs: number): Error {
  if (why === "timeout")
    return new MillraceError("TIMEOUT", `The attempt took longer than its timeout of ${describeMs(timeoutMs)}.`);
  if (why === "cancelled") return new MillraceError("CANCELLED", "Somebody cancelled this job.");
  if (why === "shutdown") return new MillraceError("WORKER_SHUTDOWN", "The worker is stopping.");
  return new MillraceError(
    "WORKER_LOST",
    "This worker stopped beating for too long and its jobs were given to others.",
  );
}
