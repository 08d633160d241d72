/**
 * What people do to jobs, many at a time: retry, move about, replay, remove. Each is one statement, so nothing is half done, and each
 * answers with the ids it changed: what was not in the status it takes was left as it is.
 */
import type { Executor } from "../db/database.ts";
import { type Sql, arrayLiteral, sql } from "../db/sql.ts";
import type { Signature } from "./cancel-store.ts";
import { dueTime, lineOf } from "./settle-store.ts";
import { belongings } from "./belongings-store.ts";
import { tagged } from "./enqueue-store.ts";
import { leaving } from "./totals-store.ts";
import { ownTasks } from "./task.ts";

/** A job due later than this wakes nobody: idle workers look again before it comes. Milliseconds. */
const wakeHorizonMs = 5_000;

/** Calls workers for what `placed (queue, rank, run_at)` put into line. */
const wake = (channel: string): Sql => sql`
  woken as (
    select pg_notify(${channel}, lane.queue || ':' || lane.rank || ':' || lane.wait_ms) from (
      select queue, rank, ceil(greatest(extract(epoch from min(run_at) - now()) * 1000, 0)) as wait_ms
      from placed where run_at <= now() + ${wakeHorizonMs}::int * interval '1 millisecond' group by queue, rank
    ) lane
  )`;

/** Queues that get their first job with a concurrency key: from now on they are claimed with care. */
const markKeyed: Sql = sql`
  marked as (
    update millrace.queues set keyed = true, careful = true
    where not keyed and id in (select queue from placed where key is not null)
  )`;

const idsOf = (rows: readonly { id: string }[]): string[] => rows.map(({ id }) => id);

/** Makes dead letters wait again: the same jobs, one more attempt, whatever their maximum. */
export async function retryJobs(
  db: Executor,
  channel: string,
  ids: readonly string[],
  { by, reason }: Signature,
): Promise<string[]> {
  const rows = await db.query<{ id: string }>(sql`
    with letters as materialized (
      select job_id from millrace.dead_letters where job_id = any (${arrayLiteral(ids)}::uuid[]) order by job_id for update
    ),
    raised as (
      delete from millrace.dead_letters d using letters where d.job_id = letters.job_id returning d.job_id, d.task, d.attempt
    ),
    placed as (
      insert into millrace.pending (line, key, rank, run_at, job_id, task, attempt)
      select ${lineOf(sql`j`)}, nullif(j.key, ''), -j.priority, now(), r.job_id, r.task, least(r.attempt + 1, 32767)
      from raised r cross join lateral (select queue, key, priority from millrace.jobs where id = r.job_id limit 1) j
      returning abs(line) as queue, rank, run_at, job_id
    ),
    noted as (
      insert into millrace.operations (job_id, action, at, by, reason, run_at)
      select job_id, 'retry', clock_timestamp(), ${by}::text, ${reason}::text, run_at from placed
    ),
    -- asked for while it still ran, and not meant for this run
    forgotten as (delete from millrace.cancel_requests where job_id in (select job_id from raised)),
    ${wake(channel)}
    select job_id::text as id from placed, (select count(*) from woken) w`);
  return idsOf(rows);
}

/** Where a waiting job is put; what is left out stays. */
export interface Move {
  readonly queue?: number | undefined;
  readonly priority?: number | undefined;
  /** A time in the past means now. */
  readonly runAt?: Date | undefined;
  /** From now. */
  readonly delayMs?: number | undefined;
}

const nameOf = (queue: Sql): Sql => sql`(select name from millrace.queues where id = ${queue})`;

/** Puts jobs that wait elsewhere in line, and writes down what that changed. `which`: waiting or delayed, or only delayed ones. */
export async function moveJobs(
  db: Executor,
  channel: string,
  ids: readonly string[],
  action: string,
  { queue, priority, runAt, delayMs }: Move,
  { by, reason }: Signature,
  which: "waiting or delayed" | "delayed" = "waiting or delayed",
): Promise<string[]> {
  const rows = await db.query<{ id: string }>(sql`
    with due as materialized (
      select j.id, ${lineOf(sql`j`)} as line, j.priority, ${dueTime} as run_at
      from millrace.jobs j where j.id = any (${arrayLiteral(ids)}::uuid[]) order by j.id
    ),
    taken as (
      delete from millrace.pending p using due
      where p.line = due.line and p.rank = -due.priority and p.run_at = due.run_at and p.job_id = due.id
        and p.run_at < 'infinity' and (${which === "delayed"}::boolean is false or p.run_at > now())
      returning p.*
    ),
    placed as (
      insert into millrace.pending (line, key, rank, run_at, job_id, task, attempt, losses)
      select coalesce(sign(t.line) * ${queue ?? null}::int, t.line), t.key, coalesce(-${priority ?? null}::int, t.rank),
             greatest(coalesce(${runAt?.toISOString() ?? null}::timestamptz, now() + ${delayMs ?? null}::float8 * interval '1 millisecond'),
                      case when ${runAt === undefined && delayMs === undefined}::boolean then t.run_at else now() end),
             t.job_id, t.task, t.attempt, t.losses
      from taken t returning abs(line) as queue, key, rank, run_at, job_id
    ),
    described as (
      update millrace.jobs j set queue = p.queue, priority = -p.rank
      from placed p where j.id = p.job_id and (j.queue, j.priority) is distinct from (p.queue, (-p.rank)::smallint)
    ),
    noted as ( -- the time it is done, not the time its transaction began: the newest one says where the job is
      insert into millrace.operations (job_id, action, at, by, reason, run_at, details)
      select p.job_id, ${action}, clock_timestamp(), ${by}::text, ${reason}::text, p.run_at, jsonb_strip_nulls(jsonb_build_object(
               'queue', case when p.queue <> abs(t.line) then jsonb_build_object('from', ${nameOf(sql`abs(t.line)`)}, 'to', ${nameOf(sql`p.queue`)}) end,
               'priority', case when p.rank <> t.rank then jsonb_build_object('from', -t.rank, 'to', -p.rank) end,
               'run_at', case when p.run_at <> t.run_at then jsonb_build_object('from', t.run_at, 'to', p.run_at) end))
      from placed p join taken t on t.job_id = p.job_id
    ),
    ${markKeyed},
    ${wake(channel)}
    select job_id::text as id from placed, (select count(*) from woken) w`);
  return idsOf(rows);
}

