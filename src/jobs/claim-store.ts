/**
 * The hot statement: settle one batch that went well and claim the next, in one round trip and one commit.
 *
 * Locks only the rows it takes (`skip locked`), walks the primary key of `pending` one rank at a time from the low-water mark
 * given, and is safe to lose: a claim whose answer never arrives is a lease of this worker that the worker does not know, which
 * the next reconciliation gives back.
 */
import type { Database, Executor } from "../db/database.ts";
import { type Sql, arrayLiteral, join, sql } from "../db/sql.ts";
import type { StoredJobOptions } from "./enqueue-store.ts";

/** Where the scan of one (queue, rank) starts: nothing before it was left waiting when it was last looked at. */
export interface LaneMark {
  readonly rank: number;
  readonly runAt: string;
  readonly jobId: string;
}

export const fromTheHead = { runAt: "-infinity", jobId: "00000000-0000-0000-0000-000000000000" } as const;

/** A whole lease whose jobs all succeeded. Times in ms, in the order the jobs were claimed. */
export interface WholeLease {
  readonly id: string;
  readonly minId: string;
  readonly maxId: string;
  readonly startedMs: readonly number[];
  readonly tookMs: readonly number[];
  readonly tookMsSum: number;
}

export interface Wanted {
  /** Id for the new lease, if there is anything to lease. Made by the worker, so that it is never used twice; see `leaseId`. */
  readonly lease: string;
  readonly worker: number;
  readonly queue: number;
  readonly lanes: readonly LaneMark[];
  /** Task numbers this worker has; null: any. */
  readonly tasks: readonly number[] | null;
  readonly limit: number;
}

/**
 * Lease ids are made from the worker's number and a count. A sequence would do, but for a server that crashed after an answer it had
 * not yet written: its sequence may give the same number again, to other jobs.
 */
export function leaseId(worker: number, count: number): string {
  return ((BigInt(worker) << 32n) + BigInt(count)).toString();
}

/** One claimed job: number in the batch from 1, id, task, input as JSON text, attempt, max attempts, options as JSON text. */
export type ClaimedRow = readonly [
  n: number,
  id: string,
  task: number,
  input: string,
  attempt: number,
  maxAttempts: number,
  options: string | null,
];

/** The options of a claimed job. */
export interface ClaimedOptions extends StoredJobOptions {
  /** Only of a job that is part of a trace: ms from its enqueue until it was due, and from then until it was claimed. */
  readonly delay_ms?: number;
  readonly waited_ms?: number;
}

/** For a job `j` that was due at `runAt`. One without a trace, which is most of them, costs a look whether it has options. */
export const claimedOptions = (runAt: Sql): Sql => sql`
  case when j.options ? 'trace' then j.options || jsonb_build_object(
    'delay_ms', greatest(extract(epoch from ${runAt} - j.created_at) * 1000, 0),
    'waited_ms', extract(epoch from now() - greatest(${runAt}, j.created_at)) * 1000
  ) else j.options end::text`;

export interface Turn {
  /** False when a lease was to be closed and was no longer ours. */
  readonly closed: boolean;
  readonly queueName: string;
  /** The queue must be claimed from by `claimWithCare`; nothing was claimed. */
  readonly careful: boolean;
  readonly jobs: ClaimedRow[];
  /** The last job taken of each rank. */
  readonly marks: LaneMark[];
  /** When the lanes gave less than asked: ms until their next job is due; otherwise, and without one, Infinity. */
  readonly nextDueMs: number;
}

/** Deletes the lease and appends its history. */
const closing = (done: WholeLease, worker: number): Sql => sql`
  closed as (
    delete from millrace.leases where id = ${done.id}::bigint and worker = ${worker}::int
    returning id, queue, worker, claimed_at, job_ids
  ),
  history as (
    insert into millrace.settled (lease, queue, worker, claimed_at, n, took_ms_sum, ids, job_ids, started_ms, took_ms)
    select id, queue, worker, claimed_at, cardinality(job_ids), ${done.tookMsSum}::bigint,
           millrace.uuidrange(${done.minId}::uuid, ${done.maxId}::uuid, '[]'), job_ids,
           ${arrayLiteral(done.startedMs)}::int[], ${arrayLiteral(done.tookMs)}::int[]
    from closed
  )`;

