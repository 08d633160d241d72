/** Options are read once, at the door: an unknown name is refused with the nearest one that exists. */
import { MillraceError } from "./errors.ts";

/** Throws `OPTION_UNKNOWN` for the first key of `given` that is not in `known`. */
export function refuseUnknown(where: string, given: object, known: ReadonlySet<string>): void {
  for (const key of Object.keys(given)) {
    if (!known.has(key))
      throw new MillraceError("OPTION_UNKNOWN", `${where}: unknown option "${key}".${didYouMean(key, known)}`);
  }
}

/** ` Did you mean "delay"?`, or, when nothing is near, the list of what exists. */
export function didYouMean(word: string, known: Iterable<string>): string {
  const names = [...known];
  const near = names
    .map((name) => ({ name, distance: editDistance(word.toLowerCase(), name.toLowerCase()) }))
    .sort((a, b) => a.distance - b.distance)[0];
  if (near && near.distance <= Math.max(2, Math.floor(word.length / 3))) return ` Did you mean "${near.name}"?`;
  return names.length > 0 && names.length <= 20 ? ` Known: ${names.join(", ")}.` : "";
}

/** A whole number within bounds, or `OPTION_INVALID`. */
export function wholeNumber(value: unknown, what: string, min: number, max: number): number {
  if (typeof value === "number" && Number.isInteger(value) && value >= min && value <= max) return value;
  throw new MillraceError(
    "OPTION_INVALID",
    `${what} must be a whole number from ${min} to ${max}, not ${show(value)}.`,
  );
}

/** A text PostgreSQL can hold as it is: no NUL, no half surrogate pairs. Lengths in UTF-16 units. */
export function isText(value: unknown, most: number, least = 0): value is string {
  return (
    typeof value === "string" && value.length >= least && value.length <= most && !/[\0\p{Surrogate}]/u.test(value)
  );
}

/** What somebody says of themselves or of why: a text of at most `most` characters, or null. Throws `OPTION_INVALID`. */
export function textOrNull(value: unknown, what: string, most: number): string | null {
  if (value === undefined) return null;
  if (isText(value, most)) return value;
  throw new MillraceError(
    "OPTION_INVALID",
    `${what} must be a text of at most ${most} characters, not ${show(value)}.`,
  );
}

const namePattern = /^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$/;

const nameCodes = {
  queue: "QUEUE_NAME_INVALID",
  task: "TASK_NAME_INVALID",
  schedule: "SCHEDULE_INVALID",
} as const;

/** Names travel in URLs, logs and metrics, so they keep to a small alphabet. */
export function checkedName(value: unknown, kind: keyof typeof nameCodes): string {
  if (typeof value === "string" && namePattern.test(value)) return value;
  throw new MillraceError(
    nameCodes[kind],
    `A ${kind} name is 1 to 128 characters from letters, digits, ". _ : -", starting with a letter or digit, not ${show(value)}.`,
  );
}

/** A value in an error message: JSON where there is any, 80 characters at most. */
export function show(value: unknown): string {
  if (value === undefined) return "nothing";
  try {
    return (JSON.stringify(value) ?? typeof value).slice(0, 80);
  } catch {
    return typeof value; // a bigint, a cycle
  }
}

/** Levenshtein distance, two rows. Words here are option names: a few dozen characters. */
function editDistance(a: string, b: string): number {
  let above = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i += 1) {
    const row = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const swap = (above[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      row.push(Math.min(swap, (above[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1));
    }
    above = row;
  }
  return above[b.length] ?? 0;
}
