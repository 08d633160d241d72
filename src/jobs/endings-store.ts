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
 * The oldest endings, in order; they are gone when the transaction commits. One transaction at a time, so that two never deadlock over a
 * job that waits for both. Whoever comes second may have read the list before the first was through: it takes what the first has left of it.
 */
export async function takeEndings(tx: Executor, channel: string): Promise<Ending[]> {
  return tx.query<Ending>(sql`
    with turn as materialized (select pg_advisory_xact_lock(hashtextextended(${channel}::text || ':endings', 0))),
    taken as (
      delete from millrace.endings where id = any (
        array(select e.id from (select count(*) from turn) mine cross join millrace.endings e order by e.id limit ${batch})
      )
      returning id, job_id::text, outcome, at
    )
    select job_id as "jobId", outcome, at from taken order by id`);
}
