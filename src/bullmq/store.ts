/** Jobs by the id that their user gave them, which the engine keeps as an idempotency key; and the length of their logs. */
import type { Database } from "../db/database.ts";
import { sql } from "../db/sql.ts";

/** The newest job under a key, of whatever task. Probes the primary key once per task. */
export async function jobUnderKey(db: Database, key: string): Promise<string | undefined> {
  const [row] = await db.query<{ id: string }>(sql`
    select k.job_id::text as id
    from millrace.tasks t cross join lateral (
      select job_id from millrace.idempotency_keys where task = t.id and key = ${key}::text limit 1
    ) k
    order by k.job_id desc limit 1`);
  return row?.id;
}

/** Frees the key of a job that is gone; one that somebody else has meanwhile taken stays. */
export async function freeKey(db: Database, task: string, key: string, gone: string): Promise<void> {
  await db.query(sql`
    delete from millrace.idempotency_keys k using millrace.tasks t
    where t.name = ${task}::text and k.task = t.id and k.key = ${key}::text and k.job_id = ${gone}::uuid`);
}

/** Rows in a job's log: they are numbered from 1 without a gap. */
export async function countLog(db: Database, jobId: string): Promise<number> {
  const [row] = await db.query<{ count: number }>(sql`
    select coalesce(max(n), 0)::int as count from millrace.job_logs where job_id = ${jobId}::uuid`);
  return row?.count ?? 0;
}
