/**
 * Decides what to claim and when: no more than can start soon, two claims under way at most so that one is answered while the
 * other's jobs run, and asleep until somebody calls when there is nothing.
 */
import type { Log } from "../core/log.ts";
import type { Database, Subscription } from "../db/database.ts";
import { claimWithCare } from "./careful-store.ts";
import { type ClaimedRow, closeAndClaim, leaseId, lookAround } from "./claim-store.ts";
import { Conditions } from "./conditions.ts";
import { Idleness } from "./idleness.ts";
import { type Lane, Lanes } from "./lanes.ts";
import { Ledger, Lease } from "./ledger.ts";
import { wanted } from "./prefetch.ts";
import { runSuspects } from "./quarantine.ts";
import { type Host, RunningJob } from "./running.ts";
import type { Runner } from "./runner.ts";
import type { Settler } from "./settler.ts";
import type { AnyTask } from "./task.ts";
import { Sweep } from "./sweep.ts";
import { setIdle } from "./workers-store.ts";

/** What the claimer needs to know of its worker. */
export interface ClaimerSetup {
  readonly db: Database;
  readonly log: Log;
  readonly workerId: () => number;
  /** Queue numbers; null: all. */
  readonly queues: readonly number[] | null;
  readonly tasks: ReadonlyMap<number, AnyTask>;
  /** Jobs of tasks this worker does not have: left, failed, or run by this one. */
  readonly otherTasks: "leave" | "fail" | AnyTask;
  readonly host: Host;
  /** Where NOTIFYs arrive; undefined before and after. */
  readonly subscription: () => Subscription | undefined;
}

const turnsMax = 2;
/** After going idle, look once more: an enqueue that began before may commit without knowing that we sleep. */
const secondLookMs = 20;
/** Claimed jobs that could not be started for this long are given back: something slow sits in the slots. */
const strandedMs = 250;
/** How long running jobs may keep a suspect waiting for an empty worker. */
const patienceMs = 5_000;
const noSuspectsPauseMs = 500;
/** Jobs per claim from a queue with limits. */
const carefulBatch = 100;
const retryPauseMaxMs = 5_000;

export class Claimer {
  /** Jobs claimed since the start. */
  claimed = 0;
  /** Claims that failed without an answer, by their lease, and when. They may have been carried out, and hold jobs unknown to us. */
  readonly unanswered = new Map<string, number>();
  /** Claims asked for since the start. */
  #asked = 0;
  readonly #setup: ClaimerSetup;
  readonly #runner: Runner;
  readonly #settler: Settler;
  readonly #lanes = new Lanes();
  readonly #taskIds: readonly number[] | null;
  #open = false;
  #turns = 0;
  /** Jobs asked for by claims under way. */
  #requested = 0;
  #turnMs = 2;
  readonly #sweep: Sweep;
  readonly #idleness: Idleness;
  #alone = false;
  /** performance.now() until which ordinary work, if there is any, comes first. */
  #ordinaryUntil = 0;
  /** performance.now() before which suspects are not looked at again. */
  #suspectsFrom = 0;
  #pauseMs = 0;
  #pausedUntil = 0;
  #timer: NodeJS.Timeout | undefined;
  #timerAt = Number.POSITIVE_INFINITY;
  #strandedTimer: NodeJS.Timeout | undefined;
  readonly #conditions = new Conditions();

  constructor(setup: ClaimerSetup, runner: Runner, settler: Settler) {
    this.#setup = setup;
    this.#runner = runner;
    this.#settler = settler;
    this.#idleness = new Idleness((idle) => setIdle(setup.db, setup.workerId(), idle));
    this.#taskIds = setup.otherTasks === "leave" ? [...setup.tasks.keys()] : null;
    this.#sweep = new Sweep(
      this.#lanes,
      () => lookAround(setup.db, setup.queues, this.#taskIds),
      () => setup.subscription()?.live ?? false,
    );
  }

  /** Also after `stop`. */
  start(): void {
    this.#open = true;
    this.pump();
  }

