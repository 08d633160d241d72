/** Reports what became of jobs: in batches, one statement at a time, again and again until the database has taken it. */
import type { Log } from "../core/log.ts";
import type { Database } from "../db/database.ts";
import { Ledger } from "./ledger.ts";
import type { NoteKeeper } from "./notes.ts";
import type { RunningJob } from "./running.ts";
import { type Result, type Verdict, giveBack, settle, stillCompleting } from "./settle-store.ts";

/** A finished job waits this long for its batch or for a claim that takes it along, in ms; twice that at most. */
const patienceMinMs = 10;
const patienceMaxMs = 100;
const retryPauseMaxMs = 5_000;
/** Results per statement at most. */
const flushMax = 1_000;

export class Settler {
  readonly ledger = new Ledger();
  readonly notes: NoteKeeper;
  /** Jobs given back without an attempt, so far. */
  returned = 0;
  /** How long a claim takes to be answered. While the database is slow, settling apart from claims only makes it slower. */
  turnMs = 0;
  readonly #db: Database;
  readonly #channel: string;
  readonly #workerId: () => number;
  readonly #log: Log;
  readonly #onRequeued: (inMs: number) => void;
  readonly #onFreed: (queue: number) => void;
  readonly #onEnded: () => void;
  /** Claimed, never started, on their way back. */
  #returns: RunningJob[] = [];
  #timer: NodeJS.Timeout | undefined;
  #flushing: Promise<void> | undefined;
  #pauseMs = 0;

  /**
   * `onRequeued` hears in how many ms the first of the jobs just queued again is due, `onFreed` of every queue with limits in which
   * a job has ended, `onEnded` when one has ended that somebody waits for.
   */
  constructor(
    db: Database,
    channel: string,
    workerId: () => number,
    log: Log,
    notes: NoteKeeper,
    onRequeued: (inMs: number) => void,
    onFreed: (queue: number) => void,
    onEnded: () => void,
  ) {
    this.#db = db;
    this.#channel = channel;
    this.#workerId = workerId;
    this.#log = log;
    this.notes = notes;
    this.#onRequeued = onRequeued;
    this.#onFreed = onFreed;
    this.#onEnded = onEnded;
  }

  /** An attempt ended. */
  finished(job: RunningJob, now: number, ended: { thrown: unknown } | undefined): void {
    if (ended === undefined && job.isPlain && job.interrupted === undefined) {
      job.span?.end({ outcome: "succeeded" });
      this.ledger.succeed(job, now);
    } else {
      const result = job.result(now, ended);
      // What it completed in a transaction of its own is done, or else its error is history's to tell.
      if (ended === undefined && job.completed) job.span?.end({ outcome: "succeeded" });
      else job.span?.end({ ...result, thrown: ended?.thrown });
      this.ledger.report(job, result);
    }
    if (job.lease.careful || job.watched) this.#flushIn(0);
  }

  /** Cancelled before they were started. */
  cancelled(jobs: readonly RunningJob[]): void {
    for (const job of jobs) this.ledger.report(job, job.cancelledUnstarted);
    if (jobs.length > 0) this.#flushIn(0);
  }

  /** Gives jobs back that were never started. */
  giveBack(jobs: readonly RunningJob[]): void {
    if (jobs.length === 0) return;
    for (const job of jobs) this.ledger.drop(job.lease, 1);
    this.#returns.push(...jobs);
    this.returned += jobs.length;
    this.#flushIn(0);
  }

  /** Sees to it that what is finished gets settled even when no claim takes it along. */
  settleSoon(): void {
    if (this.#timer === undefined && this.#hasWork) this.#flushIn(this.#patienceMs);
  }

  /** Settles everything that is finished. Throws what the database throws; nothing is lost then, and it can be called again. */
  async drain(): Promise<void> {
    while (this.#hasWork) await this.#roundOnce(Number.POSITIVE_INFINITY);
  }

  close(): void {
    clearTimeout(this.#timer);
  }

  get #hasWork(): boolean {
    return this.#returns.length > 0 || this.ledger.hasUnreported;
  }

  get #patienceMs(): number {
    return Math.min(Math.max(3 * this.turnMs, patienceMinMs), patienceMaxMs);
  }

  #flushIn(ms: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#flush(), Math.max(ms, this.#pauseMs));
  }

