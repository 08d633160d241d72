/** Draining once everything is done: workers go on until no queue has a job that waits or runs. */
import { setTimeout as pause } from "node:timers/promises";
import { MillraceError } from "../core/errors.ts";
import type { QueueStats } from "../jobs/stats-store.ts";

export interface DrainOptions {
  /** Who orders it, for the audit. */
  by?: string;
  /** First lets no schedule fire, and workers go on until every queue has 0 waiting and 0 active. Delayed and failed jobs are not waited for. */
  untilEmpty?: boolean;
  /** With `untilEmpty`: gives up waiting, and leaves everything as it is. */
  signal?: AbortSignal;
  /** With `untilEmpty`: told the sizes at every look, once a second. */
  onLook?: (queues: readonly QueueStats[]) => void;
}

export const drainNames: ReadonlySet<string> = new Set(["by", "untilEmpty", "signal", "onLook"]);

const lookEveryMs = 1_000;
/** Looking must stay cheap: where counting takes a second, we count every ten. */
const pausePerLook = 10;

interface Look {
  readonly queues: readonly QueueStats[];
  readonly drained: unknown;
}

/**
 * Lets no schedule fire, does the rest of a drain, and lets them fire again when that is given up. Whoever had stopped them before has
 * them still stopped.
 */
export async function withoutSchedules<Result>(
  stop: () => Promise<boolean>,
  goOn: () => Promise<unknown>,
  rest: () => Promise<Result>,
): Promise<Result> {
  const ours = await stop();
  try {
    return await rest();
  } catch (error) {
    if (ours) await goOn();
    throw error;
  }
}

/** Resolves with the look that found every queue empty. Throws `SYSTEM_DRAINED` when nobody works towards that, and what the signal says. */
export async function untilEmpty<Found extends Look>(
  look: () => Promise<Found>,
  onLook: (found: Found) => void,
  signal?: AbortSignal,
): Promise<Found> {
  for (;;) {
    signal?.throwIfAborted();
    const askedAt = performance.now();
    const found = await look();
    const tookMs = performance.now() - askedAt;
    signal?.throwIfAborted();
    onLook(found);
    if (found.queues.every(({ waiting, active }) => waiting === 0 && active === 0)) return found;
    if (found.drained !== null)
      throw new MillraceError("SYSTEM_DRAINED", "The system is drained already, so its queues do not become empty.");
    // Only the signal can end it early, and is asked first thing.
    await pause(Math.max(lookEveryMs, tookMs * pausePerLook), undefined, signal && { signal }).catch(() => undefined);
  }
}
