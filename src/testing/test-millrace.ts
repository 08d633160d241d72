/** A Millrace to test with: a database of its own in memory, a clock in the test's hands, jobs that run when told to. */
import { type Duration, durationMs } from "../core/duration.ts";
import { MillraceError } from "../core/errors.ts";
import { type Log, silent } from "../core/log.ts";
import { refuseUnknown, show } from "../core/options.ts";
import { type PGlite, openEmbedded } from "../db/embedded.ts";
import type { App } from "../app/app.ts";
import { builtInTasks } from "../app/built-in.ts";
import { Millrace } from "../app/millrace.ts";
import type { WaitOptions } from "../app/producer.ts";
import type { Enqueued } from "../jobs/enqueue.ts";
import type { Job, JobStatus } from "../jobs/read-store.ts";
import type { AnyTask } from "../jobs/task.ts";
import { reapAll } from "../jobs/workers-store.ts";
import { type Moment, momentNow, moveClock, returnTo } from "./clock-store.ts";
import { Driver } from "./driver.ts";
import { type ExpectedJob, checkStatus, enqueuedAs, refuseEnqueued } from "./expectations.ts";
import { type Crash, type Lives, eachCrash } from "./each-crash.ts";
import { type CrashPoint, Fuse, wired } from "./fuse.ts";
import { Ground } from "./ground.ts";
import type { JobRun } from "./job-run.ts";
import { installJobTime, outside } from "./job-time.ts";
import { restoreState, saveState } from "./state-store.ts";
import { schema } from "./template.ts";

export interface TestOptions {
  /** When the test begins. Default: the present, after which time stands still. */
  now?: Date;
  /** Default: silent. */
  log?: Log;
  /** Chance for jitter, 0 to 1. Default: always the middle, so that a backoff of 2 s is 2 s. */
  random?: () => number;
  /** How long one job may take in real time before the test fails and says which. Default `"4s"`, which is less than test runners allow. */
  patience?: Duration;
  /** Runs after which a test is taken to go in circles. Default 10 000. */
  maxRuns?: number;
}

const optionNames: ReadonlySet<string> = new Set(["now", "log", "random", "patience", "maxRuns"]);
/** The defaults of a process, whatever the environment of the test says. No maintenance: it would be a job nobody asked for. */
const maxPayloadBytes = 262_144;
const maintenance = { everyMs: 0, archiveAfterMs: 0, pruneAfterMs: 0, keepFailedMs: 0 };

/** Opens an empty Millrace on a database of its own. Close it, or declare it with `await using`. Throws `OPTION_*`. */
export async function testMillrace(app: App, options: TestOptions = {}): Promise<TestMillrace> {
  refuseUnknown("testMillrace", options, optionNames);
  const time = { ms: instant(options.now ?? new Date(), "now") };
  const setting: Setting = {
    app,
    time,
    log: options.log ?? silent,
    random: options.random ?? (() => 0.5),
    patienceMs: durationMs(options.patience ?? "4s", "patience"),
    maxRuns: options.maxRuns ?? 10_000,
    ground: await Ground.take(time.ms),
  };
  return open(setting, new Fuse(), () => setting.ground.giveBack());
}

interface Setting {
  readonly app: App;
  readonly time: { ms: number };
  readonly log: Log;
  readonly random: () => number;
  readonly patienceMs: number;
  readonly maxRuns: number;
  readonly ground: Ground;
}

async function open(setting: Setting, fuse: Fuse, onClose: () => Promise<void>): Promise<TestMillrace> {
  const pglite = wired(setting.ground.pglite, fuse);
  // Opening is not part of what can be interrupted: every life begins with it.
  const db = await openEmbedded({ schema, pglite });
  const mill = new TestMillrace(setting, fuse, pglite, db, onClose);
  const { tasks } = setting.app;
  await mill.names.tasks.ids(tasks.map((task) => task.name));
  await mill.names.queues.ids(tasks.map((task) => task.queue));
  return mill;
}

export class TestMillrace extends Millrace {
  /** The database, for tables of your own. In its SQL `now()` is the virtual time; `current_timestamp` is not. */
  readonly pglite: PGlite;
  readonly #setting: Setting;
  readonly #fuse: Fuse;
  readonly #driver: Driver;
  readonly #onClose: () => Promise<void>;
  readonly #successors: TestMillrace[] = [];
  readonly #uninstall: () => void;
  #busy = false;
  #ended: Promise<void> | undefined;

