/**
 * Which jobs a bulk operation is about, and the next few of them: walked in the order of an index, a bounded number of rows at a time,
 * from a place that is kept between batches.
 */
import type { Executor } from "../db/database.ts";
import { type Sql, arrayLiteral, join, sql } from "../db/sql.ts";
import type { JobStatus } from "./read-store.ts";
import { dueTime, lineOf } from "./settle-store.ts";

export const bulkActions = ["retry", "cancel", "replay", "remove", "reprioritise", "move"] as const;
export type BulkAction = (typeof bulkActions)[number];

/** Which jobs: all conditions hold. Checked and stored as it is. */
export interface StoredFilter {
  readonly status?: JobStatus | undefined;
  readonly queue?: string | undefined;
  readonly task?: string | undefined;
  readonly tag?: string | undefined;
  readonly errorCode?: string | undefined;
  /** Why it was given up. */
  readonly reason?: string | undefined;
  /** Ended longer ago than this or, of jobs that have not, enqueued. */
  readonly olderThanMs?: number | undefined;
  readonly ids?: readonly string[] | undefined;
}

export interface StoredOptions {
  readonly priority?: number | undefined;
  /** Where `move` and `replay` put them. */
  readonly queue?: string | undefined;
  readonly queueId?: number | undefined;
  readonly runAt?: string | undefined;
  readonly delayMs?: number | undefined;
  readonly reason?: string | undefined;
  /** More matched than were counted. */
  readonly moreThanExpected?: boolean | undefined;
}

/** What a walk needs to know. */
export interface BulkOrder {
  readonly action: BulkAction;
  readonly filter: StoredFilter;
  readonly options: StoredOptions;
}

/** What is walked, in which order. */
type Walk = "pending" | "active" | "failed" | "completed" | "cancelled" | "jobs" | "ids";

function walkOf({ action, filter }: BulkOrder): Walk {
  if (filter.ids !== undefined) return "ids";
  switch (filter.status) {
    case "waiting":
    case "delayed":
    case "blocked":
      return "pending";
    case undefined:
      return action === "replay" || action === "remove" ? "jobs" : "pending";
    case "active":
    case "failed":
    case "completed":
    case "cancelled":
      return filter.status;
  }
}

/** Rows of an index looked at per batch, whether they match or not. */
const walkMax = 5_000;
/** Settled batches looked at per batch, each of up to a thousand jobs, whether their jobs match or not. */
const batchesMax = 200;
const lastId = "ffffffff-ffff-ffff-ffff-ffffffffffff";
/** Up to here matching jobs are counted. */
export const countMax = 100_000;

const queueId = (name: string): Sql => sql`(select id from millrace.queues where name = ${name}::text)`;

const whenDue = (status: JobStatus | undefined): Sql =>
  status === "waiting"
    ? sql`p.run_at <= now()`
    : status === "delayed"
      ? sql`p.run_at > now() and p.run_at < 'infinity'`
      : status === "blocked"
        ? sql`p.run_at = 'infinity'`
        : sql`true`;

interface Window {
  /** A part of the statement that comes before. */
  readonly batches?: Sql;
  /** `select id, place (text[]), fits`: everything behind the place, in order. */
  readonly rows: Sql;
  /** Whether there may be more behind the window; `walked` is what it gave. */
  readonly more: Sql;
  /** Where the window ends. Default: at the last of `walked`. */
  readonly end?: Sql;
}

const lastPlace: Sql = sql`(select place from walked order by n desc limit 1)`;

