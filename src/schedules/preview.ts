/** When a schedule comes next, by the clock on its wall, with a remark where daylight saving time does something to it. Pure. */
import { describeMs } from "../core/duration.ts";
import { type Timing, nextTick } from "./ticks.ts";

export interface PreviewedTick {
  readonly at: Date;
  /** On the wall of its zone: `2027-03-28 03:00:00 +02:00`. */
  readonly local: string;
  /** What the clocks do to it; null on ordinary days. */
  readonly remark: string | null;
}

const hourMs = 3_600_000;

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
  const { zone, cron } = timing;
  const offset = offsetMs(zone, at);
  const around = [offsetMs(zone, at - 3 * hourMs), offsetMs(zone, at + 3 * hourMs)] as const;
  const wall = at + offset;
  const wanted = cron === null ? undefined : fixedTime(cron);
  const [earlier, later] = around;
  if (earlier > later) {
    // Both moments show the same time.
    const [first, second] = [wall - earlier, wall - later];
    if (offsetMs(zone, first) === earlier && offsetMs(zone, second) === later) {
      const time = clock(wall);
      if (at === second) return `${time} comes twice, the clocks go back: this is the second one.`;
      return `${time} comes twice, the clocks go back: this is the first one${wanted === undefined ? "" : ", and it runs once"}.`;
    }
  }
  if (earlier < later && wanted !== undefined && wanted !== clock(wall))
    return `${wanted} does not exist on this day, the clocks go forward: it runs at ${clock(wall)}.`;
  const changed = offset - offsetMs(zone, before);
  if (cron === null || changed === 0) return null;
  return `The clocks have gone ${changed > 0 ? "forward" : "back"} by ${describeMs(Math.abs(changed))} since the one before.`;
}

/** The time of a pattern that names one, such as `30 2 * * *`; undefined for those that come more often. */
function fixedTime(cron: string): string | undefined {
  const fields = cron.trim().split(/\s+/);
  const [second, minute, hour] = fields.length === 5 ? ["0", ...fields] : fields;
  const numbers = [hour, minute, second].map((field) => (/^\d{1,2}$/.test(field ?? "") ? Number(field) : Number.NaN));
  if (numbers.some(Number.isNaN)) return undefined;
  return numbers.map((number) => String(number).padStart(2, "0")).join(":");
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

const formats = new Map<string, Intl.DateTimeFormat>();

/** How far the clocks of a zone are ahead of UTC in a moment. */
function offsetMs(zone: string, at: number): number {
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
  return Date.UTC(year, month - 1, day, hour, minute, second) - Math.floor(at / 1_000) * 1_000;
}
