/** Reading jobs by their ids. Status is derived from where the job is; nothing here writes. */
import type { Executor } from "../db/database.ts";
import { type Sql, arrayLiteral, sql } from "../db/sql.ts";
import { type DependencyCounts, countsOf } from "./dependencies-store.ts";
import { dueTime, lineOf } from "./settle-store.ts";

export const jobStatuses = ["waiting", "delayed", "blocked", "active", "completed", "failed", "cancelled"] as const;
export type JobStatus = (typeof jobStatuses)[number];

/** A job as its readers see it. Times are Dates; what does not apply is null. */
export interface Job {
  readonly id: string;
  readonly queue: string;
  readonly task: string;
  readonly status: JobStatus;
  readonly input: unknown;
  readonly priority: number;
  readonly tags: readonly string[];
  readonly createdAt: Date;
  /** When it is or was due. Null while it waits for other jobs. */
  readonly runAt: Date | null;
  /** The attempt it waits for, runs, or ended with; from 1. */
  readonly attempt: number;
  readonly maxAttempts: number;
  readonly startedAt: Date | null;
  readonly finishedAt: Date | null;
  /** The worker that has or had it last. */
  readonly worker: string | null;
  readonly lastErrorCode: string | null;
  readonly lastErrorMessage: string | null;
  readonly lastErrorStack: string | null;
  /** Why it was given up: `NON_RETRYABLE`, `MAX_ATTEMPTS_EXCEEDED`, `POISON`, `DEPENDENCY_FAILED`. */
  readonly deadLetterReason: string | null;
  readonly replayOf: string | null;
  /** The newest that its task said with `progress`, and when. */
  readonly progress: number | Readonly<Record<string, unknown>> | null;
  readonly progressAt: Date | null;
}

/** Jobs whole, or without what may be large: `input` and `lastErrorStack` are null then. */
export type Extent = "whole" | "lean";

/** The columns of `described`, each with a name of its own: a caller's transaction brings rows as objects. */
export type JobRow = readonly [
  id: string,
  queue: string,
  task: string,
  input: unknown,
  priority: number,
  tags: readonly string[],
  createdAt: number,
  runAt: number | null,
  maxAttempts: number,
  replayOf: string | null,
  status: JobStatus,
  attempt: number,
  startedAt: number | null,
  finishedAt: number | null,
  worker: string | null,
  lastErrorCode: string | null,
  lastErrorMessage: string | null,
  lastErrorStack: string | null,
  deadLetterReason: string | null,
  progress: Job["progress"],
  progressAt: number | null,
];

/** Whole milliseconds since 1970: cheaper to read than a time in words. What a fraction of microseconds is off must not cost one. */
const ms = (at: Sql): Sql => sql`floor(date_part('epoch', ${at}) * 1000 + 0.0005)`;

/** A batch of a thousand jobs takes as long to unpack as to be searched for so many. */
const few = sql`8`;

/**
 * `chosen (id, n)` names the jobs and their order; `more`: columns behind those of `JobRow`, about the job `f`. What a page costs is the
 * probes per job: none is made whose answer would not be looked at.
 */
