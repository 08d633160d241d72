/** Rates of the last minute per queue, as runbook 004 reads them, and the ratios of runbook 003. Read from history along its indexes. */
import type { Executor } from "../db/database.ts";
import { sql } from "../db/sql.ts";

/** Field names of runbook 004. Rates are 0 when no attempt ended within the minute. */
export interface QueueRates {
  readonly at: Date;
  readonly queue: string;
  readonly runnable_queue_depth: number;
  /** Attempts that ended, per second. */
  readonly jobs_per_sec: number;
  /** Of those, the share that succeeded, and the share that is followed by another attempt. */
  readonly success_rate: number;
  readonly retry_rate: number;
  readonly mean_latency_ms: number;
}

const windowSeconds = 60;
const depthMax = 1_000_000;

/** Of every queue, or of one; sleeps in steps are no end of an attempt. */
export async function readRates(db: Executor, queue?: string): Promise<QueueRates[]> {
  return db.query<QueueRates>(sql`
    with chosen as materialized (select id, name from millrace.queues where ${queue ?? null}::text is null or name = ${queue ?? null}::text)
    select now() as at, q.name as queue, waiting.n::float8 as runnable_queue_depth,
      ((well.n + badly.n) / ${windowSeconds}::float8)::float8 as jobs_per_sec,
      coalesce((well.n / nullif(well.n + badly.n, 0))::float8, 0) as success_rate,
      coalesce((badly.retried / nullif(well.n + badly.n, 0))::float8, 0) as retry_rate,
      coalesce(((well.ms + badly.ms) / nullif(well.n + badly.timed, 0))::float8, 0) as mean_latency_ms
    from chosen q
    cross join lateral (
      select count(*) as n from (
        select from millrace.pending p where p.line in (q.id, -q.id) and p.run_at <= now() limit ${depthMax}) p
    ) waiting
    cross join lateral (
      select coalesce(sum(s.n), 0)::numeric as n, coalesce(sum(s.took_ms_sum), 0)::numeric as ms
      from millrace.settled s where s.queue = q.id and s.finished_at > now() - ${windowSeconds}::int * interval '1 second'
    ) well
    cross join lateral (
      select count(*)::numeric as n, count(*) filter (where a.retry_at is not null)::numeric as retried, count(a.started_at)::numeric as timed,
             coalesce(sum(extract(epoch from a.finished_at - a.started_at) * 1000), 0)::numeric as ms
      from millrace.attempts a
      where a.queue = q.id and a.finished_at > now() - ${windowSeconds}::int * interval '1 second'
        and a.lease is not null and not a.late and a.outcome <> 'snoozed'
    ) badly
    order by q.name`);
}

/** Jobs, seen as the runs of runbook 003. */
export interface Lifecycle {
  readonly running: number;
  readonly waiting: number;
  readonly runningWithoutHeartbeat: number;
  /** Attempts that went down with their worker. */
  readonly lost: number;
  /** Replays, and how those of them ended that have. */
  readonly replays: number;
  readonly replaysCompleted: number;
  readonly replaysFailed: number;
}

/** The newest replays that are looked at. */
const replaysMax = 1_000;
const lostMax = 100_000;

export async function readLifecycle(db: Executor, windowHours: number): Promise<Lifecycle> {
  const [lifecycle] = await db.query<Lifecycle>(sql`
    with held as materialized (
      select coalesce(sum(open.n), 0)::float8 as running,
        coalesce(sum(open.n) filter (where w.stopped_at is not null or w.beat_at < now() - w.lease_ms * interval '1 millisecond'), 0)::float8 as silent
      from millrace.leases l join millrace.workers w on w.id = l.worker
      cross join lateral (select cardinality(l.job_ids) - cardinality(l.done) as n) open
    ),
    since as materialized (select now() - ${windowHours}::float8 * interval '1 hour' as at),
    replayed as materialized (
      select r.id from (
        select id, created_at from millrace.jobs where replay_of is not null
        union all
        select id, created_at from millrace.jobs_archive where replay_of is not null
      ) r, since where r.created_at >= since.at order by r.created_at desc limit ${replaysMax}
    ),
    ended as materialized (
      select exists (select from millrace.settled s where s.ids @> r.id and r.id = any (s.job_ids)) as completed,
             exists (select from millrace.dead_letters d where d.job_id = r.id) as failed
      from replayed r
    )
    select held.running, held.silent as "runningWithoutHeartbeat",
      (select count(*)::float8 from (
        select from millrace.queues q cross join lateral (
          select from millrace.pending p where p.line in (q.id, -q.id) and p.run_at <= now() limit ${depthMax}) p) waiting) as waiting,
      (select count(*)::float8 from (
        select from since cross join millrace.queues q cross join lateral (
          select a.outcome from millrace.attempts a where a.queue = q.id and a.finished_at >= since.at order by a.finished_at desc limit ${lostMax}) a
        where a.outcome = 'lost') lost) as lost,
      (select count(*)::float8 from replayed) as replays,
      (select count(*)::float8 from ended where completed) as "replaysCompleted",
      (select count(*)::float8 from ended where failed and not completed) as "replaysFailed"
    from held`);
  return lifecycle as Lifecycle;
}
