/** What hangs on jobs beside their history: deleted with them, wherever jobs are deleted. */
import { type Sql, sql } from "../db/sql.ts";

/** CTEs that delete it for the jobs of `ids (id)`. */
export const belongings = (ids: Sql): Sql => sql`
  tags as (delete from millrace.job_tags where job_id in (select id from ${ids})),
  keys as (delete from millrace.idempotency_keys where job_id in (select id from ${ids})),
  unique_keys as (delete from millrace.unique_keys where job_id in (select id from ${ids})),
  results as (delete from millrace.results where job_id in (select id from ${ids})),
  steps as (delete from millrace.steps where job_id in (select id from ${ids})),
  progress as (delete from millrace.progress where job_id in (select id from ${ids})),
  logs as (delete from millrace.job_logs where job_id in (select id from ${ids})),
  needs as (delete from millrace.dependencies where job_id in (select id from ${ids})),
  blocked as (delete from millrace.blocked where job_id in (select id from ${ids}))`;
