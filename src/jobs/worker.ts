/**
 * A worker: claims batches of jobs, runs them, settles what became of them. It keeps what it holds through a lost database, beats
 * so that others know it lives, and takes back what dead workers held.
 */
import { hostname } from "node:os";
import { type Duration, durationMs, wholeMs } from "../core/duration.ts";
import type { Log } from "../core/log.ts";
import type { Database, Subscription } from "../db/database.ts";
import { Cancels } from "./cancels.ts";
import { Claimer } from "./claimer.ts";
import { dependenciesOf } from "./dependencies-store.ts";
import type { Endings } from "./endings.ts";
import { IsolatedTasks } from "./isolated.ts";
import { NoteKeeper } from "./notes.ts";
import { Runner } from "./runner.ts";
import type { RunningJob } from "./running.ts";
import { Settler } from "./settler.ts";
import { completeWithin, giveBack } from "./settle-store.ts";
import type { Tracing } from "../telemetry/tracing.ts";
import type { AnyTask } from "./task.ts";
import { StepKeeper } from "./step-keeper.ts";
import { untilDone } from "./until-done.ts";
import { type Companion, type Upkeep, keepUp, reaper, tallies, vacuum } from "./upkeep.ts";
import { type Orders, beat, deregister, register } from "./workers-store.ts";

/** A worker with its options read. Times in milliseconds. */
export interface WorkerSetup {
  readonly db: Database;
  readonly channel: string;
  readonly name: string;
  readonly version: string;
  /** Task number → definition. */
  readonly tasks: ReadonlyMap<number, AnyTask>;
  /** Jobs of other tasks: left to workers that have them, failed as `UNKNOWN_JOB_TYPE`, or run by this one task. */
  readonly otherTasks: "leave" | "fail" | AnyTask;
  /** Queue numbers; null: all. */
  readonly queues: readonly number[] | null;
  readonly concurrency: number;
  /** Without a heartbeat for this long, a worker is dead and its jobs are taken back. */
  readonly leaseMs: number;
  /** How often to look for dead workers. */
  readonly reapMs: number;
  readonly log: Log;
  readonly random: () => number;
  /** Largest JSON of what a task returns. */
  readonly maxResultBytes: number;
  /** Tells those who wait for the ends of jobs. */
  readonly endings: Endings;
  readonly tracing?: Tracing | undefined;
  /** Who works beside it. */
  readonly companions: readonly Companion[];
}

/** A lease this old that we do not know comes from an answer that was lost: no statement lives this long. */
const orphanAgeMs = 90_000;
/** With the database away, a stopping worker tries this long to settle; then the lease runs out and the jobs run again. */
const lastWordsMs = 10_000;
const vacuumEveryMs = 3_000;
const foldEveryMs = 10_000;
/** How long a worker that is recycled waits for what runs. */
const recycleWithin = "20s";

export interface Stopped {
  /** Jobs given back unstarted or unfinished; they run elsewhere without having used an attempt. */
  readonly returned: number;
  /** Jobs that ignored their signal. Their lease runs out once this process is gone. */
  readonly hung: number;
}

export class Worker {
  readonly name: string;
  readonly #log: Log;
  readonly #ready: Promise<Running | undefined>;
  /** Resolves when it has stopped because it was ordered to be recycled; else never. */
  readonly recycled: Promise<Stopped>;
  #stopping = false;
  #stopped: Promise<Stopped> | undefined;
  #running: Running | undefined;

  /** `setup` may still need the database (names have numbers there); `log` is for the time until it is known. */
  constructor(name: string, setup: () => Promise<WorkerSetup>, log: Log) {
    this.name = name;
    this.#log = log;
    let recycle!: () => void;
    this.recycled = new Promise((resolve) => {
      recycle = () => resolve(this.stop({ within: recycleWithin }));
    });
    this.#ready = this.#start(setup, recycle);
  }

  /** Resolves when the worker is registered and listening; until the database answers, it keeps trying. */
  async ready(): Promise<void> {
    await this.#ready;
  }

  /** Jobs running now. */
  get active(): number {
    return this.#running?.runner.running.size ?? 0;
  }