/** Whether the queue limits what may be enqueued. */
export async function isGuarded(db: Executor, queue: number): Promise<boolean> {
  const [row] = await db.query<{ guarded: boolean }>(sql`select guarded from millrace.queues where id = ${queue}::int`);
  return row?.guarded ?? false;
}

export interface Arrival {
  readonly id: string;
  /** Of its input as it is stored, with a space behind each colon and comma. */
  readonly bytes: number;
  /** Where the spaces may decide whether it is too large. */
  readonly input: string | null;
}

/** Of those jobs, the ones that are not in that queue yet. */
export async function arrivals(
  db: Executor,
  ids: readonly string[],
  queue: number,
  maxBytes: number | null,
): Promise<Arrival[]> {
  return db.query<Arrival>(sql`
    select g.id::text, j.bytes, case when j.bytes > ${maxBytes}::int and j.bytes < ${maxBytes}::int * 1.5 then j.input end as input
    from unnest(${arrayLiteral(ids)}::uuid[]) as g (id)
    cross join lateral (select queue, input::text as input, octet_length(input::text) as bytes from millrace.jobs where id = g.id limit 1) j
    where j.queue <> ${queue}::int`);
}

/** What is different about a replay. */
export interface ReplayChanges extends Move {
  /** JSON text. */
  readonly input?: string | undefined;
}

export interface ReplayTarget {
  readonly id: string;
  /** Where its replay goes. */
  readonly queue: number;
  /** The queue limits what may be enqueued. */
  readonly guarded: boolean;
}

/** Of those jobs that are there, archived or not. `queue`: instead of each one's own. */
export async function replayTargets(
  db: Executor,
  ids: readonly string[],
  queue: number | undefined,
): Promise<ReplayTarget[]> {
  return db.query<ReplayTarget>(sql`
    select g.id::text, q.id as queue, q.guarded from unnest(${arrayLiteral(ids)}::uuid[]) as g (id)
    cross join lateral (
      (select queue from millrace.jobs where id = g.id limit 1)
      union all
      (select queue from millrace.jobs_archive where id = g.id limit 1)
      limit 1
    ) o
    cross join lateral (select id, guarded from millrace.queues where id = coalesce(${queue ?? null}::int, o.queue) limit 1) q`);
}

/** Makes new jobs of old ones, wherever those are: `replays` holds pairs of the old id and the new. Answers with the new ids. */
export async function replayJobs(
  db: Executor,
  channel: string,
  replays: readonly (readonly [old: string, fresh: string])[],
  { queue, priority, runAt, delayMs, input }: ReplayChanges,
  { by, reason }: Signature,
): Promise<string[]> {
  const columns = sql`id, queue, task, priority, max_attempts, key, input, options, tags`;
  const rows = await db.query<{ id: string }>(sql`
    with given as (
      select * from unnest(${arrayLiteral(replays.map(([old]) => old))}::uuid[], ${arrayLiteral(replays.map(([, fresh]) => fresh))}::uuid[]) as g (id, new_id)
    ),
    asked as (
      insert into millrace.jobs (id, queue, task, priority, max_attempts, run_at, replay_of, key, input, options, tags)
      select g.new_id, coalesce(${queue ?? null}::int, o.queue), o.task, coalesce(${priority ?? null}::int, o.priority), o.max_attempts,
             greatest(coalesce(${runAt?.toISOString() ?? null}::timestamptz, now() + ${delayMs ?? 0}::float8 * interval '1 millisecond'), now()),
             o.id, o.key, coalesce(${input ?? null}::jsonb, o.input), nullif((coalesce(o.options, '{}') - ${sql`'{watched,steps,trace,by,reason}'::text[]`}) || jsonb_strip_nulls(jsonb_build_object('by', ${by}::text, 'reason', ${reason}::text)), '{}'), o.tags
      from given g cross join lateral (
        (select ${columns} from millrace.jobs where id = g.id limit 1)
        union all
        (select ${columns} from millrace.jobs_archive where id = g.id limit 1)
        limit 1
      ) o
      -- nothing would be done by another job of Millrace's own
      where not exists (select from millrace.tasks t where t.id = o.task and starts_with(t.name, ${ownTasks}))
      on conflict (id) do nothing
      returning id, queue, task, priority, run_at, key, replay_of, tags
    ),
    ${tagged},
    placed as (
      insert into millrace.pending (line, key, rank, run_at, job_id, task, attempt)
      select ${lineOf(sql`asked`)}, nullif(key, ''), -priority, run_at, id, task, 1 from asked returning abs(line) as queue, key, rank, run_at, job_id
    ),
    noted as (
      insert into millrace.operations (job_id, action, by, reason) select replay_of, 'replay', ${by}::text, ${reason}::text from asked
    ),
    ${markKeyed},
    ${wake(channel)}
    select job_id::text as id from placed, (select count(*) from woken) w`);
  return idsOf(rows);
}

