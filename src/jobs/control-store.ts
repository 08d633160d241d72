/** What people do to queues: pause, resume, clean. Each is one statement, or one per batch: nothing is half done. */
import { actorColumns, actorNow } from "../audit/actor-store.ts";
import type { Database } from "../db/database.ts";
import { type Sql, sql } from "../db/sql.ts";
import { belongings } from "./belongings-store.ts";
import type { Signature } from "./cancel-store.ts";
import { pruneCancelled } from "./maintenance-store.ts";
import { leaving } from "./totals-store.ts";

export interface Pause {
  readonly by: string | null;
  readonly reason: string | null;
  /** With all the others: `resumeQueue` tells it from one that was paused by itself. */
  readonly withAll: boolean;
}

/**
 * Pauses a queue; workers are told at once and give back what they have not started. False when it was paused already; but one that was
 * paused with all the others is then paused by itself.
 */
export async function pauseQueue(
  db: Database,
  channel: string,
  queue: number,
  { by, reason, withAll }: Pause,
): Promise<boolean> {
  const [row] = await db.query<{ changed: number }>(sql`
    with paused as (
      update millrace.queues set paused_at = coalesce(paused_at, now()), paused_by = ${by}, paused_reason = ${reason}, paused_with_all = ${withAll}
      where id = ${queue} and (paused_at is null or (paused_with_all and not ${withAll}::boolean)) returning id, name
    ),
    noted as (
      insert into millrace.audit (by, action, subject, details, ${actorColumns})
      select ${by}::text, 'pause', 'queue:' || name, jsonb_build_object('reason', ${reason}::text), ${actorNow()} from paused
    ),
    told as (select pg_notify(${channel}, 'stop:' || id) from paused)
    select count(*)::int as changed from told`);
  return row?.changed === 1;
}

/** `withAll`: only if it was paused with all the others. */
export async function resumeQueue(
  db: Database,
  channel: string,
  queue: number,
  { by, reason, withAll = false }: Omit<Pause, "withAll"> & Partial<Pause>,
): Promise<boolean> {
  const [row] = await db.query<{ changed: number }>(sql`
    with resumed as (
      update millrace.queues set paused_at = null, paused_by = null, paused_reason = null, paused_with_all = false
      where id = ${queue} and paused_at is not null and (paused_with_all or not ${withAll}::boolean) returning id, name
    ),
    noted as (
      insert into millrace.audit (by, action, subject, details, ${actorColumns})
      select ${by}::text, 'resume', 'queue:' || name, jsonb_build_object('reason', ${reason}::text), ${actorNow()} from resumed
    ),
    told as (select pg_notify(${channel}, 'look') from resumed)
    select count(*)::int as changed from told`);
  return row?.changed === 1;
}

/** Jobs per transaction: small enough that nobody waits long, as the runbook asks. */
const cleanBatch = 1_000;

export interface Cleaned {
  readonly completed: number;
  readonly failed: number;
  readonly cancelled: number;
}

/** Deletes jobs of a queue that ended longer than `graceMs` ago, well or not, in batches of about a thousand. */
export async function cleanQueue(
  db: Database,
  queue: number,
  graceMs: number,
  { by, reason }: Signature,
): Promise<Cleaned> {
  const cleaned = {
    completed: await cleanCompleted(db, queue, graceMs),
    failed: await cleanFailed(db, queue, graceMs),
    cancelled: await cleanCancelled(db, queue, graceMs),
  };
  if (cleaned.completed + cleaned.failed + cleaned.cancelled > 0) {
    const details = JSON.stringify({ ...cleaned, grace_ms: graceMs, reason });
    await db.query(sql`
      insert into millrace.audit (by, action, subject, details, ${actorColumns})
      select ${by}::text, 'clean', 'queue:' || name, ${details}::jsonb, ${actorNow()} from millrace.queues where id = ${queue}::int`);
  }
  return cleaned;
}

async function cleanCancelled(db: Database, queue: number, graceMs: number): Promise<number> {
  let cleaned = 0;
  for (let more = true; more;) {
    const gone = await pruneCancelled(db, graceMs, queue);
    cleaned += gone.jobs;
    ({ more } = gone);
  }
  return cleaned;
}

/** What hangs on the jobs of `ids`, wherever they are. */
const withThem: Sql = sql`
  attempts as (delete from millrace.attempts a using ids where a.job_id = ids.id returning a.*),
  operations as (delete from millrace.operations o using ids where o.job_id = ids.id),
  decisions as (delete from millrace.policy_decisions d using ids where d.job_id = ids.id returning d.*),
  ${belongings(sql`ids`)},
  jobs as (delete from millrace.jobs j using ids where j.id = ids.id returning j.queue, j.created_at)`;

/** What of it counts. */
const theirs = {
  jobs: sql`select * from jobs`,
  attempts: sql`select * from attempts`,
  decisions: sql`select * from decisions`,
};

export async function cleanCompleted(db: Database, queue: number, graceMs: number): Promise<number> {
  let cleaned = 0;
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
      history as (delete from millrace.settled s using old where s.id = old.id returning s.queue, s.finished_at, s.n, s.took_ms),
      archived as (delete from millrace.jobs_archive j using ids where j.id = ids.id),
      ${withThem},
      ${leaving({ ...theirs, settled: sql`select * from history` })}
      select coalesce(sum(n), 0)::int as jobs, count(*)::int as batches from history`);
    cleaned += row?.jobs ?? 0;
    more = (row?.batches ?? 0) > 0;
  }
  return cleaned;
}

export async function cleanFailed(db: Database, queue: number, graceMs: number): Promise<number> {
  let cleaned = 0;
  for (let more = true; more;) {
    const [row] = await db.query<{ jobs: number }>(sql`
      with old as (
        select job_id from millrace.dead_letters
        where queue = ${queue} and failed_at < now() - ${graceMs}::float8 * interval '1 millisecond'
        order by failed_at limit ${cleanBatch} for update skip locked
      ),
      ids as (delete from millrace.dead_letters d using old where d.job_id = old.job_id returning d.job_id as id),
      ${withThem},
      ${leaving(theirs)}
      select count(*)::int as jobs from ids`);
    cleaned += row?.jobs ?? 0;
    more = (row?.jobs ?? 0) > 0;
  }
  return cleaned;
}
