/** Puts the rooms together: one object with few verbs. */
import { hostname } from "node:os";
import { type Duration, durationMs } from "../core/duration.ts";
import { MillraceError } from "../core/errors.ts";
import { type Log, silent } from "../core/log.ts";
import { checkedName, refuseUnknown, show, wholeNumber } from "../core/options.ts";
import type { Database } from "../db/database.ts";
import { migrate, requireCurrent } from "../db/migrate.ts";
import { explainJob, logsOfJob, timelineOfJob } from "../jobs/answers.ts";
import { type Cleaned, cleanQueue, pauseQueue, resumeQueue } from "../jobs/control-store.ts";
import { settleDependents } from "../flows/flow-store.ts";
import { existingModule } from "../isolate/options.ts";
import { Endings } from "../jobs/endings.ts";
import type { Explanation } from "../jobs/explain.ts";
import type { LogLine } from "../jobs/notes-store.ts";
import type { Drained, WorkerInfo } from "../jobs/registry-store.ts";
import { Registry } from "../jobs/registry.ts";
import { type QueueStats, countQueues } from "../jobs/stats-store.ts";
import type { AnyTask } from "../jobs/task.ts";
import type { Timeline } from "../jobs/timeline.ts";
import type { Companion } from "../jobs/upkeep.ts";
import { type Tracing, loadTracing } from "../telemetry/tracing.ts";
import { Worker, type WorkerSetup } from "../jobs/worker.ts";
import { reapAll } from "../jobs/workers-store.ts";
import type { DefinedSet } from "../schedules/code.ts";
import { Presence } from "../schedules/presence.ts";
import { Scheduler } from "../schedules/scheduler.ts";
import { Schedules } from "../schedules/schedules.ts";
import type { App } from "./app.ts";
import { builtInTasks, maintenanceQueue } from "./built-in.ts";
import { readConfig } from "./config.ts";
import { type DrainOptions, drainNames, untilEmpty, withoutSchedules } from "./drain.ts";
import { MaintenanceLane, laneConcurrency } from "./maintenance-lane.ts";
import { type MaintenanceSettings, maintenanceSchedule } from "./maintenance.ts";
import { type ListedJobs, listed } from "./listing.ts";
import { type OrderOptions, signatureOf } from "./orders.ts";
import { open } from "./open.ts";
import { Listener } from "./listening.ts";
import {
  type ListOptions,
  type LogsOptions,
  type MillraceOptions,
  type WorkOptions,
  logsNames,
  optionNames,
  workNames,
} from "./options.ts";
import { Policies } from "./policies.ts";
import { version } from "./version.ts";

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
  const scheduler = options.scheduler ?? config.scheduler;
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
      scheduler,
      servesMaintenance: config.servesMaintenance,
      maintenance: {
        everyMs: config.maintenanceSeconds * 1_000,
        archiveAfterMs: config.archiveDays * dayMs,
        pruneAfterMs: config.pruneDays * dayMs,
        keepFailedMs: config.keepFailedDays * dayMs,
      },
    });
    // A folder has one process at a time, and we hold its lock: whoever worked on it before is gone, and need not be waited for.
    const alone = db.kind === "embedded" && options.pglite === undefined;
    if (alone) await reapAll(db, mill.channel);
    // Names learnt now need no look-up on the first enqueue, and the app's queues can be paused before they had a job.
    await mill.names.tasks.ids(app.tasks.map((task) => task.name));
    await mill.names.queues.ids(app.tasks.map((task) => task.queue));
    const defined = mill.definedSets(false);
    if (app.schedules.length > 0)
      await (scheduler ? mill.schedules.define(defined, { alone }) : mill.schedules.keepAlive(defined));
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
  readonly scheduler: boolean;
  /** Whether workers serve the queue `maintenance` unless told otherwise. Default true. */
  readonly servesMaintenance?: boolean;
  readonly maintenance: MaintenanceSettings;
}

export class Millrace extends Listener {
  /** Who runs jobs, and the orders for each of them. */
  readonly registry: Registry;
  /** Limits, admission and retention of queues. */
  readonly policies: Policies;
  protected readonly endings: Endings;
  /** What comes again and again: made, changed, paused, run at once, and what became of each tick. */
  readonly schedules: Schedules;
  readonly #random: () => number;
  readonly #scheduler: boolean;
  readonly #servesMaintenance: boolean;
  readonly #maintenance: MaintenanceSettings;
  readonly #lane = new MaintenanceLane();
  readonly #workers = new Set<Worker>();
  #closed: Promise<void> | undefined;

