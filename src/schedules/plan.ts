/** What to do about the ticks of one schedule that have come: which fire, wait, are skipped or were missed, and when the next one is. Pure. */
import type { Spec } from "./definition.ts";
import { nextTick, stretch } from "./ticks.ts";

/** Late ticks fired one by one at most, by `catchUp`; the older ones are recorded together. */
const catchUpMax = { none: 0, last: 1, all: 1_000 } as const;
/** The same of ticks in time, which a long grace may make many. */
const inTimeMax = 1_000;
/** Runs of one schedule that may wait for those before them: all that are made up for, and as many of those in time. */
export const queuedMax = 1_000;

export interface Situation {
  readonly spec: Spec;
  readonly anchorMs: number;
  /** The first tick that was not dealt with. */
  readonly nextMs: number;
  readonly nowMs: number;
  /** Runs that have not ended, and those that wait for them. */
  readonly active: number;
  readonly queued: number;
}

export interface PlannedRun {
  readonly status: "fired" | "queued" | "skipped" | "missed";
  readonly tickMs: number;
  /** The last of several. */
  readonly untilMs: number | null;
  readonly count: number;
  readonly atLeast: boolean;
}

export interface Plan {
  readonly runs: readonly PlannedRun[];
  /** Null: none comes. */
  readonly nextMs: number | null;
}

export function plan({ spec, anchorMs, nextMs, nowMs, active, queued }: Situation): Plan {
  const { catchUp, jitterMs, startGraceMs } = spec;
  const runs: PlannedRun[] = [];
  // Jitter is not lateness.
  const missedBefore = Math.min(nowMs - jitterMs - startGraceMs, nowMs + 1);
  const late = stretch(spec, anchorMs, nextMs, missedBefore, catchUpMax[catchUp]);
  const firstInTime = late.count === 0 ? nextMs : nextTick(spec, anchorMs, missedBefore - 1);
  const inTime = stretch(spec, anchorMs, firstInTime ?? Number.POSITIVE_INFINITY, nowMs + 1, inTimeMax);
  const punctual = inTime.newest;
  // One run makes up for all that were missed: one that comes in time anyway is that run.
  const caughtUp = catchUp === "last" && punctual.length > 0 ? [] : late.newest;
  if (late.count > caughtUp.length)
    runs.push({
      status: "missed",
      tickMs: nextMs,
      untilMs: late.count - caughtUp.length === 1 ? null : (late.newest.at(-1 - caughtUp.length) ?? late.lastOlder),
      count: late.count - caughtUp.length,
      atLeast: late.atLeast,
    });
  if (inTime.count > punctual.length && firstInTime !== null)
    runs.push({
      status: "missed",
      tickMs: firstInTime,
      untilMs: inTime.lastOlder,
      count: inTime.count - punctual.length,
      atLeast: inTime.atLeast,
    });
  let slots = slotsOf(spec, active);
  let waiting = queued;
  const decide = (tickMs: number, mayWait: boolean): void => {
    const overflow = mayWait && waiting < queuedMax ? "queued" : "skipped";
    const status = slots > 0 && waiting === 0 ? "fired" : overflow;
    if (status === "fired") slots -= 1;
    if (status === "queued") waiting += 1;
    const last = runs.at(-1);
    if (status === "skipped" && last?.status === "skipped")
      runs[runs.length - 1] = { ...last, untilMs: tickMs, count: last.count + 1 };
    else runs.push({ status, tickMs, untilMs: null, count: 1, atLeast: false });
  };
  // Each that is made up for runs: where they may not run together, one after the other.
  for (const tickMs of caughtUp) decide(tickMs, spec.overlap === "queue" || catchUp === "all");
  for (const tickMs of punctual) decide(tickMs, spec.overlap === "queue");
  return { runs, nextMs: nextTick(spec, anchorMs, nowMs) };
}

/** How many more runs may begin. */
export function slotsOf({ overlap, concurrency }: Spec, active: number): number {
  return overlap === "allow" ? Number.POSITIVE_INFINITY : Math.max(concurrency - active, 0);
}
