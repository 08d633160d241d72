/**
 * When a schedule ticks: cron patterns in a time zone, and intervals counted from an anchor so that they do not drift. Pure.
 *
 * A pattern is a calendar of wall times; what its hours are decides what a change of the clocks does to it. Fixed hours (`0 2,14 * * *`)
 * tick once for each wall time: one that is skipped as soon as the clocks have gone over it, one that comes twice the first time. Without
 * (`0 * * * *`, every hour) it ticks whenever the clocks show such a time, however often that is.
 */
import { Cron } from "croner";
import { describeMs } from "../core/duration.ts";
import { MillraceError } from "../core/errors.ts";
import { didYouMean, show } from "../core/options.ts";
import { changeIn, furthestShown, offsetMs, reached } from "./wall.ts";

/** One of `cron` and `everyMs`. Times are whole milliseconds since 1970. */
export interface Timing {
  readonly cron: string | null;
  readonly everyMs: number | null;
  /** IANA name. */
  readonly zone: string;
}

/** Parsing a pattern, and asking it for a time, cost some 100 µs each; those that are used most stay. */
const patternsMax = 10_000;

interface Pattern {
  /** Its wall times: it knows of no zone. */
  readonly calendar: Cron;
  readonly fixedHours: boolean;
  /** The last answer: whoever asks about a moment between the two gets the second. */
  asked: number;
  next: number | null;
}

const patterns = new Map<string, Pattern>();

function patternOf({ cron, zone }: Timing): Pattern {
  const key = `${zone} ${cron}`;
  const known = patterns.get(key);
  if (known) return known;
  const pattern = cron ?? "";
  const parsed = {
    calendar: parse(pattern),
    fixedHours: hasFixedHours(pattern),
    asked: Number.POSITIVE_INFINITY,
    next: null,
  };
  if (patterns.size >= patternsMax) patterns.delete(patterns.keys().next().value as string);
  patterns.set(key, parsed);
  return parsed;
}

function parse(cron: string): Cron {
  const refuse = (why: string, cause?: unknown): never => {
    throw new MillraceError("SCHEDULE_INVALID", `cron ${show(cron)} is not a pattern: ${why}.`, { cause });
  };
  const fields = cron.trim().split(/\s+/).length;
  if (!cron.startsWith("@") && fields !== 5 && fields !== 6)
    return refuse(
      `it must have five fields, or six with seconds first, or be @daily or its like, not ${fields} ${fields === 1 ? "field" : "fields"}`,
    );
  try {
    return new Cron(cron, { utcOffset: 0, paused: true, mode: "5-or-6-parts" });
  } catch (error) {
    return refuse((error as Error).message.replace(/^Cron\w+: /, "").replace(/\.$/, ""), error);
  }
}

/** Whether its hours are numbers, not "every hour" or "every two hours". */
function hasFixedHours(cron: string): boolean {
  if (cron.startsWith("@")) return cron.toLowerCase() !== "@hourly";
  const fields = cron.trim().split(/\s+/);
  return !/[*?]/.test(fields[fields.length - 4] ?? "");
}

/** A pattern has no year: one that comes after this comes always. */
const someTime = Date.UTC(2020, 0);
/** How far the gaps of a pattern are looked at. */
const gapsMax = 100;

/** Throws `SCHEDULE_INVALID` for a pattern that cannot be read, that never comes, or that comes again before its jitter is over. */
export function checkCron(cron: string, jitterMs: number): void {
  const calendar = parse(cron);
  let wall = calendar.nextRun(new Date(someTime));
  if (wall === null) throw new MillraceError("SCHEDULE_INVALID", `cron ${show(cron)} never comes.`);
  for (let n = 0; jitterMs > 0 && n < gapsMax; n += 1) {
    const next = calendar.nextRun(wall);
    if (next === null) return;
    const gapMs = next.getTime() - wall.getTime();
    if (gapMs <= jitterMs)
      throw new MillraceError(
        "SCHEDULE_INVALID",
        `jitter must be shorter than the time from one tick to the next: cron ${show(cron)} comes again after ${describeMs(gapMs)}.`,
      );
    wall = next;
  }
}

/** The zone as it was given: how it is spelt canonically depends on the version of Node. Throws `SCHEDULE_INVALID`. */
export function checkedZone(zone: unknown): string {
  if (typeof zone === "string" && isZone(zone)) return zone;
  const near = typeof zone === "string" ? didYouMean(zone, Intl.supportedValuesOf("timeZone")) : "";
  throw new MillraceError(
    "SCHEDULE_INVALID",
    `zone must be an IANA time zone such as "Europe/Berlin", not ${show(zone)}.${near}`,
  );
}

function isZone(zone: string): boolean {
  // An offset such as "+02:00" has no daylight saving time: whoever writes it most likely wants a place.
  if (/^[+-]/.test(zone)) return false;
  try {
    return new Intl.DateTimeFormat("en", { timeZone: zone }).resolvedOptions().timeZone !== "";
  } catch {
    return false;
  }
}

