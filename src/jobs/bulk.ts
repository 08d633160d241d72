/** Carries out a bulk operation: batch by batch, at a pace that leaves the database to others, until it is done or told to stop. */
import { setTimeout as sleep } from "node:timers/promises";
import { uuidv7 } from "../core/uuid.ts";
import type { Database, Executor } from "../db/database.ts";
import { type LockedBulk, advanceBulk, endStopped, lockBulk } from "./bulk-store.ts";
import { nextBatch } from "./bulk-walk-store.ts";
import { type Signature, cancelJobs } from "./cancel-store.ts";
import type { JobContext } from "./context.ts";
import { moveJobs, removeJobs, replayJobs, retryJobs } from "./orders-store.ts";

/** Jobs per transaction at most: small enough that nobody waits long for a lock. */
const batchMax = 500;
/** After this long the job goes to the back of its queue, so that others of the queue have a turn; in ms. */
const turnMs = 60_000;

interface Setting {
  readonly db: Database;
  readonly channel: string;
  /** Time for ids, ms since 1970. */
  readonly now: () => number;
}

/** `job` has the id of the operation. Returns when the operation has ended; throws when it is to go on later. */
export async function runBulk(
  setting: Setting,
  job: Pick<JobContext, "id" | "signal" | "log" | "snooze">,
): Promise<void> {
  const { signal } = job;
  const turnEnds = performance.now() + turnMs;
  let nextAt = performance.now();
  for (;;) {
    signal.throwIfAborted();
    const step = await setting.db.transaction((tx) => doBatch(setting, tx, job.id));
    if (step === "over") return;
    if (performance.now() > turnEnds) job.snooze(0);
    nextAt = Math.max(nextAt, performance.now() - 1_000) + (step.lookedAt / step.perSecond) * 1_000;
    const pauseMs = nextAt - performance.now();
    if (pauseMs > 0) await sleep(pauseMs, undefined, { signal });
  }
}

async function doBatch(
  setting: Setting,
  tx: Executor,
  id: string,
): Promise<"over" | { lookedAt: number; perSecond: number }> {
  const bulk = await lockBulk(tx, id);
  if (bulk === undefined || !(bulk.status === "waiting" || bulk.status === "running")) return "over";
  if (bulk.stopAsked) {
    await endStopped(tx, id);
    return "over";
  }
  const { perSecond } = bulk;
  // Half a second's worth, so that a slow one is slow and steady, and hears of its stop.
  const limit = Math.min(Math.max(Math.ceil(perSecond / 2), 1), batchMax);
  const { ids, place } = await nextBatch(tx, bulk, limit);
  const changed = ids.length === 0 ? 0 : await act(setting, tx, bulk, ids);
  await advanceBulk(tx, id, { lookedAt: ids.length, changed, place });
  return place === null ? "over" : { lookedAt: ids.length, perSecond };
}

/** How many jobs it changed. */
async function act(
  { channel, now }: Setting,
  tx: Executor,
  { action, filter, options, by }: LockedBulk,
  ids: readonly string[],
): Promise<number> {
  const signature: Signature = { by, reason: options.reason ?? null };
  const { queueId: queue, priority, delayMs } = options;
  switch (action) {
    case "retry":
      return (await retryJobs(tx, channel, ids, signature)).length;
    case "cancel":
      return (await cancelJobs(tx, channel, ids, signature, filter.status === "active" || filter.ids !== undefined))
        .size;
    case "replay": {
      const pairs = ids.map((id) => [id, uuidv7(now())] as const);
      const runAt = options.runAt === undefined ? undefined : new Date(options.runAt);
      return (await replayJobs(tx, channel, pairs, { queue, priority, delayMs, runAt }, signature)).length;
    }
    case "remove":
      return (await removeJobs(tx, ids)).length;
    case "reprioritise":
      return (await moveJobs(tx, channel, ids, action, { priority }, signature)).length;
    case "move":
      return (await moveJobs(tx, channel, ids, action, { queue }, signature)).length;
  }
}
