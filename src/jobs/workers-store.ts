/** The registry of workers, their heartbeats, and what is done about those that stopped beating. */
import type { Database, Executor } from "../db/database.ts";
import { arrayLiteral, sql } from "../db/sql.ts";
import { finishRequests } from "./cancel-store.ts";
import { lineOf } from "./settle-store.ts";

export interface WorkerFacts {
  readonly name: string;
  readonly host: string;
  readonly pid: number;
  readonly version: string;
  readonly queues: readonly number[] | null;
  readonly tasks: readonly number[] | null;
  readonly concurrency: number;
  readonly leaseMs: number;
  /** Its registration before this one, whose orders still hold. */
  readonly former?: number;
}

/**
 * A new row for each start: the id of a dead worker must never come back to life and hide what it held. It drains from the start while
 * the system does: under the lock of that row, so that who drains the system finds it there or is found.
 */
export async function register(db: Executor, worker: WorkerFacts): Promise<number> {
  const { former = 0 } = worker;
  const [row] = await db.query<{ id: number }>(sql`
    with state as materialized (select drained_at from millrace.system_state for share)
    insert into millrace.workers (name, host, pid, version, queues, tasks, concurrency, lease_ms,
      draining, wanted_concurrency, recycle_asked_at)
    values (${worker.name}, ${worker.host}, ${worker.pid}, ${worker.version},
            ${worker.queues && arrayLiteral(worker.queues)}::int[], ${worker.tasks && arrayLiteral(worker.tasks)}::int[],
            ${worker.concurrency}, ${worker.leaseMs},
            (select drained_at is not null from state) or coalesce((select draining from millrace.workers where id = ${former}), false),
            (select wanted_concurrency from millrace.workers where id = ${former}),
            (select recycle_asked_at from millrace.workers where id = ${former}))
    returning id`);
  return (row as { id: number }).id;
}

/** What operators want of a worker. */
export interface Orders {
  readonly draining: boolean;
  /** Every worker is to drain, not this one alone. */
  readonly systemDrained: boolean;
  /** Null: nobody asked for another than its own. */
  readonly concurrency: number | null;
  readonly recycle: boolean;
}

export interface Beat {
  /** False: somebody declared this worker dead; its leases are or will be taken. */
  readonly alive: boolean;
  /** Leases of ours older than asked. */
  readonly oldLeases: string[];
  readonly orders: Orders | undefined;
}

/** Says that it lives and how many jobs it runs at once; hears its orders. */
export async function beat(db: Database, worker: number, concurrency: number, leaseAgeMs: number): Promise<Beat> {
  const [row] = await db.query<{ orders: Orders | null; old: string[] | null }>(sql`
    with beating as (
      update millrace.workers set beat_at = now(), concurrency = ${concurrency}
      where id = ${worker} and stopped_at is null returning draining, wanted_concurrency, recycle_asked_at
    )
    select (select json_build_object(
              'draining', draining, 'concurrency', wanted_concurrency, 'recycle', recycle_asked_at is not null,
              'systemDrained', exists (select from millrace.system_state where drained_at is not null))
            from beating) as orders,
           (select array_agg(id::text) from millrace.leases
            where worker = ${worker} and claimed_at <= now() - ${leaseAgeMs}::float8 * interval '1 millisecond') as old`);
  return { alive: row?.orders != null, oldLeases: row?.old ?? [], orders: row?.orders ?? undefined };
}

/** Says whether this worker would hear a NOTIFY with nothing else to do. */
export async function setIdle(db: Database, worker: number, idle: boolean): Promise<void> {
  await db.query(sql`update millrace.workers set idle = ${idle} where id = ${worker} and stopped_at is null`);
}

/** Signs a worker off, and calls the others: what it was interrupted in waits again. */
export async function deregister(db: Database, channel: string, worker: number): Promise<void> {
  await db.query(sql`
    with gone as (
      update millrace.workers set stopped_at = now(), ended = 'stopped', idle = false
      where id = ${worker} and stopped_at is null returning id
    )
    select pg_notify(${channel}, 'look') from gone`);
}

/** Whether `reap` has anything to do: one cheap look, since mostly it has not. */
export async function anyDead(db: Database, self: number): Promise<boolean> {
  const [row] = await db.query<{ any: boolean }>(sql`
    select exists (select from millrace.workers where stopped_at is null and id <> ${self} and beat_at < now() - lease_ms * interval '1 millisecond')
        or exists (select from millrace.leases l join millrace.workers w on w.id = l.worker where w.stopped_at is not null) as any`);
  return row?.any ?? false;
}

/** Losses alone after which a job is taken to be what kills its workers. */
const poisonAfter = 3;

export interface Reaped {
  readonly workers: string[];
  readonly requeued: number;
  readonly buried: number;
}