/** `before`: the time that must have come before. `after`: where the batch before ended. */
function windowOf(order: BulkOrder, before: Sql, after: readonly string[] | null, whole: boolean): Window {
  const { filter, action, options } = order;
  const inQueue = (column: Sql): Sql =>
    filter.queue === undefined ? sql`true` : sql`${column} = ${queueId(filter.queue)}`;
  const limit = whole ? null : walkMax;
  const more = sql`(select count(*) from walked) = ${walkMax}::int`;
  switch (walkOf(order)) {
    case "pending": {
      const beyond =
        after === null
          ? sql`true`
          : sql`(p.line, p.rank, p.run_at, p.job_id) > (${after[0]}::int, ${after[1]}::smallint, ${after[2]}::timestamptz, ${after[3]}::uuid)`;
      // What is where it should be already was put there by the batches before, or needs no change.
      const stray =
        action === "reprioritise"
          ? sql`p.rank <> -(${options.priority}::int)`
          : action === "move"
            ? sql`abs(p.line) <> ${options.queueId}::int`
            : sql`true`;
      const inLine = (line: Sql): Sql => sql`
        select p.line, p.rank, p.run_at, p.job_id from millrace.pending p where ${line} and ${beyond}
        order by p.line, p.rank, p.run_at, p.job_id limit ${limit}::int`;
      // Each line of a queue by its number: or the lines of others would be walked through.
      const lines =
        filter.queue === undefined
          ? inLine(sql`true`)
          : sql`(${inLine(sql`p.line = -${queueId(filter.queue)}`)}) union all (${inLine(sql`p.line = ${queueId(filter.queue)}`)})`;
      const rows = sql`
        select p.job_id as id, array[p.line::text, p.rank::text, p.run_at::text, p.job_id::text] as place,
               (${stray}) and (${whenDue(filter.status)}) as fits
        from (${lines}) p order by p.line, p.rank, p.run_at, p.job_id limit ${limit}::int`;
      return { rows, more };
    }
    case "active": {
      const beyond = after === null ? sql`true` : sql`held.job_id > ${after[0]}::uuid`;
      const rows = sql`
        select held.job_id as id, array[held.job_id::text] as place, true as fits
        from millrace.leases l cross join unnest(l.job_ids) as held (job_id)
        where held.job_id <> all (l.done) and ${inQueue(sql`l.queue`)} and ${beyond} order by held.job_id limit ${limit}::int`;
      return { rows, more };
    }
    case "failed": {
      const beyond = after === null ? sql`true` : sql`d.job_id > ${after[0]}::uuid`;
      const rows = sql`
        select d.job_id as id, array[d.job_id::text] as place, d.failed_at <= ${before} and ${inQueue(sql`d.queue`)} and ${why(filter)} as fits
        from millrace.dead_letters d where ${beyond} order by d.job_id limit ${limit}::int`;
      return { rows, more };
    }
    case "completed": {
      const near = after === null ? sql`true` : sql`s.id >= ${after[0]}::bigint`;
      const beyond = after === null ? sql`true` : sql`(s.id, done.job_id) > (${after[0]}::bigint, ${after[1]}::uuid)`;
      const batches = sql`
        batches as materialized (
          select s.id, case when s.finished_at <= ${before} and ${inQueue(sql`s.queue`)} then s.job_ids else '{}' end as job_ids
          from millrace.settled s where ${near} order by s.id limit ${whole ? null : batchesMax}::int
        ),`;
      // In the order of the batches, and of ids within each: it is kept, so that few are read.
      const rows = sql`
        select done.job_id as id, array[s.id::text, done.job_id::text] as place, true as fits
        from (select * from batches order by id) s
        cross join lateral (select job_id from unnest(s.job_ids) as one (job_id) order by job_id) done
        where ${beyond} limit ${limit}::int`;
      return {
        batches,
        rows,
        more: sql`(${more} or (select count(*) from batches) = ${batchesMax}::int)`,
        end: sql`case when ${more} then ${lastPlace} else (select array[max(id)::text, ${lastId}] from batches) end`,
      };
    }
    case "cancelled": {
      const beyond = after === null ? sql`true` : sql`a.id > ${after[0]}::bigint`;
      const rows = sql`
        select a.job_id as id, array[a.id::text] as place, a.outcome = 'cancelled' and not a.late and a.finished_at <= ${before} as fits
        from millrace.attempts a where ${beyond} order by a.id limit ${limit}::int`;
      return { rows, more };
    }
    case "ids": {
      const beyond = after === null ? sql`true` : sql`given.id > ${after[0]}::uuid`;
      const rows = sql`
        select distinct given.id, array[given.id::text] as place, true as fits
        from unnest(${arrayLiteral(filter.ids ?? [])}::uuid[]) as given (id) where ${beyond} order by given.id limit ${limit}::int`;
      return { rows, more };
    }
    case "jobs": {
      const beyond = after === null ? sql`true` : sql`w.id > ${after[0]}::uuid`;
      // One may be put away between two batches: the order is that of both tables together.
      const rows = sql`
        select w.id, array[w.id::text] as place, true as fits from (
          (select w.id from millrace.jobs w where ${beyond} order by w.id limit ${limit}::int)
          union all
          (select w.id from millrace.jobs_archive w where ${beyond} order by w.id limit ${limit}::int)
        ) w order by w.id limit ${limit}::int`;
      return { rows, more };
    }
  }
}

/** Of dead letter `d`. */
const why = ({ reason, errorCode }: StoredFilter): Sql =>
  join(
    [
      sql`true`,
      ...(reason === undefined ? [] : [sql`d.reason = ${reason}::text`]),
      ...(errorCode === undefined ? [] : [sql`d.error_code = ${errorCode}::text`]),
    ],
    sql` and `,
  );

