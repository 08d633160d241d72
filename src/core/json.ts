/** What may be stored: plain JSON that PostgreSQL's `jsonb` takes. */
import { MillraceError } from "./errors.ts";

const nul = /(?<!\\)(?:\\\\)*\\u0000/;
const loneSurrogate = /(?<!\\)(?:\\\\)*\\ud[89a-f]/i;

/**
 * The JSON text of a job's input, or of what else `what` says. `undefined` is stored as `null`.
 * Throws `INPUT_NOT_STORABLE` for what JSON or `jsonb` cannot hold, `PAYLOAD_TOO_LARGE` beyond `maxBytes` of UTF-8.
 */
export function storableJson(value: unknown, maxBytes: number, what = "input"): string {
  if (value === undefined) return "null";
  let text: string | undefined;
  try {
    text = JSON.stringify(value);
  } catch (cause) {
    throw new MillraceError(
      "INPUT_NOT_STORABLE",
      `The ${what} is not JSON: ${cause instanceof Error ? cause.message : typeof cause}.`,
      { cause },
    );
  }
  if (text === undefined)
    throw new MillraceError("INPUT_NOT_STORABLE", `The ${what} is a ${typeof value}, which JSON cannot hold.`);
  if (text.includes("\\u")) {
    if (nul.test(text))
      throw new MillraceError(
        "INPUT_NOT_STORABLE",
        `The ${what} contains a NUL character, which PostgreSQL cannot store.`,
      );
    if (loneSurrogate.test(text))
      throw new MillraceError(
        "INPUT_NOT_STORABLE",
        `The ${what} contains half of a surrogate pair, which is not text.`,
      );
  }
  // A string of n UTF-16 units is at most 3n bytes of UTF-8: most inputs never need to be measured.
  if (text.length * 3 > maxBytes) {
    const bytes = Buffer.byteLength(text);
    if (bytes > maxBytes) {
      throw new MillraceError("PAYLOAD_TOO_LARGE", `The ${what} is ${bytes} bytes of JSON; the limit is ${maxBytes}.`);
    }
  }
  return text;
}
