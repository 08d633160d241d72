/** Ends of jobs that somebody waits for: written where they happen (`settle`, `reap`, `cancelJobs`, …), taken away here. */
import type { Database, Executor } from "../db/database.ts";
import { sql } from "../db/sql.ts";

export interface Ending {
  readonly jobId: string;
  /** `removed`: deleted before it ran. */
  readonly outcome: "completed" | "failed" | "cancelled" | "removed";
  readonly at: Date;
}

/** Told per transaction at most. */
const batch = 1_000;

export async function anyEndings(db: Database): Promise<boolean> {
  const [row] = await db.rows<[boolean]>(sql`select exists (select from millrace.endings)`);
  return row?.[0] ?? false;
}

/**
 * The oldest endings, in order; they are gone when the transaction commits. One transaction at a time: whoever comes second sees
 * what the first has left, and never deadlocks with it over a job that waits for both.
 */
export async function takeEndings(tx: Executor, channel: string): Promise<Ending[]> {
  await tx.rows(sql`select pg_advisory_xact_lock(hashtextextended(${channel}::text || ':endings', 0))::text`);
  return tx.query<Ending>(sql`
    with taken as (
      delete from millrace.endings where id = any (array(select id from millrace.endings order by id limit ${batch}))
      returning id, job_id::text, outcome, at
    )
    select job_id as "jobId", outcome, at from taken order by id`);
}