/** The first tick after a moment; null when none comes. */
export function nextTick(timing: Timing, anchorMs: number, afterMs: number): number | null {
  const { everyMs } = timing;
  if (everyMs !== null) return anchorMs + (Math.floor((afterMs - anchorMs) / everyMs) + 1) * everyMs;
  const pattern = patternOf(timing);
  if (afterMs >= pattern.asked && (pattern.next === null || afterMs < pattern.next)) return pattern.next;
  // The pattern knows whole seconds.
  const from = Math.floor(afterMs / 1_000) * 1_000;
  const next = pattern.fixedHours
    ? nextReached(pattern.calendar, timing.zone, from)
    : nextShown(pattern.calendar, timing.zone, from);
  pattern.asked = afterMs;
  pattern.next = next;
  return next;
}

/** The first moment at which a wall time comes that the clocks had not come to before. */
function nextReached(calendar: Cron, zone: string, after: number): number | null {
  const wall = calendar.nextRun(new Date(furthestShown(zone, after)));
  return wall === null ? null : reached(zone, wall.getTime());
}

/** The first moment at which the clocks show a wall time. */
function nextShown(calendar: Cron, zone: string, from: number): number | null {
  let [after, since] = [from, from];
  for (;;) {
    const offset = offsetMs(zone, since);
    const wall = calendar.nextRun(new Date(after + offset));
    if (wall === null) return null;
    const at = wall.getTime() - offset;
    const change = changeIn(zone, since, at);
    if (change === null) return at;
    // The clocks do not get there: they are changed before, and that moment may be one.
    [after, since] = [change - 1_000, change];
  }
}

/** The newest ticks before a moment: at least so many, where there are. In order. */
function newestBefore(timing: Timing, beforeMs: number, least: number): number[] {
  const { calendar } = patternOf(timing);
  const until = new Date(furthestShown(timing.zone, beforeMs) + 1_000);
  // So many wall times back there may be fewer ticks: of those that clocks have gone over, there is one, or none.
  for (let count = least; ; count *= 2) {
    const walls = calendar.previousRuns(count, until);
    const oldest = walls.at(-1);
    if (oldest === undefined) return [];
    const ticks: number[] = [];
    let at = nextTick(timing, 0, reached(timing.zone, oldest.getTime()) - 1_000);
    for (; at !== null && at < beforeMs; at = nextTick(timing, 0, at)) ticks.push(at);
    if (ticks.length >= least || walls.length < count) return ticks;
  }
}

/** Whether it ticks once for each of its wall times, whatever is done to the clocks. */
export function isFixed(timing: Timing): boolean {
  return timing.cron !== null && patternOf(timing).fixedHours;
}

/** The wall times of a pattern from one to before another; null: there are none. */
export function wallTimes(timing: Timing, from: number, before: number): { first: number; last: number } | null {
  const { calendar } = patternOf(timing);
  const first = calendar.nextRun(new Date(from - 1_000));
  if (first === null || first.getTime() >= before) return null;
  const [last = first] = calendar.previousRuns(1, new Date(before));
  return { first: first.getTime(), last: last.getTime() };
}

/** Ticks of a stretch of time. */
export interface Stretch {
  readonly count: number;
  /** There were more than could be counted. */
  readonly atLeast: boolean;
  /** The newest of them, oldest first. */
  readonly newest: readonly number[];
  /** The last one that is not among the newest; null when all are. */
  readonly lastOlder: number | null;
}

/** Patterns are counted no further than this: so many cost a quarter of a second. */
const walkMax = 2_000;

/** The ticks from `firstMs`, which is one, to before `beforeMs`, and the newest `keep` of them one by one. */
export function stretch(timing: Timing, anchorMs: number, firstMs: number, beforeMs: number, keep: number): Stretch {
  if (firstMs >= beforeMs) return { count: 0, atLeast: false, newest: [], lastOlder: null };
  const { everyMs } = timing;
  if (everyMs !== null) {
    const count = Math.ceil((beforeMs - firstMs) / everyMs);
    const kept = Math.min(count, keep);
    const at = (n: number): number => firstMs + n * everyMs;
    const newest = Array.from({ length: kept }, (_, i) => at(count - kept + i));
    return { count, atLeast: false, newest, lastOlder: count > kept ? at(count - kept - 1) : null };
  }
  const ticks = [firstMs];
  for (let tick = nextTick(timing, anchorMs, firstMs); tick !== null && tick < beforeMs && ticks.length < walkMax;) {
    ticks.push(tick);
    tick = nextTick(timing, anchorMs, tick);
  }
  const count = ticks.length;
  const last = nextTick(timing, anchorMs, ticks.at(-1) as number);
  if (last === null || last >= beforeMs) {
    const kept = Math.min(count, keep);
    return { count, atLeast: false, newest: ticks.slice(count - kept), lastOlder: ticks[count - kept - 1] ?? null };
  }
  // Too many to walk over: the newest are found from the other end.
  const back = newestBefore(timing, beforeMs, keep + 1);
  const newest = back.slice(Math.max(back.length - keep, 0));
  return { count: walkMax, atLeast: true, newest, lastOlder: back[back.length - newest.length - 1] ?? firstMs };
}
