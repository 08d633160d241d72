/** When a schedule ticks: cron patterns in a time zone, and intervals counted from an anchor so that they do not drift. Pure. */
import { Cron } from "croner";
import { MillraceError } from "../core/errors.ts";
import { didYouMean, show } from "../core/options.ts";

/** One of `cron` and `everyMs`. Times are whole milliseconds since 1970. */
export interface Timing {
  readonly cron: string | null;
  readonly everyMs: number | null;
  /** IANA name. */
  readonly zone: string;
}

/** Parsing a pattern, and asking it for a time, cost some 200 µs each; those that are used most stay. */
const patternsMax = 10_000;

interface Pattern {
  readonly cron: Cron;
  /** The last answer: whoever asks about a moment between the two gets the second. */
  asked: number;
  next: number | null;
}

const patterns = new Map<string, Pattern>();

function patternOf({ cron, zone }: Timing): Pattern {
  const key = `${zone} ${cron}`;
  const known = patterns.get(key);
  if (known) return known;
  const parsed = { cron: parse(cron ?? "", zone), asked: Number.POSITIVE_INFINITY, next: null };
  if (patterns.size >= patternsMax) patterns.delete(patterns.keys().next().value as string);
  patterns.set(key, parsed);
  return parsed;
}

function parse(cron: string, zone: string): Cron {
  try {
    return new Cron(cron, { timezone: zone, paused: true });
  } catch (error) {
    const why = (error as Error).message.replace(/^Cron\w+: /, "").replace(/\.$/, "");
    throw new MillraceError("SCHEDULE_INVALID", `cron ${show(cron)} is not a pattern: ${why}.`, { cause: error });
  }
}

/** Throws `SCHEDULE_INVALID` for a pattern that cannot be read, or that never comes. */
export function checkCron(cron: string, zone: string, nowMs: number): void {
  if (parse(cron, zone).nextRun(new Date(nowMs)) !== null) return;
  throw new MillraceError("SCHEDULE_INVALID", `cron ${show(cron)} never comes again.`);
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
  const next = pattern.cron.nextRun(new Date(Math.floor(afterMs / 1_000) * 1_000))?.getTime() ?? null;
  pattern.asked = afterMs;
  pattern.next = next;
  return next;
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
  const back = patternOf(timing)
    .cron.previousRuns(keep + 1, new Date(beforeMs))
    .map((date) => date.getTime())
    .filter((tick) => tick < beforeMs)
    .toReversed();
  const newest = back.slice(Math.max(back.length - keep, 0));
  return { count: walkMax, atLeast: true, newest, lastOlder: back[back.length - newest.length - 1] ?? firstMs };
}