  /**
   * Stops claiming, gives back what was not started, waits `within` (default 20 s) for what runs, then aborts its signals and gives
   * that back too. Calling it again returns the same promise.
   */
  stop(options: { within?: Duration } = {}): Promise<Stopped> {
    // No timer is longer than 24 days.
    const withinMs = Math.min(durationMs(options.within ?? "20s", "stop: within"), 2 ** 31 - 1);
    this.#stopping = true;
    this.#stopped ??= this.#ready.then((running) => running?.stop(withinMs) ?? { returned: 0, hung: 0 });
    return this.#stopped;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  async #start(prepare: () => Promise<WorkerSetup>, recycle: () => void): Promise<Running | undefined> {
    const stopped = (): boolean => this.#stopping;
    const setup = await untilDone("starting the worker", prepare, stopped, this.#log);
    if (setup === undefined) return undefined;
    const running = new Running(setup, stopped, recycle);
    if (!(await running.start())) return undefined;
    this.#running = running;
    return running;
  }
}

/** A worker between its start and its stop. */
class Running {
  readonly runner: Runner;
  readonly #setup: WorkerSetup;
  readonly #settler: Settler;
  readonly #claimer: Claimer;
  readonly #cancels: Cancels;
  readonly #keeper: StepKeeper;
  readonly #notes: NoteKeeper;
  readonly #isolated: IsolatedTasks;
  readonly #stopping: () => boolean;
  readonly #recycle: () => void;
  #id = 0;
  #draining = false;
  /** Beats one after the other: two that find themselves dead would register twice. */
  #beating: Promise<void> = Promise.resolve();
  #subscription: Subscription | undefined;
  #upkeep: Upkeep | undefined;

