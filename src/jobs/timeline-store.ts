/** Everything that is known of one job, from wherever it is told: nothing is written for this, and nothing is told twice. */
import type { Database } from "../db/database.ts";
import { type Sql, sql } from "../db/sql.ts";

/** Where an entry of a job's history comes from. */
type Told =
  | "enqueued"
  | "attempt"
  | "success"
  | "running"
  | "decision"
  | "operation"
  | "cancel"
  | "step"
  | "result"
  | "dead"
  | "progress"
  | "replay"
  | "archived";

/** One entry. `body` as JSON has it: times are texts. */
export interface HistoryRow {
  readonly told: Told;
  readonly at: Date;
  /** The same in microseconds since 1970, to sort by: much happens within a millisecond. */
  readonly atUs: number;
  /** Unique among the entries of this kind. */
  readonly id: string;
  readonly body: Readonly<Record<string, unknown>>;
}

/** Jobs of a flow named at most, and steps told at most. */
const kinMax = 20;
export const stepsMax = 200;
/** Counted no further. */
export const kinCounted = 10_000;

const needs = sql`(
  select jsonb_build_object('count', count(*), 'first', coalesce(jsonb_agg(jsonb_build_object('name', d.name, 'id', d.needs) order by d.place)
                            filter (where d.place < ${kinMax}::int), '[]'))
  from (select * from millrace.dependencies d where d.job_id = j.id order by d.place limit ${kinCounted}::int) d)`;
/** Before the first order that changed it: what the job was enqueued with. */
const atFirst = (what: "queue" | "priority", now: Sql): Sql => sql`coalesce((
  select o.details #> ${`{${what},from}`}::text[] from (select id, details from millrace.operations where job_id = j.id order by id limit ${kinCounted}::int) o
  where o.details ? ${what} order by o.id limit 1), to_jsonb(${now}))`;
const neededBy = sql`(
  select jsonb_build_object('count', count(*), 'first', coalesce(jsonb_agg(d.job_id order by d.job_id) filter (where d.n <= ${kinMax}::int), '[]'))
  from (
    select d.job_id, row_number() over (order by d.job_id) as n
    from (select job_id from millrace.dependencies where needs = j.id limit ${kinCounted}::int) d
  ) d)`;

/** The newest `limit` entries of each kind, oldest first; none when there is no such job. One statement: all of it was true at once. */
export async function readHistory(db: Database, id: string, limit: number): Promise<HistoryRow[]> {
  return db.query<HistoryRow>(sql`
    with job as materialized (
      select id, queue, task, priority, max_attempts, run_at, created_at, replay_of, key, options, null::timestamptz as archived_at
      from millrace.jobs where id = ${id}::uuid
      union all
      select id, queue, task, priority, max_attempts, run_at, created_at, replay_of, key, options, archived_at
      from millrace.jobs_archive where id = ${id}::uuid
      limit 1
    )
    select e.*, (extract(epoch from e.at) * 1000000)::float8 as "atUs" from (
      select 'enqueued' as told, j.created_at as at, j.id::text as id, jsonb_build_object(
               'queue', ${atFirst("queue", sql`(select name from millrace.queues where id = j.queue)`)}, 'task', (select name from millrace.tasks where id = j.task),
               'run_at', j.run_at, 'priority', ${atFirst("priority", sql`j.priority`)}, 'max_attempts', j.max_attempts, 'key', j.key, 'replay_of', j.replay_of,
               'by', j.options -> 'by', 'reason', j.options -> 'reason', 'schedule', case when j.replay_of is null then j.options -> 'schedule' end, 'needs', ${needs}, 'needed_by', ${neededBy}) as body
      from job j
      union all
      (select 'attempt', a.finished_at, a.id::text, jsonb_build_object(
                'attempt', a.attempt, 'outcome', a.outcome, 'worker', (select name from millrace.workers where id = a.worker),
                'started_at', a.started_at, 'finished_at', a.finished_at, 'error_code', a.error_code, 'error_message', a.error_message,
                'retry_at', a.retry_at, 'late', a.late)
       from millrace.attempts a where a.job_id = ${id}::uuid order by a.id desc limit ${limit}::int)
      union all
      (select 'success', done.started_at + done.took, s.id::text, jsonb_build_object(
                'worker', (select name from millrace.workers where id = s.worker),
                'started_at', done.started_at, 'finished_at', done.started_at + done.took)
       from millrace.settled s cross join lateral (
         select s.claimed_at + s.started_ms[array_position(s.job_ids, ${id}::uuid)] * interval '1 millisecond' as started_at,
                s.took_ms[array_position(s.job_ids, ${id}::uuid)] * interval '1 millisecond' as took
       ) done
       where s.ids @> ${id}::uuid and ${id}::uuid = any (s.job_ids) limit ${limit}::int)
      union all
      select 'running', l.claimed_at, l.id::text, jsonb_build_object(
               'attempt', l.attempts[array_position(l.job_ids, ${id}::uuid)], 'worker', w.name, 'started_at', l.claimed_at)
      from millrace.leases l left join millrace.workers w on w.id = l.worker
      where ${id}::uuid = any (l.job_ids) and ${id}::uuid <> all (l.done)
      union all
      (select 'decision', d.at, d.id::text, jsonb_build_object('decision', d.decision, 'reason_code', d.reason_code, 'details', d.details)
       from millrace.policy_decisions d where d.job_id = ${id}::uuid order by d.id desc limit ${limit}::int)
      union all
      (select 'operation', o.at, o.id::text, jsonb_build_object('action', o.action, 'by', o.by, 'reason', o.reason, 'run_at', o.run_at, 'details', o.details)
       from millrace.operations o where o.job_id = ${id}::uuid order by o.id desc limit ${limit}::int)
      union all
      select 'cancel', c.at, c.job_id::text, jsonb_build_object('by', c.by, 'reason', c.reason, 'ignored_at', c.ignored_at)
      from millrace.cancel_requests c where c.job_id = ${id}::uuid
      union all
      select 'dead', d.failed_at, d.job_id::text, jsonb_build_object('attempt', d.attempt, 'reason', d.reason, 'error_code', d.error_code)
      from millrace.dead_letters d where d.job_id = ${id}::uuid
      union all
      select 'progress', p.at, p.job_id::text, jsonb_build_object('value', p.value, 'attempt', p.attempt)
      from millrace.progress p where p.job_id = ${id}::uuid
      union all
      (select 'replay', r.created_at, r.id::text, '{}'::jsonb
       from millrace.jobs r where r.replay_of = ${id}::uuid order by r.id desc limit ${limit}::int)
      union all
      (select 'replay', r.created_at, r.id::text, '{}'::jsonb
       from millrace.jobs_archive r where r.replay_of = ${id}::uuid order by r.id desc limit ${limit}::int)
      union all
      (select 'step', coalesce(s.finished_at, s.started_at), s.place::text, jsonb_build_object(
                'place', s.place, 'name', s.name, 'kind', s.kind, 'attempt', s.attempt, 'until', s.until, 'event', s.event,
                'started_at', s.started_at, 'finished_at', s.finished_at, 'returned', s.result is not null, 'failure', s.failure->>'message')
       from millrace.steps s where s.job_id = ${id}::uuid order by s.place desc limit ${stepsMax}::int)
      union all
      select 'result', r.at, r.job_id::text, jsonb_build_object('bytes', octet_length(r.result::text))
      from millrace.results r where r.job_id = ${id}::uuid
      union all
      select 'archived', j.archived_at, j.id::text, '{}'::jsonb from job j where j.archived_at is not null
    ) e order by e.at`);
}
