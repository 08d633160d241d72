/**
 * One queue as Bull Board's adapter: what it shows and what it does, in Millrace's words. What is done to many jobs is a bulk
 * operation, which goes on when the answer has gone out.
 */
import { BaseAdapter } from "@bull-board/api/dist/queueAdapters/base.js";
import type {
  AppJobScheduler,
  JobCounts,
  JobSchedulerRepeatOptions,
  JobSchedulerUpdateResult,
  JobStatus,
  QueueMetrics,
  QueueRateLimit,
  QueueWorker,
  RedisStats,
  Status,
} from "@bull-board/api/typings/app";
import type { BulkFilter } from "../app/bulk.ts";
import type { Millrace } from "../app/millrace.ts";
import { type ErrorCode, MillraceError } from "../core/errors.ts";
import { idsAt, reachMax } from "../jobs/list-store.ts";
import type { Policy } from "../jobs/policy.ts";
import { moveJobs } from "../jobs/orders-store.ts";
import type { JobStatus as OwnStatus } from "../jobs/read-store.ts";
import type { QueueStats } from "../jobs/stats-store.ts";
import { readOptions } from "./add-job.ts";
import { type FlowReader, flowReader } from "./flows.ts";
import { BoardJob, boardJobs, by } from "./job.ts";
import type { Look } from "./look.ts";
import { changesOf, schedulerOf } from "./schedulers.ts";
import { type NumberedQueue, countMinutes, findDependent, minutesShown, readServer } from "./store.ts";

/** In Bull Board's order. Jobs with a priority are among the waiting ones, and those of a paused queue too: there are no such places here. */
const places = [
  "active",
  "waiting",
  "waiting-children",
  "completed",
  "failed",
  "delayed",
] as const satisfies JobStatus[];

/** What is to be found in each, one list behind the other. Bull Board says `wait` where it cleans. */
const statusesIn: Readonly<Record<string, readonly OwnStatus[]>> = {
  active: ["active"],
  waiting: ["waiting"],
  wait: ["waiting"],
  "waiting-children": ["blocked"],
  completed: ["completed"],
  failed: ["failed", "cancelled"],
  delayed: ["delayed"],
};

/** Jobs moved in one transaction, and lines of a log read at a time. */
const batch = 500;
const logPage = 1_000;
/** How long an answer waits for a bulk operation, so that what is shown next is what it did. */
const patience = "2s";
/** Word by word what BullMQ says: Bull Board knows it by nothing else. */
const refusal = "Cannot obliterate queue with active jobs";

export class QueueAdapter extends BaseAdapter {
  readonly #mill: Millrace;
  readonly #look: Look;
  readonly #id: number;
  readonly #name: string;

  constructor(mill: Millrace, look: Look, { id, name }: NumberedQueue, readOnlyMode: boolean) {
    // A job that completed is not run again here: "Duplicate" makes a new one.
    super("bullmq", { readOnlyMode, allowCompletedRetries: false });
    this.#mill = mill;
    this.#look = look;
    this.#id = id;
    this.#name = name;
  }

  getName(): string {
    return this.#name;
  }

  // What is there

  getStatuses(): Status[] {
    return ["latest", ...places];
  }

  getJobStatuses(): JobStatus[] {
    return [...places];
  }

