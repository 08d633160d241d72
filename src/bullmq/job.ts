/** A job in the words of BullMQ: a view made when it was read, added or started, and what can be done with it. */
import type { Millrace } from "../app/millrace.ts";
import { MillraceError } from "../core/errors.ts";
import type { Job as StoredJob } from "../jobs/read-store.ts";
import type { RunningJob } from "../jobs/running.ts";
import type { JobsOptions } from "./job-options.ts";

/** The way to the database, which may be yet to connect. */
export type Door = () => Promise<Millrace>;

/** BullMQ's states. It has no word for `cancelled`; a job that is gone is `unknown`. */
export type JobState =
  | "waiting"
  | "delayed"
  | "active"
  | "completed"
  | "failed"
  | "waiting-children"
  | "cancelled"
  | "unknown";

/** A number from 0 to 100, or an object of at most 4 096 bytes of JSON. */
export type JobProgress = number | object;

/** What a job can say while it runs. */
type Voice = Pick<RunningJob, "log" | "progress">;

interface Facts<Data> {
  readonly id: string;
  readonly name: string;
  readonly queueName: string;
  readonly data: Data;
  readonly opts: JobsOptions;
  readonly timestamp: number;
  readonly attemptsMade?: number;
  readonly failedReason?: string | undefined;
  readonly stacktrace?: string[];
  readonly processedOn?: number | undefined;
  readonly finishedOn?: number | undefined;
  readonly progress?: JobProgress;
  /** Undefined unless it runs. */
  readonly voice?: Voice;
}

export class Job<Data = unknown> {
  /** A UUID, also when it was added under a `jobId` of yours; `queue.getJob` finds it by both. */
  readonly id: string;
  readonly name: string;
  readonly queueName: string;
  readonly data: Data;
  /** All of them on a job just added; `attempts` and `priority` on one that was read; `attempts` on one that runs. */
  readonly opts: JobsOptions;
  /** When it was added. This and the other times in milliseconds since 1970. */
  readonly timestamp: number;
  /** Attempts that have ended. */
  readonly attemptsMade: number;
  /** Why its last attempt failed. */
  readonly failedReason: string | undefined;
  /** Where its last attempt failed; the ones before are in its history. */
  readonly stacktrace: string[];
  readonly processedOn: number | undefined;
  readonly finishedOn: number | undefined;
  readonly #door: Door;
  readonly #voice: Voice | undefined;
  #progress: JobProgress;

  constructor(facts: Facts<Data>, door: Door) {
    this.id = facts.id;
    this.name = facts.name;
    this.queueName = facts.queueName;
    this.data = facts.data;
    this.opts = facts.opts;
    this.timestamp = facts.timestamp;
    this.attemptsMade = facts.attemptsMade ?? 0;
    this.failedReason = facts.failedReason;
    this.stacktrace = facts.stacktrace ?? [];
    this.processedOn = facts.processedOn;
    this.finishedOn = facts.finishedOn;
    this.#door = door;
    this.#voice = facts.voice;
    this.#progress = facts.progress ?? 0;
  }

  /** What it had said last when it was read; on one that runs, what this attempt said. 0 until then. */
  get progress(): JobProgress {
    return this.#progress;
  }

  /**
   * For processors. Resolves at once; it is stored within 250 ms, and before the job ends. Throws `PROGRESS_INVALID`, and
   * `JOB_STATE` when this is not the job that a processor was given.
   */
  async updateProgress(progress: JobProgress): Promise<void> {
    this.#speak("updateProgress").progress(progress);
    this.#progress = progress;
  }

  /**
   * For processors: adds a row to the job's log, which keeps the first 10 000 of at most 2 000 characters, and to the worker's.
   * Resolves at once, like `updateProgress`. Throws `JOB_STATE` when this is not the job that a processor was given.
   */
  async log(row: string): Promise<void> {
    this.#speak("log").log.info({}, row);
  }

  async getState(): Promise<JobState> {
    const job = await (await this.#door()).job(this.id);
    if (job === undefined) return "unknown";
    return job.status === "blocked" ? "waiting-children" : job.status;
  }

  /** Runs a failed job again, once more than its attempts allow. Throws `JOB_STATE` when it is not failed. */
  async retry(): Promise<void> {
    await (await this.#door()).retry(this.id);
  }

  /** Removes it with its history. Throws `JOB_STATE` while it runs. */
  async remove(): Promise<void> {
    await (await this.#door()).remove(this.id);
  }

  /** Makes a delayed job due now. Throws `JOB_STATE` when it is not delayed. */
  async promote(): Promise<void> {
    await (await this.#door()).promote(this.id);
  }

  #speak(method: string): Voice {
    if (this.#voice !== undefined) return this.#voice;
    throw new MillraceError("JOB_STATE", `job.${method} is for the job that a processor is given, while it runs.`);
  }
}

/** A job as the engine reads it. */
export function storedJob<Data>(job: StoredJob, door: Door): Job<Data> {
  const ended = job.status === "completed" || job.status === "failed" || job.status === "cancelled";
  // A success after failures has no reason left.
  const well = job.status === "completed";
  return new Job(
    {
      id: job.id,
      name: job.task,
      queueName: job.queue,
      data: job.input as Data,
      opts: { attempts: job.maxAttempts, priority: 0 - job.priority },
      timestamp: job.createdAt.getTime(),
      attemptsMade: ended ? job.attempt : job.attempt - 1,
      failedReason: (well ? null : job.lastErrorMessage) ?? undefined,
      stacktrace: well || job.lastErrorStack === null ? [] : [job.lastErrorStack],
      processedOn: job.startedAt?.getTime(),
      finishedOn: job.finishedAt?.getTime(),
      progress: job.progress ?? 0,
    },
    door,
  );
}

/** A job just added. */
export function addedJob<Data>(
  id: string,
  asked: { readonly queueName: string; readonly name: string; readonly data: Data; readonly opts: JobsOptions },
  door: Door,
): Job<Data> {
  return new Job({ ...asked, id, timestamp: timeOf(id) }, door);
}

/** A job on its worker, under the name it was added with. */
export function runningJob<Data>(job: RunningJob, name: string, processedOn: number, door: Door): Job<Data> {
  return new Job(
    {
      id: job.id,
      name,
      queueName: job.queue,
      data: job.input as Data,
      opts: { attempts: job.maxAttempts },
      timestamp: timeOf(job.id),
      attemptsMade: job.attempt - 1,
      processedOn,
      voice: job,
    },
    door,
  );
}

/** A UUID of version 7 begins with the milliseconds at which it was made. */
function timeOf(id: string): number {
  return Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16);
}
