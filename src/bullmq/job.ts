/** A job in the words of BullMQ: a view made when it was read, added or started, and what can be done with it. */
import type { Millrace } from "../app/millrace.ts";
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
    },
    door,
  );
}

/** A UUID of version 7 begins with the milliseconds at which it was made. */
function timeOf(id: string): number {
  return Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16);
}
