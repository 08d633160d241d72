/**
 * Settling with care: batches of which only a part is finished, failures, snoozes, late results, jobs given back.
 *
 * Everything happens under the lease's row lock, in one statement, and only for what the lease still holds: a worker whose lease
 * was reaped changes nothing, and sending the same results twice changes nothing the second time.
 */
import type { Database, Executor } from "../db/database.ts";
import { type Sql, arrayLiteral, sql } from "../db/sql.ts";

/**
 * What happens to a job after its attempt. `again` repeats the same attempt (snooze, shutdown) and uses none up; `cancelled` ends it,
 * and is no dead letter.
 */
type Next = "done" | "retry" | "dead" | "again" | "cancelled";

/** One finished attempt. Times in ms; `startedMs` counts from when its batch was claimed. */
export interface Result {
  readonly lease: string;
  readonly jobId: string;
  readonly attempt: number;
  readonly outcome: "succeeded" | "failed" | "timed_out" | "snoozed" | "cancelled";
  readonly next: Next;
  /** Null: it was never started. */
  readonly startedMs: number | null;
  readonly tookMs: number;
  readonly code?: string | undefined;
  readonly message?: string | undefined;
  readonly stack?: string | null | undefined;
  /** For `retry` and `again`: how long until the job is due. */
  readonly delayMs?: number | undefined;
  /** It waits for an event in this step, which may have come meanwhile. */
  readonly waitPlace?: number | undefined;
  /** For the log. */
  readonly task?: string;
  /** What the task returned, as JSON text; undefined when it returned nothing. */
  readonly result?: string | undefined;
  /** Somebody waits for the job's end. */
  readonly watched?: boolean | undefined;
  /** The task completed itself inside its own transaction; whether that committed, history knows. */
  readonly completed?: boolean | undefined;
}

/** Leases locked for us, and against the reaper, for the rest of the statement. */
const held = (worker: number): Sql => sql`
  held as materialized (
    select id, queue, claimed_at, job_ids, attempts, done from millrace.leases
    where id in (select lease from given) and worker = ${worker}::int
    order by id for no key update
  )`;

/** What the locked leases still hold: one row per job that is not settled. */
const open: Sql = sql`
  open as materialized (
    select h.id as lease, h.queue, h.claimed_at, o.job_id, o.attempt
    from held h cross join unnest(h.job_ids, h.attempts) as o (job_id, attempt)
    where cardinality(h.done) = 0 or o.job_id not in (select unnest(h.done))
  )`;

/** Takes the jobs of `finished (lease, job_id)` off their leases; a lease that holds nothing more is gone. */
const shrinkLeases: Sql = sql`
  gone as (select lease, array_agg(job_id) as ids, count(*) as n from finished group by lease),
  shrunk as materialized (
    select h.id, h.done || gone.ids as done, cardinality(h.job_ids) - cardinality(h.done) = gone.n as empty
    from gone join held h on h.id = gone.lease
  ),
  emptied as (delete from millrace.leases l using shrunk s where l.id = s.id and s.empty),
  kept as (update millrace.leases l set done = s.done from shrunk s where l.id = s.id and not s.empty)`;

/** The line in which a job waits; `j` is the job's row. */
export const lineOf = (j: Sql): Sql => sql`case when ${j}.key = '' then ${j}.queue else -${j}.queue end`;

/**
 * Where a waiting job stands in `pending`: as asked, or where its last retry, loss or operator put it. `j` is the job's row.
 * Together with line and priority this is the exact key; no index on job ids is needed.
 */
export const dueTime: Sql = sql`
  coalesce((
    select moved.run_at from (
      select retry_at as run_at, finished_at as at from millrace.attempts where job_id = j.id and retry_at is not null and not late
      union all
      select run_at, at from millrace.operations where job_id = j.id and run_at is not null
    ) moved order by moved.at desc limit 1
  ), j.run_at)`;

/** What a cancelled attempt says. `r` has `by` and `reason`. */
export const cancelMessage: Sql = sql`'Cancelled' || coalesce(' by ' || r.by, '') || coalesce(': ' || r.reason, '.')`;

/** Of a verdict: why the job is given up. */
const deadReason: Sql = sql`case verdict when 'dead' then 'NON_RETRYABLE' when 'exhausted' then 'MAX_ATTEMPTS_EXCEEDED' end`;

/** What became of a result that was not a success. `late`: recorded, not applied. */
export type Verdict = "retry" | "again" | "dead" | "exhausted" | "cancelled" | "late";

