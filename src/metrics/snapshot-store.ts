/**
 * What the tables say about the whole system, for metrics. Every statement costs the same whatever has finished: states are read where
 * jobs wait and run, and what happened from the folded totals. Queues beyond the cap, by age, are one: `_other`.
 */
import type { Executor } from "../db/database.ts";
import { type Sql, sql } from "../db/sql.ts";
import { uncounted } from "../jobs/totals-store.ts";

/** Jobs counted per queue at most. */
const depthMax = 1_000_000;
/** Dead letters counted per queue at most, the newest. */
const deadMax = 50_000;
/** Schedules looked at, the oldest; of each, its newest runs. */
const schedulesMax = 1_000;
const runsLookedAt = 50;
/** A schedule this far behind its due time is late. */
const lateSeconds = 60;

/** A queue keeps its name for ever: queues are never deleted, so their order does not change. */
const named = (cap: number): Sql => sql`
  named as materialized (
    select id, case when row_number() over (order by id) <= ${cap}::int then name else '_other' end as name, paused_at from millrace.queues
  )`;

export interface QueueState {
  readonly queue: string;
  /** How many queues this stands for. */
  readonly queues: number;
  readonly paused: boolean;
  readonly concurrency: number | null;
  readonly runnable: number;
  readonly delayed: number;
  readonly blocked: number;
  readonly active: number;
  /** Of the active ones, those whose worker does not beat. */
  readonly expired: number;
  /** When the job that has waited longest became runnable, in seconds since 1970. */
  readonly oldest: number | null;
}

export async function readQueues(db: Executor, cap: number): Promise<QueueState[]> {
  return db.query<QueueState>(sql`
    with recursive ${named(cap)},
    heads as ( -- one probe per queue and rank
      (select line, rank, run_at from millrace.pending order by line, rank, run_at, job_id limit 1)
      union all
      select next.* from heads cross join lateral (
        select p.line, p.rank, p.run_at from millrace.pending p where (p.line, p.rank) > (heads.line, heads.rank)
        order by p.line, p.rank, p.run_at, p.job_id limit 1
      ) next
    ),
    first as materialized (select abs(line) as queue, min(run_at) filter (where run_at <= now()) as oldest from heads group by 1),
    waiting as materialized (
      select f.queue, f.oldest, w.* from first f cross join lateral (
        select count(*) filter (where p.run_at <= now()) as runnable, count(*) filter (where p.run_at > now() and p.run_at < 'infinity') as delayed,
               count(*) filter (where p.run_at = 'infinity') as blocked
        from (select run_at from millrace.pending where line in (f.queue, -f.queue) limit ${depthMax}) p
      ) w
    ),
    held as materialized (
      select l.queue, sum(open.n) as active,
             sum(open.n) filter (where w.stopped_at is not null or w.beat_at < now() - w.lease_ms * interval '1 millisecond') as expired
      from millrace.leases l join millrace.workers w on w.id = l.worker
      cross join lateral (select cardinality(l.job_ids) - cardinality(l.done) as n) open group by l.queue
    )
    select n.name as queue, count(*)::int as queues, bool_and(n.paused_at is not null) as paused,
           case when count(*) = 1 then min(p.concurrency) end as concurrency,
           coalesce(sum(w.runnable), 0)::float8 as runnable, coalesce(sum(w.delayed), 0)::float8 as delayed, coalesce(sum(w.blocked), 0)::float8 as blocked,
           coalesce(sum(h.active), 0)::float8 as active, coalesce(sum(h.expired), 0)::float8 as expired,
           extract(epoch from min(w.oldest))::float8 as oldest
    from named n left join waiting w on w.queue = n.id left join held h on h.queue = n.id left join millrace.queue_policies p on p.queue = n.id
    group by n.name order by min(n.id)`);
}

/** How often something happened in a queue; kinds and labels as in `millrace.totals`. */
export interface Total {
  readonly queue: string;
  readonly kind: string;
  readonly label: string;
  readonly n: number;
}

export async function readTotals(db: Executor, cap: number): Promise<Total[]> {
  return db.query<Total>(sql`
    with ${named(cap)}
    select coalesce(n.name, '_other') as queue, t.kind, t.label, sum(t.n)::float8 as n
    from millrace.totals t left join named n on n.id = t.queue group by 1, 2, 3`);
}

export interface Durations {
  readonly queue: string;
  readonly tookMs: number;
  /** Jobs per bucket of `durationBucketsMs`, and those beyond the last. */
  readonly buckets: number[];
}

/** One row per queue, so `_other` may come several times. */
export async function readDurations(db: Executor, cap: number): Promise<Durations[]> {
  return db.query<Durations>(sql`
    with ${named(cap)}
    select n.name as queue, d.took_ms::float8 as "tookMs", d.buckets::float8[] as buckets
    from millrace.durations d join named n on n.id = d.queue`);
}

export interface DeadLetters {
  readonly queue: string;
  readonly reason: string;
  readonly n: number;
}

export async function readDeadLetters(db: Executor, cap: number): Promise<DeadLetters[]> {
  return db.query<DeadLetters>(sql`
    with ${named(cap)}
    select n.name as queue, d.reason, sum(d.n)::float8 as n from named n cross join lateral (
      select one.reason, count(*) as n from (
        select l.reason from millrace.dead_letters l where l.queue = n.id order by l.failed_at desc, l.job_id desc limit ${deadMax}
      ) one group by one.reason
    ) d group by 1, 2`);
}