  async #flush(): Promise<void> {
    try {
      await this.#roundOnce(performance.now() - this.#patienceMs);
      this.#pauseMs = 0;
    } catch (error) {
      this.#pauseMs = Math.min(Math.max(this.#pauseMs * 2, 100), retryPauseMaxMs);
      this.#log.warn(
        { err: error, results: this.ledger.results.length, retry_ms: this.#pauseMs },
        "results not settled yet; keeping them and trying again",
      );
    }
    this.#timer = undefined;
    this.settleSoon();
  }

  /** One round at a time: two would send the same results and then forget the next ones. */
  #roundOnce(before: number): Promise<void> {
    this.#flushing ??= this.#round(before).finally(() => {
      this.#flushing = undefined;
    });
    return this.#flushing;
  }

  /** Gives back what is to be given back and settles what has finished before `before`. */
  async #round(before: number): Promise<void> {
    this.ledger.gather(before);
    const returns = [...this.#returns]; // more may be added while these are on their way
    if (returns.length > 0) {
      const leases = [...new Set(returns.map((job) => job.lease.id))];
      await giveBack(
        this.#db,
        this.#channel,
        this.#workerId(),
        leases,
        returns.map((job) => job.id),
      );
      this.#returns = this.#returns.slice(returns.length);
      for (const job of returns) this.ledger.reported(job.lease.id, 1);
    }
    const given = this.ledger.results.slice(0, flushMax);
    if (given.length === 0) return;
    const unsure = given.filter(({ completed, next }) => completed && next !== "done").map(({ jobId }) => jobId);
    const open = unsure.length === 0 ? undefined : await stillCompleting(this.#db, unsure);
    const results = open ? given.filter(({ jobId }) => !open.has(jobId)) : given;
    if (results.length === 0) throw new Error("Transactions that complete these jobs have not ended.");
    const noted = results.filter(({ lease }) => this.ledger.leases.get(lease)?.noted);
    if (noted.length > 0) await this.notes.flush(new Set(noted.map(({ lease }) => lease)));
    const verdicts = await settle(this.#db, this.#channel, this.#workerId(), results);
    const kept = open ? given.filter(({ jobId }) => open.has(jobId)) : [];
    this.ledger.results = [...kept, ...this.ledger.results.slice(given.length)];
    let dueInMs = Number.POSITIVE_INFINITY;
    const freed = new Set<number>();
    for (const result of results) {
      const lease = this.ledger.leases.get(result.lease);
      if (lease?.careful) freed.add(lease.queue);
      this.ledger.reported(result.lease, 1);
      if (result.code === "WORKER_SHUTDOWN") this.returned += 1;
      if (result.next === "retry" || result.next === "again") dueInMs = Math.min(dueInMs, result.delayMs ?? 0);
    }
    if (dueInMs < Number.POSITIVE_INFINITY) this.#onRequeued(dueInMs);
    for (const queue of freed) this.#onFreed(queue);
    if (results.some(({ watched, next }) => watched && next !== "again")) this.#onEnded();
    this.#tell(verdicts, results);
  }

  /** One line per task, error code and verdict, however many attempts ended that way at once. */
  #tell(verdicts: readonly (readonly [string, Verdict])[], results: readonly Result[]): void {
    if (verdicts.length === 0) return;
    const byJob = new Map(results.map((result) => [result.jobId, result]));
    const groups = new Map<string, { verdict: Verdict; last: Result; count: number }>();
    for (const [jobId, verdict] of verdicts) {
      const last = byJob.get(jobId);
      if (last === undefined || verdict === "again") continue;
      const key = `${last.task} ${last.code} ${verdict}`;
      groups.set(key, { verdict, last, count: (groups.get(key)?.count ?? 0) + 1 });
    }
    for (const { verdict, last, count } of groups.values()) {
      const { task, code, message, jobId: job, attempt, delayMs } = last;
      const fields = { task, code, attempts: count, job, attempt, error: message };
      if (verdict === "late")
        this.#log.warn(fields, "results came after the lease was taken away; recorded, not applied");
      else if (verdict === "retry")
        this.#log.info({ ...fields, retry_ms: delayMs }, "attempts failed; they will be tried again");
      else if (verdict === "cancelled") this.#log.info(fields, "jobs cancelled");
      else this.#log.warn(fields, "jobs given up; they are dead letters now");
    }
  }
}
