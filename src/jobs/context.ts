/** What a task's `run` is given: the job it runs for, and the few things it can ask of the engine. */
import type { Duration } from "../core/duration.ts";
import type { Log } from "../core/log.ts";
import type { ForeignTransaction } from "../db/database.ts";
import type { StepContext } from "../steps/steps.ts";
import type { Dependency } from "./dependencies-store.ts";

export interface JobContext<Input = unknown> {
  /** The job's input, validated by the task's schema. */
  readonly input: Input;
  readonly id: string;
  readonly task: string;
  readonly queue: string;
  /** From 1. */
  readonly attempt: number;
  readonly maxAttempts: number;
  /** The schedule that enqueued it, and the tick it stands for, which was earlier. Undefined for every other job. */
  readonly schedule: { readonly name: string; readonly at: Date } | undefined;
  /** Aborted on timeout, when somebody cancels the job, and when the worker must stop. Pass it to everything that takes one. */
  readonly signal: AbortSignal;
  /** The worker's log, with this job's id, task and attempt. What is more than debugging is also kept with the job (`mill.logs`). */
  readonly log: Log;
  /**
   * Says how far the job is: a number from 0 to 100, or an object of 4 096 bytes of JSON at most. The newest counts; it is written
   * within 250 ms. Throws `PROGRESS_INVALID`.
   */
  readonly progress: (value: number | object) => void;
  /** Ends this attempt and repeats it after the pause, without using an attempt up. Throws; nothing after it runs. */
  readonly snooze: (pause: Duration) => never;
  /** Durable steps: what is done is not done again when the job runs anew. */
  readonly step: StepContext<ForeignTransaction>;
  /** What the jobs that this one waited for returned, in the order in which the flow named them. */
  readonly dependencies: () => Promise<Dependency[]>;
  /**
   * Marks the job as done inside your own transaction, together with your writes: both commit or neither. Call it last, once.
   * `result` is kept like one that is returned. Throws `JOB_STATE` when the worker has lost this job meanwhile, so that your
   * transaction rolls back.
   */
  readonly complete: (tx: ForeignTransaction, result?: unknown) => Promise<void>;
}