export interface System {
  /** The database's clock, and up to when all that happened is counted, in seconds since 1970. */
  readonly now: number;
  readonly countedUntil: number | null;
  readonly drained: boolean;
  readonly working: number;
  readonly draining: number;
  /** They should have beaten, and nobody has declared them dead yet. */
  readonly silent: number;
  /** Jobs that workers which beat can run at once. */
  readonly slots: number;
  readonly leaseSeconds: number | null;
}

export async function readSystem(db: Executor): Promise<System> {
  const [system] = await db.query<System>(sql`
    with live as materialized (
      select concurrency, lease_ms, case when beat_at < now() - lease_ms * interval '1 millisecond' then 'silent'
        when draining or recycle_asked_at is not null then 'draining' else 'working' end as state
      from millrace.workers where stopped_at is null
    )
    select extract(epoch from clock_timestamp())::float8 as now,
      (select extract(epoch from case when ${uncounted} then m.counted_until else now() end)::float8
        from millrace.tally_mark m where m.counted_until > '-infinity') as "countedUntil",
      exists (select from millrace.system_state where drained_at is not null) as drained,
      count(*) filter (where state = 'working')::int as working, count(*) filter (where state = 'draining')::int as draining,
      count(*) filter (where state = 'silent')::int as silent,
      coalesce(sum(concurrency) filter (where state <> 'silent'), 0)::float8 as slots, min(lease_ms)::float8 / 1000 as "leaseSeconds"
    from live`);
  return system as System;
}

export interface ScheduleStates {
  readonly enabled: number;
  readonly paused: number;
  readonly retired: number;
  readonly late: number;
  readonly withoutNext: number;
  /** When a scheduler last said that it lives, in seconds since 1970. */
  readonly lastBeat: number | null;
}

export async function readScheduleStates(db: Executor): Promise<ScheduleStates> {
  const [states] = await db.query<ScheduleStates>(sql`
    select count(*) filter (where retired_at is null and paused_at is null)::int as enabled,
      count(*) filter (where retired_at is null and paused_at is not null)::int as paused, count(*) filter (where retired_at is not null)::int as retired,
      count(*) filter (where retired_at is null and paused_at is null and due_at < now() - ${lateSeconds}::int * interval '1 second'
        -- somebody wants that: the system is about to be drained
        and not exists (select from millrace.system_state where scheduling_stopped_at is not null))::int as late,
      count(*) filter (where retired_at is null and paused_at is null and next_at is null)::int as "withoutNext",
      (select extract(epoch from max(beat_at))::float8 from millrace.schedule_versions) as "lastBeat"
    from millrace.schedules`);
  return states as ScheduleStates;
}

export interface ScheduleState {
  readonly schedule: string;
  readonly schedules: number;
  /** When it fires next, in seconds since 1970. */
  readonly next: number | null;
  /** Runs that failed since the last that did not. */
  readonly failures: number;
}

/** Those that are neither paused nor retired. */
export async function readSchedules(db: Executor, cap: number): Promise<ScheduleState[]> {
  return db.query<ScheduleState>(sql`
    with chosen as materialized (
      select id, case when row_number() over (order by id) <= ${cap}::int then name else '_other' end as name, due_at from millrace.schedules
      where retired_at is null and paused_at is null order by id limit ${schedulesMax}
    )
    select c.name as schedule, count(*)::int as schedules, extract(epoch from min(c.due_at))::float8 as next, max(f.failures)::int as failures
    from chosen c cross join lateral (
      select count(*) filter (where ended.outcome = 'failed' and ended.good = 0) as failures from (
        select r.outcome, count(*) filter (where r.outcome = 'completed') over (order by r.id desc) as good from (
          select id, outcome from millrace.schedule_runs where schedule = c.id order by id desc limit ${runsLookedAt}
        ) r
      ) ended
    ) f group by c.name order by min(c.id)`);
}

export interface Server {
  readonly sizeBytes: number;
  readonly connections: number;
  readonly connectionsMax: number;
  readonly longestTransactionSeconds: number;
  readonly deadRows: Readonly<Record<string, number>>;
}

/** The database as a server. A user that may not see other users' transactions sees its own. */
export async function readServer(db: Executor, schema: string): Promise<Server> {
  const [server] = await db.query<Server>(sql`
    select pg_database_size(current_database())::float8 as "sizeBytes", current_setting('max_connections')::float8 as "connectionsMax",
      (select count(*)::float8 from pg_stat_activity where backend_type = 'client backend') as connections,
      (select coalesce(max(extract(epoch from now() - xact_start)), 0)::float8 from pg_stat_activity
        where backend_type = 'client backend' and datname = current_database() and pid <> pg_backend_pid()) as "longestTransactionSeconds",
      (select coalesce(json_object_agg(relname, n_dead_tup), '{}') from pg_stat_user_tables where schemaname = ${schema}
        and relname in ('jobs', 'pending', 'leases', 'settled', 'attempts', 'dead_letters')) as "deadRows"`);
  return server as Server;
}