/** Takes jobs from the lanes, in order, into a new lease. */
function claiming({ lease, worker, queue, lanes, tasks, limit }: Wanted): Sql {
  const ranks = arrayLiteral(lanes.map((lane) => lane.rank));
  const times = `{${lanes.map((lane) => `"${lane.runAt}"`).join(",")}}`;
  const ids = arrayLiteral(lanes.map((lane) => lane.jobId));
  return sql`
    lanes as (
      select lane.* from unnest(${ranks}::smallint[], ${times}::timestamptz[], ${ids}::uuid[]) as lane (rank, run_at, job_id)
      where exists (select from millrace.queues q where q.id = ${queue}::int and q.paused_at is null and not q.careful)
    ),
    locked as materialized (
      select p.* from lanes cross join lateral (
        select ctid as place, rank, run_at, job_id, attempt
        from millrace.pending
        where line = ${queue}::int and rank = lanes.rank and run_at <= now()
          and (run_at, job_id) >= (lanes.run_at, lanes.job_id)
          and losses = 0 ${tasks === null ? sql`` : sql`and task = any (${arrayLiteral(tasks)}::int[])`}
        order by run_at, job_id limit ${limit}::int
        for update skip locked
      ) p
      limit ${limit}::int
    ),
    numbered as (
      select rank, run_at, job_id, attempt, row_number() over () as n, lead(rank) over () as next_rank from locked
    ),
    taken as (
      delete from millrace.pending where ctid = any (array(select place from locked))
    ),
    lease as (
      insert into millrace.leases (id, queue, worker, job_ids, attempts)
      select ${lease}::bigint, ${queue}::int, ${worker}::int, array_agg(job_id), array_agg(attempt) from locked having count(*) > 0
    )`;
}

/** Jobs by number; the last of each rank as number 0. */
const claimedJobs: Sql = sql`
  select numbered.n::int, job_id::text, j.task, j.input::text, numbered.attempt::int, j.max_attempts::int,
         ${claimedOptions(sql`numbered.run_at`)}
  from numbered left join lateral ( -- limit 1: one probe per job, whatever the planner believes about either side
    select task, input, max_attempts, options, created_at from millrace.jobs where id = numbered.job_id limit 1
  ) j on true
  union all
  select 0, job_id::text, rank::int, run_at::text, 0, 0, null from numbered where next_rank is distinct from rank
  union all`;

/** When the lanes gave less than asked: ms until their next job is due. */
const nextDue = ({ queue, limit }: Wanted): Sql => sql`
  case when (select count(*) from locked) < ${limit}::int then (
    select ceil(extract(epoch from min(later.run_at) - now()) * 1000)::text
    from lanes cross join lateral (
      select run_at from millrace.pending p
      where p.line = ${queue}::int and p.rank = lanes.rank and p.run_at > now() and p.run_at < 'infinity'
      order by p.run_at limit 1
    ) later
  ) end`;

/**
 * A claim alone commits without waiting for the disk: if the server loses it, the job waits again, and whatever its first run
 * reports finds no lease. What is reported, and what is enqueued, always waits.
 */
const withoutWaiting = sql`length(set_config('synchronous_commit', 'off', true))`;

export async function closeAndClaim(db: Executor, done: WholeLease | undefined, want: Wanted): Promise<Turn> {
  const claims = want.limit > 0;
  const parts = [...(done ? [closing(done, want.worker)] : []), ...(claims ? [claiming(want)] : [])];
  const rows = await db.rows<readonly [number, string, number, string | null, number, number, string | null]>(sql`
    with ${join(parts, sql`,`)}
    ${claims ? claimedJobs : sql``}
    select -1, null, ${done ? sql`(select count(*)::int from closed)` : withoutWaiting}, ${claims ? nextDue(want) : sql`null`},
           coalesce((select careful::int from millrace.queues where id = ${want.queue}::int), 0), 0,
           (select name from millrace.queues where id = ${want.queue}::int)`);
  const jobs: ClaimedRow[] = [];
  const marks: LaneMark[] = [];
  let closed = done === undefined;
  let queueName = "";
  let careful = false;
  let nextDueMs = Number.POSITIVE_INFINITY;
  for (const row of rows) {
    if (row[0] > 0) jobs[row[0] - 1] = row as ClaimedRow;
    else if (row[0] === 0) marks.push({ jobId: row[1], rank: row[2], runAt: row[3] as string });
    else {
      closed ||= row[2] === 1;
      if (row[3] !== null) nextDueMs = Number(row[3]);
      careful = row[4] === 1;
      queueName = row[6] ?? "";
    }
  }
  return { closed, queueName, careful, jobs, marks, nextDueMs };
}

/**
 * One (queue, rank) with somebody waiting; `waitMs` until its first job is due, 0 when it is. `careful`: to be claimed by
 * `claimWithCare`.
 */
type LaneRow = readonly [queue: number, rank: number, waitMs: number, careful: boolean];

export interface Outlook {
  readonly lanes: LaneRow[];
  /** Milliseconds until the first suspect is due; null when there is none. */
  readonly suspectWaitMs: number | null;
}

/**
 * Which lanes have work, in one walk over the heads of `pending` (a loose index scan: one probe per lane, not per job). Paused
 * queues are left out.
 */
