/** Cancelling one job, and waiting until its worker has said what became of it. */
import type { Database } from "../db/database.ts";
import { type Signature, cancelJobs, wasIgnored } from "./cancel-store.ts";
import { type JobStatus, findJobs } from "./read-store.ts";

export interface Cancelled {
  /** `cancelling`: its task was asked to end and had not when we stopped waiting. */
  readonly status: JobStatus | "cancelling";
  /** The task was told five seconds ago or more and went on. */
  readonly ignored: boolean;
}

/** Between two looks at a job that was asked to end, in ms. */
const lookMinMs = 10;
const lookMaxMs = 100;
/** A job that moves while it is looked for is looked for again at once, so often at most. */
const missesMax = 100;

const ended: ReadonlySet<JobStatus> = new Set(["completed", "failed", "cancelled"]);

/** Undefined when the job had ended before, or does not exist. */
export async function cancelJob(
  db: Database,
  channel: string,
  id: string,
  signature: Signature,
  withinMs: number,
): Promise<Cancelled | undefined> {
  const giveUpAt = performance.now() + withinMs;
  let asked = false;
  let pauseMs = lookMinMs;
  for (let misses = 0; ;) {
    // Again each time: asked to end, it may have been given back instead, and waits.
    const outcome = (await cancelJobs(db, channel, [id], signature, true)).get(id);
    if (outcome === "cancelled") return { status: "cancelled", ignored: false };
    asked ||= outcome === "asked";
    if (outcome === undefined) {
      const status = (await findJobs(db, [id]))[0]?.status;
      if (status === undefined || ended.has(status)) return asked && status ? { status, ignored: false } : undefined;
      misses += 1;
      if (misses < missesMax) continue;
      return undefined;
    }
    misses = 0;
    const leftMs = giveUpAt - performance.now();
    if (leftMs <= 0) return { status: "cancelling", ignored: (await wasIgnored(db, id)) ?? false };
    await new Promise((resolve) => setTimeout(resolve, Math.min(pauseMs, leftMs)));
    pauseMs = Math.min(pauseMs * 2, lookMaxMs);
  }
}
