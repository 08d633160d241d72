/**
 * Keeps every table bounded: successes are archived, then history is pruned; what limits and decisions leave behind goes by age.
 * Each step is one transaction of about a thousand jobs; called until it finds nothing more (docs/reference/retention.md).
 */
import type { Database } from "../db/database.ts";
import { type Sql, sql } from "../db/sql.ts";
import { belongings } from "./belongings-store.ts";
import { leaving } from "./totals-store.ts";

/** Jobs per transaction: small enough that nobody waits long for one. */
const batch = 1_000;

/** The oldest settled batches that ended before `before`, together about a thousand jobs. */
const oldest = (archived: boolean, before: Sql): Sql => sql`
  old as materialized (
    select s.id, s.job_ids from (
      select s.id, s.job_ids, sum(s.n) over (order by s.finished_at, s.id) - s.n as before from (
        select id, job_ids, n, finished_at from millrace.settled
        where archived = ${archived}::boolean and finished_at < ${before} order by finished_at, id limit ${batch}
      ) s
    ) s where s.before < ${batch}
  ),
  ids as materialized (select unnest(job_ids) as id from old)`;

const ago = (ms: number): Sql => sql`now() - ${ms}::float8 * interval '1 millisecond'`;

/** Moves successes older than that out of `jobs`; returns how many jobs, and whether there may be more. */
export async function archive(db: Database, olderThanMs: number): Promise<{ jobs: number; more: boolean }> {
  const [row] = await db.query<{ jobs: number; batches: number }>(sql`
    with ${oldest(false, ago(olderThanMs))},
    moved as (delete from millrace.jobs j using ids where j.id = ids.id returning j.*),
    kept as (
      insert into millrace.jobs_archive (id, queue, task, priority, max_attempts, run_at, created_at, replay_of, key, input, options, tags)
      select id, queue, task, priority, max_attempts, run_at, created_at, replay_of, key, input, options, tags from moved
      on conflict (id) do nothing
    ),
    marked as (update millrace.settled s set archived = true from old where s.id = old.id returning s.id),
    ${leaving({ jobs: sql`select queue, created_at from moved` })}
    select (select count(*)::int from moved) as jobs, (select count(*)::int from marked) as batches`);
  return { jobs: row?.jobs ?? 0, more: (row?.batches ?? 0) > 0 };
}

export interface Pruned {
  readonly jobs: number;
  readonly attempts: number;
  readonly policyDecisions: number;
  readonly more: boolean;
}

/** Deletes archived jobs that ended longer ago than that, with everything known of them. */
export async function prune(db: Database, olderThanMs: number): Promise<Pruned> {
  const [row] = await db.query<{ jobs: number; attempts: number; decisions: number; batches: number }>(sql`
    with ${oldest(true, ago(olderThanMs))},
    ${withThem},
    history as (delete from millrace.settled s using old where s.id = old.id returning s.queue, s.finished_at, s.n, s.took_ms),
    ${leaving({ ...theirs, settled: sql`select * from history` })}
    select (select count(*)::int from ids) as jobs, (select count(*)::int from attempts) as attempts,
           (select count(*)::int from decisions) as decisions, (select count(*)::int from history) as batches`);
  return {
    jobs: row?.jobs ?? 0,
    attempts: row?.attempts ?? 0,
    policyDecisions: row?.decisions ?? 0,
    more: (row?.batches ?? 0) > 0,
  };
}

/** Deletes jobs that were cancelled longer ago than that, of one queue or of all. */
export async function pruneCancelled(db: Database, olderThanMs: number, queue?: number): Promise<Pruned> {
  const [row] = await db.query<{ jobs: number; attempts: number; decisions: number; found: number }>(sql`
    with ids as materialized (
      select distinct old.id from millrace.queues q cross join lateral (
        select a.job_id as id from millrace.attempts a
        where a.queue = q.id and a.outcome = 'cancelled' and not a.late and a.finished_at < ${ago(olderThanMs)}
          -- cancelled once, and tried again since: not now
          and not exists (select from millrace.attempts later where later.job_id = a.job_id and later.finished_at >= ${ago(olderThanMs)})
          and not exists (select from millrace.dead_letters d where d.job_id = a.job_id)
        order by a.finished_at limit ${batch}
      ) old
      where ${queue ?? null}::int is null or q.id = ${queue ?? null}::int limit ${batch}
    ),
    ${withThem},
    ${leaving(theirs)}
    select (select count(*)::int from gone) as jobs, (select count(*)::int from attempts) as attempts,
           (select count(*)::int from decisions) as decisions, (select count(*)::int from ids) as found`);
  return {
    jobs: row?.jobs ?? 0,
    attempts: row?.attempts ?? 0,
    policyDecisions: row?.decisions ?? 0,
    more: (row?.found ?? 0) > 0,
  };
}

/** Everything that hangs on the jobs of `ids`. */
const withThem: Sql = sql`
  gone as (delete from millrace.jobs j using ids where j.id = ids.id returning j.queue, j.created_at),
  archived as (delete from millrace.jobs_archive j using ids where j.id = ids.id),
  attempts as (delete from millrace.attempts a using ids where a.job_id = ids.id returning a.*),
  decisions as (delete from millrace.policy_decisions d using ids where d.job_id = ids.id returning d.*),
  operations as (delete from millrace.operations o using ids where o.job_id = ids.id),
  requests as (delete from millrace.cancel_requests c using ids where c.job_id = ids.id),
  ${belongings(sql`ids`)}`;

