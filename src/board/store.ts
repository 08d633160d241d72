/** What the board asks of the database beside what Millrace answers anyway: numbers of queues, and of the last hour. */
import type { Database } from "../db/database.ts";
import { arrayLiteral, sql } from "../db/sql.ts";

export interface NumberedQueue {
  readonly id: number;
  readonly name: string;
}

export async function readQueues(db: Database): Promise<NumberedQueue[]> {
  return db.query<NumberedQueue>(sql`select id, name from millrace.queues order by name`);
}

/** What the counts of a queue have no number for: jobs that wait for others, and cancelled ones. */
export interface MoreCounts {
  readonly name: string;
  readonly blocked: number;
  readonly cancelled: number;
}

export async function countMore(db: Database): Promise<MoreCounts[]> {
  return db.query<MoreCounts>(sql`
    select q.name,
      (select count(*) from millrace.pending p where p.line in (q.id, -q.id) and p.run_at = 'infinity')::float8 as blocked,
      (select count(*) from millrace.attempts a where a.queue = q.id and a.outcome = 'cancelled' and not a.late)::float8 as cancelled
    from millrace.queues q`);
}

/** What these jobs returned; those that returned nothing are left out. */
export async function readResults(db: Database, ids: readonly string[]): Promise<Map<string, unknown>> {
  const rows = await db.query<{ id: string; result: unknown }>(sql`
    select job_id::text as id, result from millrace.results where job_id = any (${arrayLiteral(ids)}::uuid[])`);
  return new Map(rows.map(({ id, result }) => [id, result]));
}

/** The first of the jobs that wait for this one, or have. */
export async function findDependent(db: Database, id: string): Promise<{ id: string; queue: string } | undefined> {
  const [row] = await db.query<{ id: string; queue: string }>(sql`
    select d.job_id::text as id, q.name as queue from millrace.dependencies d
    cross join lateral (
      select queue from millrace.jobs where id = d.job_id union all select queue from millrace.jobs_archive where id = d.job_id limit 1
    ) j
    join millrace.queues q on q.id = j.queue
    where d.needs = ${id}::uuid order by d.job_id limit 1`);
  return row;
}

/** Minutes that `countMinutes` looks back, the one that has not ended included. */
export const minutesShown = 60;

/** Jobs that completed, or failed for good, in each of the last minutes, the newest first. */
export async function countMinutes(db: Database, queue: number, what: "completed" | "failed"): Promise<number[]> {
  const jobs =
    what === "completed"
      ? sql`select sum(s.n) as jobs from millrace.settled s where s.queue = ${queue}::int and s.finished_at >= m.at and s.finished_at < m.at + interval '1 minute'`
      : sql`select count(*) as jobs from millrace.dead_letters d where d.queue = ${queue}::int and d.failed_at >= m.at and d.failed_at < m.at + interval '1 minute'`;
  const rows = await db.query<{ jobs: number }>(sql`
    select coalesce(counted.jobs, 0)::int as jobs
    from (select n, date_trunc('minute', now()) - n * interval '1 minute' as at from generate_series(0, ${minutesShown}::int - 1) n) m
    cross join lateral (${jobs}) counted order by m.n`);
  return rows.map((row) => row.jobs);
}

export interface Server {
  readonly version: string;
  readonly port: number;
  /** Seconds. */
  readonly uptime: number;
  /** Connections to this database, and those of them that wait for a lock. */
  readonly connected: number;
  readonly blocked: number;
}

export async function readServer(db: Database): Promise<Server> {
  const [row] = await db.query<Server>(sql`
    select split_part(current_setting('server_version'), ' ', 1) as version, current_setting('port')::int as port,
      floor(extract(epoch from now() - pg_postmaster_start_time()))::int as uptime,
      count(*)::int as connected, (count(*) filter (where wait_event_type = 'Lock'))::int as blocked
    from pg_stat_activity where datname = current_database()`);
  return row as Server;
}
