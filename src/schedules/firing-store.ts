/**
 * Firing in SQL: what is due is claimed by locking its row, and every run is written, enqueued and moved on from under that lock. So any
 * number of schedulers fire a tick once, and none of them leads.
 */
import type { Executor } from "../db/database.ts";
import { type Sql, arrayLiteral, sql, textArrayLiteral } from "../db/sql.ts";
import type { Signature } from "../jobs/cancel-store.ts";
import type { Spec } from "./definition.ts";
import type { PlannedRun } from "./plan.ts";

/** A schedule under its lock. Times in ms since 1970. */
export interface LockedSchedule {
  readonly id: number;
  readonly name: string;
  readonly task: number;
  readonly queue: number;
  readonly spec: Spec;
  readonly anchorMs: number;
  readonly nextMs: number | null;
  readonly nowMs: number;
  /** It fires nothing by itself: paused, retired, or all scheduling is stopped. */
  readonly resting: boolean;
}

/** What one transaction reads of definitions, as stored: inputs may be large. */
const specBytes = 4_000_000;

/** The clock: the database's, or a moment given by a test. */
const clock = (at: Date | undefined): Sql => sql`coalesce(${at?.toISOString() ?? null}::timestamptz, now())`;

const ms = (time: Sql): Sql => sql`floor(extract(epoch from ${time}) * 1000)::float8`;

const locked = (at: Date | undefined): Sql => sql`
  s.id, s.name, s.task, s.queue, s.spec, ${ms(sql`s.anchor`)} as "anchorMs", ${ms(sql`s.next_at`)} as "nextMs", ${ms(clock(at))} as "nowMs",
  (s.paused_at is not null or s.retired_at is not null
    or exists (select from millrace.system_state where scheduling_stopped_at is not null)) as resting`;

/** A drained system, and one that is about to be, gets nothing new: what was due meanwhile is late when it goes on. */
export const goesOn: Sql = sql`exists (select from millrace.system_state where drained_at is null and scheduling_stopped_at is null)`;

/** Locks schedules that are due, the longest first, leaving those that another scheduler has. */
export async function claimDue(tx: Executor, limit: number, at: Date | undefined): Promise<LockedSchedule[]> {
  return tx.query<LockedSchedule>(sql`
    with due as materialized (
      select * from millrace.schedules where due_at <= ${clock(at)} and ${goesOn} order by due_at limit ${limit}::int for update skip locked
    )
    select id, name, task, queue, spec, "anchorMs", "nextMs", "nowMs", resting from (
      select ${locked(at)}, s.due_at, sum(pg_column_size(s.spec)) over (order by s.due_at, s.id) - pg_column_size(s.spec) as before from due s
    ) s where before < ${specBytes} order by due_at, id`);
}

/** Locks schedules whatever is due, waiting for whoever has them; always in the same order. */
export async function lockSchedules(
  tx: Executor,
  ids: readonly number[],
  at: Date | undefined,
): Promise<LockedSchedule[]> {
  return tx.query<LockedSchedule>(sql`
    select ${locked(at)} from millrace.schedules s where s.id = any (${arrayLiteral(ids)}::int[]) order by s.id for update`);
}

/** Milliseconds until a schedule is due; null: none ever is, or the system is drained. */
export async function nextDue(db: Executor): Promise<number | null> {
  const [row] = await db.query<{ wait: number | null }>(sql`
    select (extract(epoch from (select due_at from millrace.schedules where due_at is not null and ${goesOn} order by due_at limit 1) - clock_timestamp()) * 1000)::float8 as wait`);
  return row?.wait ?? null;
}

export interface OpenRuns {
  readonly schedule: number;
  readonly active: number;
  readonly queued: number;
}

/** Runs that have not ended. Call with the schedules locked, in a statement of its own: it must see what was written before. */
export async function countOpen(tx: Executor, schedules: readonly number[]): Promise<OpenRuns[]> {
  return tx.query<OpenRuns>(sql`
    select s.id as schedule, open.active, open.queued
    from unnest(${arrayLiteral(schedules)}::int[]) s (id) cross join lateral (
      select count(*) filter (where r.status = 'fired')::int as active, count(*) filter (where r.status = 'queued')::int as queued
      from millrace.schedule_runs r where r.schedule = s.id and r.status in ('fired', 'queued') and r.ended_at is null
    ) open`);
}

