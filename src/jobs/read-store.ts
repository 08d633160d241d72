/** Reading jobs: one by id, lists by status. Status is derived from where the job is; nothing here writes. */
import type { Database, Executor } from "../db/database.ts";
import { type Sql, arrayLiteral, join, sql } from "../db/sql.ts";
import { ranksOf } from "./careful-store.ts";
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
  found as (
    select chosen.n, j.id, ${lineOf(sql`j`)} as line, j.input, j.priority, j.tags, j.created_at, j.run_at, j.max_attempts, j.replay_of, q.name as queue, t.name as task,
           ${dueTime} as due_at, j.queue as queue_id, j.archived
    from chosen cross join lateral (
      select id, queue, task, key, input, priority, tags, created_at, run_at, max_attempts, replay_of, false as archived from millrace.jobs where id = chosen.id
      union all
      select id, queue, task, key, input, priority, tags, created_at, run_at, max_attempts, replay_of, true from millrace.jobs_archive where id = chosen.id
      limit 1
    ) j
    join millrace.queues q on q.id = j.queue join millrace.tasks t on t.id = j.task
  )
  select f.id::text, f.queue, f.task, f.input, f.priority::int, coalesce(f.tags, '{}') as tags, f.created_at as "createdAt",
         nullif(f.due_at, 'infinity') as "runAt", f.max_attempts::int as "maxAttempts", f.replay_of::text as "replayOf",
         case when waits.attempt is not null then
                case when f.due_at = 'infinity' then 'blocked' when f.due_at > now() then 'delayed' else 'waiting' end
              when runs.claimed_at is not null then 'active'
              when dead.reason is not null then 'failed'
              when well.finished_at is not null or f.archived then 'completed' -- only successes are archived
              when last.outcome = 'cancelled' then 'cancelled'
              else 'waiting' end as status,
         coalesce(waits.attempt, runs.attempt, dead.attempt, last.attempt + last.counted, 1)::int as attempt,
         case when runs.claimed_at is not null then runs.claimed_at
              else coalesce(well.claimed_at + well.started_ms * interval '1 millisecond', last.started_at) end as "startedAt",
         case when waits.attempt is null and runs.claimed_at is null
              then coalesce(well.claimed_at + (well.started_ms + well.took_ms) * interval '1 millisecond', last.finished_at) end as "finishedAt",
         (select w.name from millrace.workers w where w.id = coalesce(runs.worker, well.worker, last.worker)) as worker,
         last.error_code as "lastErrorCode", last.error_message as "lastErrorMessage", last.error_stack as "lastErrorStack",
         dead.reason as "deadLetterReason", mark.value as progress, mark.at as "progressAt"
  from found f
  left join lateral (
    select p.attempt from millrace.pending p
    where p.line = f.line and p.rank = -f.priority and p.run_at = f.due_at and p.job_id = f.id
    limit 1 -- one probe per job, whatever the statistics say
  ) waits on true
  left join lateral (
    select l.claimed_at, l.worker, l.attempts[array_position(l.job_ids, f.id)] as attempt
    from millrace.leases l where f.id = any (l.job_ids) and f.id <> all (l.done) limit 1
  ) runs on true
  left join millrace.dead_letters dead on dead.job_id = f.id
  left join lateral (
    select a.attempt, (a.outcome not in ('snoozed', 'cancelled') and (a.outcome <> 'lost' or a.alone))::int as counted, a.outcome, a.started_at, a.finished_at, a.worker, a.error_code, a.error_message, a.error_stack
    from millrace.attempts a where a.job_id = f.id and not a.late order by a.id desc limit 1
  ) last on true
  left join lateral (
    select s.claimed_at, s.finished_at, s.worker, s.started_ms[array_position(s.job_ids, f.id)] as started_ms,
           s.took_ms[array_position(s.job_ids, f.id)] as took_ms
    from millrace.settled s where s.ids @> f.id and f.id = any (s.job_ids) limit 1
  ) well on true
  left join lateral (select value, at from millrace.progress where job_id = f.id limit 1) mark on true
  order by f.n`;

export async function findJobs(db: Executor, ids: readonly string[]): Promise<Job[]> {
  return db.query<Job>(
    describe(sql`select id, n from unnest(${arrayLiteral(ids)}::uuid[]) with ordinality as given (id, n)`),
  );
}

/** Which jobs to list. `after` is where the page before ended. */
export interface JobFilter {
  readonly status?: JobStatus | undefined;
  readonly queue?: number | undefined;
  readonly task?: number | undefined;
  readonly tag?: string | undefined;
  /** Of dead letters only. */
  readonly reason?: string | undefined;
  readonly errorCode?: string | undefined;
  readonly limit: number;
  readonly after?: readonly string[] | undefined;
}

export interface JobPage {
  readonly jobs: Job[];
  /** Where the next page starts; null at the end. A page may be short before the end: a walk looks at 20 000 jobs at most. */
  readonly after: readonly string[] | null;
}

/**
 * Jobs looked at per page, when a filter has no index to follow: these first, and that many more when the page is not full then. Texts
 * of the statement, not values: the planner must know how few they are.
 */
const windows = [
  { most: 500, text: sql`500` },
  { most: 19_500, text: sql`19500` },
] as const;

/** A job of the list, and where it stands in it. */
interface Listed {
  readonly id: string;
  readonly place: readonly string[];
}

export async function listJobs(db: Database, filter: JobFilter): Promise<JobPage> {
  const listed: Listed[] = [];
  let { after } = filter;
  for (const { most, text } of windows) {
    const window = await look(db, { ...filter, after, limit: filter.limit - listed.length }, text);
    listed.push(...window.listed);
    const full = listed.length === filter.limit;
    after = full ? listed.at(-1)?.place : window.looked < most ? undefined : window.end;
    if (full || after === undefined) break;
  }
  const ids = listed.map(({ id }) => id);
  return { jobs: ids.length === 0 ? [] : await findJobs(db, ids), after: after ?? null };
}

/** Looks at the next `most` jobs of the walk, and takes those that match. `end`: where it stopped. */
async function look(
  db: Database,
  filter: JobFilter,
  most: Sql,
): Promise<{ listed: Listed[]; looked: number; end: readonly string[] | undefined }> {
  const rows = await db.query<{ id: string | null; place: string[] | null; looked: number }>(sql`
    with walked as materialized (${walkOf(filter, most)} limit ${most}),
    matching as (
      select walked.id, walked.n, walked.place from walked
      cross join lateral (select queue, task, tags from millrace.jobs where id = walked.id limit 1) j -- one probe per job
      where ${join(conditions(filter), sql` and `)} order by walked.n limit ${filter.limit}::int
    )
    (select id::text, place, 0 as looked from matching order by n)
    union all
    select null, (select w.place from walked w order by w.n desc limit 1), (select count(*)::int from walked)`);
  const listed = rows.filter((row): row is typeof row & { id: string; place: string[] } => row.id !== null);
  const edge = rows.find((row) => row.id === null);
  return { listed, looked: edge?.looked ?? 0, end: edge?.place ?? undefined };
}

function conditions({ queue, task, tag }: JobFilter): Sql[] {
  return [
    sql`true`,
    ...(queue === undefined ? [] : [sql`j.queue = ${queue}::int`]),
    ...(task === undefined ? [] : [sql`j.task = ${task}::int`]),
    ...(tag === undefined ? [] : [sql`j.tags @> array[${tag}::text]`]),
  ];
}

/** The lines somebody waits in, in order, from `first` on: one probe each. */
const linesFrom = (first: string | undefined): Sql => sql`
  with recursive lines as (
    (select p.line from millrace.pending p where ${first === undefined ? sql`true` : sql`p.line >= ${first}::int`} order by p.line limit 1)
    union all
    select next.line from lines cross join lateral (
      select p.line from millrace.pending p where p.line > lines.line order by p.line limit 1
    ) next
  )
  select line from lines`;

/**
 * `select id, n, place`: jobs in the order of the list, n to sort by, place (text[]) to go on from. Every one follows an index, and is
 * read no further than `most` jobs.
 */
function walkOf({ status, queue, after, reason, errorCode }: JobFilter, most: Sql): Sql {
  const inQueue = (column: Sql): Sql => (queue === undefined ? sql`true` : sql`${column} = ${queue}::int`);
  switch (status) {
    case "waiting":
    case "delayed":
    case "blocked": {
      const when = {
        waiting: sql`p.run_at <= now()`,
        delayed: sql`p.run_at > now() and p.run_at < 'infinity'`,
        blocked: sql`p.run_at = 'infinity'`,
      }[status];
      const beyond =
        after === undefined
          ? sql`true`
          : sql`(p.line, p.rank, p.run_at, p.job_id) > (${after[0]}::int, ${after[1]}::smallint, ${after[2]}::timestamptz, ${after[3]}::uuid)`;
      // One (line, rank) after the other, and in each from where the status begins: or all that waits would be read to find what is
      // delayed. Their order is kept.
      const lines =
        queue === undefined
          ? linesFrom(after?.[0])
          : sql`select line from (values (-${queue}::int), (${queue}::int)) as own (line)`;
      const near =
        after === undefined ? sql`true` : sql`(lines.line, ranks.rank) >= (${after[0]}::int, ${after[1]}::smallint)`;
      return sql`
        select p.job_id as id, row_number() over () as n, array[p.line::text, p.rank::text, p.run_at::text, p.job_id::text] as place
        from (${lines}) lines cross join lateral (${ranksOf(sql`lines.line`)}) ranks
        cross join lateral (
          select p.line, p.rank, p.run_at, p.job_id from millrace.pending p
          where p.line = lines.line and p.rank = ranks.rank and ${when} and ${beyond}
          order by p.run_at, p.job_id limit ${most}
        ) p
        where ${near}`;
    }
    case "active": {
      const beyond = after === undefined ? sql`true` : sql`open.job_id > ${after[0]}::uuid`;
      return sql`
        select open.job_id as id, row_number() over (order by open.job_id) as n, array[open.job_id::text] as place
        from millrace.leases l cross join unnest(l.job_ids) as open (job_id)
        where open.job_id <> all (l.done) and ${inQueue(sql`l.queue`)} and ${beyond} order by open.job_id`;
    }
    case "failed": {
      const beyond =
        after === undefined
          ? sql`true`
          : sql`d.failed_at <= ${after[0]}::timestamptz and (d.failed_at, d.job_id) < (${after[0]}::timestamptz, ${after[1]}::uuid)`;
      const why = sql`${reason === undefined ? sql`` : sql`and d.reason = ${reason}`} ${errorCode === undefined ? sql`` : sql`and d.error_code = ${errorCode}`}`;
      return sql`
        select d.job_id as id, row_number() over () as n, array[d.failed_at::text, d.job_id::text] as place
        from (
          select d.job_id, d.failed_at from millrace.dead_letters d where ${inQueue(sql`d.queue`)} and ${beyond} ${why}
          order by d.failed_at desc, d.job_id desc limit ${most}
        ) d`;
    }
    case "completed": {
      const beyond =
        after === undefined
          ? sql`true`
          : sql`(s.finished_at, s.id, done.n) < (${after[0]}::timestamptz, ${after[1]}::bigint, ${after[2]}::bigint)`;
      const near =
        after === undefined
          ? sql`true`
          : sql`s.finished_at <= ${after[0]}::timestamptz and (s.finished_at, s.id) <= (${after[0]}::timestamptz, ${after[1]}::bigint)`;
      // In the order of an index with the queue or without, archived batches left out there: their jobs are elsewhere. One batch more than is
      // looked at: the first may have nothing left beyond the cursor. Their order, and that of the jobs within each, is kept.
      return sql`
        select done.job_id as id, row_number() over () as n, array[s.finished_at::text, s.id::text, done.n::text] as place
        from (
          select s.id, s.finished_at, s.job_ids from millrace.settled s
          where ${queue === undefined ? sql`not s.archived` : inQueue(sql`s.queue`)} and ${near} and s.n > 0
          order by s.finished_at desc, s.id desc limit ${most} + 1
        ) s
        cross join lateral (select job_id, n from unnest(s.job_ids) with ordinality as one (job_id, n) order by n desc) done
        where ${beyond}`;
    }
    case "cancelled": {
      const beyond =
        after === undefined
          ? sql`true`
          : sql`a.finished_at <= ${after[0]}::timestamptz and (a.finished_at, a.id) < (${after[0]}::timestamptz, ${after[1]}::bigint)`;
      return sql`
        select a.job_id as id, row_number() over () as n, array[a.finished_at::text, a.id::text] as place
        from (
          select a.job_id, a.id, a.finished_at from millrace.attempts a where a.outcome = 'cancelled' and not a.late and ${beyond}
          order by a.finished_at desc, a.id desc limit ${most}
        ) a`;
    }
    case undefined: {
      const beyond = after === undefined ? sql`true` : sql`w.id < ${after[0]}::uuid`;
      return sql`
        select w.id, row_number() over (order by w.id desc) as n, array[w.id::text] as place
        from millrace.jobs w where ${beyond} order by w.id desc`;
    }
  }
}
