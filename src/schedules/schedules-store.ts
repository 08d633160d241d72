/** Definitions of schedules: read, made, changed, removed; each change under the row's lock, with who made it in the audit. */
import { actorColumns, actorNow } from "../audit/actor-store.ts";
import type { Executor } from "../db/database.ts";
import { type Sql, sql, textArrayLiteral } from "../db/sql.ts";
import type { Spec } from "./definition.ts";

export type ScheduleSource = "code" | "operator" | "built_in";

/** A schedule as it stands. */
export interface ScheduleRow {
  readonly id: number;
  readonly name: string;
  readonly source: ScheduleSource;
  readonly spec: Spec;
  readonly defined: Spec | null;
  readonly edits: Partial<Spec>;
  readonly anchor: Date;
  readonly nextAt: Date | null;
  readonly dueAt: Date | null;
  readonly lastAt: Date | null;
  readonly pausedAt: Date | null;
  readonly pausedBy: string | null;
  readonly pausedReason: string | null;
  readonly retiredAt: Date | null;
  readonly trouble: string | null;
  readonly createdAt: Date;
  readonly createdBy: string | null;
  readonly updatedAt: Date;
  readonly updatedBy: string | null;
  readonly now: Date;
}

export const columns: Sql = sql`
  s.id, s.name, s.source, s.spec, s.defined, s.edits, s.anchor, s.next_at as "nextAt", s.due_at as "dueAt", s.last_at as "lastAt",
  s.paused_at as "pausedAt", s.paused_by as "pausedBy", s.paused_reason as "pausedReason", s.retired_at as "retiredAt", s.trouble,
  s.created_at as "createdAt", s.created_by as "createdBy", s.updated_at as "updatedAt", s.updated_by as "updatedBy", now() as now`;

/** Locks the schedules of these names, in the order in which everybody locks them. */
export async function lockByName(tx: Executor, names: readonly string[]): Promise<ScheduleRow[]> {
  return tx.query<ScheduleRow>(sql`
    select ${columns} from millrace.schedules s where s.name = any (${textArrayLiteral(names)}::text[]) order by s.id for update`);
}

/** A schedule with what its runs do now. */
export interface ListedRow extends ScheduleRow {
  readonly active: number;
  readonly queued: number;
  /** Runs that have not ended within `runGrace`. */
  readonly overdue: number;
  readonly lastStatus: string | null;
  readonly lastOutcome: string | null;
  readonly lastRunAt: Date | null;
  readonly lastJobId: string | null;
  /** No schedule fires: the system is drained, or about to be. */
  readonly stoppedAt: Date | null;
  readonly stoppedBy: string | null;
}

/** By name: those given, or, without names, up to `limit` of all from behind `after`. */
export async function readSchedules(
  db: Executor,
  wanted: {
    readonly names?: readonly string[] | undefined;
    readonly after?: string | undefined;
    readonly limit: number;
  },
): Promise<ListedRow[]> {
  const { names, after, limit } = wanted;
  return db.query<ListedRow>(sql`
    select s.*, open.*, last.*, coalesce(state.drained_at, state.scheduling_stopped_at) as "stoppedAt",
           case when state.drained_at is null then state.scheduling_stopped_by else state.drained_by end as "stoppedBy"
    from (
      select ${columns} from millrace.schedules s
      where ${names === undefined ? sql`s.name > ${after ?? ""}` : sql`s.name = any (${textArrayLiteral(names)}::text[])`}
      order by s.name limit ${limit}::int
    ) s
    cross join lateral (
      select count(*) filter (where r.status = 'fired')::int as active, count(*) filter (where r.status = 'queued')::int as queued,
             count(*) filter (where r.status = 'fired'
               and r.fired_at + (s.spec ->> 'runGraceMs')::float8 * interval '1 millisecond' < now())::int as overdue
      from millrace.schedule_runs r where r.schedule = s.id and r.status in ('fired', 'queued') and r.ended_at is null
    ) open
    left join lateral (
      select r.status as "lastStatus", r.outcome as "lastOutcome", r.tick_at as "lastRunAt", r.job_id::text as "lastJobId"
      from millrace.schedule_runs r where r.schedule = s.id order by r.id desc limit 1
    ) last on true
    left join millrace.system_state state on true
    order by s.name`);
}

/** The id of a name, and the name of an id: whoever knows one may give it. */
export async function findSchedule(
  db: Executor,
  by: { readonly name?: string | undefined; readonly id?: number | undefined },
): Promise<{ id: number; name: string } | undefined> {
  const [row] = await db.query<{ id: number; name: string }>(sql`
    select id, name from millrace.schedules
    where ${by.name === undefined ? sql`id = ${by.id ?? 0}::int` : sql`name = ${by.name}`}`);
  return row;
}

/** The database's clock. */
export async function readClock(db: Executor): Promise<Date> {
  const [row] = await db.query<{ now: Date }>(sql`select now() as now`);
  return row?.now ?? new Date(0);
}

