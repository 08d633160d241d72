/** How far a task is: a number or a small object. Pure. */
import { MillraceError } from "./errors.ts";
import { storableJson } from "./json.ts";
import { show } from "./options.ts";

/** JSON of an object, in bytes. */
const longestBytes = 4_096;

/** The JSON text of a mark. Throws `PROGRESS_INVALID`. */
export function progressJson(value: unknown): string {
  if (typeof value === "number") {
    if (value >= 0 && value <= 100) return JSON.stringify(value);
  } else if (typeof value === "object" && value !== null) {
    const text = objectJson(value);
    if (text.startsWith("{")) return text;
  }
  throw new MillraceError("PROGRESS_INVALID", `Progress is a number from 0 to 100 or an object, not ${show(value)}.`);
}

function objectJson(value: object): string {
  try {
    return storableJson(value, longestBytes, "progress");
  } catch (cause) {
    throw new MillraceError("PROGRESS_INVALID", (cause as Error).message, { cause });
  }
}

/** `42 %`, or the object as JSON, cut where it is long. */
export function progressText(value: unknown): string {
  if (typeof value === "number") return `${value} %`;
  const text = JSON.stringify(value);
  return text.length > longestText ? `${text.slice(0, longestText)}…` : text;
}

const longestText = 200;
