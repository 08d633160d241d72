/** The parts that sentences about jobs are made of. Pure. */
import { describeMs } from "../core/duration.ts";

/** `2027-01-31T08:00:00Z` */
export function instant(time: Date): string {
  return time.toISOString().replace(/\.\d+/, "");
}

/** `12 s ago`, `in 4 min`. */
export function away(time: Date, now: Date): string {
  const ms = time.getTime() - now.getTime();
  return ms > 0 ? `in ${describeMs(ms)}` : `${describeMs(-ms)} ago`;
}

/** `2027-01-31T08:00:00Z (in 4 min)` */
export function when(time: Date, now: Date): string {
  return `${instant(time)} (${away(time, now)})`;
}

/** ` by ada because deploy`, of which either may be missing. */
export function byWhom(by: string | null, reason: string | null): string {
  return `${by === null ? "" : ` by ${by}`}${reason === null ? "" : ` because ${reason.replace(/\.$/, "")}`}`;
}

/** `1 job`, `2 jobs`. */
export function many(n: number, noun: string): string {
  return `${n} ${noun}${n === 1 ? "" : "s"}`;
}

/** `1st`, `2nd`, `11th`. */
export function ordinal(n: number): string {
  const ending = n % 100 >= 11 && n % 100 <= 13 ? "th" : (["th", "st", "nd", "rd"][n % 10] ?? "th");
  return `${n}${ending}`;
}
