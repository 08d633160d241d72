/** A job as Bull Board wants it: what `millrace/bullmq` says of it, with its result, its logs' place and what can be done to it. */
import type { QueueJob, QueueJobJson } from "@bull-board/api/typings/app";
import type { Millrace } from "../app/millrace.ts";
import { type Job as Words, storedJob } from "../bullmq/job.ts";
import { MillraceError } from "../core/errors.ts";
import { type Job, type JobStatus, findJobs } from "../jobs/read-store.ts";
import { by } from "./asker.ts";
import { readResults } from "./store.ts";

/** Bull Board's words for where a job is. It has none for `cancelled`. */
export type BoardState = "waiting" | "delayed" | "waiting-children" | "active" | "completed" | "failed";

interface BoardOptions {
  readonly attempts?: number;
  readonly priority?: number;
  readonly delay?: number;
  readonly parent?: { readonly id: string; readonly queue: string };
}

export class BoardJob implements QueueJob {
  readonly id: string;
  readonly name: string;
  readonly queueName: string;
  /** Told apart by it where one board shows queues of the same name; here a queue's name is enough. */
  readonly queueQualifiedName: string;
  readonly progress: number | object;
  readonly opts: BoardOptions;
  readonly #mill: Millrace;
  readonly #job: Job;
  readonly #words: Words;
  readonly #result: unknown;

  constructor(mill: Millrace, job: Job, result: unknown, parent?: { id: string; queue: string }) {
    const words = storedJob(job, async () => mill);
    this.id = words.id;
    this.name = words.name;
    this.queueName = words.queueName;
    this.queueQualifiedName = words.queueName;
    this.progress = words.progress;
    const { attempts, priority } = words.opts;
    this.opts = {
      ...(attempts === undefined ? {} : { attempts }),
      ...(priority ? { priority } : {}),
      ...(job.status === "delayed" ? { delay: delayOf(job) } : {}),
      ...(parent === undefined ? {} : { parent }),
    };
    this.#mill = mill;
    this.#job = job;
    this.#words = words;
    this.#result = result;
  }

  toJSON(): QueueJobJson {
    const { id, name, data, attemptsMade, timestamp, processedOn, finishedOn, failedReason, stacktrace } = this.#words;
    return {
      id,
      name,
      data,
      progress: this.progress,
      attemptsMade,
      timestamp,
      processedOn: processedOn ?? null,
      finishedOn: finishedOn ?? null,
      processedBy: this.#job.worker,
      delay: this.opts.delay ?? 0,
      // Bull Board's type has a text here and its code, as BullMQ's, undefined: no failure.
      failedReason: failedReason as string,
      stacktrace: [...stacktrace],
      returnvalue: this.#result,
      opts: this.opts,
      ...(this.opts.priority === undefined ? {} : { priority: this.opts.priority }),
    };
  }

  /** Where it is now, and not when it was read. */
  async getState(): Promise<BoardState | "unknown"> {
    const job = await this.#mill.job(this.id);
    return job === undefined ? "unknown" : stateOf(job.status);
  }

  async retry(): Promise<void> {
    await this.#mill.retry(this.id, { by: by() });
  }

  async remove(): Promise<void> {
    await this.#mill.remove(this.id);
  }

  async promote(): Promise<void> {
    await this.#mill.promote(this.id, { by: by() });
  }

  /** `delay`: ms from now. */
  async changeDelay(delay: number): Promise<void> {
    await this.#mill.reschedule(this.id, delay, { by: by() });
  }

  /** As BullMQ counts: 1 before 2, and those without before both. */
  async changePriority({ priority = 0 }: { priority?: number }): Promise<void> {
    await this.#mill.reprioritise(this.id, 0 - priority, { by: by() });
  }

  /** There, or Bull Board would say that it was done. */
  async updateData(): Promise<void> {
    throw new MillraceError(
      "BAD_REQUEST",
      `What job ${this.id} was asked stays as it was asked. Make a new job of it with other data: "Duplicate" here, or \`millrace replay\`.`,
    );
  }
}

function stateOf(status: JobStatus): BoardState {
  if (status === "blocked") return "waiting-children";
  return status === "cancelled" ? "failed" : status;
}

/** In the order of the ids; those that are gone are left out. */
export async function boardJobs(mill: Millrace, ids: readonly string[]): Promise<BoardJob[]> {
  if (ids.length === 0) return [];
  const [jobs, results] = await Promise.all([findJobs(mill.db, ids), readResults(mill.db, ids)]);
  return jobs.map((job) => new BoardJob(mill, job, results.get(job.id)));
}

/** Of a job whose due time is far behind the time it was added at, too: Bull Board shows the sum of both. None while it waits for others. */
function delayOf({ runAt, createdAt }: Job): number {
  return runAt === null ? 0 : Math.max(0, runAt.getTime() - createdAt.getTime());
}