/** Settles the results; returns what became of those that were not successes. */
export async function settle(
  db: Database,
  channel: string,
  worker: number,
  results: readonly Result[],
): Promise<(readonly [jobId: string, verdict: Verdict])[]> {
  const given = JSON.stringify(
    results.map((result) => ({
      lease: result.lease,
      job_id: result.jobId,
      attempt: result.attempt,
      outcome: result.outcome,
      next: result.next,
      started_ms: result.startedMs,
      took_ms: result.tookMs,
      code: result.code,
      message: result.message,
      stack: result.stack,
      delay_ms: result.delayMs,
      completed: result.completed,
      result: result.result,
      watched: result.watched,
      wait_place: result.waitPlace,
      // Ids begin with their time. Batches stay within 17 minutes of ids, so that a range of ids stays narrow.
      era: result.jobId.slice(0, 7),
    })),
  );
  const rows = await db.rows<readonly [string, Verdict]>(sql`
    with given as materialized (
      select * from jsonb_to_recordset(${given}::jsonb) as g (
        lease bigint, job_id uuid, attempt smallint, outcome text, next text, started_ms int, took_ms int,
        code text, message text, stack text, delay_ms float8, completed boolean, result text, watched boolean, wait_place int, era text)
    ),
    ${held(worker)},
    ${open},
    finished as materialized (
      select g.*, h.queue, h.claimed_at,
             g.completed is true and exists (
               select from millrace.settled s where s.lease = g.lease and g.job_id = any (s.job_ids)) as recorded
      from given g join open h on h.lease = g.lease and h.job_id = g.job_id
    ),
    judged as materialized (
      select f.*, j.priority, j.task, j.key,
             case when f.recorded then 'done'
                  when f.next = 'retry' and f.attempt >= j.max_attempts then 'exhausted'
                  else f.next end as verdict
      from finished f left join lateral (
        select priority, task, key, max_attempts from millrace.jobs where id = f.job_id and f.next <> 'done' limit 1
      ) j on true
    ),
    history as (
      insert into millrace.settled (lease, queue, worker, claimed_at, n, took_ms_sum, ids, job_ids, started_ms, took_ms)
      select lease, queue, ${worker}::int, claimed_at, count(*), sum(took_ms),
             millrace.uuidrange((array_agg(job_id order by job_id))[1], (array_agg(job_id order by job_id desc))[1], '[]'),
             array_agg(job_id order by job_id), array_agg(started_ms order by job_id), array_agg(took_ms order by job_id)
      from judged where verdict = 'done' and not recorded
      group by lease, queue, claimed_at, era
    ),
    come as materialized ( -- locked: an event that comes this moment finds the job in line, or is found here
      select s.job_id, s.finished_at from judged j join millrace.steps s on s.job_id = j.job_id and s.place = j.wait_place
      where j.wait_place is not null for update of s
    ),
    told as (
      insert into millrace.attempts (job_id, queue, attempt, lease, worker, outcome, started_at, error_code, error_message, error_stack, retry_at, dead_reason)
      select job_id, queue, attempt, lease, ${worker}::int, outcome, claimed_at + started_ms * interval '1 millisecond', code,
             case when verdict = 'cancelled' then coalesce((select ${cancelMessage} from millrace.cancel_requests r where r.job_id = judged.job_id), message)
                  else message end, stack,
             case when job_id in (select job_id from come where finished_at is not null) then now()
                  when verdict in ('retry', 'again') then now() + coalesce(delay_ms, 0) * interval '1 millisecond' end,
             ${deadReason}
      from judged where verdict <> 'done'
      returning job_id, retry_at
    ),
    requeued as (
      insert into millrace.pending (line, key, rank, run_at, job_id, task, attempt)
      select ${lineOf(sql`j`)}, nullif(j.key, ''), -j.priority, t.retry_at, j.job_id, j.task, j.attempt + (j.verdict = 'retry')::int
      from judged j join told t using (job_id) where j.verdict in ('retry', 'again')
    ),
    buried as (
      insert into millrace.dead_letters (job_id, queue, task, attempt, reason, error_code)
      select job_id, queue, task, attempt, ${deadReason}, coalesce(code, 'UNKNOWN')
      from judged where verdict in ('dead', 'exhausted')
      on conflict (job_id) do nothing
    ),
    returned as (
      insert into millrace.results (job_id, result) select job_id, result::jsonb from judged where verdict = 'done' and result is not null
      on conflict (job_id) do update set result = excluded.result, at = now()
    ),
    ended as (
      insert into millrace.endings (job_id, outcome)
      select job_id, case verdict when 'done' then 'completed' when 'cancelled' then 'cancelled' else 'failed' end
      from judged where watched and not recorded and verdict in ('done', 'dead', 'exhausted', 'cancelled')
    ),
    answered as ( -- or a retry of the dead letter would be cancelled
      delete from millrace.cancel_requests where job_id in (select job_id from judged where verdict in ('dead', 'exhausted', 'cancelled'))
    ),
    ${shrinkLeases},
    freed as ( -- room under a limit, which others may wait for
      select pg_notify(${channel}, q.id || ':0:0') from (select distinct queue from finished) f join millrace.queues q on q.id = f.queue
      where q.careful and exists (
        select from millrace.workers w where w.stopped_at is null and w.idle and (w.queues is null or q.id = any (w.queues)))
    ),
    late as (
      insert into millrace.attempts (job_id, queue, attempt, lease, worker, outcome, error_code, error_message, error_stack, late)
      select g.job_id, j.queue, g.attempt, g.lease, ${worker}::int, g.outcome, g.code, g.message, g.stack, true
      from given g cross join lateral (select queue from millrace.jobs where id = g.job_id limit 1) j
      where not exists (select from held h where h.id = g.lease)
        and not exists (select from millrace.settled s where s.lease = g.lease and g.job_id = any (s.job_ids))
        and not exists (select from millrace.attempts a where a.job_id = g.job_id and a.lease = g.lease and a.outcome <> 'lost')
      returning job_id
    )
    select job_id::text, 'late' from late
    union all
    select job_id::text, verdict from judged where verdict <> 'done'
    union all
    select null, null from freed`);
  return rows.filter(([jobId]) => jobId !== null);
}