/** Ends runs of these schedules whose job is over though nobody said so; returns those schedules. */
export async function endSilent(tx: Executor, schedules: readonly number[]): Promise<number[]> {
  const rows = await tx.query<{ schedule: number }>(sql`
    with open as materialized (
      select r.id, r.schedule, r.job_id from millrace.schedule_runs r
      where r.schedule = any (${arrayLiteral(schedules)}::int[]) and r.status = 'fired' and r.ended_at is null
    ),
    ended as (
      select open.id, e.outcome, e.at from open cross join lateral (
        select 'completed' as outcome, s.finished_at as at from millrace.settled s
        where s.ids @> open.job_id and open.job_id = any (s.job_ids)
        union all
        select 'failed', d.failed_at from millrace.dead_letters d where d.job_id = open.job_id
        union all
        select case a.outcome when 'cancelled' then 'cancelled' else 'completed' end, a.finished_at from millrace.attempts a
        where a.job_id = open.job_id and a.outcome in ('succeeded', 'cancelled') and not a.late
        union all
        select 'removed', now() where not exists (select from millrace.jobs j where j.id = open.job_id)
          and not exists (select from millrace.jobs_archive j where j.id = open.job_id)
        limit 1
      ) e
    )
    update millrace.schedule_runs r set ended_at = ended.at, outcome = ended.outcome from ended where r.id = ended.id
    returning r.schedule`);
  return [...new Set(rows.map(({ schedule }) => schedule))];
}

export interface NewRun extends PlannedRun {
  readonly schedule: number;
  readonly jobId: string | null;
}

export interface WrittenRun {
  readonly id: string;
  readonly schedule: number;
  readonly tickMs: number;
}

/** Writes runs of ticks. One whose tick has a row already is left out of the answer: it was dealt with. */
export async function insertRuns(tx: Executor, runs: readonly NewRun[], at: Date | undefined): Promise<WrittenRun[]> {
  const given = runs.map(({ schedule, tickMs, untilMs, count, atLeast, status, jobId }) => ({
    schedule,
    tick_at: new Date(tickMs).toISOString(),
    tick_until: untilMs === null ? null : new Date(untilMs).toISOString(),
    count,
    at_least: atLeast,
    status,
    job_id: jobId,
  }));
  return tx.query<WrittenRun>(sql`
    insert into millrace.schedule_runs as r (schedule, tick_at, tick_until, count, at_least, cause, status, job_id, decided_at, fired_at)
    select schedule, tick_at, tick_until, count, at_least, 'tick', status, job_id, ${clock(at)}, case status when 'fired' then ${clock(at)} end
    from jsonb_to_recordset(${JSON.stringify(given)}::jsonb) as given (
      schedule int, tick_at timestamptz, tick_until timestamptz, count int, at_least boolean, status text, job_id uuid)
    on conflict (schedule, tick_at) where cause = 'tick' do nothing
    returning r.id::text, r.schedule, ${ms(sql`r.tick_at`)} as "tickMs"`);
}

/** A run that somebody asked for. */
export async function insertManualRun(
  tx: Executor,
  run: { schedule: number; status: "fired" | "queued"; jobId: string | null; by: string | null; reason: string | null },
  at: Date | undefined,
): Promise<string> {
  const [row] = await tx.query<{ id: string }>(sql`
    insert into millrace.schedule_runs (schedule, tick_at, cause, status, job_id, decided_at, fired_at, by, reason)
    values (${run.schedule}::int, ${clock(at)}, 'manual', ${run.status}, ${run.jobId}::uuid, ${clock(at)},
            case ${run.status}::text when 'fired' then ${clock(at)} end, ${run.by}, ${run.reason})
    returning id::text`);
  return row?.id ?? "";
}

/** Runs whose job was not let in. */
export async function denyRuns(tx: Executor, runs: readonly { id: string; code: string }[]): Promise<void> {
  await tx.query(sql`
    update millrace.schedule_runs r set status = 'denied', code = given.code, job_id = null, fired_at = null
    from jsonb_to_recordset(${JSON.stringify(runs)}::jsonb) as given (id bigint, code text) where r.id = given.id`);
}

