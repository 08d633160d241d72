/** What people do to queues and to single jobs. Each is one statement or one transaction: nothing is half done. */
import type { Database } from "../db/database.ts";
import { type Sql, sql } from "../db/sql.ts";
import { dueTime, lineOf } from "./settle-store.ts";

/** Pauses a queue; workers are told at once and give back what they have not started. False when it was paused already. */
export async function pauseQueue(
  db: Database,
  channel: string,
  queue: number,
  by: string | null,
  reason: string | null,
): Promise<boolean> {
  const [row] = await db.query<{ changed: number }>(sql`
    with paused as (
      update millrace.queues set paused_at = now(), paused_by = ${by}, paused_reason = ${reason}
      where id = ${queue} and paused_at is null returning id
    ),
    told as (select pg_notify(${channel}, 'stop:' || id) from paused)
    select count(*)::int as changed from told`);
  return row?.changed === 1;
}

export async function resumeQueue(db: Database, channel: string, queue: number): Promise<boolean> {
  const [row] = await db.query<{ changed: number }>(sql`
    with resumed as (
      update millrace.queues set paused_at = null, paused_by = null, paused_reason = null
      where id = ${queue} and paused_at is not null returning id
    ),
    told as (select pg_notify(${channel}, 'look') from resumed)
    select count(*)::int as changed from told`);
  return row?.changed === 1;
}

/**
 * Makes a dead letter wait again: the same job, one more attempt, whatever its maximum. Null when the job is not a dead letter.
 */
export async function retryJob(db: Database, channel: string, id: string, by: string | null): Promise<boolean> {
  const [row] = await db.query<{ changed: number }>(sql`
    with raised as (delete from millrace.dead_letters where job_id = ${id}::uuid returning job_id, queue, task, attempt),
    noted as (insert into millrace.operations (job_id, action, by, run_at) select job_id, 'retry', ${by}::text, now() from raised),
    requeued as (
      insert into millrace.pending (line, key, rank, run_at, job_id, task, attempt)
      select ${lineOf(sql`j`)}, nullif(j.key, ''), -j.priority, now(), r.job_id, r.task, least(r.attempt + 1, 32767) from raised r join millrace.jobs j on j.id = r.job_id
      returning abs(line) as queue, rank
    ),
    woken as (select pg_notify(${channel}, queue || ':' || rank || ':0') from requeued)
    select count(*)::int as changed from woken`);
  return row?.changed === 1;
}

/** Makes a delayed job due now. False when it does not wait for a time. */
export async function promoteJob(db: Database, channel: string, id: string, by: string | null): Promise<boolean> {
  const [row] = await db.query<{ changed: number }>(sql`
    with due as (select j.id, ${lineOf(sql`j`)} as line, j.priority, ${dueTime} as run_at from millrace.jobs j where j.id = ${id}::uuid),
    moved as (
      delete from millrace.pending p using due
      where p.line = due.line and p.rank = -due.priority and p.run_at = due.run_at and p.job_id = due.id
        and p.run_at > now() and p.run_at < 'infinity'
      returning p.*
    ),
    noted as (insert into millrace.operations (job_id, action, by, run_at) select job_id, 'promote', ${by}::text, now() from moved),
    requeued as (
      insert into millrace.pending (line, key, rank, run_at, job_id, task, attempt, losses)
      select line, key, rank, now(), job_id, task, attempt, losses from moved returning abs(line) as queue, rank
    ),
    woken as (select pg_notify(${channel}, queue || ':' || rank || ':0') from requeued)
    select count(*)::int as changed from woken`);
  return row?.changed === 1;
}

/**
 * What is deleted from history and was folded into the tally must leave it again. `deleted` gives `queue, finished_at, n` of what this
 * statement deleted; the lock keeps the tallies from being folded meanwhile.
 */
export const recount = (deleted: Sql): Sql => sql`
  mark as materialized (select counted_until from millrace.tally_mark for share),
  recounted as (
    -- not an update: it would not see a tally that was folded for the first time while this waited for the lock
    insert into millrace.tallies as t (queue, completed)
    select d.queue, -sum(d.n) from (${deleted}) d, mark where d.finished_at < mark.counted_until group by d.queue
    on conflict (queue) do update set completed = t.completed + excluded.completed
  )`;

