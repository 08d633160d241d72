/** Puts the rooms together: one object with few verbs. */
import { hostname } from "node:os";
import { type Duration, durationMs } from "../core/duration.ts";
import { MillraceError } from "../core/errors.ts";
import { type Log, silent } from "../core/log.ts";
import { checkedName, refuseUnknown, show, wholeNumber } from "../core/options.ts";
import type { Database } from "../db/database.ts";
import type { PGlite } from "../db/embedded.ts";
import { migrate, requireCurrent } from "../db/migrate.ts";
import { explainJob, timelineOfJob } from "../jobs/answers.ts";
import { type Cleaned, cleanQueue, pauseQueue, resumeQueue } from "../jobs/control-store.ts";
import { settleDependents } from "../flows/flow-store.ts";
import { existingModule } from "../isolate/options.ts";
import { Endings } from "../jobs/endings.ts";
import type { Explanation } from "../jobs/explain.ts";
import type { WorkerInfo } from "../jobs/registry-store.ts";
import { Registry } from "../jobs/registry.ts";
import { type Job, type JobStatus, jobStatuses, listJobs } from "../jobs/read-store.ts";
import { type QueueStats, countQueues } from "../jobs/stats-store.ts";
import type { AnyTask } from "../jobs/task.ts";
import type { Timeline } from "../jobs/timeline.ts";
import type { Chore } from "../jobs/upkeep.ts";
import { type Tracing, loadTracing } from "../telemetry/tracing.ts";
import { Worker, type WorkerSetup } from "../jobs/worker.ts";
import { reapAll } from "../jobs/workers-store.ts";
import type { App } from "./app.ts";
import { builtInTasks, maintenanceQueue } from "./built-in.ts";
import { readConfig } from "./config.ts";
import { type MaintenanceSettings, maintenanceChore, maintenanceTask } from "./maintenance.ts";
import { readCursor, writeCursor } from "./cursor.ts";
import { open } from "./open.ts";
import { Listener } from "./listening.ts";
import { Policies } from "./policies.ts";
import { version } from "./version.ts";

/** Everything has a default; what is not given comes from the environment (docs/reference/configuration.md). */
export interface MillraceOptions {
  /** PostgreSQL. Default `DATABASE_URL`; neither: embedded. `null`: embedded even if `DATABASE_URL` is set. */
  databaseUrl?: string | null;
  /** Folder for embedded data; `null` keeps it in memory. */
  dataDir?: string | null;
  /** A PGlite of your own instead. */
  pglite?: PGlite;
  schema?: string;
  /** Bring the schema up to date first. Default true; with false, a database that is behind is refused. */
  migrate?: boolean;
  poolSize?: number;
  /** The database is reached through a pooler in transaction mode. */
  pooler?: boolean;
  /** Direct connection for LISTEN behind a pooler. */
  listenUrl?: string;
  maxPayloadBytes?: number;
  /** Jobs a queue takes per minute, unless its policy says otherwise. Default: no limit. */
  maxEnqueuePerMinute?: number;
  /** Default: silent. pino and console fit. */
  log?: Log;
  /** Spans for OpenTelemetry, where its API is installed and a provider registered. Default true. */
  telemetry?: boolean;
  /** Time for ids, ms since 1970. For tests; every decision about due times is the database's. */
  now?: () => number;
  /** Chance for jitter, 0 to 1. For tests. */
  random?: () => number;
}

export interface WorkOptions {
  /** Default: every queue. */
  queues?: readonly string[];
  /** Jobs running at once. Default 10. */
  concurrency?: number;
  /** Without a heartbeat for this long, this worker is dead and its jobs are queued again. 250 ms to a day, default `"10s"`. */
  lease?: Duration;
  /** How often to look for dead workers. 50 ms to a day, default `"5s"`. */
  reapEvery?: Duration;
  /** Default: host name and process id. */
  name?: string;
  /** Jobs of tasks this app does not define: leave them to a worker that has them (default), or fail them as `UNKNOWN_JOB_TYPE`. */
  unknownTasks?: "leave" | "fail";
}

export interface ListOptions {
  status?: JobStatus;
  queue?: string;
  task?: string;
  tag?: string;
  /** With status `"failed"`: why it was given up, and its error code. */
  reason?: string;
  errorCode?: string;
  /** 1 to 500, default 100. */
  limit?: number;
  /** `next` of the page before. */
  after?: string;
}

const optionNames: ReadonlySet<string> = new Set([
  "databaseUrl",
  "dataDir",
  "pglite",
  "schema",
  "migrate",
  "poolSize",
  "pooler",
  "listenUrl",
  "maxPayloadBytes",
  "maxEnqueuePerMinute",
  "log",
  "telemetry",
  "now",
  "random",
]);
const workNames: ReadonlySet<string> = new Set(["queues", "concurrency", "lease", "reapEvery", "name", "unknownTasks"]);
const listNames: ReadonlySet<string> = new Set([
  "status",
  "queue",
  "task",
  "tag",
  "reason",
  "errorCode",
  "limit",
  "after",
]);

