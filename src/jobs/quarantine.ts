/**
 * Runs suspects, jobs that went down with a worker, one at a time and nothing beside them, so that the one that kills its worker
 * is known by name (docs/decisions/0006).
 */
import type { Database } from "../db/database.ts";
import { claimWithCare } from "./careful-store.ts";
import { type ClaimedRow, claimSuspect } from "./claim-store.ts";
import { Lease } from "./ledger.ts";
import type { Settler } from "./settler.ts";
import type { AnyTask } from "./task.ts";

/** A suspect may have the worker to itself for this long, doubled with each loss, so that a slow killer is caught in the end. */
const aloneMs = 10_000;
/** Suspects are run one after another for this long; then ordinary work has the worker for as long as they had it. */
const turnMs = 1_000;

interface Setting {
  readonly db: Database;
  readonly workerId: () => number;
  readonly queues: readonly number[] | null;
  readonly tasks: ReadonlyMap<number, AnyTask>;
  readonly otherTasks: "leave" | "fail" | AnyTask;
}

interface Cell {
  /** Whether the worker still takes jobs. */
  open(): boolean;
  newLease(): string;
  /** Asks the database for a job under this lease. */
  asking<Answer>(lease: string, ask: () => Promise<Answer>): Promise<Answer>;
  /** Runs it; false when that takes longer than `withinMs`. */
  run(lease: Lease, job: ClaimedRow, withinMs: number): Promise<boolean>;
}

/** Returns how many were run. A suspect that takes long goes on beside ordinary jobs: dying in company proves nothing, and it comes back. */
export async function runSuspects(setting: Setting, settler: Settler, cell: Cell): Promise<number> {
  const turnEnds = performance.now() + turnMs;
  let ran = 0;
  while (cell.open() && performance.now() < turnEnds) {
    // Settled first: the reaper counts what the worker holds, and one finished job more would be company.
    await settler.drain();
    const id = cell.newLease();
    const suspect = await cell.asking(id, () => next(setting, id));
    if (suspect === undefined) break;
    const { queue, queueName, careful, losses, job } = suspect;
    ran += 1;
    const lease = new Lease(id, queue, queueName, performance.now(), 1, careful);
    if (!(await cell.run(lease, job, aloneMs * 2 ** Math.min(losses - 1, 15)))) break;
  }
  return ran;
}

interface Next {
  readonly queue: number;
  readonly queueName: string;
  readonly careful: boolean;
  readonly losses: number;
  readonly job: ClaimedRow;
}

async function next({ db, workerId, queues, tasks, otherTasks }: Setting, id: string): Promise<Next | undefined> {
  const own = otherTasks === "leave" ? [...tasks.keys()] : null;
  const suspect = await claimSuspect(db, id, workerId(), queues, own);
  if (suspect === undefined) return undefined;
  if (!("carefulQueue" in suspect)) return { ...suspect, careful: false };
  const { carefulQueue: queue } = suspect;
  const want = { firstLease: id, worker: workerId(), queue, tasks: own, limit: 1, suspects: true };
  const { queueName, jobs, losses } = await claimWithCare(db, want);
  const [job] = jobs;
  return job && { queue, queueName, careful: true, losses: losses[0] ?? 1, job };
}
