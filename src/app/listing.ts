/** Which jobs a list is to hold: the caller's options, read. */
import { MillraceError } from "../core/errors.ts";
import { storableJson } from "../core/json.ts";
import { isText, refuseUnknown, show, wholeNumber } from "../core/options.ts";
import { readInstant } from "../jobs/enqueue-options.ts";
import type { Database } from "../db/database.ts";
import { type JobFilter, listJobs } from "../jobs/list-store.ts";
import { type Extent, type Job, jobStatuses } from "../jobs/read-store.ts";
import { readCursor, writeCursor } from "./cursor.ts";
import { type ListOptions, listNames } from "./options.ts";

/** Longer texts are not looked for. */
const searchMaxChars = 1_000;
/** Tags, reasons and codes are shorter. */
const filterMaxChars = 200;

/** A page of jobs. `next`: the `after` of the one that follows. */
export interface ListedJobs {
  readonly jobs: Job[];
  readonly next: string | null;
  readonly looked: number;
}

/** `found`: the numbers of its queue and task; undefined: one of them does not exist. Throws `OPTION_INVALID`, `OPTION_UNKNOWN`. */
export async function listed(
  db: Database,
  options: ListOptions,
  found: Pick<JobFilter, "queue" | "task"> | undefined,
  extent: Extent,
): Promise<ListedJobs> {
  const filter = readListOptions(options);
  if (found === undefined) return { jobs: [], next: null, looked: 0 };
  const { jobs, after, looked } = await listJobs(db, { ...filter, ...found }, extent);
  return { jobs, next: after === null ? null : writeCursor(after, options.status), looked };
}

/** Queue and task are for the database to find. Throws `OPTION_INVALID`, `OPTION_UNKNOWN`. */
function readListOptions(options: ListOptions): Omit<JobFilter, "queue" | "task"> {
  refuseUnknown("jobs", options, listNames);
  const { status, tag, reason, errorCode, input, search, createdAfter, createdBefore, after } = options;
  if (status !== undefined && !jobStatuses.includes(status))
    throw invalid(`status must be one of ${jobStatuses.join(", ")}, not ${JSON.stringify(status)}.`);
  for (const [name, text] of Object.entries({ tag, reason, errorCode })) {
    if (text !== undefined && !isText(text, filterMaxChars))
      throw invalid(`${name} must be a text of at most ${filterMaxChars} characters, not ${show(text)}.`);
  }
  if (search !== undefined && !isText(search, searchMaxChars, 1))
    throw invalid(`search must be a text of 1 to ${searchMaxChars} characters, not ${show(search)}.`);
  if (status !== "failed" && (reason !== undefined || errorCode !== undefined))
    throw invalid('reason and errorCode are of dead letters: give status "failed" too.');
  return {
    status,
    tag,
    reason,
    errorCode,
    search,
    input: input === undefined ? undefined : storableJson(input, searchMaxChars * 10, "input to look for"),
    createdAfter: createdAfter === undefined ? undefined : readInstant(createdAfter, "createdAfter"),
    createdBefore: createdBefore === undefined ? undefined : readInstant(createdBefore, "createdBefore"),
    limit: wholeNumber(options.limit ?? 100, "limit", 1, 500),
    after: after === undefined ? undefined : readCursor(after, status),
  };
}

const invalid = (message: string): MillraceError => new MillraceError("OPTION_INVALID", message);