/** Connects (and migrates) and returns the one object to work with. Throws `DATABASE_*`, `EMBEDDED_IN_USE`, `CONFIG_INVALID`. */
export async function millrace(app: App, options: MillraceOptions = {}): Promise<Millrace> {
  refuseUnknown("millrace", options, optionNames);
  const config = readConfig(process.env);
  const log = options.log ?? silent;
  const maxPayloadBytes = wholeNumber(
    options.maxPayloadBytes ?? config.maxPayloadBytes,
    "maxPayloadBytes",
    1,
    64_000_000,
  );
  const perMinute = options.maxEnqueuePerMinute ?? config.maxEnqueuePerMinute;
  const maxEnqueuePerMinute =
    perMinute === undefined ? null : wholeNumber(perMinute, "maxEnqueuePerMinute", 1, 2_147_483_647);
  const db = await open(options, config, log);
  try {
    if (options.migrate ?? config.migrate) await migrate(db);
    else await requireCurrent(db);
    const mill = new Millrace(app, db, {
      log,
      now: options.now ?? Date.now,
      random: options.random ?? Math.random,
      tracing:
        options.telemetry === false ? undefined : await loadTracing({ version, log, now: options.now ?? Date.now }),
      maxPayloadBytes,
      maxEnqueuePerMinute,
      maintenance: {
        everyMs: config.maintenanceSeconds * 1_000,
        archiveAfterMs: config.archiveDays * dayMs,
        pruneAfterMs: config.pruneDays * dayMs,
        keepFailedMs: config.keepFailedDays * dayMs,
      },
    });
    // A folder has one process at a time, and we hold its lock: whoever worked on it before is gone, and need not be waited for.
    if (db.kind === "embedded" && options.pglite === undefined) await reapAll(db, mill.channel);
    // Names learnt now need no look-up on the first enqueue, and the app's queues can be paused before they had a job.
    await mill.names.tasks.ids(app.tasks.map((task) => task.name));
    await mill.names.queues.ids(app.tasks.map((task) => task.queue));
    return mill;
  } catch (error) {
    await db.close();
    throw error;
  }
}

export interface Surroundings {
  readonly log: Log;
  readonly now: () => number;
  readonly random: () => number;
  readonly tracing?: Tracing | undefined;
  readonly maxPayloadBytes: number;
  readonly maxEnqueuePerMinute: number | null;
  readonly maintenance: MaintenanceSettings;
}

export class Millrace extends Listener {
  /** Who runs jobs, and the orders for each of them. */
  readonly registry: Registry;
  /** Limits, admission and retention of queues. */
  readonly policies: Policies;
  readonly #endings: Endings;
  readonly #random: () => number;
  readonly #maintenance: MaintenanceSettings;
  readonly #workers = new Set<Worker>();
  #closed: Promise<void> | undefined;

  constructor(app: App, db: Database, surroundings: Surroundings) {
    super(app, db, surroundings);
    this.registry = new Registry(db, this.channel);
    this.#random = surroundings.random;
    this.#maintenance = surroundings.maintenance;
    this.#endings = new Endings(db, this.channel, [(tx, ended) => settleDependents(tx, this.channel, ended)], this.log);
    this.policies = new Policies(db, this.names, this.channel);
  }

  /** Starts a worker for the app's tasks. It keeps trying until the database answers; `ready()` says when it does. */
  work(options: WorkOptions = {}): Worker {
    refuseUnknown("work", options, workNames);
    const { unknownTasks = "leave" } = options;
    if (unknownTasks !== "leave" && unknownTasks !== "fail")
      throw new MillraceError("OPTION_INVALID", `unknownTasks must be "leave" or "fail", not ${show(unknownTasks)}.`);
    return this.startWorker(options, this.app.tasks, unknownTasks);
  }