/** Removes jobs that do not run, with their history. */
export async function removeJobs(db: Executor, ids: readonly string[]): Promise<string[]> {
  const rows = await db.query<{ id: string }>(sql`
    with keyed as materialized ( -- first: whoever enqueues under a key has locked it before it moves the job
      select job_id from millrace.unique_keys where job_id = any (${arrayLiteral(ids)}::uuid[]) order by task, key for update
    ),
    doomed as materialized (
      select j.id, ${lineOf(sql`j`)} as line, j.priority, ${dueTime} as run_at, coalesce(j.options ? 'watched', false) as watched from millrace.jobs j
      where j.id = any (${arrayLiteral(ids)}::uuid[]) and (select count(*) from keyed) >= 0
        and not exists (select from millrace.leases l where j.id = any (l.job_ids) and j.id <> all (l.done))
      order by j.id for update of j
    ),
    waiting as (
      delete from millrace.pending p using doomed d
      where p.line = d.line and p.rank = -d.priority and p.run_at = d.run_at and p.job_id = d.id returning p.job_id
    ),
    dead as (delete from millrace.dead_letters where job_id in (select id from doomed) returning job_id),
    archived as materialized (
      select id from millrace.jobs_archive where id = any (${arrayLiteral(ids)}::uuid[]) order by id for update
    ),
    history as materialized (
      select d.id, s.id as batch, s.queue, s.finished_at, s.took_ms[array_position(s.job_ids, d.id)] as took_ms
      from (select id from doomed union all select id from archived) d
      cross join lateral (select * from millrace.settled s where s.ids @> d.id and d.id = any (s.job_ids) limit 1) s
    ),
    over as (
      select id from history
      union all
      select d.id from doomed d
      where exists (select from millrace.attempts a where a.job_id = d.id and a.outcome = 'cancelled' and not a.late)
    ),
    -- A claim that got in between took the pending row: then nothing matched and the job stays.
    gone as materialized (select job_id as id from waiting union select job_id from dead union select id from over),
    told as (delete from millrace.attempts where job_id in (select id from gone) returning *),
    operations as (delete from millrace.operations where job_id in (select id from gone)),
    -- or the next enqueue under its key would be given a job that is no more
    ${belongings(sql`gone`)},
    -- what waits for it hears that it is no more
    ended as (
      insert into millrace.endings (job_id, outcome)
      select w.job_id, 'removed' from waiting w join doomed d on d.id = w.job_id where d.watched
    ),
    requests as (delete from millrace.cancel_requests where job_id in (select id from gone)),
    shorter as (select batch, array_agg(id) as ids from history group by batch),
    -- Everything from the row itself: another job of the batch may be on its way out too.
    shortened as (
      update millrace.settled s set (n, took_ms_sum, job_ids, started_ms, took_ms) = (
        select count(*), coalesce(sum(one.took_ms), 0), coalesce(array_agg(one.job_id order by one.place), '{}'),
               coalesce(array_agg(one.started_ms order by one.place), '{}'), coalesce(array_agg(one.took_ms order by one.place), '{}')
        from unnest(s.job_ids, s.started_ms, s.took_ms) with ordinality as one (job_id, started_ms, took_ms, place)
        where one.job_id <> all (shorter.ids)
      )
      from shorter where s.id = shorter.batch returning s.id
    ),
    jobs as (delete from millrace.jobs where id in (select id from gone) returning id, queue, created_at),
    ${leaving({
      jobs: sql`select * from jobs`,
      attempts: sql`select * from told`,
      settled: sql`select h.queue, h.finished_at, 1 as n, array[h.took_ms] as took_ms from history h join shortened s on s.id = h.batch`,
    })},
    put_away as (delete from millrace.jobs_archive where id in (select id from gone) returning id)
    select id::text from jobs union all select id::text from put_away`);
  return idsOf(rows);
}
