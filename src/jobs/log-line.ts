/** A line of a task's log as it is kept: bounded, and nothing in it that PostgreSQL cannot store. Pure. */
import type { Log } from "../core/log.ts";

/** Debug lines are for the worker's own log. */
export type KeptLevel = Exclude<keyof Log, "debug">;

export interface LineText {
  readonly level: KeptLevel;
  readonly message: string;
  /** JSON text of the fields; undefined when there were none. */
  readonly fields: string | undefined;
}

/** Of message and fields together. */
export const longestLine = 2_000;

export function lineText(level: KeptLevel, fields: unknown, message: unknown): LineText {
  const words = storable(cut(String(message), longestLine));
  const json = fieldsJson(fields);
  if (json === undefined) return { level, message: words, fields: undefined };
  const room = longestLine - words.length;
  if (json.length <= room) return { level, message: words, fields: json };
  // Half of a JSON text is none: its beginning is kept as a text.
  const begun = JSON.stringify({ cut: storable(cut(json, Math.floor((room - wrapping) / 2))) });
  return { level, message: words, fields: room < leastRoom ? undefined : begun };
}

/** `{"cut":""}`. What is inside may get twice as long: each quote and backslash is escaped. */
const wrapping = 10;
/** Less of the fields than this says nothing. */
const leastRoom = 20;

function fieldsJson(fields: unknown): string | undefined {
  let text: string | undefined;
  try {
    text = JSON.stringify(fields, plain);
  } catch (error) {
    text = JSON.stringify({ cut: `not JSON: ${(error as Error).message}` });
  }
  if (text === undefined || text === "{}" || text === "null") return undefined;
  return text.includes("\\u") ? text.replaceAll(/(?<!\\)((?:\\\\)*)\\u(0000|d[89a-f][0-9a-f]{2})/gi, "$1\ufffd") : text;
}

function plain(_: string, value: unknown): unknown {
  if (typeof value === "bigint") return String(value);
  if (!(value instanceof Error)) return value;
  const { name, message, code, cause } = value as Error & { code?: unknown };
  return { name, message, code, cause };
}

function cut(text: string, longest: number): string {
  return text.length > longest ? `${text.slice(0, Math.max(longest - 1, 0))}…` : text;
}

/** PostgreSQL text holds neither NUL nor half surrogate pairs. */
function storable(text: string): string {
  return text.replaceAll("\0", "\ufffd").replace(/\p{Surrogate}/gu, "\ufffd");
}
