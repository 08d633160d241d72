/** Reading jobs by their ids. Status is derived from where the job is; nothing here writes. */
import type { Executor } from "../db/database.ts";
import { type Sql, arrayLiteral, sql } from "../db/sql.ts";
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
  /** When it is or was due. */
  readonly runAt: Date;
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

/** `chosen (id, n)` names the jobs and their order. */
const describe = (chosen: Sql): Sql => sql`
  with chosen as (${chosen}),
  found as materialized ( -- once each: when it is due takes two probes
    select chosen.n, j.id, ${lineOf(sql`j`)} as line, j.input, j.priority, j.tags, j.created_at, j.run_at, j.max_attempts, j.replay_of, q.name as queue, t.name as task,
           ${dueTime} as due_at, j.queue as queue_id, j.archived
    from chosen cross join lateral (
      select id, queue, task, key, input, priority, tags, created_at, run_at, max_attempts, replay_of, false as archived from millrace.jobs where id = chosen.id
      union all
      select id, queue, task, key, input, priority, tags, created_at, run_at, max_attempts, replay_of, true from millrace.jobs_archive where id = chosen.id
      limit 1
    ) j
    join millrace.queues q on q.id = j.queue join millrace.tasks t on t.id = j.task
  ),
  placed as materialized ( -- and where it is, as far as that is told outside of the batches
    select f.*, waits.attempt as waits_for, runs.claimed_at as runs_since, runs.worker as runs_on, runs.attempt as runs_attempt,
           dead.reason as dead_reason, dead.attempt as dead_attempt,
           last.attempt as last_attempt, last.counted as last_counted, last.outcome as last_outcome, last.started_at as last_started_at,
           last.finished_at as last_finished_at, last.worker as last_worker, last.error_code, last.error_message, last.error_stack,
           -- It has not gone well: no batch has it, though its id may lie in the ranges of many. With a long history, a page of dead letters
           -- lies in those of hundreds, and unpacking them took four times as long as the rest.
           coalesce(waits.attempt, runs.attempt, dead.attempt) is not null or coalesce(last.outcome = 'cancelled', false) as elsewhere
    from found f
    left join lateral (
      select p.attempt from millrace.pending p
      where p.line = f.line and p.rank = -f.priority and p.run_at = f.due_at and p.job_id = f.id
      limit 1 -- one probe per job, whatever the statistics say
    ) waits on true
    left join lateral (
      select l.claimed_at, l.worker, l.attempts[array_position(l.job_ids, f.id)] as attempt
      from millrace.leases l where waits.attempt is null and f.id = any (l.job_ids) and f.id <> all (l.done) limit 1
    ) runs on true
    left join lateral (select reason, attempt from millrace.dead_letters where job_id = f.id limit 1) dead on true
    left join lateral (
      select a.attempt, (a.outcome not in ('snoozed', 'cancelled') and (a.outcome <> 'lost' or a.alone))::int as counted, a.outcome, a.started_at, a.finished_at, a.worker, a.error_code, a.error_message, a.error_stack
      from millrace.attempts a where a.job_id = f.id and not a.late order by a.id desc limit 1
    ) last on true
  ),
  -- Unpacking the arrays of a batch takes longer than all the rest. It is done once for all its jobs: joined to another, an array is not
  -- as it was stored. The offset and the limit keep it to one probe each, whatever the statistics say.
  batches as materialized (
    select s.* from (
      select distinct near.id from placed f cross join lateral (select id from millrace.settled where not f.elsewhere and ids @> f.id offset 0) near
    ) near cross join lateral (
      select ids, claimed_at, finished_at, worker, job_ids || '{}' as job_ids, started_ms || '{}' as started_ms, took_ms || '{}' as took_ms
      from millrace.settled where id = near.id limit 1
    ) s
  )
  select f.id::text, f.queue, f.task, f.input, f.priority::int, coalesce(f.tags, '{}') as tags, f.created_at as "createdAt",
         nullif(f.due_at, 'infinity') as "runAt", f.max_attempts::int as "maxAttempts", f.replay_of::text as "replayOf",
         case when f.waits_for is not null then
                case when f.due_at = 'infinity' then 'blocked' when f.due_at > now() then 'delayed' else 'waiting' end
              when f.runs_since is not null then 'active'
              when f.dead_reason is not null then 'failed'
              when well.finished_at is not null or f.archived then 'completed' -- only successes are archived
              when f.last_outcome = 'cancelled' then 'cancelled'
              else 'waiting' end as status,
         coalesce(f.waits_for, f.runs_attempt, f.dead_attempt, f.last_attempt + f.last_counted, 1)::int as attempt,
         case when f.runs_since is not null then f.runs_since
              else coalesce(well.claimed_at + well.started_ms * interval '1 millisecond', f.last_started_at) end as "startedAt",
         case when f.waits_for is null and f.runs_since is null
              then coalesce(well.claimed_at + (well.started_ms + well.took_ms) * interval '1 millisecond', f.last_finished_at) end as "finishedAt",
         (select w.name from millrace.workers w where w.id = coalesce(f.runs_on, well.worker, f.last_worker)) as worker,
         f.error_code as "lastErrorCode", f.error_message as "lastErrorMessage", f.error_stack as "lastErrorStack",
         f.dead_reason as "deadLetterReason", mark.value as progress, mark.at as "progressAt"
  from placed f
  left join lateral (
    select b.claimed_at, b.finished_at, b.worker, b.started_ms[b.place] as started_ms, b.took_ms[b.place] as took_ms
    from (select *, array_position(job_ids, f.id) as place from batches where not f.elsewhere and ids @> f.id offset 0) b
    where b.place is not null limit 1
  ) well on true
  left join lateral (select value, at from millrace.progress where job_id = f.id limit 1) mark on true
  order by f.n`;

export async function findJobs(db: Executor, ids: readonly string[]): Promise<Job[]> {
  return db.query<Job>(
    describe(sql`select id, n from unnest(${arrayLiteral(ids)}::uuid[]) with ordinality as given (id, n)`),
  );
}