/** Of job `j`, named by its id: is it in that status? */
function isIn(status: JobStatus, filter: StoredFilter): Sql {
  switch (status) {
    case "active":
      return sql`exists (select from millrace.leases l where j.id = any (l.job_ids) and j.id <> all (l.done))`;
    case "failed":
      return sql`exists (select from millrace.dead_letters d where d.job_id = j.id and ${why(filter)})`;
    case "completed":
      return sql`exists (select from millrace.settled s where s.ids @> j.id and j.id = any (s.job_ids))`;
    case "cancelled":
      return sql`exists (select from millrace.attempts a where a.job_id = j.id and a.outcome = 'cancelled' and not a.late)`;
    case "waiting":
    case "delayed":
    case "blocked":
      return sql`exists (
        select from millrace.pending p
        where p.line = ${lineOf(sql`j`)} and p.rank = -j.priority and p.run_at = ${dueTime} and p.job_id = j.id and ${whenDue(status)})`;
  }
}

/** Successes that were put away are found by what can be done to them; nothing else is in the archive. */
const archivedToo = ({ action }: BulkOrder): boolean => action === "replay" || action === "remove";

const job = (table: "jobs" | "jobs_archive"): Sql => sql`
  select id, queue, task, priority, run_at, created_at, key, tags
  from ${table === "jobs" ? sql`millrace.jobs` : sql`millrace.jobs_archive`} where id = walked.id limit 1`;

/** `matching (id, place, n)` of `walked`. */
function matching(order: BulkOrder, before: Sql, self: string | null, limit: number): Sql {
  const { filter } = order;
  const walk = walkOf(order);
  const ended = walk === "failed" || walk === "completed" || walk === "cancelled";
  const conditions = [
    sql`walked.fits`,
    sql`j.id is distinct from ${self}::uuid`,
    ...(ended ? [] : [sql`j.created_at <= ${before}`]),
    ...(filter.queue === undefined ? [] : [sql`j.queue = ${queueId(filter.queue)}`]),
    ...(filter.task === undefined
      ? []
      : [sql`j.task = (select id from millrace.tasks where name = ${filter.task}::text)`]),
    ...(filter.tag === undefined ? [] : [sql`j.tags @> array[${filter.tag}::text]`]),
    ...(walk === "ids" && filter.status !== undefined ? [isIn(filter.status, filter)] : []),
  ];
  return sql`
    select walked.id, walked.place, walked.n from walked
    cross join lateral (${archivedToo(order) ? sql`(${job("jobs")}) union all (${job("jobs_archive")}) limit 1` : job("jobs")}) j
    where ${join(conditions, sql` and `)} order by walked.n limit ${limit}::int`;
}

/** The time that `olderThanMs` and "no job that came later" mean. */
const beforeOf = ({ filter }: BulkOrder, asOf: string | null): Sql =>
  sql`(coalesce(${asOf}::timestamptz, now()) - ${filter.olderThanMs ?? 0}::float8 * interval '1 millisecond')`;

const numbered = (rows: Sql): Sql => sql`select w.*, row_number() over () as n from (${rows}) w`;

/** How many jobs match now; `countMax + 1` stands for more than `countMax`. */
export async function countMatching(db: Executor, order: BulkOrder): Promise<number> {
  const before = beforeOf(order, null);
  const { rows, batches = sql`` } = windowOf(order, before, null, true);
  const [row] = await db.query<{ n: number }>(sql`
    with ${batches} walked as (${numbered(rows)})
    select count(*)::int as n from (${matching(order, before, null, countMax + 1)}) m`);
  return row?.n ?? 0;
}

export interface Batch {
  readonly ids: string[];
  /** Of each of them: where a batch that ended with it would have ended. */
  readonly places: (readonly string[])[];
  /** Where the next one begins; null: this was the last. */
  readonly place: readonly string[] | null;
}

/** The next jobs that match. None and a place: go on. */
export async function nextBatch(
  tx: Executor,
  order: BulkOrder & { id: string; asOf: string; place: readonly string[] | null },
  limit: number,
): Promise<Batch> {
  const before = beforeOf(order, order.asOf);
  const { rows: window, more, batches = sql``, end: place = lastPlace } = windowOf(order, before, order.place, false);
  const rows = await tx.query<{ id: string | null; place: string[] | null; n: number; more: boolean }>(sql`
    with ${batches} walked as materialized (${numbered(window)}),
    matching as materialized (${matching(order, before, order.id, limit)})
    select id::text, place, n::int, true as more from matching
    union all
    select null, ${place}, 0, ${more}`);
  const found = rows.filter((row) => row.id !== null).sort((a, b) => a.n - b.n);
  const end = rows.find((row) => row.id === null);
  const ids = found.map(({ id }) => id as string);
  const places = found.map((row) => row.place as string[]);
  if (ids.length === limit) return { ids, places, place: places.at(-1) ?? null };
  return { ids, places, place: end?.more ? end.place : null };
}
