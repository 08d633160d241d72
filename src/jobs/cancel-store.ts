/**
 * Cancelling jobs. One that waits is gone from `pending` at once; for one that runs a request is left, its worker is called, and the
 * request is answered when the attempt ends. A request whose answer never came is finished by `finishRequests`.
 */
import type { Executor } from "../db/database.ts";
import { type Sql, arrayLiteral, sql } from "../db/sql.ts";
import { cancelMessage, dueTime, lineOf } from "./settle-store.ts";

/** Who did it and why, as it is kept. */
export interface Signature {
  readonly by: string | null;
  readonly reason: string | null;
}

/** What came of it. `asked`: it runs, and its worker has been told. Jobs that had ended, or were just moving, are left out. */
export type CancelOutcome = "cancelled" | "asked";

/** Job `j` is held by a worker. */
const runs: Sql = sql`exists (select from millrace.leases l where j.id = any (l.job_ids) and j.id <> all (l.done))`;

/**
 * Takes the waiting jobs of `chosen (id)` out of `pending`, into their history. Where somebody has asked for that before, while the
 * job ran, it is done in their name.
 */
const cancelWaiting = ({ by, reason }: Signature): Sql => sql`
  due as materialized (
    select j.id, ${lineOf(sql`j`)} as line, j.priority, place.run_at, coalesce(j.options ? 'watched', false) as watched
    from chosen cross join lateral (select * from millrace.jobs where id = chosen.id limit 1) j
    cross join lateral (select ${dueTime} as run_at) place
    order by j.id
  ),
  taken as materialized (
    delete from millrace.pending p using due
    where p.line = due.line and p.rank = -due.priority and p.run_at = due.run_at and p.job_id = due.id
    returning p.job_id, abs(p.line) as queue, p.attempt, due.watched
  ),
  signed as materialized (
    select t.job_id, t.queue, t.attempt, asked.job_id is null as noted_now,
           case when asked.job_id is null then ${by}::text else asked.by end as by,
           case when asked.job_id is null then ${reason}::text else asked.reason end as reason
    from taken t left join lateral (select * from millrace.cancel_requests c where c.job_id = t.job_id limit 1) asked on true
  ),
  told as (
    insert into millrace.attempts (job_id, queue, attempt, outcome, error_code, error_message)
    select r.job_id, r.queue, r.attempt, 'cancelled', 'CANCELLED', ${cancelMessage} from signed r
  ),
  ended as (insert into millrace.endings (job_id, outcome) select job_id, 'cancelled' from taken where watched),
  noted as (
    insert into millrace.operations (job_id, action, by, reason)
    select job_id, 'cancel', by, reason from signed where noted_now
  ),
  answered as (delete from millrace.cancel_requests where job_id in (select job_id from taken))`;

/** Cancels what waits of these jobs and, with `running`, asks the workers of the others to end them. */
export async function cancelJobs(
  db: Executor,
  channel: string,
  ids: readonly string[],
  signature: Signature,
  running: boolean,
): Promise<Map<string, CancelOutcome>> {
  const rows = await db.query<{ id: string; outcome: CancelOutcome }>(sql`
    with chosen as (select unnest(${arrayLiteral(ids)}::uuid[]) as id),
    ${cancelWaiting(signature)},
    asked as (
      insert into millrace.cancel_requests (job_id, by, reason)
      select j.id, ${signature.by}::text, ${signature.reason}::text from chosen j where ${running}::boolean and ${runs}
      on conflict (job_id) do nothing returning job_id
    ),
    asked_for as (
      insert into millrace.operations (job_id, action, by, reason)
      select job_id, 'cancel', ${signature.by}::text, ${signature.reason}::text from asked
    ),
    called as (select pg_notify(${channel}, 'cancel:' || job_id) from asked)
    select job_id::text as id, 'cancelled' as outcome from taken
    union all
    select j.id::text, 'asked' from chosen j where ${running}::boolean and ${runs} and (select count(*) from called) >= 0`);
  return new Map(rows.map(({ id, outcome }) => [id, outcome]));
}

/** Whether the task was told and went on; undefined when nothing is asked, or no longer. */
export async function wasIgnored(db: Executor, id: string): Promise<boolean | undefined> {
  const [row] = await db.query<{ ignored: boolean }>(
    sql`select ignored_at is not null as ignored from millrace.cancel_requests where job_id = ${id}::uuid`,
  );
  return row?.ignored;
}

/** Of the jobs a worker holds, those that are to end. */
export async function requestsFor(db: Executor, worker: number): Promise<string[]> {
  const rows = await db.rows<[string]>(sql`
    select r.job_id::text from millrace.cancel_requests r
    where exists (
      select from millrace.leases l where l.worker = ${worker}::int and r.job_id = any (l.job_ids) and r.job_id <> all (l.done))`);
  return rows.map(([id]) => id);
}

/** Writes down that a task went on although it was told to end. */
export async function markIgnored(db: Executor, id: string): Promise<void> {
  await db.query(
    sql`update millrace.cancel_requests set ignored_at = now() where job_id = ${id}::uuid and ignored_at is null`,
  );
}

/** Requests looked at per round. */
const roundMax = 500;

/**
 * Finishes requests that no worker will answer: of jobs that wait again (given back, retried, lost), which are cancelled now, and of
 * jobs that have ended otherwise, which are forgotten. Returns how many jobs it cancelled. One probe when there is nothing to do.
 * `only`: of these jobs.
 */
export async function finishRequests(db: Executor, only?: readonly string[]): Promise<number> {
  const [{ any } = { any: false }] = await db.query<{ any: boolean }>(
    sql`select exists (select from millrace.cancel_requests) as any`,
  );
  if (!any) return 0;
  const among = only === undefined ? sql`true` : sql`j.job_id = any (${arrayLiteral(only)}::uuid[])`;
  const [row] = await db.query<{ cancelled: number }>(sql`
    with chosen as materialized (
      select j.job_id as id from millrace.cancel_requests j
      where ${among} and not exists (select from millrace.leases l where j.job_id = any (l.job_ids) and j.job_id <> all (l.done))
      order by j.job_id limit ${roundMax} for update skip locked
    ),
    ${cancelWaiting({ by: null, reason: null })},
    -- A job whose place somebody else is taking this moment: waits by this snapshot, and stays for the next round.
    over as (
      delete from millrace.cancel_requests where job_id in (
        select chosen.id from chosen left join due on due.id = chosen.id
        where due.id is null or not exists (
          select from millrace.pending p
          where p.line = due.line and p.rank = -due.priority and p.run_at = due.run_at and p.job_id = due.id))
    )
    select count(*)::int as cancelled from taken`);
  return row?.cancelled ?? 0;
}
