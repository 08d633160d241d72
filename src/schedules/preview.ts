/** When a schedule comes next, by the clock on its wall, with a remark where daylight saving time does something to it. Pure. */
import { describeMs } from "../core/duration.ts";
import { type Timing, isFixed, nextTick, wallTimes } from "./ticks.ts";
import { changeIn, offsetMs, shown } from "./wall.ts";

export interface PreviewedTick {
  readonly at: Date;
  /** On the wall of its zone: `2027-03-28 03:00:00 +02:00`. */
  readonly local: string;
  /** What the clocks do to it; null on ordinary days. */
  readonly remark: string | null;
}

export function previewTicks(timing: Timing, anchorMs: number, afterMs: number, count: number): PreviewedTick[] {
  const ticks: PreviewedTick[] = [];
  let before: number | null = null;
  let at = nextTick(timing, anchorMs, afterMs);
  while (at !== null && ticks.length < count) {
    ticks.push({
      at: new Date(at),
      local: onTheWall(timing.zone, at),
      remark: remarkOn(timing, at, before ?? afterMs),
    });
    before = at;
    at = nextTick(timing, anchorMs, at);
  }
  return ticks;
}

function remarkOn(timing: Timing, at: number, before: number): string | null {
  const { zone } = timing;
  const offset = offsetMs(zone, at);
  const wall = Math.floor((at + offset) / 1_000) * 1_000;
  const fixed = isFixed(timing);
  const { moments } = shown(zone, wall);
  if (moments.length === 2) {
    const time = clock(wall);
    if (at >= (moments[1] ?? at)) return `${time} comes twice, the clocks go back: this is the second one.`;
    return `${time} comes twice, the clocks go back: this is the first one${fixed ? ", and it runs once" : ""}.`;
  }
  if (fixed && changeIn(zone, at - 1_000, at) !== null) {
    const skipped = wallTimes(timing, at + offsetMs(zone, at - 1_000), wall);
    if (skipped !== null) {
      const { first, last } = skipped;
      if (first === last)
        return `${clock(first)} does not exist on this day, the clocks go forward: it runs at ${clock(wall)}.`;
      return `${clock(first)} to ${clock(last)} do not exist on this day, the clocks go forward: one run at ${clock(wall)} stands for them.`;
    }
  }
  const changed = offset - offsetMs(zone, before);
  if (timing.cron === null || changed === 0) return null;
  return `The clocks have gone ${changed > 0 ? "forward" : "back"} by ${describeMs(Math.abs(changed))} since the one before.`;
}

function clock(wallMs: number): string {
  return new Date(wallMs).toISOString().slice(11, 19);
}

function onTheWall(zone: string, at: number): string {
  const offset = offsetMs(zone, at);
  const minutes = Math.abs(offset) / 60_000;
  const two = (number: number): string => String(Math.floor(number)).padStart(2, "0");
  const sign = offset < 0 ? "-" : "+";
  return `${new Date(at + offset).toISOString().slice(0, 19).replace("T", " ")} ${sign}${two(minutes / 60)}:${two(minutes % 60)}`;
}
