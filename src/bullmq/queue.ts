/** A queue in the words of BullMQ. */
import type { Millrace } from "../app/millrace.ts";
import { MillraceError } from "../core/errors.ts";
import { checkedName, wholeNumber } from "../core/options.ts";
import { isUuid } from "../core/uuid.ts";
import type { Cleaned } from "../jobs/control-store.ts";
import type { Enqueued } from "../jobs/enqueue.ts";
import { readLogs } from "../jobs/notes-store.ts";
import type { JobStatus, Job as StoredJob } from "../jobs/read-store.ts";
import { type JobsOptions, enqueueOptions, keyOf } from "./job-options.ts";
import { type Door, Job, addedJob, storedJob } from "./job.ts";
import { countLog, freeKey, jobUnderKey } from "./store.ts";

export interface BulkJob<Data> {
  name: string;
  data: Data;
  opts?: JobsOptions;
}

export type CountedState = "waiting" | "active" | "completed" | "failed" | "delayed";
export type JobCounts = Record<CountedState, number>;

export interface JobLogs {
  logs: string[];
  /** Of all rows, whichever were asked for. */
  count: number;
}

/** A job about to be added, its options read. */
interface Order<Data> {
  readonly name: string;
  readonly data: Data;
  readonly queueName: string;
  readonly opts: JobsOptions;
  readonly options: ReturnType<typeof enqueueOptions>;
}

/** Jobs read at a time. */
const page = 500;
const farthest = Number.MAX_SAFE_INTEGER;

export class Queue<Data = unknown> {
  readonly name: string;
  readonly #connect: Door;
  readonly #defaults: JobsOptions;
  #closed = false;

  constructor(name: string, connect: Door, defaults: JobsOptions) {
    this.name = name;
    this.#connect = connect;
    this.#defaults = defaults;
  }

  /** Resolves when the job is durable. */
  async add(name: string, data: Data, opts: JobsOptions = {}): Promise<Job<Data>> {
    const order = this.#order({ name, data, opts });
    const mill = await this.#door();
    return this.#added(mill, order, await mill.enqueue(name, data, order.options));
  }

