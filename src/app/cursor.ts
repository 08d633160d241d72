/** Where a page of a list ended, as a text that is opaque to callers and good only for the list it came from. */
import { MillraceError } from "../core/errors.ts";
import type { JobStatus } from "../jobs/read-store.ts";

const number = /^-?\d{1,18}$/;
const time = /^(\d{4,6}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?[-+]\d\d(:\d\d){0,2}|infinity)$/;
const id = /^[0-9a-f-]{36}$/;
const inLine = [number, number, time, id];

/** What a place in each list is made of; see `walkOf` in jobs/read-store.ts. */
const places: Readonly<Record<JobStatus | "", readonly RegExp[]>> = {
  waiting: inLine,
  delayed: inLine,
  blocked: inLine,
  active: [id],
  completed: [time, number, number],
  failed: [time, id],
  cancelled: [time, number],
  "": [id],
};

export function writeCursor(place: readonly string[], status: JobStatus | undefined): string {
  return Buffer.from(JSON.stringify([status ?? "", ...place])).toString("base64url");
}

/** Throws `OPTION_INVALID` for anything but what `writeCursor` made for this list. */
export function readCursor(text: string, status: JobStatus | undefined): string[] {
  try {
    const [list, ...place] = JSON.parse(Buffer.from(text, "base64url").toString("utf8")) as unknown[];
    const parts = places[status ?? ""];
    const fits = place.length === parts.length && parts.every((part, i) => part.test(String(place[i])));
    if (list === (status ?? "") && fits) return place.map(String);
  } catch {
    // not ours: said below
  }
  throw new MillraceError("OPTION_INVALID", "after must be the `next` of a page of the same list.");
}