export interface Moved {
  readonly id: number;
  readonly nextMs: number | null;
  readonly dueMs: number | null;
  readonly lastMs: number | null;
  /** The clock that says so. */
  readonly placedMs: number;
  readonly trouble: string | null;
}

/** Sets when schedules are due next. Call with them locked. */
export async function moveOn(tx: Executor, moved: readonly Moved[]): Promise<void> {
  const time = (value: number | null): string | null => (value === null ? null : new Date(value).toISOString());
  const given = moved.map(({ id, nextMs, dueMs, lastMs, placedMs, trouble }) => ({
    id,
    next_at: time(nextMs),
    due_at: time(dueMs),
    last_at: time(lastMs),
    placed_at: time(placedMs),
    trouble,
  }));
  await tx.query(sql`
    update millrace.schedules s set next_at = given.next_at, due_at = given.due_at, trouble = given.trouble,
           last_at = greatest(s.last_at, given.last_at), placed_at = given.placed_at
    from jsonb_to_recordset(${JSON.stringify(given)}::jsonb) as given (
      id int, next_at timestamptz, due_at timestamptz, last_at timestamptz, placed_at timestamptz, trouble text)
    where s.id = given.id`);
}

/** A schedule that could not be fired: why, and tried again a minute later. */
export async function postpone(db: Executor, id: number, trouble: string): Promise<void> {
  await db.query(sql`
    update millrace.schedules set trouble = ${trouble}, due_at = now() + interval '1 minute', placed_at = now()
    where id = ${id}::int and due_at is not null`);
}

/** Marks runs as ended by their jobs. Call with the schedules locked. */
export async function endRuns(
  tx: Executor,
  endings: readonly { jobId: string; outcome: string; at: Date }[],
): Promise<void> {
  await tx.query(sql`
    update millrace.schedule_runs r set ended_at = given.at, outcome = given.outcome
    from unnest(${arrayLiteral(endings.map(({ jobId }) => jobId))}::uuid[], ${textArrayLiteral(endings.map(({ outcome }) => outcome))}::text[],
                ${textArrayLiteral(endings.map(({ at }) => at.toISOString()))}::timestamptz[]) as given (job_id, outcome, at)
    where r.job_id = given.job_id and r.ended_at is null`);
}

/** The schedules whose runs these jobs are. */
export async function schedulesOf(tx: Executor, jobIds: readonly string[]): Promise<number[]> {
  const rows = await tx.query<{ schedule: number }>(sql`
    select distinct r.schedule from millrace.schedule_runs r
    where r.job_id = any (${arrayLiteral(jobIds)}::uuid[]) and r.ended_at is null`);
  return rows.map(({ schedule }) => schedule);
}

export interface QueuedRun extends Signature {
  readonly id: string;
  readonly tickMs: number;
}

/** Runs of one schedule that wait, the oldest first. Call with it locked. */
export async function readQueued(tx: Executor, schedule: number, limit: number): Promise<QueuedRun[]> {
  return tx.query<QueuedRun>(sql`
    select id::text, ${ms(sql`tick_at`)} as "tickMs", by, reason from millrace.schedule_runs
    where schedule = ${schedule}::int and status = 'queued' and ended_at is null order by id limit ${limit}::int`);
}

/** Queued runs that begin now. */
export async function beginRuns(
  tx: Executor,
  runs: readonly { id: string; jobId: string }[],
  at: Date | undefined,
): Promise<void> {
  await tx.query(sql`
    update millrace.schedule_runs r set status = 'fired', job_id = given.job_id, fired_at = ${clock(at)}
    from unnest(${arrayLiteral(runs.map(({ id }) => id))}::bigint[], ${arrayLiteral(runs.map(({ jobId }) => jobId))}::uuid[]) as given (id, job_id)
    where r.id = given.id`);
}

/** Schedules with runs that wait, or that have not ended for a while: something may have been overlooked. In order, from behind `after`. */
export async function schedulesToCheck(db: Executor, after: number, limit: number): Promise<number[]> {
  const rows = await db.query<{ schedule: number }>(sql`
    select distinct schedule from millrace.schedule_runs
    where status in ('fired', 'queued') and ended_at is null and schedule > ${after}::int and decided_at not between now() - interval '5 seconds' and now()
    order by schedule limit ${limit}::int`);
  return rows.map(({ schedule }) => schedule);
}