  async getJobCounts(): Promise<JobCounts> {
    const [stats, more] = await Promise.all([this.#stats(), this.#look.more()]);
    const { blocked = 0, cancelled = 0 } = more.find(({ name }) => name === this.#name) ?? {};
    const { waiting = 0, active = 0, completed = 0, failed = 0, delayed = 0 } = stats ?? {};
    return {
      active,
      waiting,
      "waiting-children": blocked,
      completed,
      failed: failed + cancelled,
      // Counted a moment apart.
      delayed: Math.max(0, delayed - blocked),
      prioritized: 0,
      paused: 0,
      latest: 0,
    };
  }

  /** From `start` to `end`, both included, of each of the places. Throws `OPTION_INVALID` beyond the 100 000th of one. */
  async getJobs(statuses: readonly string[], start = 0, end = start + 9): Promise<BoardJob[]> {
    if (end >= reachMax)
      throw new MillraceError(
        "OPTION_INVALID",
        `Pages go as far as the ${reachMax}th job here; \`millrace jobs\` and \`GET /jobs\` find those behind it.`,
      );
    const found: BoardJob[] = [];
    for (const status of statuses) found.push(...(await boardJobs(this.#mill, await this.#idsIn(status, start, end))));
    return found;
  }

  async getJob(id: string): Promise<BoardJob | undefined> {
    const job = await this.#mill.job(id);
    if (job?.queue !== this.#name) return undefined;
    const [result, parent] = await Promise.all([this.#mill.result(id), findDependent(this.#mill.db, id)]);
    return new BoardJob(this.#mill, job, result, parent);
  }

  /** Fields of a line stand behind it as JSON. */
  async getJobLogs(id: string): Promise<string[]> {
    const lines: string[] = [];
    for (let after: number | undefined = 0; after !== undefined;) {
      const page = await this.#mill.logs(id, { after, limit: logPage });
      for (const { message, fields } of page)
        lines.push(fields === null ? message : `${message} ${JSON.stringify(fields)}`);
      after = page.length === logPage ? page.at(-1)?.n : undefined;
    }
    return lines;
  }

  /** Of the last hour, minute by minute. */
  async getMetrics(what: "completed" | "failed"): Promise<QueueMetrics> {
    const data = await countMinutes(this.#mill.db, this.#id, what);
    const count = data.reduce((sum, jobs) => sum + jobs, 0);
    return { meta: { count, prevTS: this.#mill.now(), prevCount: data[0] ?? 0 }, data, count: minutesShown };
  }

  /** There is no Redis. */
  async getRedisInfo(): Promise<null> {
    return null;
  }

  override async getDatastoreStats(): Promise<RedisStats> {
    const { version, port, uptime, connected, blocked } = await readServer(this.#mill.db);
    const embedded = this.#mill.db.kind === "embedded";
    return {
      backend: "postgres",
      version: embedded ? `${version} (embedded)` : version,
      port,
      uptime,
      clients: { connected, blocked },
    };
  }

  /** Those at work that take jobs of this queue. */
  override async getWorkers(): Promise<QueueWorker[]> {
    const workers = await this.#look.workers();
    return workers
      .filter(({ state, queues }) => state !== "stopped" && state !== "lost" && (queues?.includes(this.#name) ?? true))
      .map(({ id, name, host, pid, startedAt, beatAt, beatAgeMs }) => ({
        id: String(id),
        name,
        addr: `${host}, process ${pid}`,
        age: Math.round((beatAt.getTime() - startedAt.getTime() + beatAgeMs) / 1_000),
      }));
  }

  getQueueName(): string {
    return this.#name;
  }

  getQueueQualifiedName(): string {
    return this.#name;
  }

  async getFlowProducer(): Promise<FlowReader> {
    return flowReader(this.#mill);
  }

  // What is done to the queue

  async isPaused(): Promise<boolean> {
    return (await this.#stats())?.paused ?? false;
  }

  async pause(): Promise<void> {
    await this.#mill.pause(this.#name, { by });
  }

  async resume(): Promise<void> {
    await this.#mill.resume(this.#name, { by });
  }

  async getGlobalConcurrency(): Promise<number | null> {
    return (await this.#policy())?.concurrency ?? null;
  }

  /** 0: no limit. */
  async setGlobalConcurrency(concurrency: number): Promise<void> {
    await this.#mill.policies.set(this.#name, { concurrency: concurrency > 0 ? concurrency : null }, { by });
  }

  override get supportsGlobalRateLimit(): boolean {
    return true;
  }

  override async getConfiguredRateLimit(): Promise<QueueRateLimit | null> {
    const { rate } = (await this.#policy()) ?? {};
    return rate ? { max: rate.max, duration: rate.perMs } : null;
  }

  override async setConfiguredRateLimit({ max, duration }: QueueRateLimit): Promise<void> {
    await this.#mill.policies.set(this.#name, { rate: { max, per: duration } }, { by });
  }

  override async removeConfiguredRateLimit(): Promise<void> {
    await this.#mill.policies.set(this.#name, { rate: null }, { by });
  }

  override async releaseActiveRateLimit(): Promise<void> {
    throw new MillraceError("BAD_REQUEST", "A limit holds as long as it is set: raise it, or take it away.");
  }

  // What is done to jobs

  async addJob(name: string, data: unknown, options: Record<string, unknown>): Promise<BoardJob> {
    const task = this.#mill.app.tasks.find((one) => one.name === name);
    const asked = readOptions(this.#name, options);
    const { id } =
      task === undefined
        ? await this.#mill.enqueue(name, data, asked)
        : await this.#mill.enqueue(task, data as never, asked);
    const [job] = await boardJobs(this.#mill, [id]);
    if (job !== undefined) return job;
    throw new MillraceError("JOB_NOT_FOUND", `Job ${id} was added, and removed in the same moment.`);
  }

  /** All failed jobs; those that were cancelled stay. How many they were, counted up to 100 000. */
  async retryAll(): Promise<number> {
    return this.#inBulk("retry", { status: "failed" });
  }

  /** Those that are delayed now, some hundred per transaction. */
  async promoteAll(): Promise<void> {
    const { db, channel } = this.#mill;
    for (let moved = 1; moved > 0;) {
      const ids = await this.#idsIn("delayed", 0, batch - 1);
      const now = { delayMs: 0 };
      moved = (await moveJobs(db, channel, ids, "promote", now, { by, reason: null }, "delayed")).length;
    }
  }

  async clean(place: string, graceMs: number): Promise<void> {
    if (place === "active")
      throw new MillraceError("JOB_STATE", "Jobs that run are not removed: cancel them first, `millrace bulk cancel`.");
    for (const status of statusesIn[place] ?? []) await this.#inBulk("remove", { status, olderThan: graceMs });
  }

  /** As BullMQ has it: jobs that wait go, delayed ones stay. */
  async empty(): Promise<void> {
    await this.#inBulk("remove", { status: "waiting" });
  }

  /** The queue goes on, empty. With `force`, jobs that run are cancelled; they stay as cancelled ones. */
  async obliterate({ force = false }: { force?: boolean } = {}): Promise<void> {
    const { active = 0 } = (await this.#stats()) ?? {};
    // Not one of ours: Bull Board answers 409 to this sentence.
    if (active > 0 && !force) throw new Error(refusal);
    if (active > 0) await this.#inBulk("cancel", { status: "active" });
    await this.#inBulk("remove", {});
  }

  // Schedules

  async getJobSchedulers(): Promise<Omit<AppJobScheduler, "queueName">[]> {
    return (await this.#schedules()).map(schedulerOf);
  }

  async getJobSchedulersCount(): Promise<number> {
    return (await this.#schedules()).length;
  }

  /** Throws `SCHEDULE_IN_CODE` for one that the app's code defines. */
  async removeJobScheduler(id: string): Promise<boolean> {
    if (!(await this.#hasSchedule(id))) return false;
    return (
      (await unless(
        "SCHEDULE_NOT_FOUND",
        this.#mill.schedules.delete(id, { by }).then(() => true),
      )) ?? false
    );
  }

  override get supportsJobSchedulerUpdate(): boolean {
    return true;
  }

  /** Throws `SCHEDULE_INVALID`, with what is wrong. */
  async updateJobScheduler(id: string, repeat: JobSchedulerRepeatOptions): Promise<JobSchedulerUpdateResult> {
    if (!(await this.#hasSchedule(id))) return "not-found";
    const updated = await unless("SCHEDULE_NOT_FOUND", this.#mill.schedules.update(id, changesOf(repeat), { by }));
    return updated === undefined ? "not-found" : "updated";
  }

  override get supportsJobSchedulerRun(): boolean {
    return true;
  }

  /** Throws `SCHEDULE_BUSY` while as many run as may, and where it is queued: there is no job to show yet. */
  async runJobSchedulerNow(id: string): Promise<BoardJob | "not-found"> {
    if (!(await this.#hasSchedule(id))) return "not-found";
    const run = await unless("SCHEDULE_NOT_FOUND", this.#mill.schedules.runNow(id, { by }));
    if (run === undefined) return "not-found";
    const [job] = await boardJobs(this.#mill, run.jobId === null ? [] : [run.jobId]);
    if (job !== undefined) return job;
    throw new MillraceError("SCHEDULE_BUSY", `Schedule "${id}" runs already: this run is queued, and begins after it.`);
  }

  async #stats(): Promise<QueueStats | undefined> {
    return (await this.#look.stats()).find(({ name }) => name === this.#name);
  }

  async #policy(): Promise<Policy | undefined> {
    return (await this.#look.policies()).find(({ queue }) => queue === this.#name);
  }

  async #schedules(): Promise<Awaited<ReturnType<Look["schedules"]>>> {
    return (await this.#look.schedules()).filter(({ queue }) => queue === this.#name);
  }

  async #hasSchedule(id: string): Promise<boolean> {
    return (await this.#schedules()).some(({ name }) => name === id);
  }

  async #idsIn(place: string, start: number, end: number): Promise<string[]> {
    const ids: string[] = [];
    const wanted = end - start + 1;
    let before = 0; // jobs of the lists that were gone through
    for (const status of statusesIn[place] ?? []) {
      const offset = Math.max(0, start - before);
      const list = { status, queue: this.#id, offset, limit: wanted - ids.length };
      ids.push(...(await idsAt(this.#mill.db, list)));
      if (ids.length === wanted) break;
      if (status === "failed") before = (await this.#stats())?.failed ?? 0;
    }
    return ids;
  }

  /** Returns how many jobs it is about, counted up to 100 000. Some may be left when this returns: it goes on, and `millrace bulk` shows how far it is. */
  async #inBulk(action: "retry" | "remove" | "cancel", filter: BulkFilter): Promise<number> {
    const { id, expected } = await this.#mill.bulk(action, { queue: this.#name, ...filter }, { by });
    await unless("WAIT_TIMEOUT", this.#mill.waitUntilFinished(id, { within: patience }));
    return expected;
  }
}

/** What it answers, or undefined where it fails with that code. */
async function unless<Answer>(code: ErrorCode, answer: Promise<Answer>): Promise<Answer | undefined> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof MillraceError && error.code === code) return undefined;
    throw error;
  }
}
