/** What `millrace doctor` asks the database. Nothing here writes. */
import type { Executor } from "../db/database.ts";
import { sql } from "../db/sql.ts";
import { aheadMs } from "../schedules/clock-store.ts";
import { goesOn } from "../schedules/firing-store.ts";

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

/** What is wrong with a schedule. */
export interface ScheduleFault {
  readonly fault: "trouble" | "late" | "ahead" | "unserved" | "overdue";
  readonly name: string;
  /** Of `trouble`: why; of `unserved`: the task and the queue. */
  readonly about: string;
  /** Of `late` and `overdue`: for how long. Of `ahead`: by how much the clock was. */
  readonly ms: number;
}

/** Schedules in all, and of them those that rest. */
export interface ScheduleCounts {
  readonly schedules: number;
  readonly paused: number;
  readonly retired: number;
}

export async function countSchedules(db: Executor): Promise<ScheduleCounts> {
  const [row] = await db.query<ScheduleCounts>(sql`
    select count(*)::int as schedules, count(*) filter (where paused_at is not null and retired_at is null)::int as paused,
           count(*) filter (where retired_at is not null)::int as retired
    from millrace.schedules`);
  return row ?? { schedules: 0, paused: 0, retired: 0 };
}

/** Up to `limit` of each fault. Late: due for so long that a scheduler would have fired it. */
export async function scheduleFaults(db: Executor, limit: number): Promise<ScheduleFault[]> {
  return db.query<ScheduleFault>(sql`
    (select 'trouble' as fault, name, trouble as about, 0::float8 as ms from millrace.schedules
     where trouble is not null and due_at is not null order by name limit ${limit}::int)
    union all
    (select 'late', name, '', (extract(epoch from now() - due_at) * 1000)::float8 from millrace.schedules
     where due_at < now() - interval '30 seconds' and ${goesOn} order by due_at limit ${limit}::int)
    union all
    (select 'ahead', name, '', (extract(epoch from placed_at - now()) * 1000)::float8 from millrace.schedules
     where placed_at > now() + ${aheadMs}::float8 * interval '1 millisecond' and paused_at is null and retired_at is null
     order by placed_at desc limit ${limit}::int)
    union all
    (select 'unserved', s.name, 'task "' || t.name || '" in queue "' || q.name || '"', 0
     from millrace.schedules s join millrace.tasks t on t.id = s.task join millrace.queues q on q.id = s.queue
     where s.due_at is not null and not exists (
       select from millrace.workers live
       where live.stopped_at is null and live.beat_at >= now() - live.lease_ms * interval '1 millisecond'
         and (live.tasks is null or s.task = any (live.tasks)) and (live.queues is null or s.queue = any (live.queues))
     )
     order by s.name limit ${limit}::int)
    union all
    (select 'overdue', s.name, r.job_id::text, (extract(epoch from now() - r.fired_at) * 1000)::float8
     from millrace.schedule_runs r join millrace.schedules s on s.id = r.schedule
     where r.status = 'fired' and r.ended_at is null and r.fired_at + (s.spec ->> 'runGraceMs')::float8 * interval '1 millisecond' < now()
     order by r.fired_at limit ${limit}::int)`);
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
