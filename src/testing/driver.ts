/**
 * A worker without timers: it runs one job after the other, in an order that is always the same, with the statements and the judgement
 * of a real one. What takes time takes virtual time.
 */
import { hostname } from "node:os";
import { MillraceError } from "../core/errors.ts";
import type { Log } from "../core/log.ts";
import type { Database, ForeignTransaction, Subscription } from "../db/database.ts";
import { describeMs, wholeMs } from "../core/duration.ts";
import { finishRequests } from "../jobs/cancel-store.ts";
import { claimWithCare } from "../jobs/careful-store.ts";
import { type ClaimedRow, type WholeLease, claimSuspect, closeAndClaim, leaseId } from "../jobs/claim-store.ts";
import { dependenciesOf } from "../jobs/dependencies-store.ts";
import type { Endings } from "../jobs/endings.ts";
import { IsolatedTasks } from "../jobs/isolated.ts";
import { Lease } from "../jobs/ledger.ts";
import { NoteKeeper } from "../jobs/notes.ts";
import { type Host, RunningJob } from "../jobs/running.ts";
import { type Result, completeWithin, settle } from "../jobs/settle-store.ts";
import { StepKeeper } from "../jobs/step-keeper.ts";
import { type AnyTask, isOwnTask } from "../jobs/task.ts";
import { beat, reap, register } from "../jobs/workers-store.ts";
import { type Head, type Outlook, lookAhead } from "./due-store.ts";
import { nextDue } from "../schedules/firing-store.ts";
import type { Fuse } from "./fuse.ts";
import { type JobRun, runOf } from "./job-run.ts";
import { JobTime, outside } from "./job-time.ts";

export interface DriverSetup {
  readonly db: Database;
  readonly channel: string;
  /** By number. */
  readonly tasks: () => Promise<ReadonlyMap<number, AnyTask>>;
  readonly log: Log;
  readonly random: () => number;
  /** Virtual time, ms since 1970. */
  readonly now: () => number;
  /** Moves it on: it has when this returns, and the database's when the promise resolves. */
  readonly moveTo: (ms: number) => Promise<void>;
  readonly fuse: Fuse;
  readonly endings: Endings;
  /** Puts the app's schedules in place. */
  readonly define: () => Promise<unknown>;
  /** Fires schedules that are due. */
  readonly fire: () => Promise<unknown>;
  /** Largest JSON of what a task or a step returns. */
  readonly maxResultBytes: number;
  /** How long one job may take in real time, in ms. */
  readonly patienceMs: number;
}

/** A queue that has due jobs and no room for them. */
interface Full {
  /** When it is worth asking again, in ms since 1970. */
  readonly until: number;
  readonly pauseMs: number;
}

/** It must not seem lost when time jumps, in ms: 20 days, which a column of whole ms can hold. Nobody waits for it: see `recover`. */
const leaseMs = 20 * 86_400_000;
/** A queue that stays full is asked more and more rarely, at last this often. */
const fullPauseMaxMs = 60_000;

interface Claim {
  readonly lease: Lease;
  readonly row: ClaimedRow;
}

export class Driver {
  readonly #setup: DriverSetup;
  readonly #isolated: IsolatedTasks;
  readonly #keeper: StepKeeper;
  readonly #engine: Pick<Host, "maxResultBytes" | "stepsOf" | "dependenciesOf">;
  #tasks: ReadonlyMap<number, AnyTask> = new Map();
  #worker = 0;
  #asked = 0;
  #subscription: Subscription | undefined;
  #beatAt = 0;
  #draining = false;
  #outlook: Outlook = { heads: [], lossAt: null, cancels: false };
  readonly #full = new Map<number, Full>();
  /** When the next schedule is due, in ms since 1970. */
  #fireAt = Number.POSITIVE_INFINITY;
  /** Succeeded, and reported together with the next claim, as a worker does it. */
  #done: { readonly whole: WholeLease; readonly result: Result } | undefined;
  #running: RunningJob | undefined;
  /** Of the job that runs. */
  #time: JobTime | undefined;