  constructor(setup: WorkerSetup, stopping: () => boolean, recycle: () => void) {
    const { db, channel, log, random } = setup;
    this.#setup = setup;
    this.#stopping = stopping;
    this.#recycle = recycle;
    this.#notes = new NoteKeeper(db, () => this.#id, log);
    this.#settler = new Settler(
      db,
      channel,
      () => this.#id,
      log,
      this.#notes,
      (inMs) => this.#claimer.dueIn(inMs),
      (queue) => this.#claimer.hear(`${queue}:0:0`),
      () => setup.endings.soon(),
    );
    this.runner = new Runner(
      setup.concurrency,
      log,
      (job, now, ended) => {
        this.#settler.finished(job, now, ended);
        this.#claimer.pump();
      },
      (job) => this.#cancels.ignored(job),
    );
    const hearing = {
      db,
      log,
      workerId: () => this.#id,
      quiet: () => this.#claimer.quiet,
      pump: () => this.#claimer.pump(),
    };
    this.#cancels = new Cancels(hearing, this.runner, this.#settler);
    this.#keeper = new StepKeeper(db, channel, () => this.#id);
    const engine = {
      maxResultBytes: setup.maxResultBytes,
      stepsOf: (job: RunningJob) => this.#keeper.storeOf(job),
      dependenciesOf: (job: RunningJob) => dependenciesOf(db, job.id),
    };
    this.#isolated = new IsolatedTasks(
      log,
      engine,
      () => this.runner.concurrency,
      (job) => this.runner.begin(job),
    );
    const host = {
      log,
      random,
      ...engine,
      worker: setup.name,
      tracing: setup.tracing,
      notesOf: (job: RunningJob) => this.#notes.notesOf(job),
      runIsolated: (job: RunningJob) => this.#isolated.run(job),
      completeWithin: (tx: Parameters<Database["adopt"]>[0], job: RunningJob, result: string | null) =>
        completeWithin(db.adopt(tx), {
          lease: job.lease.id,
          worker: this.#id,
          id: job.id,
          result,
          watched: job.watched,
          startedMs: wholeMs(job.startedAt - job.lease.claimedAt),
          tookMs: wholeMs(performance.now() - job.startedAt),
        }),
    };
    this.#claimer = new Claimer(
      {
        db,
        log,
        host,
        queues: setup.queues,
        tasks: setup.tasks,
        otherTasks: setup.otherTasks,
        workerId: () => this.#id,
        subscription: () => this.#subscription,
      },
      this.runner,
      this.#settler,
    );
  }

  /** False when it was told to stop before the database answered. */
  async start(): Promise<boolean> {
    const { db, channel, leaseMs, reapMs, log, random, name } = this.#setup;
    const registered = await untilDone("registering the worker", () => this.#register(), this.#stopping, log);
    if (registered === undefined) return false;
    this.#subscription = await db.listen(
      channel,
      (payload) => this.#hear(payload),
      () => {
        this.#claimer.lookAgain();
        for (const companion of this.#setup.companions) companion.lookAgain();
      },
    );
    this.#upkeep = keepUp(
      [
        { name: "heartbeat", everyMs: leaseMs / 4, run: () => this.#beat() },
        reaper(db, channel, () => this.#id, { everyMs: reapMs, leaseMs }, log),
        vacuum(db, () => this.#claimer.claimed, vacuumEveryMs),
        tallies(db, foldEveryMs),
        ...this.#cancels.chores,
        this.#setup.endings.chore,
      ],
      log,
      random,
    );
    log.info(
      { worker: name, concurrency: this.runner.concurrency, lease_ms: leaseMs },
      `worker started; reap_expired_locks every ${reapMs} ms`,
    );
    // Ordered before we listened: those that start while the system is drained must not claim until the first beat.
    await untilDone("hearing the worker's orders", () => this.#beat(), this.#stopping, log);
    if (!this.#draining) this.#claimer.start();
    for (const companion of this.#setup.companions) companion.start();
    return true;
  }

  async stop(withinMs: number): Promise<Stopped> {
    const { log, name, db, channel } = this.#setup;
    this.#rest();
    await Promise.all(this.#setup.companions.map((companion) => companion.stop()));
    if (!(await this.#claimer.untilQuiet(withinMs))) {
      this.runner.interruptAll("shutdown");
      // Tasks that honour their signal need a moment to say so; those that do not would keep us here for ever.
      await this.#claimer.untilQuiet(1_000);
    }
    await this.#isolated.close();
    const hung = this.runner.running.size;
    const giveUpAt = performance.now() + lastWordsMs;
    const over = (): boolean => performance.now() > giveUpAt;
    await untilDone("settling the last results", () => this.#settler.drain(), over, log);
    await this.#notes.close();
    await this.#upkeep?.stop();
    await this.#beating;
    await this.#subscription?.close();
    this.#cancels.close();
    this.#settler.close();
    this.runner.close();
    // With jobs still running the row stays: their lease must end by the missing heartbeat, not now.
    if (hung === 0) await untilDone("signing off", () => deregister(db, channel, this.#id), over, log);
    const { returned } = this.#settler;
    log.info({ worker: name, returned, hung }, "worker stopped");
    return { returned, hung };
  }

  async #register(): Promise<number> {
    const { db, name, version, queues, tasks, otherTasks, leaseMs } = this.#setup;
    this.#id = await register(db, {
      name,
      version,
      queues,
      leaseMs,
      host: hostname(),
      pid: process.pid,
      tasks: otherTasks === "leave" ? [...tasks.keys()] : null,
      concurrency: this.runner.concurrency,
      former: this.#id,
    });
    return this.#id;
  }

  /** A NOTIFY: an order for this worker, or something for the claimer. */
  #hear(payload: string): void {
    if (this.#cancels.hear(payload) || this.#setup.companions.some((companion) => companion.hear(payload))) return;
    if (!payload.startsWith("worker:")) return this.#claimer.hear(payload);
    if (payload !== `worker:${this.#id}`) return;
    this.#beat().catch((error: unknown) => this.#setup.log.debug({ err: error }, "orders are read with the next beat"));
  }

  #obey({ draining, systemDrained, concurrency, recycle }: Orders): void {
    if (this.#stopping()) return;
    const { log, name } = this.#setup;
    if (draining !== this.#draining) {
      this.#draining = draining;
      const why = systemDrained ? "; the whole system is drained, until `millrace drain resume`" : "";
      log.info({ worker: name }, draining ? `worker drains: it claims nothing more${why}` : "worker claims again");
      if (draining) this.#rest();
      else {
        this.#claimer.start();
        this.#claimer.lookAgain();
      }
    }
    if (concurrency !== null && concurrency !== this.runner.concurrency) {
      log.info(
        { worker: name, concurrency, before: this.runner.concurrency },
        "worker runs another number of jobs at once",
      );
      this.runner.concurrency = concurrency;
      this.#claimer.pump();
      void this.#beat().catch(() => undefined); // so that the registry says so
    }
    if (!recycle) return;
    log.info({ worker: name }, "worker is recycled: it ends what runs, and stops");
    this.#recycle();
  }

  /** Claims nothing more; what has not begun goes back. */
  #rest(): void {
    this.#claimer.stop();
    this.runner.interruptQueued("shutdown");
  }

  #beat(): Promise<void> {
    const beat = this.#beating.then(() => this.#beatOnce());
    this.#beating = beat.catch(() => undefined);
    return beat;
  }

  async #beatOnce(): Promise<void> {
    const { db, channel, log, name } = this.#setup;
    const { unanswered } = this.#claimer;
    const { alive, oldLeases, orders } = await beat(db, this.#id, this.runner.concurrency, orphanAgeMs);
    if (orders) this.#obey(orders);
    if (!alive) {
      log.error(
        { worker: name },
        "this worker did not beat for longer than its lease and was declared dead; its jobs went to others and their late results will not count",
      );
      for (const job of this.runner.takeBuffered()) this.#settler.ledger.reported(job.lease.id, 1);
      this.runner.interruptAll("lease_lost");
      unanswered.clear();
      await this.#register();
      const { orders: current } = await beat(db, this.#id, this.runner.concurrency, orphanAgeMs);
      if (current) this.#obey(current);
      this.#claimer.registered();
      return;
    }
    const orphans = [...unanswered.keys(), ...oldLeases.filter((id) => !this.#settler.ledger.leases.has(id))];
    if (orphans.length === 0) return;
    const jobs = await giveBack(db, channel, this.#id, orphans, null);
    if (jobs > 0)
      log.warn(
        { worker: name, leases: orphans, jobs },
        "gave back jobs whose claim was answered while the connection was lost",
      );
    // The server may carry a claim out after we gave it up: it is asked for until no statement lives that long.
    const gone = performance.now() - orphanAgeMs;
    for (const [id, since] of unanswered) if (since < gone) unanswered.delete(id);
  }
}