/** Removes a job that does not run, with its history. False when it runs or does not exist. */
export async function removeJob(db: Database, id: string): Promise<boolean> {
  return db.transaction(async (tx) => {
    const [row] = await tx.query<{ removed: number }>(sql`
      with doomed as (
        select j.id, ${lineOf(sql`j`)} as line, j.priority, ${dueTime} as run_at from millrace.jobs j
        where j.id = ${id}::uuid
          and not exists (select from millrace.leases l where j.id = any (l.job_ids) and j.id <> all (l.done))
        for update of j
      ),
      waiting as (
        delete from millrace.pending p using doomed d
        where p.line = d.line and p.rank = -d.priority and p.run_at = d.run_at and p.job_id = d.id returning p.job_id
      ),
      dead as (delete from millrace.dead_letters where job_id in (select id from doomed) returning job_id),
      ended as (
        select d.id from doomed d
        where exists (select from millrace.settled s where s.ids @> d.id and d.id = any (s.job_ids))
          or exists (select from millrace.attempts a where a.job_id = d.id and a.outcome = 'cancelled')
      ),
      -- A claim that got in between took the pending row: then nothing matched and the job stays.
      gone as (select job_id as id from waiting union select job_id from dead union select id from ended),
      history as (delete from millrace.attempts where job_id in (select id from gone)),
      operations as (delete from millrace.operations where job_id in (select id from gone)),
      -- or the next enqueue under its key would be given a job that is no more
      keys as (delete from millrace.idempotency_keys where job_id in (select id from gone)),
      -- Everything from the row itself: another job of the batch may be on its way out too.
      shortened as (
        update millrace.settled s set
          n = s.n - 1,
          took_ms_sum = s.took_ms_sum - s.took_ms[array_position(s.job_ids, gone.id)],
          started_ms = s.started_ms[:array_position(s.job_ids, gone.id) - 1] || s.started_ms[array_position(s.job_ids, gone.id) + 1:],
          took_ms = s.took_ms[:array_position(s.job_ids, gone.id) - 1] || s.took_ms[array_position(s.job_ids, gone.id) + 1:],
          job_ids = array_remove(s.job_ids, gone.id)
        from gone where s.ids @> gone.id and gone.id = any (s.job_ids) returning s.queue, s.finished_at
      ),
      ${recount(sql`select queue, finished_at, 1 as n from shortened`)},
      jobs as (delete from millrace.jobs where id in (select id from gone) returning id)
      select count(*)::int as removed from jobs`);
    return row?.removed === 1;
  });
}

/** Jobs per transaction: small enough that nobody waits long, as the runbook asks. */
const cleanBatch = 1_000;

export interface Cleaned {
  readonly completed: number;
  readonly failed: number;
}

/** Deletes jobs of a queue that finished longer than `graceMs` ago, well or not, in batches of about a thousand. */
export async function cleanQueue(db: Database, queue: number, graceMs: number): Promise<Cleaned> {
  let completed = 0;
  let failed = 0;
  for (let more = true; more;) {
    const [row] = await db.query<{ jobs: number; batches: number }>(sql`
      with old as (
        select s.id, s.job_ids, s.n from (
          select s.id, s.job_ids, s.n, sum(s.n) over (order by s.finished_at, s.id) - s.n as before from millrace.settled s
          where s.queue = ${queue} and s.finished_at < now() - ${graceMs}::float8 * interval '1 millisecond'
          order by s.finished_at, s.id limit ${cleanBatch}
        ) s where s.before < ${cleanBatch}
      ),
      ids as (select unnest(job_ids) as id from old),
      history as (delete from millrace.settled s using old where s.id = old.id returning s.queue, s.finished_at, s.n),
      attempts as (delete from millrace.attempts a using ids where a.job_id = ids.id),
      operations as (delete from millrace.operations o using ids where o.job_id = ids.id),
      keys as (delete from millrace.idempotency_keys k using ids where k.job_id = ids.id),
      jobs as (delete from millrace.jobs j using ids where j.id = ids.id),
      ${recount(sql`select queue, finished_at, n from history`)}
      select coalesce(sum(n), 0)::int as jobs, count(*)::int as batches from history`);
    completed += row?.jobs ?? 0;
    more = (row?.batches ?? 0) > 0;
  }
  for (let more = true; more;) {
    const [row] = await db.query<{ jobs: number }>(sql`
      with old as (
        select job_id from millrace.dead_letters
        where queue = ${queue} and failed_at < now() - ${graceMs}::float8 * interval '1 millisecond'
        order by failed_at limit ${cleanBatch} for update skip locked
      ),
      letters as (delete from millrace.dead_letters d using old where d.job_id = old.job_id returning d.job_id),
      attempts as (delete from millrace.attempts a using letters where a.job_id = letters.job_id),
      operations as (delete from millrace.operations o using letters where o.job_id = letters.job_id),
      keys as (delete from millrace.idempotency_keys k using letters where k.job_id = letters.job_id),
      jobs as (delete from millrace.jobs j using letters where j.id = letters.job_id)
      select count(*)::int as jobs from letters`);
    failed += row?.jobs ?? 0;
    more = (row?.jobs ?? 0) > 0;
  }
  return { completed, failed };
}
