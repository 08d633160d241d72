/** Schedules whose next tick was worked out by a clock that was ahead, and has come back since. */
import type { Executor } from "../db/database.ts";
import { type Sql, arrayLiteral, sql } from "../db/sql.ts";
import { type ScheduleRow, columns } from "./schedules-store.ts";

/** A clock that was ahead by more than this is not believed. By less, what it placed is waited for. */
export const aheadMs = 60_000;

/** Of those that rest, the clock is asked anew when they go on. */
const isAhead: Sql = sql`
  s.placed_at > now() + ${aheadMs}::float8 * interval '1 millisecond' and s.paused_at is null and s.retired_at is null`;

/** One look into an index, however many schedules there are. */
export async function anyAhead(db: Executor): Promise<boolean> {
  const [row] = await db.query<{ any: boolean }>(
    sql`select exists (select from millrace.schedules s where ${isAhead}) as any`,
  );
  return row?.any ?? false;
}

/** Locks up to `limit` of them, leaving those that somebody else has. */
export async function lockAhead(tx: Executor, limit: number): Promise<ScheduleRow[]> {
  return tx.query<ScheduleRow>(sql`
    select ${columns} from millrace.schedules s where ${isAhead} order by s.placed_at desc limit ${limit}::int for update skip locked`);
}

/** Jobs that schedules enqueued by a clock that was ahead, whose runs have not ended: they may wait for a time to come. */
export async function jobsAhead(tx: Executor, schedules: readonly number[]): Promise<string[]> {
  const rows = await tx.query<{ id: string }>(sql`
    select r.job_id::text as id from millrace.schedule_runs r
    where r.schedule = any (${arrayLiteral(schedules)}::int[]) and r.status = 'fired' and r.ended_at is null
      and r.fired_at > now() + ${aheadMs}::float8 * interval '1 millisecond'
      -- one that was tried waits as its attempt said
      and not exists (select from millrace.attempts a where a.job_id = r.job_id)`);
  return rows.map(({ id }) => id);
}

export interface Replaced {
  readonly id: number;
  readonly nextAt: Date | null;
  readonly dueAt: Date | null;
  readonly lastAt: Date | null;
}

/**
 * Writes where these schedules stand by the clock as it is now. Call with them locked. Ticks to come that have a job keep their row, and so
 * are not fired again; what else was decided about ticks to come is forgotten, for their time is yet to come.
 */
export async function replace(tx: Executor, replaced: readonly Replaced[]): Promise<void> {
  const given = replaced.map(({ id, nextAt, dueAt, lastAt }) => ({
    id,
    next_at: nextAt,
    due_at: dueAt,
    last_at: lastAt,
  }));
  await tx.query(sql`
    with given as (
      select given.*, s.next_at as before from jsonb_to_recordset(${JSON.stringify(given)}::jsonb) as given (
        id int, next_at timestamptz, due_at timestamptz, last_at timestamptz) join millrace.schedules s on s.id = given.id
    ),
    forgotten as (
      delete from millrace.schedule_runs r using given
      where r.schedule = given.id and r.cause = 'tick' and r.tick_at > now() and r.status in ('missed', 'skipped', 'denied')
    ),
    written as (
      update millrace.schedules s set next_at = given.next_at, due_at = given.due_at, last_at = given.last_at, placed_at = now()
      from given where s.id = given.id returning s.name, given.before, given.next_at
    )
    insert into millrace.audit (by, action, subject, details)
    select null, 'schedule.set_back', 'schedule:' || name, jsonb_build_object('from', before, 'to', next_at)
    from written where before is distinct from next_at`);
}