  /** A worker for any set of tasks. `otherTasks` may be one task that runs whatever else is in the queues. */
  startWorker(options: WorkOptions, tasks: readonly AnyTask[], otherTasks: WorkerSetup["otherTasks"]): Worker {
    this.mustBeOpen();
    const name = options.name ?? `${hostname()}-${process.pid}`;
    const concurrency = wholeNumber(options.concurrency ?? 10, "concurrency", 1, 10_000);
    const leaseMs = within(durationMs(options.lease ?? "10s", "lease"), 250, dayMs);
    const reapMs = within(durationMs(options.reapEvery ?? "5s", "reapEvery"), 50, dayMs);
    for (const task of tasks) if (task.isolate) existingModule(task.name, task.isolate.module);
    const queueNames = options.queues?.map((queue) => checkedName(queue, "queue"));
    const prepare = async (): Promise<WorkerSetup> => {
      const all = [...tasks, ...builtInTasks(this, queueNames, this.#maintenance)];
      const ids = await this.names.tasks.ids(all.map((task) => task.name));
      return {
        name,
        version,
        concurrency,
        leaseMs,
        reapMs,
        otherTasks,
        db: this.db,
        channel: this.channel,
        log: this.log,
        random: this.#random,
        maxResultBytes: this.maxPayloadBytes,
        endings: this.#endings,
        tracing: this.tracing,
        tasks: new Map(all.map((task, i) => [ids[i] as number, task])),
        queues: queueNames === undefined ? null : await this.names.queues.ids(queueNames),
        chores: this.#choresOf(queueNames),
      };
    };
    const worker = new Worker(name, prepare, this.log);
    this.#workers.add(worker);
    return worker;
  }

  /** Everything that happened to a job, in order. */
  async timeline(id: string): Promise<Timeline> {
    this.mustBeOpen();
    return timelineOfJob(this.db, id);
  }

  /** Why a job is where it is, and what would move it. */
  async explain(id: string): Promise<Explanation> {
    this.mustBeOpen();
    return explainJob(this.db, id, this.app.tasks);
  }

  /** Whoever would run maintenance also asks for it. */
  #choresOf(queues: readonly string[] | undefined): Chore[] {
    const settings = this.#maintenance;
    if (settings.everyMs === 0 || (queues !== undefined && !queues.includes(maintenanceQueue))) return [];
    return [
      maintenanceChore(this.db, settings, (options) =>
        this.enqueuer.enqueue(maintenanceTask, null, { queue: maintenanceQueue, maxAttempts: 3, ...options }),
      ),
    ];
  }

  /** Jobs, a page at a time; `next` is null on the last one. */
  async jobs(options: ListOptions = {}): Promise<{ jobs: Job[]; next: string | null }> {
    this.mustBeOpen();
    refuseUnknown("jobs", options, listNames);
    if (options.status !== undefined && !jobStatuses.includes(options.status)) {
      throw new MillraceError(
        "OPTION_INVALID",
        `status must be one of ${jobStatuses.join(", ")}, not ${JSON.stringify(options.status)}.`,
      );
    }
    const { tag } = options;
    if (tag !== undefined && !(typeof tag === "string" && /^[^\0\p{Surrogate}]*$/u.test(tag)))
      throw new MillraceError("OPTION_INVALID", `tag must be a text, not ${show(tag)}.`);
    const { reason, errorCode } = options;
    if (options.status !== "failed" && (reason !== undefined || errorCode !== undefined))
      throw new MillraceError("OPTION_INVALID", 'reason and errorCode are of dead letters: give status "failed" too.');
    const found = await this.idsOf(options);
    if (found === undefined) return { jobs: [], next: null };
    const limit = wholeNumber(options.limit ?? 100, "limit", 1, 500);
    const after = options.after === undefined ? undefined : readCursor(options.after, options.status);
    const page = await listJobs(this.db, { ...found, status: options.status, tag, reason, errorCode, limit, after });
    return { jobs: page.jobs, next: page.after === null ? null : writeCursor(page.after, options.status) };
  }

  /** Counts per queue, or of one queue. */
  async stats(queue?: string): Promise<QueueStats[]> {
    this.mustBeOpen();
    return countQueues(this.db, queue === undefined ? undefined : checkedName(queue, "queue"));
  }

  /** Lets nothing of this queue start, on any worker, until it is resumed. False when it was paused already. */
  async pause(queue: string, options: { by?: string; reason?: string } = {}): Promise<boolean> {
    this.mustBeOpen();
    return pauseQueue(
      this.db,
      this.channel,
      await this.names.queues.id(checkedName(queue, "queue")),
      options.by ?? null,
      options.reason ?? null,
    );
  }

  async resume(queue: string): Promise<boolean> {
    this.mustBeOpen();
    return resumeQueue(this.db, this.channel, await this.#queueId(queue));
  }

  /** Deletes finished jobs, completed and failed, that ended longer than `grace` ago. Default 24 hours. */
  async clean(queue: string, grace: Duration = "24h"): Promise<Cleaned> {
    this.mustBeOpen();
    return cleanQueue(this.db, await this.#queueId(queue), durationMs(grace, "grace"));
  }

  /** Every worker that has not stopped, and those that did within a day. */
  async workers(): Promise<WorkerInfo[]> {
    this.mustBeOpen();
    return this.registry.list();
  }

  /** Lets every worker there is now claim nothing more. Returns those that did not drain before. */
  async drain(options: { by?: string } = {}): Promise<number[]> {
    this.mustBeOpen();
    return this.registry.drainAll(options);
  }

  async undrain(options: { by?: string } = {}): Promise<number[]> {
    this.mustBeOpen();
    return this.registry.resumeAll(options);
  }

  /** Stops this object's workers, then closes the connections. */
  close(): Promise<void> {
    this.#closed ??= (async () => {
      this.finishes.close();
      await this.listening.close();
      await Promise.all([...this.#workers].map((worker) => worker.stop()));
      await this.db.close();
    })();
    return this.#closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #queueId(name: string): Promise<number> {
    const id = await this.names.queues.find(checkedName(name, "queue"));
    if (id !== undefined) return id;
    throw new MillraceError("QUEUE_NOT_FOUND", `There is no queue "${name}".`);
  }

  protected override mustBeOpen(): void {
    if (this.#closed) throw new MillraceError("CLOSED", "This Millrace is closed.");
  }
}

const dayMs = 86_400_000;

/** Whole milliseconds that a timer and a column can hold. */
function within(ms: number, least: number, most: number): number {
  return Math.round(Math.min(Math.max(ms, least), most));
}
