/**
 * What this worker holds and has yet to report. A lease whose jobs all succeed is reported whole, together with the next claim;
 * everything else goes job by job through the careful statement.
 */
import { wholeMs } from "../core/duration.ts";
import type { WholeLease } from "./claim-store.ts";
import type { RunningJob } from "./running.ts";
import type { Result } from "./settle-store.ts";

/** One claimed batch. */
export class Lease {
  readonly id: string;
  readonly queue: number;
  readonly queueName: string;
  /** performance.now() when the claim was answered. */
  readonly claimedAt: number;
  readonly size: number;
  /** Jobs not finished yet. */
  open: number;
  /** Jobs that the database still holds for us under this lease. */
  held: number;
  /** All finished jobs so far succeeded at once, and none was reported yet. */
  whole = true;
  /** On its way with a claim: not to be reported a second time meanwhile. */
  closing = false;
  /** Jobs of it have said something, which is written before they are settled. */
  noted = false;
  minId = "";
  maxId = "";
  /** Successes not yet reported, in order of finishing. */
  readonly finished: RunningJob[] = [];
  /** performance.now() when the first of them finished. */
  finishedSince = 0;
  readonly startedMs: number[];
  readonly tookMs: number[];
  tookMsSum = 0;

  /** Of a queue with limits: what finishes makes room for others, so it is reported at once. */
  readonly careful: boolean;

  constructor(id: string, queue: number, queueName: string, claimedAt: number, size: number, careful = false) {
    this.id = id;
    this.queue = queue;
    this.queueName = queueName;
    this.claimedAt = claimedAt;
    this.size = size;
    this.careful = careful;
    this.whole = !careful;
    this.open = size;
    this.held = size;
    this.startedMs = Array.from<number>({ length: size }).fill(0);
    this.tookMs = Array.from<number>({ length: size }).fill(0);
  }

  /** Ids begin with their time: a batch that spans more than about 17 minutes of them is reported in parts. */
  get narrow(): boolean {
    return this.minId.slice(0, 7) === this.maxId.slice(0, 7);
  }
}

export class Ledger {
  /** Every lease of which the database still holds something for us. */
  readonly leases = new Map<string, Lease>();
  /** Finished whole, waiting to be closed. */
  readonly closable: Lease[] = [];
  /** Results for the careful statement. */
  results: Result[] = [];

  add(lease: Lease): void {
    this.leases.set(lease.id, lease);
  }

  /** A plain success. The common case, and the cheap one. */
  succeed(job: RunningJob, now: number): void {
    const { lease } = job;
    lease.open -= 1;
    if (!lease.whole) {
      this.results.push(job.result(now, undefined));
      return;
    }
    const { place } = job;
    const took = wholeMs(now - job.startedAt);
    lease.startedMs[place] = wholeMs(job.startedAt - lease.claimedAt);
    lease.tookMs[place] = took;
    lease.tookMsSum += took;
    if (lease.minId === "" || job.id < lease.minId) lease.minId = job.id;
    if (job.id > lease.maxId) lease.maxId = job.id;
    if (lease.finished.length === 0) lease.finishedSince = now;
    lease.finished.push(job);
    if (lease.open > 0) return;
    if (lease.narrow) this.closable.push(lease);
    else this.breakUp(lease);
  }

  /** Anything else: the lease is no longer reported whole. */
  report(job: RunningJob, result: Result): void {
    const { lease } = job;
    lease.open -= 1;
    this.breakUp(lease);
    this.results.push(result);
  }

  /** Jobs of a lease that left without an attempt (given back). */
  drop(lease: Lease, count: number): void {
    lease.open -= count;
    this.breakUp(lease);
  }

  /** From now on this lease is reported job by job. */
  breakUp(lease: Lease): void {
    if (!lease.whole) return;
    lease.whole = false;
    for (const job of lease.finished) {
      const { place } = job;
      this.results.push({
        lease: lease.id,
        jobId: job.id,
        attempt: job.attempt,
        outcome: "succeeded",
        next: "done",
        startedMs: lease.startedMs[place] ?? 0,
        tookMs: lease.tookMs[place] ?? 0,
      });
    }
    lease.finished.length = 0;
  }

  /** The database has taken note of `count` jobs of this lease. */
  reported(leaseId: string, count: number): void {
    const lease = this.leases.get(leaseId);
    if (lease === undefined) return;
    lease.held -= count;
    if (lease.held <= 0) this.leases.delete(leaseId);
  }

  /** Whether something finished waits to be reported. */
  get hasUnreported(): boolean {
    if (this.results.length > 0) return true;
    for (const lease of this.leases.values()) if (lease.finished.length > 0 && !lease.closing) return true;
    return false;
  }

  /** Moves what finished in leases that have waited since `before` or longer into `results`. */
  gather(before: number): void {
    for (const lease of this.leases.values()) {
      if (lease.finished.length > 0 && !lease.closing && lease.finishedSince <= before) this.breakUp(lease);
    }
  }

  /** The next whole lease to close together with a claim. */
  takeClosable(): Lease | undefined {
    const lease = this.closable.shift();
    if (lease === undefined || lease.whole) {
      if (lease) lease.closing = true;
      return lease;
    }
    return this.takeClosable(); // this one was reported job by job meanwhile
  }

  /** What came of closing it. Not closed: no longer ours, or closed by a try whose answer was lost; job by job, history tells. */
  closed(lease: Lease, done: boolean): void {
    lease.closing = false;
    if (done) this.reported(lease.id, lease.size);
    else this.breakUp(lease);
  }

  static whole(lease: Lease): WholeLease {
    return {
      id: lease.id,
      minId: lease.minId,
      maxId: lease.maxId,
      startedMs: lease.startedMs,
      tookMs: lease.tookMs,
      tookMsSum: lease.tookMsSum,
    };
  }
}