export function described(chosen: Sql, extent: Extent, more: Sql = sql``): Sql {
  const input = extent === "whole" ? sql`input` : sql`null::jsonb as input`;
  const stack = extent === "whole" ? sql`a.error_stack` : sql`null::text as error_stack`;
  return sql`
  with chosen as (${chosen}),
  -- Once for all the jobs: the leases have no index by job, and their table is full of what has ended. "Is true" keeps the planner from
  -- making a join of it: it takes the thousands that run for a few, and compared each with each of the hundred.
  held as materialized (
    select open.job_id, open.attempt, l.claimed_at, l.worker
    from millrace.leases l cross join lateral (
      select job_id, attempt from unnest(l.job_ids, l.attempts) as one (job_id, attempt)
      where (job_id in (select id from chosen)) is true offset 0
    ) open where open.job_id <> all (l.done)
  ),
  found as materialized ( -- once each: when it is due takes two probes
    select chosen.n, j.id, j.input, j.priority, j.tags, j.created_at, j.max_attempts, j.replay_of, j.archived, j.queue as queue_id, q.name as queue, t.name as task,
           past.due_at, waits.attempt as waits, dead.attempt as died, dead.reason,
           runs.attempt as runs, runs.claimed_at, runs.worker, waits.attempt is null and runs.attempt is null as ended,
           -- It has not gone well: no batch has it, though its id may lie in the ranges of many. With a long history, a page of dead letters
           -- lies in those of hundreds, and unpacking them took four times as long as the rest.
           coalesce(waits.attempt, runs.attempt, dead.attempt) is not null or last.outcome is not distinct from 'cancelled' as elsewhere,
           last.attempt + (last.outcome not in ('snoozed', 'cancelled') and (last.outcome <> 'lost' or last.alone))::int as tried,
           last.outcome, last.started_at, last.finished_at, last.worker as last_worker, last.error_code, last.error_message, last.error_stack
    from chosen cross join lateral (
      select id, queue, task, key, ${input}, priority, tags, created_at, run_at, max_attempts, replay_of, false as archived from millrace.jobs where id = chosen.id
      union all
      select id, queue, task, key, ${input}, priority, tags, created_at, run_at, max_attempts, replay_of, true from millrace.jobs_archive where id = chosen.id
      limit 1
    ) j
    join millrace.queues q on q.id = j.queue join millrace.tasks t on t.id = j.task
    left join lateral (
      select a.attempt, a.outcome, a.alone, a.started_at, a.finished_at, a.worker, a.error_code, a.error_message, ${stack}
      from millrace.attempts a where a.job_id = j.id and not a.late order by a.id desc limit 1
    ) last on true
    cross join lateral (
      select case when last.attempt is not null then ${dueTime} else coalesce((
        select run_at from millrace.operations where job_id = j.id and run_at is not null order by at desc limit 1
      ), j.run_at) end as due_at offset 0
    ) past
    left join lateral (
      select p.attempt from millrace.pending p
      where p.line = ${lineOf(sql`j`)} and p.rank = -j.priority and p.run_at = past.due_at and p.job_id = j.id
      limit 1 -- one probe per job, whatever the statistics say
    ) waits on true
    full join held runs on runs.job_id = j.id -- of these jobs only; by a full join, a hundred that run are not compared with each of the hundred
    left join lateral (
      select reason, attempt from millrace.dead_letters where job_id = j.id and waits.attempt is null and runs.attempt is null limit 1
    ) dead on true
  ),
  -- Which batches may have it: those whose ids lie around its own. Ids hold their time: those of one quarter of a second are looked up at once.
  near as materialized (
    select s.id as batch, array_agg(one.id) as wanted from (
      select array_agg(id) as ids, array_agg(queue_id) as queues, millrace.uuidrange(min(id::text)::uuid, max(id::text)::uuid, '[]') as span
      from found where not elsewhere group by left(id::text, 10)
    ) together
    cross join lateral (select id, queue, ids from millrace.settled where ids && together.span offset 0) s
    cross join lateral unnest(together.ids, together.queues) as one (id, queue)
    where s.queue = one.queue and s.ids @> one.id group by s.id
  ),
  -- Where in it: few are searched for, for many it is unpacked. Joined to another, an array is not as it was
  -- stored, and is fetched once. The limit keeps it to one probe each, whatever the statistics say.
  well as materialized (
    select distinct on (one.id) one.id, s.claimed_at, s.finished_at, s.worker, one.started_ms, one.took_ms
    from near cross join lateral (
      select claimed_at, finished_at, worker, job_ids || '{}' as job_ids, started_ms || '{}' as started_ms, took_ms || '{}' as took_ms
      from millrace.settled where id = near.batch limit 1
    ) s
    cross join lateral (
      select id, started_ms, took_ms from unnest(s.job_ids, s.started_ms, s.took_ms) as each (id, started_ms, took_ms)
      where cardinality(near.wanted) > ${few} and (id in (select id from found where not elsewhere)) is true
      union all
      select of.id, s.started_ms[of.place], s.took_ms[of.place] from (
        select id, array_position(s.job_ids, id) as place from unnest(near.wanted) as want (id) where cardinality(near.wanted) <= ${few} offset 0
      ) of where of.place is not null
    ) one
  )
  select f.id::text, f.queue, f.task, f.input, f.priority::int, coalesce(f.tags, '{}') as tags, ${ms(sql`f.created_at`)} as created,
         ${ms(sql`nullif(f.due_at, 'infinity')`)} as due, f.max_attempts::int, f.replay_of::text,
         case when f.waits is not null then
                case when f.due_at = 'infinity' then 'blocked' when f.due_at > now() then 'delayed' else 'waiting' end
              when f.runs is not null then 'active'
              when f.reason is not null then 'failed'
              when well.finished_at is not null or f.archived then 'completed' -- only successes are archived
              when f.outcome = 'cancelled' then 'cancelled'
              else 'waiting' end as status,
         coalesce(f.waits, f.runs, f.died, f.tried, 1)::int as attempt,
         ${ms(sql`coalesce(f.claimed_at, well.claimed_at + well.started_ms * interval '1 millisecond', f.started_at)`)} as started,
         case when f.ended then ${ms(sql`coalesce(well.claimed_at + (well.started_ms + well.took_ms) * interval '1 millisecond', f.finished_at)`)} end as finished,
         (select w.name from millrace.workers w where w.id = coalesce(f.worker, well.worker, f.last_worker)) as worker,
         f.error_code, f.error_message, f.error_stack, f.reason, mark.value as progress, ${ms(sql`mark.at`)} as progressed ${more}
  from found f
  left join well on well.id = f.id
  left join lateral (select value, at from millrace.progress where job_id = f.id limit 1) mark on true
  order by f.n`;
}