  /** All or none. Jobs in a row that differ by their data only share a statement. */
  async addBulk(jobs: readonly BulkJob<Data>[]): Promise<Job<Data>[]> {
    const orders = jobs.map((job) => this.#order(job));
    const mill = await this.#door();
    // Names learnt now need no look-up inside the transaction, which would take a second connection.
    await mill.names.queues.id(this.name);
    await mill.names.tasks.ids(orders.map(({ name }) => name));
    const enqueued = await mill.transaction(async (tx) => {
      const results: Enqueued[] = [];
      for (const group of alike(orders)) {
        const { name, options } = group[0] as Order<Data>;
        if (options.idempotencyKey === undefined) {
          const inputs = group.map(({ data }) => data);
          const ids = await mill.enqueueMany(name, inputs, { ...options, tx });
          results.push(...ids.map((id) => ({ id, duplicate: false })));
        } else {
          for (const { data } of group) results.push(await mill.enqueue(name, data, { ...options, tx }));
        }
      }
      return results;
    });
    return Promise.all(orders.map((order, i) => this.#added(mill, order, enqueued[i] as Enqueued)));
  }

  /** A job of this queue, by its id or by the `jobId` it was added under. */
  async getJob(id: string): Promise<Job<Data> | undefined> {
    const job = await this.#find(await this.#door(), id);
    return job === undefined ? undefined : storedJob(job, this.#door);
  }

  /**
   * Rows of a job's log from `start` to `end`, both included; -1 is the last one. The oldest first, or, unless `asc`, the newest.
   * None for a job that is not there. Throws `OPTION_INVALID`. Fields that a task of Millrace gave a row stand behind it as JSON.
   */
  async getJobLogs(id: string, start = 0, end = -1, asc = true): Promise<JobLogs> {
    for (const [name, place] of Object.entries({ start, end })) wholeNumber(place, name, -farthest, farthest);
    const mill = await this.#door();
    const job = await this.#find(mill, id);
    const count = job === undefined ? 0 : await countLog(mill.db, job.id);
    const first = start < 0 ? Math.max(count + start, 0) : start;
    const last = Math.min(end < 0 ? count + end : end, count - 1);
    if (job === undefined || first > last) return { logs: [], count };
    const lines = (await readLogs(mill.db, job.id, asc ? first : count - 1 - last, last - first + 1)) ?? [];
    const logs = lines.map(({ message, fields }) =>
      fields === null ? message : `${message} ${JSON.stringify(fields)}`,
    );
    return { logs: asc ? logs : logs.reverse(), count };
  }

  // Lists go from `start` to `end`, both included; -1 is the last one. Those that ended come newest first, others in their order.

  getWaiting(start?: number, end?: number): Promise<Job<Data>[]> {
    return this.#list("waiting", start, end);
  }

  getActive(start?: number, end?: number): Promise<Job<Data>[]> {
    return this.#list("active", start, end);
  }

  getDelayed(start?: number, end?: number): Promise<Job<Data>[]> {
    return this.#list("delayed", start, end);
  }

  getCompleted(start?: number, end?: number): Promise<Job<Data>[]> {
    return this.#list("completed", start, end);
  }

  getFailed(start?: number, end?: number): Promise<Job<Data>[]> {
    return this.#list("failed", start, end);
  }

  /** How many jobs are where. Jobs with a priority and jobs of a paused queue are waiting ones, too. */
  async getJobCounts(): Promise<JobCounts> {
    const [stats] = await (await this.#door()).stats(this.name);
    const { waiting = 0, active = 0, completed = 0, failed = 0, delayed = 0 } = stats ?? {};
    return { waiting, active, completed, failed, delayed };
  }

  async getWaitingCount(): Promise<number> {
    return (await this.getJobCounts()).waiting;
  }

  async getActiveCount(): Promise<number> {
    return (await this.getJobCounts()).active;
  }

  async getDelayedCount(): Promise<number> {
    return (await this.getJobCounts()).delayed;
  }

  async getCompletedCount(): Promise<number> {
    return (await this.getJobCounts()).completed;
  }

  async getFailedCount(): Promise<number> {
    return (await this.getJobCounts()).failed;
  }

  /** Nothing of this queue starts, in any process, until it is resumed. Jobs that run go on. */
  async pause(): Promise<void> {
    await (await this.#door()).pause(this.name);
  }

  async resume(): Promise<void> {
    await ifThere((await this.#door()).resume(this.name), undefined);
  }

  async isPaused(): Promise<boolean> {
    const [stats] = await (await this.#door()).stats(this.name);
    return stats?.paused ?? false;
  }

  /** Deletes jobs, completed, failed and cancelled, that ended more than `graceMs` ago. */
  async clean(graceMs: number, ...more: never[]): Promise<Cleaned> {
    // BullMQ's limit and type: ignoring the type would delete what was to be kept.
    if (more.length > 0)
      throw new MillraceError(
        "OPTION_INVALID",
        "queue.clean takes a grace only; it removes completed, failed and cancelled jobs alike, all that are older.",
      );
    return ifThere((await this.#door()).clean(this.name, graceMs), { completed: 0, failed: 0, cancelled: 0 });
  }

  /** This object works no more; the queue and its worker go on. */
  async close(): Promise<void> {
    this.#closed = true;
  }

  readonly #door: Door = async () => {
    if (this.#closed) throw new MillraceError("CLOSED", `This object of the queue "${this.name}" is closed.`);
    return this.#connect();
  };

  async #find(mill: Millrace, id: string): Promise<StoredJob | undefined> {
    const byId = isUuid(id) ? await mill.job(id) : undefined;
    const key = byId === undefined ? await jobUnderKey(mill.db, keyOf(this.name, id)) : undefined;
    const job = byId ?? (key === undefined ? undefined : await mill.job(key));
    return job?.queue === this.name ? job : undefined;
  }

  #order({ name, data, opts = {} }: BulkJob<Data>): Order<Data> {
    const all = { ...this.#defaults, ...opts };
    const options = { ...enqueueOptions(this.name, all), queue: this.name };
    return { name: checkedName(name, "task"), data, queueName: this.name, opts: all, options };
  }

  /** The job that came of it: a new one, or the one that has its `jobId` already. */
  async #added(mill: Millrace, order: Order<Data>, { id, duplicate }: Enqueued): Promise<Job<Data>> {
    if (!duplicate) return addedJob(id, order, this.#door);
    const earlier = await mill.job(id);
    if (earlier !== undefined) return storedJob(earlier, this.#door);
    // It was removed, and with it goes its claim to the id.
    await freeKey(mill.db, order.name, order.options.idempotencyKey as string, id);
    return this.#added(mill, order, await mill.enqueue(order.name, order.data, order.options));
  }

  async #list(status: JobStatus, start = 0, end = -1): Promise<Job<Data>[]> {
    const mill = await this.#door();
    // A place counted from the end is known once all are read.
    const last = start < 0 || end < 0 ? Number.POSITIVE_INFINITY : end;
    const found: Job<Data>[] = [];
    for (let after: string | null | undefined; after !== null && found.length <= last;) {
      const { jobs, next } = await mill.jobs({
        status,
        queue: this.name,
        limit: Math.min(page, last - found.length + 1),
        ...(after === undefined ? {} : { after }),
      });
      found.push(...jobs.map((job) => storedJob<Data>(job, this.#door)));
      after = next;
    }
    return found.slice(start, end === -1 ? undefined : end + 1);
  }
}

/** Cuts the row into stretches of one name and the same options. */
function alike<Data>(orders: readonly Order<Data>[]): Order<Data>[][] {
  const stretches: Order<Data>[][] = [];
  let kind = "";
  for (const order of orders) {
    const next = JSON.stringify([order.name, order.opts]);
    if (next === kind) stretches.at(-1)?.push(order);
    else stretches.push([order]);
    kind = next;
  }
  return stretches;
}

/** A queue exists from its first job on; to BullMQ's users it always does, and is empty. */
async function ifThere<Result>(done: Promise<Result>, otherwise: Result): Promise<Result> {
  try {
    return await done;
  } catch (error) {
    if (error instanceof MillraceError && error.code === "QUEUE_NOT_FOUND") return otherwise;
    throw error;
  }
}
