/** What happened to a job, and why it is where it is: read, then put into words. */
import { MillraceError } from "../core/errors.ts";
import { isUuid } from "../core/uuid.ts";
import type { Database } from "../db/database.ts";
import { type Explanation, explain } from "./explain.ts";
import { observe } from "./explain-store.ts";
import { type LogLine, readLogs } from "./notes-store.ts";
import { findJobs } from "./read-store.ts";
import type { AnyTask } from "./task.ts";
import { type Timeline, storyMax, timelineOf } from "./timeline.ts";
import { readHistory } from "./timeline-store.ts";

/** Throws `JOB_NOT_FOUND`. */
export async function timelineOfJob(db: Database, id: string): Promise<Timeline> {
  const [job] = isUuid(id) ? await findJobs(db, [id]) : [];
  if (job === undefined) throw noJob(id);
  return timelineOf(job, await readHistory(db, id, storyMax));
}

/** `tasks`: those whose code is at hand, for their timeouts. Throws `JOB_NOT_FOUND`. */
export async function explainJob(db: Database, id: string, tasks: readonly AnyTask[]): Promise<Explanation> {
  const seen = isUuid(id) ? await observe(db, id) : undefined;
  if (seen === undefined) throw noJob(id);
  return explain(seen, tasks.find(({ name }) => name === seen.job.task)?.timeoutMs);
}

/** Throws `JOB_NOT_FOUND`. */
export async function logsOfJob(db: Database, id: string, after: number, limit: number): Promise<LogLine[]> {
  const lines = isUuid(id) ? await readLogs(db, id, after, limit) : undefined;
  if (lines === undefined) throw noJob(id);
  return lines;
}

function noJob(id: string): MillraceError {
  return new MillraceError("JOB_NOT_FOUND", `There is no job ${id}.`);
}