  /** @internal */
  constructor(
    setting: Setting,
    fuse: Fuse,
    pglite: PGlite,
    db: ConstructorParameters<typeof Millrace>[1],
    onClose: () => Promise<void>,
  ) {
    const { app, time, log, random } = setting;
    const now = (): number => time.ms;
    super(app, db, { log, now, random, maxPayloadBytes, maxEnqueuePerMinute: null, scheduler: false, maintenance });
    this.#setting = setting;
    this.#fuse = fuse;
    this.pglite = pglite;
    this.#onClose = onClose;
    this.#uninstall = installJobTime();
    const tasks = async (): Promise<ReadonlyMap<number, AnyTask>> => {
      const all = [...app.tasks, ...builtInTasks(this, maintenance)];
      const ids = await this.names.tasks.ids(all.map((task) => task.name));
      return new Map(all.map((task, i) => [ids[i] as number, task]));
    };
    const { patienceMs } = setting;
    this.#driver = new Driver({
      db,
      channel: this.channel,
      tasks,
      log,
      random,
      now,
      moveTo: (ms) => this.#moveTo(ms),
      fuse,
      patienceMs,
      endings: this.endings,
      define: () => this.schedules.define(this.definedSets(false), { alone: true }),
      fire: () => this.schedules.fire(),
      maxResultBytes: this.maxPayloadBytes,
    });
  }

  /**
   * Runs all jobs that are due, one after the other, with those they enqueue and retries that are due at once, until nothing more can
   * run at this virtual time. By priority, then due time, then age. Returns every attempt, in order; a task that throws does not
   * throw here.
   */
  async runUntilIdle(): Promise<JobRun[]> {
    return this.#alone(async () => {
      const runs: JobRun[] = [];
      await this.#driver.begin();
      await this.#runDue(runs);
      return runs;
    });
  }

  /**
   * Moves the clock on, step by step to each time at which something becomes due, and runs it there. Returns every attempt, in order.
   * Called while a job runs, it moves the clock only: the job has taken that long, and times out if that was too long.
   */
  async advance(by: Duration): Promise<JobRun[]> {
    return this.#advanceTo(this.now() + durationMs(by, "advance"));
  }

  /** `advance` to a point in time; throws `OPTION_INVALID` when it has passed. */
  async advanceTo(time: Date | string): Promise<JobRun[]> {
    return this.#advanceTo(instant(time, "advanceTo"));
  }

  /**
   * The newest job of this task that is as described, whatever became of it. Throws an AssertionError that lists what was enqueued
   * instead.
   */
  async expectEnqueued(task: AnyTask | string, expected: ExpectedJob = {}): Promise<Job> {
    return enqueuedAs(this, task, expected);
  }

  /** Throws an AssertionError when a job of this task that is as described was enqueued. */
  async expectNotEnqueued(task: AnyTask | string, expected: ExpectedJob = {}): Promise<void> {
    await refuseEnqueued(this, task, expected);
  }

  /** The job. Throws an AssertionError that explains why it is where it is when it has another status. */
  async expectStatus(id: string, status: JobStatus): Promise<Job> {
    return checkStatus(this, id, status);
  }

  // A job that waits in one of these waits for others, in real time: it does not take virtual time.
  override cancel(...args: Parameters<Millrace["cancel"]>): ReturnType<Millrace["cancel"]> {
    return outside(() => super.cancel(...args));
  }

  override waitUntilFinished<Output>(job: Enqueued<Output> | string, options?: WaitOptions): Promise<Output> {
    return outside(() => super.waitUntilFinished(job, options));
  }

  /** The process dies: from here on, whatever reaches for the database through this Millrace or its `pglite` throws a CrashError. */
  crash(): void {
    this.#fuse.blow("because the test said so");
  }

  /** Where it died; undefined while it lives, and after `crash()`. */
  get diedAt(): CrashPoint | undefined {
    return this.#fuse.point;
  }

  /**
   * A new process on the same data and the same clock. This one is dead from here on, and what it held is queued again, as when an
   * embedded Millrace is started anew. It is closed together with this one.
   */
  async recover(): Promise<TestMillrace> {
    this.mustBeOpen();
    this.#fuse.blow("to be recovered");
    await this.#driver.close();
    return this.#begin(new Fuse());
  }

  /**
   * Proves that a scenario survives a crash at any statement. Runs it once without, then once for each point at which it can die:
   * before every statement, and after every one that took effect. Each time from the data and the time there are now, and each time
   * `proof` is given the Millrace that comes after, with what was running queued again. Returns the points; afterwards all is as before.
   */
  async eachCrash(
    scenario: (mill: TestMillrace) => Promise<unknown>,
    proof: (mill: TestMillrace, crash: Crash | undefined) => Promise<unknown>,
  ): Promise<CrashPoint[]> {
    this.mustBeOpen();
    const { ground, time } = this.#setting;
    const startMs = time.ms;
    let start: Moment;
    const lives: Lives<TestMillrace> = {
      save: async () => {
        await saveState(ground.pglite, "start");
        start = await momentNow(ground.pglite);
      },
      restore: async () => {
        await restoreState(ground.pglite, "start");
        await returnTo(ground.pglite, start);
        time.ms = startMs;
      },
      begin: (fuse) => this.#begin(fuse),
    };
    return this.#alone(() => eachCrash(lives, scenario, proof));
  }

  override close(): Promise<void> {
    this.#ended ??= (async () => {
      for (const one of this.#successors) await one.close();
      await this.#driver.close();
      await super.close();
      this.#fuse.blow("when it was closed"); // the database is another test's from here on
      await this.#onClose();
    })().finally(this.#uninstall);
    return this.#ended;
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #begin(fuse: Fuse): Promise<TestMillrace> {
    await reapAll(await openEmbedded({ schema, pglite: this.#setting.ground.pglite }), this.channel);
    const next = await open(this.#setting, fuse, async () => {
      const at = this.#successors.indexOf(next);
      if (at >= 0) this.#successors.splice(at, 1);
    });
    this.#successors.push(next);
    return next;
  }

  async #advanceTo(untilMs: number): Promise<JobRun[]> {
    if (untilMs < this.now())
      throw new MillraceError(
        "OPTION_INVALID",
        `It is ${new Date(this.now()).toISOString()} already; time does not go back.`,
      );
    if (this.#driver.running) {
      await this.#driver.passTo(untilMs);
      return [];
    }
    return this.#alone(async () => {
      const runs: JobRun[] = [];
      await this.#driver.begin();
      for (;;) {
        await this.#runDue(runs);
        if (this.now() >= untilMs) return runs;
        await this.#moveTo(Math.min(this.#driver.nextAt() ?? untilMs, untilMs));
      }
    });
  }

  async #moveTo(ms: number): Promise<void> {
    this.mustBeOpen();
    this.#fuse.check();
    // A job that runs may have moved it further meanwhile.
    this.#setting.time.ms = Math.max(ms, this.now());
    await moveClock(this.#setting.ground.pglite, this.now());
  }

  async #runDue(runs: JobRun[]): Promise<void> {
    this.mustBeOpen();
    const { maxRuns } = this.#setting;
    await this.#driver.runDue(runs, maxRuns);
    if (runs.length < maxRuns) return;
    const last = [...new Set(runs.slice(-10).map(({ task }) => task))].join(", ");
    throw new MillraceError(
      "TIMEOUT",
      `${maxRuns} attempts and no end, at last of ${last}: jobs that enqueue each other at once go in circles. If so many are right, raise the option maxRuns of testMillrace.`,
    );
  }

  /** Two at once would run the same jobs in an order nobody knows. */
  async #alone<Result>(work: () => Promise<Result>): Promise<Result> {
    this.mustBeOpen();
    if (this.#busy)
      throw new MillraceError(
        "JOB_STATE",
        "Jobs of this Millrace are being run already; await the call that does it first.",
      );
    this.#busy = true;
    try {
      return await work();
    } finally {
      this.#busy = false;
    }
  }
}

function instant(value: Date | string, what: string): number {
  const ms = new Date(value).getTime();
  if (Number.isFinite(ms)) return Math.floor(ms);
  throw new MillraceError("OPTION_INVALID", `${what} must be a Date or an ISO 8601 time, not ${show(value)}.`);
}
