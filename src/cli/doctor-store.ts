/** What `millrace doctor` asks the database. Nothing here writes. */
import type { Executor } from "../db/database.ts";
import { sql } from "../db/sql.ts";

export interface Server {
  readonly version: string;
  /** Milliseconds since 1970, by the database's clock. */
  readonly clockMs: number;
  readonly databaseBytes: number;
}

export async function readServer(db: Executor): Promise<Server> {
  const [row] = await db.query<Server>(sql`
    select current_setting('server_version') as version,
           (extract(epoch from clock_timestamp()) * 1000)::float8 as "clockMs",
           pg_database_size(current_database())::float8 as "databaseBytes"`);
  return row as Server;
}

/** Jobs that are due, by task and queue. */
export interface Waiting {
  readonly task: string;
  readonly queue: string;
  readonly jobs: number;
  readonly oldestMs: number;
  readonly paused: boolean;
  /** Whether a live worker has the task and works on the queue. */
  readonly served: boolean;
}

/** Reads every waiting job, some 100 ms for a million: for people who ask, not for probes. */
export async function waitingJobs(db: Executor): Promise<Waiting[]> {
  return db.query(sql`
    with waiting as (
      select p.task, abs(p.line) as queue, count(*)::float8 as jobs, min(p.run_at) as oldest
      from millrace.pending p where p.run_at <= now() group by p.task, abs(p.line)
    )
    select t.name as task, q.name as queue, w.jobs, q.paused_at is not null as paused,
           (extract(epoch from now() - w.oldest) * 1000)::float8 as "oldestMs",
           exists (
             select from millrace.workers live
             where live.stopped_at is null and live.beat_at >= now() - live.lease_ms * interval '1 millisecond'
               and (live.tasks is null or w.task = any (live.tasks)) and (live.queues is null or w.queue = any (live.queues))
           ) as served
    from waiting w join millrace.tasks t on t.id = w.task join millrace.queues q on q.id = w.queue
    order by w.jobs desc, t.name, q.name`);
}
