/**
 * How often what happened in each queue, since the beginning: numbers that only grow. They are folded from history behind the mark of the
 * tallies (`foldTallies`), and what is deleted before it was counted is counted by the statement that deletes it. So each job is
 * counted once, whoever dies when, and no claim or settle does anything for it.
 */
import type { Executor } from "../db/database.ts";
import { type Sql, arrayLiteral, join, sql } from "../db/sql.ts";

/** Upper ends of the buckets of durations, in ms; the last bucket has none. */
export const durationBucketsMs = [
  100, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 120_000, 300_000, 600_000, 1_800_000,
] as const;

/** The bucket of a duration: `width_bucket` counts the ends that are not above it, and a bucket has its end inside. */
const bucketOf = (took: Sql): Sql =>
  sql`width_bucket(${took}, ${arrayLiteral(durationBucketsMs.map((ms) => ms + 1))}::int[])`;

/*
 * What one row of history stands for: rows `(queue, at, kind, label, n)`.
 *
 *   enqueued ''          a job was let in
 *   attempt  <outcome>   a run ended
 *   retry    ''          an attempt went wrong and there will be another
 *   dead     <reason>    a job was given up
 *   cancelled ''         a job was cancelled
 *   late     ''          a result came after its lease was gone
 *   denied   <code>      jobs were not let in
 *   policy   <code>      storm control let nothing start
 */
const ofJobs = (rows: Sql): Sql =>
  sql`select j.queue, j.created_at as at, 'enqueued' as kind, '' as label, 1::bigint as n from ${rows} j`;

const ofSettled = (rows: Sql): Sql =>
  sql`select s.queue, s.finished_at as at, 'attempt', 'succeeded', s.n::bigint from ${rows} s`;

const ofAttempts = (rows: Sql): Sql => sql`
  select a.queue, a.finished_at as at, e.kind, e.label, 1::bigint from ${rows} a cross join lateral (values
    ('attempt', a.outcome, a.lease is not null and not a.late),
    ('retry', '', a.retry_at is not null and a.outcome in ('failed', 'timed_out', 'lost') and not a.late),
    ('dead', a.dead_reason, a.dead_reason is not null),
    ('cancelled', '', a.outcome = 'cancelled' and not a.late),
    ('late', '', a.late)
  ) as e (kind, label, applies) where e.applies`;

const ofDecisions = (rows: Sql): Sql => sql`select d.queue, d.at, 'policy', d.reason_code, 1::bigint from ${rows} d`;

/** A record stands for as many jobs as it says, and for those before it that were too many to be recorded. */
const ofDenials = (rows: Sql): Sql => sql`
  select coalesce((select q.id from millrace.queues q where q.name = d.queue), 0), d.at, 'denied', d.reason_code,
         coalesce((d.details ->> 'jobs')::bigint, 1) + coalesce((d.details ->> 'unrecorded_before')::bigint, 0)
  from ${rows} d`;

/** Adds `happened (queue, kind, label, n)`; in order, so that two that do so at once take turns. */
const addTotals = (happened: Sql): Sql => sql`
  insert into millrace.totals as t (queue, kind, label, n)
  select queue, kind, label, sum(n) from (${happened}) happened group by queue, kind, label order by queue, kind, label
  on conflict (queue, kind, label) do update set n = t.n + excluded.n`;

/** Adds `took (queue, bucket, n, took_ms)`, one row per queue and bucket at most. */
const addDurations = (took: Sql): Sql => sql`
  insert into millrace.durations as d (queue, took_ms, buckets)
  select q.queue, sum(coalesce(t.took_ms, 0)), array_agg(coalesce(t.n, 0) order by place)
  from (select distinct queue from (${took}) t) q cross join generate_series(0, ${durationBucketsMs.length}::int) as place
  left join (${took}) t on t.queue = q.queue and t.bucket = place
  group by q.queue order by q.queue
  on conflict (queue) do update set took_ms = d.took_ms + excluded.took_ms, buckets = array(
    select before + more from unnest(d.buckets, excluded.buckets) with ordinality as pair (before, more, place) order by place)`;

