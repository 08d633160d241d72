/** A worker in slow motion: each step of the engine by hand, through the functions the real one uses. */
import type { Millrace } from "millrace";
import {
  type ClaimedRow,
  claimSuspect,
  closeAndClaim,
  fromTheHead,
  leaseId,
  lookAround,
} from "../../src/jobs/claim-store.ts";
import { type Result, completeWithin, giveBack, settle } from "../../src/jobs/settle-store.ts";
import { claimWithCare } from "../../src/jobs/careful-store.ts";
import { deregister, reap, register } from "../../src/jobs/workers-store.ts";
import type { Executor } from "../../src/db/database.ts";
import { sql } from "../../src/db/sql.ts";

export interface Claim {
  readonly lease: string;
  readonly queue: number;
  readonly jobs: readonly { readonly id: string; readonly attempt: number; readonly row: ClaimedRow }[];
}

export type End = Partial<
  Pick<Result, "outcome" | "code" | "message" | "delayMs" | "completed" | "startedMs" | "watched">
> &
  Pick<Result, "next">;

export const succeeded: End = { next: "done" };

/** A result as a worker would report it; what is not said follows from what happens next. */
function resultOf(claim: Claim, id: string, end: End): Result {
  const job = claim.jobs.find((one) => one.id === id);
  if (job === undefined) throw new Error(`${id} is not of this lease`);
  const outcome = (
    { done: "succeeded", retry: "failed", dead: "failed", again: "snoozed", cancelled: "cancelled" } as const
  )[end.next];
  return { lease: claim.lease, jobId: id, attempt: job.attempt, outcome, startedMs: 1, tookMs: 2, ...end };
}

export class StoreWorker {
  readonly id: number;
  readonly #mill: Millrace;
  #leases = 0;

  private constructor(mill: Millrace, id: number) {
    this.#mill = mill;
    this.id = id;
  }

  static async register(mill: Millrace, name = "by hand", leaseMs = 10_000): Promise<StoreWorker> {
    const facts = { name, host: "here", pid: 1, version: "0", queues: null, tasks: null, concurrency: 1, leaseMs };
    return new StoreWorker(mill, await register(mill.db, facts));
  }

  get channel(): string {
    return `millrace_${this.#mill.db.schema}`;
  }

  /** Claims up to `limit` jobs that are due in the queue, highest priority first. */
  async claim(limit: number, queue = "default"): Promise<Claim> {
    const { db, names } = this.#mill;
    const number = await names.queues.id(queue);
    const { lanes } = await lookAround(db, [number], null);
    const marks = lanes
      .filter(([of]) => of === number)
      .map(([, rank]) => ({ rank, ...fromTheHead }))
      .toSorted((a, b) => a.rank - b.rank);
    const lease = this.#newLease();
    const turn = await closeAndClaim(db, undefined, {
      lease,
      worker: this.id,
      queue: number,
      lanes: marks,
      tasks: null,
      limit,
    });
    return { lease, queue: number, jobs: turn.jobs.map((row) => ({ id: row[1], attempt: row[4], row })) };
  }

  async claimSuspect(): Promise<Claim | undefined> {
    const lease = this.#newLease();
    const suspect = await claimSuspect(this.#mill.db, lease, this.id, null, null);
    if (suspect === undefined || "carefulQueue" in suspect) return undefined;
    return { lease, queue: suspect.queue, jobs: [{ id: suspect.job[1], attempt: suspect.job[4], row: suspect.job }] };
  }

  /** Claims from a queue with limits: one lease each. */
  async claimWithCare(limit: number, queue = "default"): Promise<Claim[]> {
    const { db, names } = this.#mill;
    const number = await names.queues.id(queue);
    const leases = Array.from({ length: limit }, () => this.#newLease());
    const want = { firstLease: leases[0] ?? "", worker: this.id, queue: number, tasks: null, limit, suspects: false };
    const { jobs } = await claimWithCare(db, want);
    return jobs.map((row, i) => ({
      lease: leases[i] as string,
      queue: number,
      jobs: [{ id: row[1], attempt: row[4], row }],
    }));
  }

  /** Reports all jobs of a claim as one whole batch of successes; false when the lease was no longer ours. */
  async close(claim: Claim): Promise<boolean> {
    const ids = claim.jobs.map(({ id }) => id).toSorted();
    const [minId = "", maxId = ""] = [ids[0], ids.at(-1)];
    const times = ids.map(() => 1);
    const whole = { id: claim.lease, minId, maxId, startedMs: times, tookMs: times, tookMsSum: ids.length };
    const nothing = { lease: "0", worker: this.id, queue: claim.queue, lanes: [], tasks: null, limit: 0 };
    return (await closeAndClaim(this.#mill.db, whole, nothing)).closed;
  }

  /** Reports jobs of a claim one by one; returns the ids of those that came too late. */
  async settle(claim: Claim, ends: Readonly<Record<string, End>>): Promise<string[]> {
    const results = Object.entries(ends).map(([id, end]) => resultOf(claim, id, end));
    const verdicts = await settle(this.#mill.db, this.channel, this.id, results);
    return verdicts.filter(([, verdict]) => verdict === "late").map(([id]) => id);
  }

  async giveBack(claim: Claim, ids: readonly string[] | null = null): Promise<number> {
    return giveBack(this.#mill.db, this.channel, this.id, [claim.lease], ids);
  }

  /** Completes one job inside a transaction that then commits, or not. */
  async complete(claim: Claim, id: string, commit = true): Promise<boolean> {
    const rollback = new Error("rolled back");
    let held = false;
    await this.#mill.db
      .transaction(async (tx) => {
        held = await this.completeIn(tx, claim, id);
        if (!commit) throw rollback;
      })
      .catch((error: unknown) => {
        if (error !== rollback) throw error;
      });
    return held;
  }

  async completeIn(tx: Executor, claim: Claim, id: string): Promise<boolean> {
    return completeWithin(tx, {
      ...resultOf(claim, id, succeeded),
      id,
      worker: this.id,
      startedMs: 1,
      result: null,
      watched: false,
    });
  }

  /** Stops beating, long ago. */
  async die(): Promise<void> {
    await this.#mill.db.query(
      sql`update millrace.workers set beat_at = now() - interval '1 hour' where id = ${this.id}`,
    );
  }

  async signOff(): Promise<void> {
    await deregister(this.#mill.db, this.channel, this.id);
  }

  #newLease(): string {
    this.#leases += 1;
    return leaseId(this.id, this.#leases);
  }
}

/** Takes back what dead workers held, as a worker of the number `self` would. */
export async function reapNow(mill: Millrace, self = 0): ReturnType<typeof reap> {
  return reap(mill.db, `millrace_${mill.db.schema}`, self);
}