  constructor(app: App, db: Database, surroundings: Surroundings) {
    super(app, db, surroundings);
    const { log, now, random, maxPayloadBytes, scheduler, servesMaintenance = true, maintenance } = surroundings;
    this.registry = new Registry(db, this.channel);
    this.#random = random;
    this.#servesMaintenance = servesMaintenance;
    this.#maintenance = maintenance;
    this.policies = new Policies(db, this.names, this.channel);
    this.#scheduler = scheduler;
    this.schedules = new Schedules({
      db,
      log,
      now,
      random,
      admission: this.admission,
      maxPayloadBytes,
      channel: this.channel,
      names: this.names,
      tasks: app.tasks,
      queueName: (id) => this.names.queues.nameOf(id),
    });
    const { channel, schedules } = this;
    this.endings = new Endings(
      db,
      channel,
      [(tx, ended) => settleDependents(tx, channel, ended), (tx, ended) => schedules.runsEnded(tx, ended)],
      log,
    );
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
    for (const task of tasks) if (task.isolate) existingModule(task.name, task.isolate.module);
    const { queues, name = `${hostname()}-${process.pid}`, scheduler = this.#scheduler } = options;
    const { maintenance = this.#servesMaintenance } = options;
    const elsewhere = queues !== undefined && !queues.includes(maintenanceQueue);
    if (!maintenance && !elsewhere && otherTasks !== "leave")
      throw new MillraceError("OPTION_INVALID", maintenanceNotOurs);
    const own = builtInTasks(this, this.#maintenance);
    const companions = this.#companions(scheduler, maintenance);
    if (maintenance && elsewhere) {
      const lane = {
        ...options,
        queues: [maintenanceQueue],
        concurrency: laneConcurrency,
        name: `${name}/maintenance`,
      };
      companions.push(this.#lane.beside(() => this.#newWorker(lane, own, "leave", [])));
    }
    const all = maintenance && !elsewhere ? [...tasks, ...own] : tasks;
    const worker = this.#newWorker({ ...options, name }, all, otherTasks, companions);
    this.#workers.add(worker);
    return worker;
  }

  #newWorker(
    options: WorkOptions & { name: string },
    tasks: readonly AnyTask[],
    otherTasks: WorkerSetup["otherTasks"],
    companions: readonly Companion[],
  ): Worker {
    const { name } = options;
    const concurrency = wholeNumber(options.concurrency ?? 10, "concurrency", 1, 10_000);
    const leaseMs = within(durationMs(options.lease ?? "10s", "lease"), 250, dayMs);
    const reapMs = within(durationMs(options.reapEvery ?? "5s", "reapEvery"), 50, dayMs);
    const queueNames = options.queues?.map((queue) => checkedName(queue, "queue"));
    const prepare = async (): Promise<WorkerSetup> => {
      const ids = await this.names.tasks.ids(tasks.map((task) => task.name));
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
        endings: this.endings,
        tracing: this.tracing,
        tasks: new Map(tasks.map((task, i) => [ids[i] as number, task])),
        queues: queueNames === undefined ? null : await this.names.queues.ids(queueNames),
        companions,
      };
    };
    return new Worker(name, prepare, this.log);
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

  /** Lines of the logs of its runs, in order: as many as the task's `keepLogs` says. Throws `JOB_NOT_FOUND`. */
  async logs(id: string, options: LogsOptions = {}): Promise<LogLine[]> {
    this.mustBeOpen();
    refuseUnknown("logs", options, logsNames);
    const after = wholeNumber(options.after ?? 0, "after", 0, 2_147_483_647);
    return logsOfJob(this.db, id, after, wholeNumber(options.limit ?? 200, "limit", 1, 1_000));
  }

  /** `maintains`: whoever runs maintenance also asks for it. */
  #companions(scheduler: boolean, maintains: boolean): Companion[] {
    if (!scheduler)
      return this.app.schedules.length === 0
        ? []
        : [new Presence(this.schedules, this.definedSets(false), this.#scheduler, this.log)];
    return [new Scheduler(this.schedules, this.db, this.definedSets(maintains), this.log)];
  }

  /** The schedules of this process: the app's, and, where it is to run maintenance, Millrace's own. */
  definedSets(maintains: boolean): DefinedSet[] {
    const settings = this.#maintenance;
    const own = maintains && settings.everyMs > 0 ? [maintenanceSchedule(settings)] : [];
    return [
      { source: "code", schedules: this.app.schedules },
      { source: "built_in", schedules: own },
    ];
  }

  /**
   * Jobs, a page at a time; `next` is null on the last one. A list by tag holds archived jobs too. A page may be short, or empty, before
   * the last: it looks at 20 000 jobs at most, `looked` says at how many, and through inputs for half a second.
   */
  async jobs(options: ListOptions = {}): Promise<ListedJobs> {
    this.mustBeOpen();
    return listed(this.db, options, await this.idsOf(options), "whole");
  }

  /** @internal The same without what may be large: `input` and `lastErrorStack` are null. */
  async leanJobs(options: ListOptions): Promise<ListedJobs> {
    this.mustBeOpen();
    return listed(this.db, options, await this.idsOf(options), "lean");
  }

  /** Counts per queue, or of one queue. */
  async stats(queue?: string): Promise<QueueStats[]> {
    this.mustBeOpen();
    return countQueues(this.db, queue === undefined ? undefined : checkedName(queue, "queue"));
  }

  /** Lets nothing of this queue start, on any worker, until it is resumed. False when it was paused already. */
  async pause(queue: string, options: OrderOptions = {}): Promise<boolean> {
    this.mustBeOpen();
    const id = await this.names.queues.id(checkedName(queue, "queue"));
    return pauseQueue(this.db, this.channel, id, { ...signatureOf(options), withAll: false });
  }

  /** Pauses every queue that is not, but for `maintenance`: bulk operations and upkeep go on. Returns those it paused. */
  async pauseAll(options: OrderOptions = {}): Promise<string[]> {
    this.mustBeOpen();
    const pause = { ...signatureOf(options), withAll: true };
    const others = (await this.stats()).filter(({ name }) => name !== maintenanceQueue);
    return this.#where(others, (id) => pauseQueue(this.db, this.channel, id, pause));
  }

  /** Resumes what `pauseAll` paused. What was paused by itself stays: resume it by its name. Returns those it resumed. */
  async resumeAll(options: OrderOptions = {}): Promise<string[]> {
    this.mustBeOpen();
    const resume = { ...signatureOf(options), withAll: true };
    return this.#where(await this.stats(), (id) => resumeQueue(this.db, this.channel, id, resume));
  }

  /** The names of the queues for which `change` changed something, one after the other. */
  async #where(queues: readonly QueueStats[], change: (id: number) => Promise<boolean>): Promise<string[]> {
    const changed: string[] = [];
    for (const { name } of queues) if (await change(await this.names.queues.id(name))) changed.push(name);
    return changed;
  }

  /** False when it was not paused. */
  async resume(queue: string, options: OrderOptions = {}): Promise<boolean> {
    this.mustBeOpen();
    return resumeQueue(this.db, this.channel, await this.#queueId(queue), signatureOf(options));
  }

  /** Deletes jobs that completed, failed or were cancelled longer than `grace` ago. Default 24 hours. */
  async clean(queue: string, grace: Duration = "24h", options: OrderOptions = {}): Promise<Cleaned> {
    this.mustBeOpen();
    return cleanQueue(this.db, await this.#queueId(queue), durationMs(grace, "grace"), signatureOf(options));
  }

  /** Every worker that has not stopped, and those that did within a day. */
  async workers(): Promise<WorkerInfo[]> {
    this.mustBeOpen();
    return this.registry.list();
  }

  /** Lets every worker claim nothing more, those that start later included. Returns those at work that did not drain before. */
  async drain(options: DrainOptions = {}): Promise<number[]> {
    refuseUnknown("drain", options, drainNames);
    this.mustBeOpen();
    const { registry } = this;
    if (!options.untilEmpty) return registry.drainAll(options);
    const look = async () => ({ queues: await this.stats(), drained: await this.drained() });
    return withoutSchedules(
      () => registry.stopScheduling(options),
      () => registry.resumeScheduling(options),
      async () => {
        await untilEmpty(look, ({ queues }) => options.onLook?.(queues), options.signal);
        return registry.drainAll(options);
      },
    );
  }

  /** Since when the whole system drains, and who wanted it; null when it does not. */
  async drained(): Promise<Drained | null> {
    this.mustBeOpen();
    return this.registry.drained();
  }

  /** Lets every worker claim again, whoever drained it, and schedules fire. */
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

  #queueId(name: string): Promise<number> {
    return this.names.queues.existing(checkedName(name, "queue"));
  }

  protected override mustBeOpen(): void {
    if (this.#closed) throw new MillraceError("CLOSED", "This Millrace is closed.");
  }
}

const dayMs = 86_400_000;
const maintenanceNotOurs =
  "A worker of every queue that takes tasks it does not know would take those of the queue maintenance too: give it queues, or serve maintenance.";

/** Whole milliseconds that a timer and a column can hold. */
function within(ms: number, least: number, most: number): number {
  return Math.round(Math.min(Math.max(ms, least), most));
}