export async function lookAround(
  db: Database,
  queues: readonly number[] | null,
  tasks: readonly number[] | null,
): Promise<Outlook> {
  const own = queues === null ? null : arrayLiteral(queues);
  const ownTasks = tasks === null ? null : arrayLiteral(tasks);
  const rows = await db.rows<LaneRow>(sql`
    with recursive heads as (
      (select line, rank, run_at from millrace.pending order by line, rank, run_at, job_id limit 1)
      union all
      select next.* from heads cross join lateral (
        select p.line, p.rank, p.run_at from millrace.pending p
        where (p.line, p.rank) > (heads.line, heads.rank)
        order by p.line, p.rank, p.run_at, p.job_id limit 1
      ) next
    ),
    lanes as (select abs(line) as queue, rank, min(run_at) as run_at from heads group by 1, 2)
    select lanes.queue, lanes.rank::int, greatest(extract(epoch from lanes.run_at - now()) * 1000, 0)::float8, q.careful
    from lanes join millrace.queues q on q.id = lanes.queue
    where q.paused_at is null and lanes.run_at < 'infinity' and (${own}::int[] is null or lanes.queue = any (${own}::int[]))
    union all
    (select -1, 0, greatest(extract(epoch from p.run_at - now()) * 1000, 0)::float8, false
     from ( -- sorted in here: joined flat, it would be read by queue while the statistics are those of an emptier table
       select abs(line) as queue, run_at from millrace.pending
       where losses > 0 and (${own}::int[] is null or abs(line) = any (${own}::int[])) and (${ownTasks}::int[] is null or task = any (${ownTasks}::int[]))
       order by run_at
     ) p
     where exists (select from millrace.queues q where q.id = p.queue and q.paused_at is null)
     order by p.run_at limit 1)`);
  const suspect = rows.find(([queue]) => queue === -1);
  return { lanes: rows.filter(([queue]) => queue !== -1), suspectWaitMs: suspect ? suspect[2] : null };
}

/** One suspect: a job that went down with a worker before. */
export interface Suspect {
  readonly queue: number;
  readonly queueName: string;
  readonly losses: number;
  readonly job: ClaimedRow;
}

/**
 * Claims the suspect that waits longest, alone in its lease. Uses the partial index `pending_suspect`. When there are none but in
 * careful queues, where limits have a say, one of these queues is named instead.
 */
export async function claimSuspect(
  db: Database,
  lease: string,
  worker: number,
  queues: readonly number[] | null,
  tasks: readonly number[] | null,
): Promise<Suspect | { readonly carefulQueue: number } | undefined> {
  const ownQueues = queues === null ? null : arrayLiteral(queues);
  const ownTasks = tasks === null ? null : arrayLiteral(tasks);
  const [row] = await db.rows<
    readonly [number, string, number, string | null, number, string, number, number, string | null]
  >(sql`
    with suspect as materialized (
      select p.*, (select name from millrace.queues where id = p.queue) as queue_name
      from ( -- sorted and locked in here, for the same reason as above
        select ctid as place, abs(line) as queue, run_at, job_id, attempt, losses from millrace.pending
        where losses > 0 and run_at <= now()
          and (${ownQueues}::int[] is null or abs(line) = any (${ownQueues}::int[])) and (${ownTasks}::int[] is null or task = any (${ownTasks}::int[]))
        order by run_at for update skip locked
      ) p
      where exists (select from millrace.queues q where q.id = p.queue and q.paused_at is null and not q.careful)
      limit 1
    ),
    taken as (delete from millrace.pending where ctid = any (array(select place from suspect))),
    lease as (
      insert into millrace.leases (id, queue, worker, job_ids, attempts)
      select ${lease}::bigint, queue, ${worker}::int, array[job_id], array[attempt] from suspect
    )
    select s.queue, s.queue_name, s.losses::int, s.job_id::text, j.task, j.input::text, s.attempt::int, j.max_attempts::int,
           ${claimedOptions(sql`s.run_at`)}
    from suspect s left join lateral (
      select task, input, max_attempts, options, created_at from millrace.jobs where id = s.job_id limit 1
    ) j on true
    union all
    (select p.queue, '', 0, null, 0, '', 0, 0, null
     from (select distinct abs(line) as queue from millrace.pending
           where losses > 0 and run_at <= now()
             and (${ownQueues}::int[] is null or abs(line) = any (${ownQueues}::int[])) and (${ownTasks}::int[] is null or task = any (${ownTasks}::int[]))) p
     where not exists (select from suspect)
       and exists (select from millrace.queues q where q.id = p.queue and q.paused_at is null and q.careful)
     order by random() limit 1)`);
  if (row === undefined) return undefined;
  if (row[3] === null) return { carefulQueue: row[0] };
  const [queue, queueName, losses, id, task, input, attempt, maxAttempts, options] = row;
  return { queue, queueName, losses, job: [1, id, task, input, attempt, maxAttempts, options] };
}