export interface NewSchedule {
  readonly name: string;
  readonly source: ScheduleSource;
  readonly spec: Spec;
  readonly defined: Spec | null;
  readonly task: number;
  readonly queue: number;
  readonly anchor: Date;
  readonly nextAt: Date | null;
  readonly dueAt: Date | null;
  readonly paused: boolean;
}

/** Returns the names that were free, and are theirs now. */
export async function insertSchedules(
  tx: Executor,
  made: readonly NewSchedule[],
  by: string | null,
): Promise<string[]> {
  const given = made.map(({ nextAt, dueAt, ...rest }) => ({ ...rest, next_at: nextAt, due_at: dueAt }));
  const rows = await tx.query<{ name: string }>(sql`
    with inserted as (
      insert into millrace.schedules (name, source, spec, defined, task, queue, anchor, next_at, due_at, paused_at, paused_by, created_by, updated_by)
      select name, source, spec, defined, task, queue, anchor, case when not paused then next_at end, case when not paused then due_at end,
             case when paused then now() end, case when paused then coalesce(${by}::text, 'its definition') end, ${by}::text, ${by}::text
      from jsonb_to_recordset(${JSON.stringify(given)}::jsonb) as given (
        name text, source text, spec jsonb, defined jsonb, task int, queue int, anchor timestamptz, next_at timestamptz, due_at timestamptz, paused boolean)
      on conflict (name) do nothing returning name, source, spec
    ),
    noted as (
      insert into millrace.audit (by, action, subject, details, ${actorColumns})
      select ${by}::text, 'schedule.created', 'schedule:' || name, jsonb_build_object('source', source, 'spec', spec - 'input'), ${actorNow()} from inserted
      order by name -- so that all are inserted before the first is noted: writers of the audit wait for each other
    )
    select name from inserted`);
  return rows.map(({ name }) => name);
}

/** What a change leaves behind; all of it is written. */
export interface SavedSchedule {
  readonly id: number;
  readonly source: ScheduleSource;
  readonly spec: Spec;
  readonly defined: Spec | null;
  readonly edits: Partial<Spec>;
  /** Left out: as before. */
  readonly task?: number;
  readonly queue?: number;
  readonly nextAt: Date | null;
  readonly dueAt: Date | null;
  readonly lastAt: Date | null;
  readonly pausedAt: Date | null;
  readonly pausedBy: string | null;
  readonly pausedReason: string | null;
  readonly retiredAt: Date | null;
}

/** Writes schedules that this transaction has locked. `details` say in the audit what was changed. */
export async function saveSchedules(
  tx: Executor,
  saved: readonly SavedSchedule[],
  note: { readonly action: string; readonly by: string | null; readonly details?: object | undefined },
): Promise<void> {
  const given = saved.map((one) => ({
    ...one,
    next_at: one.nextAt,
    due_at: one.dueAt,
    last_at: one.lastAt,
    paused_at: one.pausedAt,
    paused_by: one.pausedBy,
    paused_reason: one.pausedReason,
    retired_at: one.retiredAt,
  }));
  const { action, by, details } = note;
  await tx.query(sql`
    with written as (
      update millrace.schedules s set
        source = given.source, spec = given.spec, defined = given.defined, edits = given.edits,
        task = coalesce(given.task, s.task), queue = coalesce(given.queue, s.queue),
        next_at = given.next_at, due_at = given.due_at, last_at = given.last_at,
        placed_at = case when given.due_at is distinct from s.due_at then now() else s.placed_at end, paused_at = given.paused_at, paused_by = given.paused_by,
        paused_reason = given.paused_reason, retired_at = given.retired_at, trouble = null, updated_at = now(), updated_by = ${by}::text
      from jsonb_to_recordset(${JSON.stringify(given)}::jsonb) as given (
        id int, source text, spec jsonb, defined jsonb, edits jsonb, task int, queue int, next_at timestamptz, due_at timestamptz,
        last_at timestamptz, paused_at timestamptz, paused_by text, paused_reason text, retired_at timestamptz)
      where s.id = given.id returning s.name
    )
    insert into millrace.audit (by, action, subject, details, ${actorColumns})
    select ${by}::text, ${action}, 'schedule:' || name, ${details === undefined ? null : JSON.stringify(details)}::jsonb, ${actorNow()} from written`);
}

/** Removes a schedule with its history. Jobs that it enqueued stay. */
export async function deleteSchedule(tx: Executor, id: number, by: string | null): Promise<void> {
  await tx.query(sql`
    with gone as (delete from millrace.schedules where id = ${id}::int returning id, name, spec),
    runs as (delete from millrace.schedule_runs r using gone where r.schedule = gone.id)
    insert into millrace.audit (by, action, subject, details, ${actorColumns})
    select ${by}::text, 'schedule.deleted', 'schedule:' || name, jsonb_build_object('spec', spec - 'input'), ${actorNow()} from gone`);
}

/** Tells every scheduler to look again when this commits. */
export async function tellSchedulers(tx: Executor, channel: string): Promise<void> {
  await tx.query(sql`select pg_notify(${channel}, 'schedules')`);
}