/** Folds the history since the mark that is older than `until`, a time as text. Call with the mark locked. */
export async function foldTotals(tx: Executor, until: string): Promise<void> {
  const slice = sql`slice as materialized (select counted_until as since, ${until}::timestamptz as until from millrace.tally_mark)`;
  // Per queue, along its own index: sorted in there, or it might be joined by reading all of another.
  const perQueue = (rows: Sql): Sql =>
    sql`(select h.* from slice cross join millrace.queues q cross join lateral (${rows}) h)`;
  await tx.query(sql`
    with ${slice},
    took as materialized (
      select s.queue, ${bucketOf(sql`t.ms`)} as bucket, count(*) as n, sum(t.ms) as took_ms
      from slice cross join millrace.queues q cross join lateral (
        select h.queue, h.took_ms from millrace.settled h
        where h.queue = q.id and h.finished_at >= slice.since and h.finished_at < slice.until order by h.finished_at
      ) s cross join lateral unnest(s.took_ms) as t (ms) group by 1, 2
    ),
    tallied as (
      insert into millrace.tallies as t (queue, completed) select queue, sum(n) from took group by queue order by queue
      on conflict (queue) do update set completed = t.completed + excluded.completed
    ),
    counted as (${addTotals(sql`select queue, 'attempt' as kind, 'succeeded' as label, n from took`)})
    ${addDurations(sql`select * from took`)}`);
  await tx.query(sql`
    with ${slice}
    ${addTotals(
      join(
        [
          ofJobs(
            sql`(select j.queue, j.created_at from slice join millrace.jobs j on j.created_at >= slice.since and j.created_at < slice.until)`,
          ),
          ofAttempts(
            perQueue(sql`
              select a.* from millrace.attempts a
              where a.queue = q.id and a.finished_at >= slice.since and a.finished_at < slice.until order by a.finished_at`),
          ),
          ofDecisions(
            sql`(select d.* from slice join millrace.policy_decisions d on d.at >= slice.since and d.at < slice.until)`,
          ),
          ofDenials(
            sql`(select d.* from slice join millrace.ingest_decisions d on d.at >= slice.since and d.at < slice.until)`,
          ),
        ],
        sql` union all `,
      ),
    )}`);
}

/** Whether anything happened since the mark `m` of the tallies. */
export const uncounted: Sql = sql`(
  exists (select from millrace.settled s where s.archived = any ('{f,t}'::boolean[]) and s.finished_at >= m.counted_until)
  or exists (select from millrace.queues q join millrace.attempts a on a.queue = q.id and a.finished_at >= m.counted_until)
  or exists (select from millrace.ingest_decisions d where d.at >= m.counted_until)
  or exists (select from millrace.policy_decisions d where d.at >= m.counted_until)
  or exists (select from millrace.jobs j where j.created_at >= m.counted_until)
)`;

export async function anyUncounted(db: Executor): Promise<boolean> {
  const [row] = await db.query<{ any: boolean }>(sql`select ${uncounted} as any from millrace.tally_mark m`);
  return row?.any ?? false;
}

/** What a statement deletes of history, each as a query. */
interface Leaving {
  /** `queue, finished_at, n, took_ms` */
  readonly settled?: Sql;
  /** `queue, finished_at, outcome, lease, late, retry_at, dead_reason` */
  readonly attempts?: Sql;
  /** `queue, created_at` */
  readonly jobs?: Sql;
  /** `queue, at, reason_code` */
  readonly decisions?: Sql;
  /** `queue, at, reason_code, details` */
  readonly denials?: Sql;
}

/**
 * CTEs for statements that delete history: what was not counted yet is counted now, and successes that were leave the tally of
 * those that are kept. The lock keeps counts from being folded meanwhile.
 */
export const leaving = ({ settled, attempts, jobs, decisions, denials }: Leaving): Sql => {
  const happened = [
    jobs && ofJobs(sql`(${jobs})`),
    settled && ofSettled(sql`(${settled})`),
    attempts && ofAttempts(sql`(${attempts})`),
    decisions && ofDecisions(sql`(${decisions})`),
    denials && ofDenials(sql`(${denials})`),
  ].filter((one) => one !== undefined);
  // The names of its columns are those of the first; only `ofJobs` has them all.
  const all = sql`select * from (${join(happened, sql` union all `)}) as all_of_it (queue, at, kind, label, n)`;
  return sql`
  mark as materialized (select counted_until from millrace.tally_mark for share),
  counted_early as (${addTotals(sql`select one.* from (${all}) one, mark where one.at >= mark.counted_until`)})
  ${settled === undefined ? sql`` : sql`, ${leavingSettled(settled)}`}`;
};

const leavingSettled = (settled: Sql): Sql => sql`
  recounted as (
    -- not an update: it would not see a tally that was folded for the first time while this waited for the lock
    insert into millrace.tallies as t (queue, completed)
    select d.queue, -sum(d.n) from (${settled}) d, mark where d.finished_at < mark.counted_until group by d.queue order by d.queue
    on conflict (queue) do update set completed = t.completed + excluded.completed
  ),
  took_early as materialized (
    select d.queue, ${bucketOf(sql`t.ms`)} as bucket, count(*) as n, sum(t.ms) as took_ms
    from (${settled}) d, mark, unnest(d.took_ms) as t (ms) where d.finished_at >= mark.counted_until group by 1, 2
  ),
  timed_early as (${addDurations(sql`select * from took_early`)})`;