/**
 * Gives jobs back that were claimed and never started: same attempt, same place in line, and as suspect as they were: the last
 * attempt of a suspect was lost. Null ids: all the lease still holds.
 */
export async function giveBack(
  db: Database,
  channel: string,
  worker: number,
  leases: readonly string[],
  jobIds: readonly string[] | null,
): Promise<number> {
  const ids = jobIds === null ? null : arrayLiteral(jobIds);
  const [row] = await db.rows<[number]>(sql`
    with given as materialized (select unnest(${arrayLiteral(leases)}::bigint[]) as lease),
    ${held(worker)},
    ${open},
    finished as materialized (
      select open.* from open
      where (${ids}::uuid[] is null or open.job_id in (select unnest(${ids}::uuid[])))
        and not exists (select from millrace.settled s where s.lease = open.lease and open.job_id = any (s.job_ids))
    ),
    requeued as (
      insert into millrace.pending (line, key, rank, run_at, job_id, task, attempt, losses)
      select ${lineOf(sql`j`)}, nullif(j.key, ''), -j.priority, ${dueTime}, f.job_id, j.task, f.attempt, least(past.losses, 1000)
      from finished f cross join lateral (select * from millrace.jobs where id = f.job_id limit 1) j
      cross join lateral (
        select case when (array_agg(a.outcome order by a.id desc))[1] = 'lost' then count(*) filter (where a.outcome = 'lost') else 0 end as losses
        from millrace.attempts a where a.job_id = f.job_id and not a.late
      ) past
      returning abs(line) as queue, rank
    ),
    ${shrinkLeases}
    select count(pg_notify(${channel}, back.queue || ':' || back.rank || ':0'))::int from (select distinct queue, rank from requeued) back`);
  return row?.[0] ?? 0;
}

/** Held, shared, by the transaction that completes a job until it has ended. */
const completion = (id: Sql): Sql => sql`hashtextextended('millrace:' || ${id}, 0)`;

/**
 * Of these jobs, those whose completing transaction has not ended. A task whose connection broke during its COMMIT knows no better
 * than we do whether the job is done; the server may still carry it out.
 */
export async function stillCompleting(db: Database, ids: readonly string[]): Promise<ReadonlySet<string>> {
  const rows = await db.rows<[string]>(sql`
    select id from unnest(${arrayLiteral(ids)}::text[]) as given (id)
    where not pg_try_advisory_xact_lock(${completion(sql`id`)})`);
  return new Set(rows.map(([id]) => id));
}

/**
 * Completes one job inside the caller's transaction: the effect and the history row commit together or not at all. `for key
 * share` keeps the reaper off the lease until then and does not block the worker's own settling. False when the lease is gone.
 */
export async function completeWithin(
  tx: Executor,
  job: {
    readonly lease: string;
    readonly worker: number;
    readonly id: string;
    readonly startedMs: number;
    readonly tookMs: number;
    /** JSON text; null when the task returned nothing. */
    readonly result: string | null;
    readonly watched: boolean;
  },
): Promise<boolean> {
  const [row] = await tx.query<{ held: boolean }>(sql`
    with held as materialized (
      select id, queue, worker, claimed_at from millrace.leases
      where id = ${job.lease}::bigint and worker = ${job.worker}::int and ${job.id}::uuid = any (job_ids) and ${job.id}::uuid <> all (done)
      for key share
    ),
    history as (
      insert into millrace.settled (lease, queue, worker, claimed_at, finished_at, n, took_ms_sum, ids, job_ids, started_ms, took_ms)
      select id, queue, worker, claimed_at, clock_timestamp(), 1, ${job.tookMs}::int, millrace.uuidrange(${job.id}::uuid, ${job.id}::uuid, '[]'),
             array[${job.id}::uuid], array[${job.startedMs}::int], array[${job.tookMs}::int]
      from held
    ),
    returned as (
      insert into millrace.results (job_id, result) select ${job.id}::uuid, ${job.result}::jsonb from held where ${job.result}::text is not null
      on conflict (job_id) do update set result = excluded.result, at = now()
    ),
    ended as (insert into millrace.endings (job_id, outcome) select ${job.id}::uuid, 'completed' from held where ${job.watched}::boolean)
    select exists (select from held) as held, pg_advisory_xact_lock_shared(${completion(sql`${job.id}::text`)})::text as ended`);
  return row?.held ?? false;
}
