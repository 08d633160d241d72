/** Carries out a bulk operation: batch by batch, at a pace that leaves the database to others, until it is done or told to stop. */
import { setTimeout as sleep } from "node:timers/promises";
import { uuidv7 } from "../core/uuid.ts";
import type { Database, Executor } from "../db/database.ts";
import type { Denial } from "./admission.ts";
import { type LockedBulk, advanceBulk, endStopped, lockBulk } from "./bulk-store.ts";
import { nextBatch } from "./bulk-walk-store.ts";
import { type Signature, cancelJobs } from "./cancel-store.ts";
import type { JobContext } from "./context.ts";
import { moveByRules } from "./move.ts";
import { moveJobs, removeJobs, retryJobs } from "./orders-store.ts";
import { type ReplayRoom, replayByRules } from "./replay.ts";

export const bulkTaskName = "millrace.bulk";

/** Jobs per transaction at most: small enough that nobody waits long for a lock. */
const batchMax = 500;
/** After this long the job goes to the back of its queue, so that others of the queue have a turn; in ms. */
const turnMs = 60_000;

/** Of what a queue takes per minute, a replay or a move of many leaves the rest to producers. */
const share = 0.5;

interface Setting extends ReplayRoom {
  readonly db: Database;
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
    // When it is done: a record that fails must not take the batch with it.
    if (step.denied !== undefined) await setting.admission.record(step.denied.queue, step.denied.denials);
    if (step.over) return;
    // The worker's place is for others meanwhile.
    if (step.waitMs !== undefined) job.snooze(step.waitMs);
    if (performance.now() > turnEnds) job.snooze(0);
    nextAt = Math.max(nextAt, performance.now() - 1_000) + (step.lookedAt / step.perSecond) * 1_000;
    const pauseMs = nextAt - performance.now();
    if (pauseMs > 0) await sleep(pauseMs, undefined, { signal });
  }
}

interface Step {
  readonly lookedAt: number;
  readonly perSecond: number;
  /** A queue takes no more jobs until then. */
  readonly waitMs: number | undefined;
  readonly denied?: { readonly queue: string; readonly denials: readonly Denial[] };
  readonly over: boolean;
}

async function doBatch(setting: Setting, tx: Executor, id: string): Promise<"over" | Step> {
  const bulk = await lockBulk(tx, id);
  if (bulk === undefined || !(bulk.status === "waiting" || bulk.status === "running")) return "over";
  if (bulk.stopAsked) {
    await endStopped(tx, id);
    return "over";
  }
  const { perSecond } = bulk;
  // Half a second's worth, so that a slow one is slow and steady, and hears of its stop.
  const limit = Math.min(Math.max(Math.ceil(perSecond / 2), 1), batchMax);
  const { ids, places, place: end } = await nextBatch(tx, bulk, limit);
  const { changed, lookedAt, waitMs, denials = [] } = await act(setting, tx, bulk, ids);
  const place = lookedAt === ids.length ? end : places[lookedAt - 1];
  // Undefined: it is where it was.
  if (place !== undefined) await advanceBulk(tx, id, { lookedAt, changed, place });
  const denied = denials.length === 0 ? {} : { denied: { queue: bulk.options.queue ?? "", denials } };
  return { lookedAt, perSecond, waitMs, over: place === null, ...denied };
}

interface Done {
  readonly changed: number;
  /** Fewer than there were when a queue takes no more for now. */
  readonly lookedAt: number;
  readonly waitMs?: number | undefined;
  /** Why some stay where they are. */
  readonly denials?: readonly Denial[];
}

async function act(setting: Setting, tx: Executor, bulk: LockedBulk, ids: readonly string[]): Promise<Done> {
  if (ids.length === 0) return { changed: 0, lookedAt: 0 };
  if (bulk.action === "replay") return replay(setting, tx, bulk, ids);
  const { channel } = setting;
  const { action, filter, options, by } = bulk;
  const signature: Signature = { by, reason: options.reason ?? null };
  const { queueId: queue, priority } = options;
  if (action === "move") {
    const moved = await moveByRules(tx, setting, ids, action, { queue }, signature, share);
    const { lookedAt, tooLarge: denials, full } = moved;
    return { changed: moved.ids.length, lookedAt, denials, waitMs: full?.error.retryAfterMs };
  }
  const change = async (): Promise<number> => {
    switch (action) {
      case "retry":
        return (await retryJobs(tx, channel, ids, signature)).length;
      case "cancel":
        return (await cancelJobs(tx, channel, ids, signature, filter.status === "active" || filter.ids !== undefined))
          .size;
      case "remove":
        return (await removeJobs(tx, ids)).length;
      case "reprioritise":
        return (await moveJobs(tx, channel, ids, action, { priority }, signature)).length;
    }
  };
  return { changed: await change(), lookedAt: ids.length };
}

/** As many of them, in order, as their queues take in this minute. */
async function replay(
  setting: Setting,
  tx: Executor,
  { options, by }: LockedBulk,
  ids: readonly string[],
): Promise<Done> {
  const { queueId: queue, priority, delayMs } = options;
  const pairs = ids.map((id) => [id, uuidv7(setting.now())] as const);
  const runAt = options.runAt === undefined ? undefined : new Date(options.runAt);
  const signature: Signature = { by, reason: options.reason ?? null };
  const made = await replayByRules(tx, setting, pairs, { queue, priority, delayMs, runAt }, signature, share);
  return { changed: made.ids.length, lookedAt: made.lookedAt, waitMs: made.denied?.denial.error.retryAfterMs };
}
