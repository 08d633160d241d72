/** What tasks returned, and how jobs ended, for those who wait for it. */
import type { Executor } from "../db/database.ts";
import { arrayLiteral, sql } from "../db/sql.ts";

export async function findResult(db: Executor, id: string): Promise<unknown> {
  const [row] = await db.query<{ result: unknown }>(
    sql`select result from millrace.results where job_id = ${id}::uuid`,
  );
  return row?.result;
}

/** How a job has ended. */
export interface Finish {
  readonly id: string;
  readonly status: "completed" | "failed" | "cancelled" | "gone";
  /** Undefined: it returned nothing. */
  readonly result: unknown;
  readonly code: string | null;
  readonly message: string | null;
}

/** Of these jobs, those that have ended, or do not exist. */
export async function findFinishes(db: Executor, ids: readonly string[]): Promise<Finish[]> {
  const rows = await db.query<Finish & { returned: boolean }>(sql`
    select g.id::text, case
        when well.id is not null or archived.id is not null then 'completed'
        when dead.job_id is not null then 'failed'
        when j.id is null then 'gone' else 'cancelled' end as status,
      r.result, r.returned is true as returned, coalesce(dead.error_code, last.error_code) as code, last.error_message as message
    from unnest(${arrayLiteral(ids)}::uuid[]) as g (id)
    left join lateral (select id from millrace.jobs where id = g.id limit 1) j on true
    left join lateral (select id from millrace.jobs_archive where id = g.id limit 1) archived on true
    left join lateral (select s.id from millrace.settled s where s.ids @> g.id and g.id = any (s.job_ids) limit 1) well on true
    left join lateral (select job_id, error_code from millrace.dead_letters where job_id = g.id limit 1) dead on true
    left join lateral (
      select error_code, error_message, outcome from millrace.attempts a where a.job_id = g.id and not a.late order by a.id desc limit 1
    ) last on true
    left join lateral (select result, true as returned from millrace.results where job_id = g.id limit 1) r on true
    where well.id is not null or archived.id is not null or dead.job_id is not null or j.id is null
       or last.outcome = 'cancelled'`);
  // null is a result like any other, and SQL's null is none
  return rows.map(({ returned, ...finish }) => ({ ...finish, result: returned ? finish.result : undefined }));
}
