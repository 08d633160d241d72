/** Durations are written `"250ms"`, `"30s"`, `"5m"`, `"2h"`, `"1d"`, or as a number of milliseconds. */
import { MillraceError } from "./errors.ts";
import { show } from "./options.ts";

const unitMs = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

type Unit = keyof typeof unitMs;

export type Duration = number | `${number}${Unit}`;

/** The longest duration accepted: 10 years. Further away is a mistake, and close to what timestamps cannot hold. */
const longestMs = 3650 * unitMs.d;

/** Milliseconds of a duration. Throws `OPTION_INVALID`, naming `what`, when it is malformed, negative or beyond ten years. */
export function durationMs(value: Duration, what: string): number {
  const ms = typeof value === "number" ? value : parse(value);
  if (Number.isFinite(ms) && ms >= 0 && ms <= longestMs) return ms;
  throw new MillraceError(
    "OPTION_INVALID",
    `${what} must be a duration such as "30s", "5m" or a number of milliseconds from 0 to ten years, not ${show(value)}.`,
  );
}

function parse(value: unknown): number {
  const match = typeof value === "string" ? /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(value.trim()) : null;
  return match ? Number(match[1]) * unitMs[match[2] as Unit] : Number.NaN;
}

/** A duration for people: `840 ms`, `12 s`, `4 min`, `3 h`, `2 d`. */
export function describeMs(ms: number): string {
  if (ms < 1_000) return `${Math.round(ms)} ms`;
  if (ms < 2 * unitMs.m) return `${Math.round(ms / 1_000)} s`;
  if (ms < 2 * unitMs.h) return `${Math.round(ms / unitMs.m)} min`;
  if (ms < 2 * unitMs.d) return `${Math.round(ms / unitMs.h)} h`;
  return `${Math.round(ms / unitMs.d)} d`;
}

/** Elapsed milliseconds as a column of type `int` holds them: whole, not negative, 24.8 days at most. */
export function wholeMs(ms: number): number {
  return Math.min(Math.max(Math.round(ms), 0), 2 ** 31 - 1);
}
