/** How far ahead a worker claims. */
import type { Runner } from "./runner.ts";

/** Jobs per claim at most: beyond it a statement gains little (docs/decisions/0003). */
const batch = 1_000;
/** Claimed and not started at most. */
const aheadMax = 2_000;

/**
 * How many jobs to claim now: the free slots, and as many more as will start before the next claim is answered. `requested`: asked for by
 * claims under way; `turnMs`: how long a claim takes.
 */
export function wanted(runner: Runner, requested: number, turnMs: number, now: number): number {
  runner.measure(now);
  const horizonMs = Math.min(Math.max(3 * turnMs, 10), 100);
  const ahead = Math.min(Math.floor(runner.rate * horizonMs), aheadMax);
  const want = runner.free + ahead - runner.buffered - requested;
  return want < Math.max(1, ahead / 2) ? 0 : Math.min(want, batch);
}