const instant = (at: number | null): Date | null => (at === null ? null : new Date(at));

export function toJob(row: readonly [...JobRow, ...unknown[]]): Job {
  return {
    id: row[0],
    queue: row[1],
    task: row[2],
    status: row[10],
    input: row[3],
    priority: row[4],
    tags: row[5],
    createdAt: new Date(row[6]),
    runAt: instant(row[7]),
    attempt: row[11],
    maxAttempts: row[8],
    startedAt: instant(row[12]),
    finishedAt: instant(row[13]),
    worker: row[14],
    lastErrorCode: row[15],
    lastErrorMessage: row[16],
    lastErrorStack: row[17],
    deadLetterReason: row[18],
    replayOf: row[9],
    progress: row[19],
    progressAt: instant(row[20]),
  };
}

export async function findJobs(db: Executor, ids: readonly string[]): Promise<Job[]> {
  const given = sql`select id, n from unnest(${arrayLiteral(ids)}::uuid[]) with ordinality as given (id, n)`;
  return (await db.rows<JobRow>(described(given, "whole"))).map(toJob);
}

/** A job by itself, with what belongs to it. */
export interface JobDetail {
  readonly job: Job;
  /** Undefined: there is none. */
  readonly result: unknown;
  readonly needs: DependencyCounts;
}

/** In one statement: three at once would wait for three processes of the server. */
export async function findJobDetail(db: Executor, id: string): Promise<JobDetail | undefined> {
  const kin = sql`,
         (select json_build_array(r.result) from millrace.results r where r.job_id = f.id) as result,
         (select ${countsOf} from millrace.dependencies d where d.job_id = f.id) as needs`;
  const [row] = await db.rows<readonly [...JobRow, result: readonly [unknown] | null, needs: DependencyCounts]>(
    described(sql`select ${id}::uuid as id, 1 as n`, "whole", kin),
  );
  return row && { job: toJob(row), result: row[21]?.[0], needs: row[22] };
}