  constructor(setup: DriverSetup) {
    this.#setup = setup;
    this.#keeper = new StepKeeper(setup.db, setup.channel, () => this.#worker);
    this.#engine = {
      maxResultBytes: setup.maxResultBytes,
      stepsOf: (job: RunningJob) => this.#keeper.storeOf(job),
      dependenciesOf: ({ id }: RunningJob) => dependenciesOf(setup.db, id),
    };
    this.#isolated = new IsolatedTasks(
      setup.log,
      this.#engine,
      () => 1,
      (job) => (job.startedAt = setup.now()),
    );
  }

  /** The job that runs now. */
  get running(): RunningJob | undefined {
    return this.#running;
  }

  /** To be called first: registers, beats, hears orders. */
  async begin(): Promise<void> {
    if (this.#worker === 0) await this.#start();
    const { alive, orders } = await beat(this.#setup.db, this.#worker, 1, leaseMs);
    this.#beatAt = this.#setup.now();
    this.#draining = orders?.draining ?? false;
    if (!alive) await this.#register();
  }

  /** Runs what is due until nothing is, or until there are `runsMax`; tells of each. */
  async runDue(runs: JobRun[], runsMax: number): Promise<void> {
    if (this.#setup.now() - this.#beatAt > leaseMs / 4) await this.begin();
    /** Due again at once: everybody else has a turn first, as they have where time goes on. */
    const again = new Set<string>();
    await this.#setup.endings.tell(); // of what the test has cancelled or removed
    await this.#fire();
    for (let keptUp = false; runs.length < runsMax;) {
      const outlook = await this.#look([...again]);
      if (!keptUp) {
        keptUp = true;
        if (await this.#keepUp(outlook)) continue;
      }
      const head = outlook.heads.find((one) => one.due && !this.#isFull(one.queue));
      if (this.#draining || (head === undefined && again.size === 0)) {
        this.#outlook = outlook;
        break;
      }
      if (head === undefined) {
        again.clear();
        continue;
      }
      const claim = await this.#claim(head);
      if (claim === undefined) continue;
      this.#full.clear(); // it may have made room
      const run = await this.#run(claim);
      if (run.status === "waiting") again.add(run.id);
      runs.push(run);
    }
    await this.#report();
  }

  /** After `runDue`: when something can happen next, in ms since 1970; undefined: never by itself. */
  nextAt(): number | undefined {
    const { heads, lossAt } = this.#outlook;
    const times = heads.flatMap(({ due, at, queue }) => (due ? (this.#full.get(queue)?.until ?? []) : at));
    if (lossAt !== null) times.push(lossAt);
    times.push(this.#fireAt);
    const later = times.filter((at) => at > this.#setup.now());
    const next = Math.min(...later);
    return next === Number.POSITIVE_INFINITY ? undefined : next;
  }

  /** Time passes while a job runs: it has taken that long. */
  async passTo(ms: number): Promise<void> {
    await this.#time?.advanceTo(ms);
  }

  async #moveTo(ms: number): Promise<void> {
    const moved = this.#setup.moveTo(ms);
    const { running } = this;
    if (running && !running.queued && running.timeoutMs > 0 && ms >= running.startedAt + running.timeoutMs)
      this.#interrupt("timeout");
    await moved;
  }

  /** Who listens to the job's signal has the job's time, whoever's doing it is. */
  #interrupt(why: Parameters<RunningJob["interrupt"]>[0]): void {
    this.#time?.run(() => this.#running?.interrupt(why));
  }

  async #fire(): Promise<void> {
    const { db, now, fire } = this.#setup;
    let dueMs = await nextDue(db);
    for (; dueMs !== null && dueMs <= 0; dueMs = await nextDue(db)) await fire();
    this.#fireAt = dueMs === null ? Number.POSITIVE_INFINITY : now() + Math.ceil(dueMs);
  }

  async close(): Promise<void> {
    await this.#subscription?.close();
    await this.#isolated.close();
  }

  #look(not: readonly string[]): Promise<Outlook> {
    return lookAhead(this.#setup.db, this.#worker, [...this.#tasks.keys()], not);
  }

  /** What workers do on the side, as far as there is any of it. False: nothing was to be done. */
  async #keepUp({ lossAt, cancels }: Outlook): Promise<boolean> {
    const { db, channel, now, log } = this.#setup;
    const isLoss = lossAt !== null && lossAt <= now();
    if (isLoss) {
      const { workers, requeued, buried } = await reap(db, channel, this.#worker);
      log.warn({ workers, requeued, buried }, "took back the jobs of workers that were lost");
    }
    if (isLoss || cancels) await finishRequests(db);
    return isLoss || cancels;
  }

  async #start(): Promise<void> {
    this.#tasks = await this.#setup.tasks();
    await this.#register();
    await this.#setup.define();
    const { db, channel } = this.#setup;
    this.#subscription = await db.listen(
      channel,
      (payload) => {
        if (this.#running && payload === `cancel:${this.#running.id}`) this.#interrupt("cancelled");
      },
      () => undefined,
    );
  }

  async #register(): Promise<void> {
    this.#worker = await register(this.#setup.db, {
      name: "test",
      host: hostname(),
      pid: process.pid,
      version: "test",
      queues: null,
      tasks: [...this.#tasks.keys()],
      concurrency: 1,
      leaseMs,
      former: this.#worker,
    });
  }

  #isFull(queue: number): boolean {
    const full = this.#full.get(queue);
    return full !== undefined && full.until > this.#setup.now();
  }

  async #claim(head: Head): Promise<Claim | undefined> {
    const { db, now } = this.#setup;
    const { queue, rank, runAt, jobId } = head;
    const worker = this.#worker;
    const tasks = [...this.#tasks.keys()];
    this.#asked += 1;
    const id = leaseId(worker, this.#asked);
    const taken = (row: ClaimedRow | undefined, of: number, queueName: string, careful: boolean): Claim | undefined =>
      row && { lease: new Lease(id, of, queueName, now(), 1, careful), row };

    if (!head.careful && !head.suspect) {
      const done = this.#done;
      const want = { lease: id, worker, queue, lanes: [{ rank, runAt, jobId }], tasks, limit: 1 };
      const turn = await closeAndClaim(db, done?.whole, want);
      this.#done = undefined;
      if (done && !turn.closed) await settle(db, this.#setup.channel, worker, [done.result]);
      return taken(turn.jobs[0], queue, turn.queueName, false);
    }
    await this.#report(); // what counts as running must not run any more
    if (head.suspect && !head.careful) {
      const suspect = await claimSuspect(db, id, worker, [queue], tasks);
      if (suspect === undefined || "carefulQueue" in suspect) return undefined;
      return taken(suspect.job, suspect.queue, suspect.queueName, false);
    }
    const want = { firstLease: id, worker, queue, tasks, limit: 1, suspects: head.suspect };
    const { queueName, jobs, nextDueMs } = await claimWithCare(db, want);
    if (jobs.length === 0) {
      const pauseMs = Math.max(
        1,
        Math.min(Math.max(nextDueMs, (this.#full.get(queue)?.pauseMs ?? 0) * 2), fullPauseMaxMs),
      );
      this.#full.set(queue, { until: now() + pauseMs, pauseMs });
    }
    return taken(jobs[0], queue, queueName, true);
  }

  async #run({ lease, row }: Claim): Promise<JobRun> {
    const { db, channel, now, log, random } = this.#setup;
    const notes = new NoteKeeper(db, () => this.#worker, log, now);
    const job = new RunningJob(row, lease, this.#tasks.get(row[2]), {
      log,
      random,
      runIsolated: (running) => outside(() => this.#isolated.run(running)),
      ...this.#engine,
      notesOf: (running) => notes.notesOf(running),
      worker: "test",
      tracing: undefined,
      completeWithin: (tx: ForeignTransaction, { id, startedAt, watched }, result) =>
        completeWithin(db.adopt(tx), {
          lease: lease.id,
          worker: this.#worker,
          id,
          result,
          watched,
          startedMs: wholeMs(startedAt - lease.claimedAt),
          tookMs: wholeMs(now() - startedAt),
        }),
    });
    job.startedAt = now();
    this.#running = job;
    const ended = await this.#execute(job).finally(() => {
      this.#running = undefined;
    });
    this.#setup.fuse.check();
    const thrown = "thrown" in ended ? { thrown: ended.thrown } : undefined;
    if ("value" in ended) job.output = ended.value;
    for (let rest = job.rest(thrown); rest; rest = job.rest(thrown)) await rest;
    if (lease.noted) await notes.flush();
    this.#setup.fuse.check();
    const result = job.result(now(), thrown);
    if (thrown === undefined && job.isPlain && job.interrupted === undefined && !lease.careful) {
      const { tookMs } = result;
      this.#done = {
        whole: { id: lease.id, minId: job.id, maxId: job.id, startedMs: [0], tookMs: [tookMs], tookMsSum: tookMs },
        result,
      };
      return runOf(job, result, undefined, ended);
    }
    await this.#report();
    const [verdict] = await settle(db, channel, this.#worker, [result]);
    if (job.watched) await this.#setup.endings.tell();
    return runOf(job, result, verdict?.[1], ended);
  }

  /** What the task returned or threw. Throws when the process dies meanwhile, or the task takes too long. */
  async #execute(job: RunningJob): Promise<{ readonly value: unknown } | { readonly thrown: unknown }> {
    const { fuse, patienceMs, now } = this.#setup;
    const time = new JobTime(now, (ms) => this.#moveTo(ms));
    this.#time = time;
    let timer: NodeJS.Timeout | undefined;
    const tooLong = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        const shortest = time.shortestMs();
        const waits = shortest === undefined ? "" : `, and waits for a timer of ${describeMs(shortest)}`;
        const message = `Job ${job.id} of task "${job.task}" has been running for ${patienceMs} ms of real time${waits}. If it waits for virtual time, let the test advance() meanwhile; if it really works that long, raise the option patience of testMillrace.`;
        reject(new MillraceError("TIMEOUT", message));
        job.interrupt("shutdown");
      }, patienceMs);
    });
    // A function that throws at once and one whose promise rejects are the same here.
    const execute = async (): Promise<unknown> => job.execute();
    // Our own tasks pace themselves by how fast they are: that is real time.
    const attempt = (isOwnTask(job.task) ? execute() : time.run(execute)).then(
      (value) => ({ value }),
      (thrown: unknown) => ({ thrown }),
    );
    try {
      return await Promise.race([attempt, tooLong, fuse.died]);
    } finally {
      clearTimeout(timer);
      this.#time = undefined;
      await time.end();
    }
  }

  /** Reports the last success, when no claim takes it along. */
  async #report(): Promise<void> {
    const done = this.#done;
    if (done === undefined) return;
    const { db, channel } = this.#setup;
    const nothing = { lease: "0", worker: this.#worker, queue: 0, lanes: [], tasks: null, limit: 0 };
    const { closed } = await closeAndClaim(db, done.whole, nothing);
    this.#done = undefined;
    if (!closed) await settle(db, channel, this.#worker, [done.result]);
  }
}
