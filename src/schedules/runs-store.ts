/** The history of schedules: what became of each tick. Read, and kept bounded. */
import type { Executor } from "../db/database.ts";
import { type Sql, sql } from "../db/sql.ts";

export const runStatuses = ["fired", "queued", "skipped", "missed", "denied"] as const;
export type RunStatus = (typeof runStatuses)[number];

/** What became of a tick, or of several that were missed or skipped together. */
export interface ScheduleRun {
  readonly id: string;
  readonly schedule: string;
  readonly status: RunStatus;
  readonly cause: "tick" | "manual";
  readonly tickAt: Date;
  /** The last of several ticks. */
  readonly tickUntil: Date | null;
  /** How many ticks. */
  readonly count: number;
  /** There were more than could be counted. */
  readonly atLeast: boolean;
  readonly jobId: string | null;
  /** Why it was denied: the code of the refusal. */
  readonly code: string | null;
  readonly decidedAt: Date;
  readonly firedAt: Date | null;
  readonly endedAt: Date | null;
  readonly outcome: "completed" | "failed" | "cancelled" | "removed" | null;
  /** From the tick to its job, in ms. */
  readonly lateMs: number | null;
  /** From its job's enqueue to its end, waits and retries included, in ms. */
  readonly tookMs: number | null;
  /** It has not ended within the schedule's `runGrace`. */
  readonly overdue: boolean;
  readonly by: string | null;
  readonly reason: string | null;
}

/** The newest first. */
export async function readRuns(
  db: Executor,
  schedule: number,
  { limit, before, status }: { limit: number; before?: string | undefined; status?: RunStatus | undefined },
): Promise<ScheduleRun[]> {
  return db.query<ScheduleRun>(sql`
    select r.id::text, s.name as schedule, r.status, r.cause, r.tick_at as "tickAt", r.tick_until as "tickUntil", r.count, r.at_least as "atLeast",
           r.job_id::text as "jobId", r.code, r.decided_at as "decidedAt", r.fired_at as "firedAt", r.ended_at as "endedAt", r.outcome,
           (extract(epoch from r.fired_at - r.tick_at) * 1000)::float8 as "lateMs",
           (extract(epoch from r.ended_at - r.fired_at) * 1000)::float8 as "tookMs",
           coalesce(r.status = 'fired' and r.ended_at is null
             and r.fired_at + (s.spec ->> 'runGraceMs')::float8 * interval '1 millisecond' < now(), false) as overdue,
           r.by, r.reason
    from millrace.schedule_runs r join millrace.schedules s on s.id = r.schedule
    where r.schedule = ${schedule}::int and r.id < coalesce(${before ?? null}::bigint, 9223372036854775807)
      and (${status ?? null}::text is null or r.status = ${status ?? null}::text)
    order by r.id desc limit ${limit}::int`);
}

const batch = 1_000;
/** Of one schedule, beyond its age: one that comes every second would fill a disk. */
const runsMax = 1_000;

const ago = (ms: number): Sql => sql`now() - ${ms}::float8 * interval '1 millisecond'`;
const isOver: Sql = sql`(r.status not in ('fired', 'queued') or r.ended_at is not null)`;

/** Deletes history older than that, and of busy schedules all but the newest thousand runs. Returns how many went; call until none do. */
export async function sweepRuns(db: Executor, olderThanMs: number): Promise<number> {
  const [row] = await db.query<{ gone: number }>(sql`
    with old as (
      select r.id from millrace.schedule_runs r where r.decided_at < ${ago(olderThanMs)} and ${isOver} order by r.decided_at limit ${batch}
    ),
    -- only one that comes often can have so many within that time
    busy as (
      select s.id, newest.id as keep from millrace.schedules s cross join lateral (
        select r.id from millrace.schedule_runs r where r.schedule = s.id order by r.id desc offset ${runsMax} limit 1
      ) newest
      where s.next_at - s.last_at < ${olderThanMs / runsMax}::float8 * interval '1 millisecond'
    ),
    many as (
      select r.id from busy cross join lateral (
        select r.id from millrace.schedule_runs r where r.schedule = busy.id and r.id <= busy.keep and ${isOver}
          -- fired by a clock that was ahead: the row keeps the tick from firing again when its time comes
          and r.tick_at <= now()
        order by r.id limit ${batch}
      ) r limit ${10 * batch}
    ),
    gone as (delete from millrace.schedule_runs where id in (select id from old union select id from many) returning id)
    select count(*)::int as gone from gone`);
  return row?.gone ?? 0;
}