/** What of it counts. */
const theirs = {
  jobs: sql`select * from gone`,
  attempts: sql`select * from attempts`,
  decisions: sql`select * from decisions`,
};

/** Of one job, as many as its timeline shows. */
export const snoozesKept = 1_000;
/** Newest attempts among which jobs that are put off again and again are looked for: each time others, and whoever goes on is among them. */
const lookedAt = 5_000;

/** Deletes the oldest snoozes of jobs that have more than is kept, some thousand at a time. Returns how many went. */
export async function trimSnoozes(db: Database): Promise<number> {
  const [row] = await db.query<{ gone: number }>(sql`
    with recent as materialized (
      select distinct job_id from (select job_id, outcome from millrace.attempts order by id desc limit ${lookedAt}::int) a where outcome = 'snoozed'
    ),
    much as materialized (
      select r.job_id, newest.id from recent r cross join lateral (
        select id from millrace.attempts a where a.job_id = r.job_id and a.outcome = 'snoozed'
        order by a.id desc offset ${snoozesKept}::int limit 1
      ) newest
    ),
    trimmed as (
      delete from millrace.attempts where id in (
        select a.id from much cross join lateral (
          select id from millrace.attempts where job_id = much.job_id and outcome = 'snoozed' and id <= much.id order by id limit ${batch}
        ) a limit ${10 * batch}::int) returning *
    ),
    ${leaving({ attempts: sql`select * from trimmed` })}
    select count(*)::int as gone from trimmed`);
  return row?.gone ?? 0;
}

/** How long what nobody asks for any more is kept, in ms. */
export interface Ages {
  readonly decisionsMs: number;
  readonly auditMs: number;
  /** After their stop: nothing that is still kept names them. */
  readonly workersMs: number;
  /** Emitted events: no run waits for one that is older. */
  readonly eventsMs: number;
}

const minuteMs = 60_000;
const dayMs = 86_400_000;

/** Deletes a thousand at most. Asked twice, for one that was changed meanwhile may be young again. */
const oldRows = (table: Sql, isOld: Sql): Sql => sql`
  delete from ${table} old where old.ctid = any (array(select old.ctid from ${table} old where ${isOld} limit ${batch})) and ${isOld} returning 1`;

/** Small tables, by age: a thousand rows of each at a time. Returns how many went. */
export async function sweepUp(db: Database, { decisionsMs, auditMs, workersMs, eventsMs }: Ages): Promise<number> {
  const [row] = await db.query<{ gone: number }>(sql`
    with denials as (
      delete from millrace.ingest_decisions where id in (
        select id from millrace.ingest_decisions where at < ${ago(decisionsMs)} order by at limit ${batch}) returning *
    ),
    decisions as (
      delete from millrace.policy_decisions where id in (
        select id from millrace.policy_decisions where at < ${ago(decisionsMs)} order by at limit ${batch}) returning *
    ),
    ${leaving({ decisions: sql`select * from decisions`, denials: sql`select * from denials` })},
    counters as (${oldRows(sql`millrace.enqueue_rate_counters`, sql`window_start < ${ago(10 * minuteMs)}`)}),
    -- no window is longer than a day
    windows as (${oldRows(sql`millrace.rate_windows`, sql`updated_at < ${ago(2 * dayMs)}`)}),
    keys as (
      delete from millrace.idempotency_keys where (task, key) in (
        select task, key from millrace.idempotency_keys where expires_at < now() order by expires_at limit ${batch}) returning task
    ),
    unique_keys as (
      delete from millrace.unique_keys where (task, key) in (
        select task, key from millrace.unique_keys where until < now() order by until limit ${batch}) returning task
    ),
    events as (
      delete from millrace.emitted_events where name in (
        select name from millrace.emitted_events where at < ${ago(eventsMs)} order by at limit ${batch}) returning name
    ),
    workers as (
      ${oldRows(
        sql`millrace.workers`,
        sql`stopped_at < ${ago(workersMs)} and not exists (select from millrace.leases l where l.worker = old.id)`,
      )}
    ),
    bulk as (${oldRows(sql`millrace.bulk_operations`, sql`finished_at < ${ago(auditMs)}`)}),
    -- From the oldest on, and no further than the first that is younger: the chain would be broken otherwise.
    oldest as materialized (select id, at from millrace.audit order by id limit ${batch}),
    audit as (
      delete from millrace.audit where id in (
        select id from oldest where id < coalesce((select min(id) from oldest where at >= ${ago(auditMs)}), 9223372036854775807)) returning id
    )
    select ((select count(*) from denials) + (select count(*) from decisions) + (select count(*) from counters) + (select count(*) from windows)
          + (select count(*) from keys) + (select count(*) from unique_keys)
          + (select count(*) from events) + (select count(*) from workers) + (select count(*) from bulk) + (select count(*) from audit))::int as gone`);
  return row?.gone ?? 0;
}

/** How long dead letters and successes of each queue are kept; null: as long as everywhere. */
export interface Kept {
  readonly queue: number;
  readonly completedMs: number | null;
  readonly failedMs: number | null;
}

export async function keptPerQueue(db: Database): Promise<Kept[]> {
  return db.query<Kept>(sql`
    select q.id as queue, p.keep_completed_ms::float8 as "completedMs", p.keep_failed_ms::float8 as "failedMs"
    from millrace.queues q left join millrace.queue_policies p on p.queue = q.id order by q.id`);
}
