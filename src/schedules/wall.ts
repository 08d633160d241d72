/**
 * What the clocks of a zone show, and when they are changed. A wall time is written as the moment at which UTC would show it, in ms since
 * 1970 as moments are; both are whole seconds. Pure.
 */

const secondMs = 1_000;
/** No clock is further from UTC: within so much of a wall time lies the moment that shows it. No zone changes its clocks twice in that. */
const furthestMs = 16 * 3_600_000;
const weekMs = 7 * 86_400_000;

const formats = new Map<string, Intl.DateTimeFormat>();

/** How far the clocks of a zone are ahead of UTC in a moment. */
export function offsetMs(zone: string, at: number): number {
  let format = formats.get(zone);
  if (format === undefined) {
    format = new Intl.DateTimeFormat("en-US", {
      timeZone: zone,
      hourCycle: "h23",
      year: "numeric",
      month: "numeric",
      day: "numeric",
      hour: "numeric",
      minute: "numeric",
      second: "numeric",
    });
    formats.set(zone, format);
  }
  const parts = Object.fromEntries(format.formatToParts(at).map(({ type, value }) => [type, Number(value)]));
  const { year = 0, month = 1, day = 1, hour = 0, minute = 0, second = 0 } = parts;
  return Date.UTC(year, month - 1, day, hour, minute, second) - Math.floor(at / secondMs) * secondMs;
}

/** The first moment after `from`, and not after `to`, at which the clocks are changed; null when they are not. */
export function changeIn(zone: string, from: number, to: number): number | null {
  // Clocks may be changed and changed back between the two, but not within a week.
  for (let start = from; start < to; start += weekMs) {
    let [low, high] = [start, Math.min(start + weekMs, to)];
    const before = offsetMs(zone, low);
    if (offsetMs(zone, high) === before) continue;
    while (high - low > secondMs) {
      const middle = low + Math.floor((high - low) / 2 / secondMs) * secondMs;
      if (offsetMs(zone, middle) === before) low = middle;
      else high = middle;
    }
    return high;
  }
  return null;
}

/** When the clocks show a wall time: once; twice where they go back; never where they go forward over it. */
interface Shown {
  readonly moments: readonly number[];
  /** When they are changed around that time; null when they are not. */
  readonly change: number | null;
}

export function shown(zone: string, wall: number): Shown {
  const change = changeIn(zone, wall - furthestMs, wall + furthestMs);
  const before = wall - offsetMs(zone, wall - furthestMs);
  if (change === null) return { moments: [before], change };
  const after = wall - offsetMs(zone, change);
  return { moments: [...(before < change ? [before] : []), ...(after >= change ? [after] : [])], change };
}

/** The first moment at which the clocks show a wall time, or, where they never do, the first after they have gone over it. */
export function reached(zone: string, wall: number): number {
  const { moments, change } = shown(zone, wall);
  return moments[0] ?? change ?? wall;
}

/** The latest wall time that the clocks have shown until a moment: after they have gone back, it is ahead of what they show. */
export function furthestShown(zone: string, at: number): number {
  const wall = Math.floor(at / secondMs) * secondMs + offsetMs(zone, at);
  const { moments, change } = shown(zone, wall);
  const [first = at] = moments;
  return change !== null && first < at ? change + offsetMs(zone, first) - secondMs : wall;
}