  /** Claims nothing more; what was claimed and not started goes back. */
  stop(): void {
    this.#open = false;
    clearTimeout(this.#timer);
    this.#timerAt = Number.POSITIVE_INFINITY;
    clearTimeout(this.#strandedTimer);
    this.#strandedTimer = undefined;
    this.freeBuffered();
  }

  /** A new registration: nobody knows yet whether we are idle. */
  registered(): void {
    this.#idleness.forget();
    this.lookAgain();
  }

  /** Does whatever can be done now. Called after everything that changes anything; cheap when there is nothing to do. */
  pump(): void {
    this.#runner.startNext();
    const now = performance.now();
    if (this.#open && !this.#alone) {
      if (now < this.#pausedUntil) this.#wakeAt(this.#pausedUntil);
      else this.#claim(now);
    }
    const { closable } = this.#settler.ledger;
    if (closable.length > 0 && this.#turns === 0 && now >= this.#pausedUntil) void this.#turn(undefined, 0);
    else this.#settler.settleSoon();
    this.#conditions.check();
  }

  /** Nothing runs, waits to be started or is being claimed. */
  get quiet(): boolean {
    return this.#runner.running.size === 0 && this.#runner.buffered === 0 && this.#turns === 0;
  }

  /** Resolves true once quiet, false when that takes longer. */
  untilQuiet(withinMs: number): Promise<boolean> {
    return this.#conditions.until(() => this.quiet, withinMs);
  }

  /** Gives back what was claimed and not started. */
  freeBuffered(only?: (job: RunningJob) => boolean): void {
    this.#settler.giveBack(this.#runner.takeBuffered(only));
  }

  /** Forgets what it knows and looks around: after messages may have been missed. */
  lookAgain(): void {
    this.#sweep.again();
    this.pump();
  }

  /** A NOTIFY: `queue:rank:wait_ms`, `stop:queue` when a queue was paused, or anything else to look around. */
  hear(payload: string): void {
    const [first = "", second = "", third = ""] = payload.split(":");
    if (first === "stop") {
      this.#lanes.forget(Number(second));
      return this.freeBuffered((job) => job.lease.queue === Number(second));
    }
    const queue = Number.parseInt(first, 10);
    if (Number.isNaN(queue)) return this.lookAgain();
    if (this.#setup.queues !== null && !this.#setup.queues.includes(queue)) return;
    const waitMs = Number(third);
    if (waitMs > 0) return this.dueIn(waitMs);
    this.#lanes.wake(queue, Number(second));
    this.pump();
  }

  /** Some job becomes due in so many ms. */
  dueIn(waitMs: number): void {
    this.#lanes.nextDueAt = Math.min(this.#lanes.nextDueAt, performance.now() + waitMs);
    this.pump();
  }

  #claim(now: number): void {
    if (this.#sweep.isDue(now, this.#idleness.said)) this.#look();
    if (now >= this.#suspectsAt) {
      void this.#quarantine();
      return;
    }
    while (this.#turns < turnsMax) {
      const want = wanted(this.#runner, this.#requested, this.#turnMs, now);
      if (want === 0) return;
      const lane = this.#lanes.next();
      if (lane === undefined) return this.#rest(now);
      if (!lane.careful) void this.#turn(lane, want);
      else if (this.#slots > 0) void this.#carefulTurn(lane, Math.min(this.#slots, carefulBatch));
      else return;
    }
  }

  get #suspectsAt(): number {
    const ordinaryUntil = this.#lanes.anyDue || !this.quiet ? this.#ordinaryUntil : 0;
    return Math.max(this.#lanes.suspectDueAt, this.#suspectsFrom, ordinaryUntil);
  }

  /** Slots that nothing claimed or asked for will take. */
  get #slots(): number {
    return this.#runner.free - this.#runner.buffered - this.#requested;
  }

  async #turn(lane: Lane | undefined, limit: number): Promise<void> {
    const { db, workerId, subscription } = this.#setup;
    const { ledger } = this.#settler;
    const done = ledger.takeClosable();
    if (done === undefined && limit === 0) return;
    const lease = this.#newLease();
    this.#turns += 1;
    this.#requested += limit;
    const askedAt = performance.now();
    try {
      if (done?.noted) await this.#settler.notes.flush(new Set([done.id]));
      const through = (this.#idleness.said ? subscription()?.awake : undefined) ?? db;
      const turn = await closeAndClaim(through, done && Ledger.whole(done), {
        lease,
        worker: workerId(),
        queue: lane?.queue ?? 0,
        lanes: lane?.marks ?? [],
        tasks: this.#taskIds,
        limit,
      });
      const now = performance.now();
      this.#turnMs = this.#turnMs * 0.8 + (now - askedAt) * 0.2;
      this.#settler.turnMs = this.#turnMs;
      this.#pauseMs = 0;
      if (done) ledger.closed(done, turn.closed);
      if (turn.jobs.length > 0 && lane)
        this.#take(new Lease(lease, lane.queue, turn.queueName, now, turn.jobs.length), turn.jobs);
      if (lane) {
        // Found out to be careful: the same lane again, the other way.
        if (turn.careful) this.#lanes.isCareful(lane.queue);
        const exhausted = turn.jobs.length < limit && !turn.careful;
        this.#lanes.claimed(lane, turn.marks, exhausted);
        this.#lanes.nextDueAt = Math.min(this.#lanes.nextDueAt, now + turn.nextDueMs);
        this.#claimed(now, exhausted);
      }
    } catch (error) {
      if (done) ledger.closed(done, false);
      if (limit > 0) this.unanswered.set(lease, performance.now());
      this.#trouble("claiming", error);
    }
    this.#turned(limit);
  }

  /** A claim from a queue with limits: no job ahead of its slot, one lease each. */
  async #carefulTurn(lane: Lane, limit: number): Promise<void> {
    const { db, workerId } = this.#setup;
    const leases = Array.from({ length: limit }, () => this.#newLease());
    const [firstLease = ""] = leases;
    const { queue } = lane;
    this.#turns += 1;
    this.#requested += limit;
    try {
      const want = { firstLease, worker: workerId(), queue, tasks: this.#taskIds, limit, suspects: false };
      const turn = await claimWithCare(db, want);
      const now = performance.now();
      this.#pauseMs = 0;
      turn.jobs.forEach((row, i) => {
        this.#take(new Lease(leases[i] as string, queue, turn.queueName, now, 1, true), [row]);
      });
      this.#lanes.claimed(lane, [], turn.jobs.length < limit);
      this.#claimed(now, turn.jobs.length < limit);
      this.#lanes.nextDueAt = Math.min(this.#lanes.nextDueAt, now + turn.nextDueMs);
    } catch (error) {
      for (const lease of leases) this.unanswered.set(lease, performance.now());
      this.#trouble("claiming", error);
    }
    this.#turned(limit);
  }

  #turned(limit: number): void {
    this.#turns -= 1;
    this.#requested -= limit;
    if (!this.#open) this.freeBuffered();
    this.pump();
  }

  #newLease(): string {
    this.#asked += 1;
    return leaseId(this.#setup.workerId(), this.#asked);
  }

  #take(lease: Lease, rows: readonly ClaimedRow[]): void {
    this.#settler.ledger.add(lease);
    this.claimed += rows.length;
    const { tasks, otherTasks, host } = this.#setup;
    const other = typeof otherTasks === "string" ? undefined : otherTasks;
    this.#runner.add(rows.map((row) => new RunningJob(row, lease, tasks.get(row[2]) ?? other, host)));
    this.#watchStranded();
  }

  /** Watches over what was claimed and not started, for as long as there is any. */
  #watchStranded(): void {
    this.#strandedTimer ??= setTimeout(() => {
      this.#strandedTimer = undefined;
      const runner = this.#runner;
      if (runner.buffered === 0) return;
      if (performance.now() - runner.waitingSince < strandedMs) return this.#watchStranded();
      runner.rate = 0;
      this.freeBuffered();
    }, strandedMs);
  }

  #claimed(now: number, exhausted: boolean): void {
    this.#idleness.working(now, exhausted).catch((error: unknown) => this.#trouble("leaving idleness", error));
  }

  /** Nothing is due: say so, look once more, then sleep until somebody calls or the next job is due. */
  #rest(now: number): void {
    if (this.#sweep.busy) return;
    if (this.#idleness.said)
      return this.#wakeAt(Math.min(this.#lanes.nextDueAt, this.#suspectsAt, this.#sweep.asleepUntil));
    this.#sweep.busy = true;
    this.#idleness
      .sleep(now)
      .then(() => {
        this.#look();
        setTimeout(() => this.lookAgain(), secondLookMs).unref();
      })
      .catch((error: unknown) => {
        this.#sweep.busy = false;
        this.#trouble("going idle", error);
      });
  }

  #look(): void {
    this.#sweep
      .look()
      .then(() => (this.#pauseMs = 0))
      .catch((error: unknown) => this.#trouble("looking for work", error))
      .finally(() => this.pump());
  }

  /** Jobs that went down with a worker have this one to themselves for a while. */
  async #quarantine(): Promise<void> {
    if (this.#alone) return;
    this.#alone = true;
    const since = performance.now();
    let ran = 0;
    try {
      this.freeBuffered();
      await this.untilQuiet(patienceMs);
      ran = await runSuspects(this.#setup, this.#settler, {
        open: () => this.#open,
        newLease: () => this.#newLease(),
        // whoever stops this worker waits for the answer
        asking: async (lease, ask) => {
          this.#turns += 1;
          try {
            return await ask();
          } catch (error) {
            this.unanswered.set(lease, performance.now());
            throw error;
          } finally {
            this.#turns -= 1;
          }
        },
        run: (lease, job, withinMs) => {
          this.#take(lease, [job]);
          if (!this.#open) this.freeBuffered();
          else this.#runner.startNext();
          return this.#conditions.until(() => lease.open === 0, withinMs);
        },
      });
    } catch (error) {
      this.#trouble("running suspects", error);
    }
    this.#alone = false;
    const now = performance.now();
    this.#ordinaryUntil = now + (now - since);
    // None could start: their queue is paused by now, or full.
    this.#suspectsFrom = ran === 0 ? now + noSuspectsPauseMs : now;
    this.lookAgain();
  }

  /** The database did not do what it was asked. Keep what we hold, wait, try again: 100 ms, doubling up to 5 s. */
  #trouble(what: string, error: unknown): void {
    if (!this.#open) return;
    this.#pauseMs = Math.min(Math.max(this.#pauseMs * 2, 100), retryPauseMaxMs);
    this.#pausedUntil = performance.now() + this.#pauseMs;
    this.#idleness.forget();
    this.#setup.log.warn(
      { err: error, retry_ms: this.#pauseMs },
      `${what} failed; keeping what is held and trying again`,
    );
    this.#wakeAt(this.#pausedUntil);
  }

  #wakeAt(at: number): void {
    const now = performance.now();
    if (this.#timerAt <= at && this.#timerAt > now) return;
    clearTimeout(this.#timer);
    this.#timerAt = at;
    this.#timer = setTimeout(
      () => {
        this.#timerAt = Number.POSITIVE_INFINITY;
        this.pump();
      },
      Math.min(Math.max(at - now, 1), 60_000),
    );
  }
}