/**
 * Takes back what dead workers held. Two statements in one transaction: the first locks the leases, so that the second, with a
 * new snapshot, sees every result that was committed before.
 *
 * A job lost in company uses no attempt: nobody knows whether it was even started. A job lost while its worker held nothing else
 * does, and the third time it is `POISON`. Either way it comes back as a suspect, to be run alone, unless somebody wants it to end:
 * then nobody else may begin it first.
 */
export async function reap(db: Database, channel: string, self: number): Promise<Reaped> {
  return db.transaction(async (tx) => {
    const dead = await tx.query<{ name: string }>(sql`
      update millrace.workers set stopped_at = now(), ended = 'lost', idle = false
      where id in (
        select id from millrace.workers
        where stopped_at is null and id <> ${self} and beat_at < now() - lease_ms * interval '1 millisecond'
        for update skip locked)
      returning name`);
    const leases = await tx.query<{ id: string }>(sql`
      select l.id::text as id from millrace.leases l join millrace.workers w on w.id = l.worker
      where w.stopped_at is not null order by l.id limit 500 for update of l skip locked`);
    const workers = dead.map(({ name }) => name);
    if (leases.length === 0) return { workers, requeued: 0, buried: 0 };
    const ids = arrayLiteral(leases.map(({ id }) => id));
    const [row] = await tx.query<{ requeued: number; buried: number; unwanted: string[] }>(sql`
      with lost as materialized (
        select l.id as lease, l.queue, l.worker, l.claimed_at, open.job_id, open.attempt,
               count(*) over (partition by l.worker) = 1
                 and not exists (select from millrace.leases o where o.worker = l.worker and o.id <> all (${ids}::bigint[])) as alone
        from millrace.leases l cross join unnest(l.job_ids, l.attempts) as open (job_id, attempt)
        where l.id = any (${ids}::bigint[]) and open.job_id <> all (l.done)
          and not exists (select from millrace.settled s where s.lease = l.id and open.job_id = any (s.job_ids))
      ),
      judged as materialized (
        select lost.*, j.priority, j.task, j.key, j.watched, past.losses,
               case when lost.alone and past.strikes + 1 >= ${poisonAfter} then 'POISON'
                    when lost.alone and lost.attempt >= j.max_attempts then 'MAX_ATTEMPTS_EXCEEDED' end as reason
        from lost cross join lateral (
          select priority, task, key, max_attempts, coalesce(options ? 'watched', false) as watched from millrace.jobs where id = lost.job_id limit 1) j
        cross join lateral (
          select count(*) as losses, count(*) filter (where a.alone) as strikes
          from millrace.attempts a where a.job_id = lost.job_id and a.outcome = 'lost'
        ) past
      ),
      told as (
        insert into millrace.attempts (job_id, queue, attempt, lease, worker, outcome, started_at, error_code, error_message, retry_at, alone, dead_reason)
        select job_id, queue, attempt, lease, worker, 'lost', claimed_at, 'WORKER_LOST',
               case when alone then 'The worker died while it ran this job and nothing else.'
                    else 'The worker died while it held this job among others.' end,
               case when reason is null then now() end, alone, reason
        from judged
      ),
      requeued as (
        insert into millrace.pending (line, key, rank, run_at, job_id, task, attempt, losses)
        select ${lineOf(sql`judged`)}, nullif(key, ''), -priority, now(), job_id, task, attempt + alone::int, least(losses + 1, 1000) from judged where reason is null
        returning line
      ),
      buried as (
        insert into millrace.dead_letters (job_id, queue, task, attempt, reason, error_code)
        select job_id, queue, task, attempt, reason, 'WORKER_LOST' from judged where reason is not null
        on conflict (job_id) do nothing returning job_id
      ),
      ended as (insert into millrace.endings (job_id, outcome) select job_id, 'failed' from judged where reason is not null and watched),
      dropped as (delete from millrace.leases where id = any (${ids}::bigint[])),
      -- not the lanes: what comes back is a suspect, and those are found by looking around
      woken as (select pg_notify(${channel}, 'look') from judged limit 1)
      select (select count(*)::int from requeued) as requeued, (select count(*)::int from buried) as buried, (select count(*)::int from woken) as woken,
             array(select c.job_id::text from judged join millrace.cancel_requests c on c.job_id = judged.job_id where judged.reason is null) as unwanted`);
    if (row !== undefined && row.unwanted.length > 0) await finishRequests(tx, row.unwanted);
    return { workers, requeued: row?.requeued ?? 0, buried: row?.buried ?? 0 };
  });
}

/** Takes back what every worker held, dead or not: for whoever knows that there is none left. */
export async function reapAll(db: Database, channel: string): Promise<Reaped> {
  await db.query(
    sql`update millrace.workers set stopped_at = now(), ended = 'lost', idle = false where stopped_at is null`,
  );
  return reap(db, channel, 0);
}
