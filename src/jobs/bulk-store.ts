/**
 * One action on many jobs, a batch at a time. A batch takes the next jobs that match, in the order of an index, changes them and moves
 * the operation's place on, in one transaction under the lock of its row: whoever dies in between, its counts are exact and the next
 * one goes on behind the last batch that was committed.
 */
import type { Database, Executor } from "../db/database.ts";
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

export type BulkStatus = "waiting" | "running" | "completed" | "stopped" | "failed";

export interface BulkOperation extends BulkOrder {
  /** Also the id of the job that carries it out. */
  readonly id: string;
  readonly status: BulkStatus;
  /** How many matched when it was asked for, counted up to 100 000. */
  readonly expected: number;
  /** How many were looked at so far, and changed; the others had moved on meanwhile. */
  readonly lookedAt: number;
  readonly changed: number;
  readonly perSecond: number;
  readonly createdAt: Date;
  readonly createdBy: string | null;
  readonly startedAt: Date | null;
  readonly finishedAt: Date | null;
  readonly stopAskedAt: Date | null;
  readonly error: string | null;
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
/** Settled batches looked at per batch, each of up to a thousand jobs. */
const batchesMax = 20;
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
  /** `select id, place (text[]), fits`: everything behind the place, in order. */
  readonly rows: Sql;
  /** Whether there may be more behind the window; `walked` is what it gave. */
  readonly more: Sql;
}

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
      const rows = sql`
        select p.job_id as id, array[p.line::text, p.rank::text, p.run_at::text, p.job_id::text] as place,
               (${stray}) and (${whenDue(filter.status)}) as fits
        from millrace.pending p where ${inQueue(sql`abs(p.line)`)} and ${beyond}
        order by p.line, p.rank, p.run_at, p.job_id limit ${limit}::int`;
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
      const beyond = after === null ? sql`true` : sql`(s.id, done.job_id) > (${after[0]}::bigint, ${after[1]}::uuid)`;
      const near = after === null ? sql`true` : sql`s.id >= ${after[0]}::bigint`;
      // One batch more than is looked at: the first may have nothing left behind the place.
      const batches = sql`
        select s.id, s.job_ids, s.finished_at from millrace.settled s
        where ${inQueue(sql`s.queue`)} and ${near} and s.n > 0 order by s.id limit ${whole ? null : batchesMax + 1}::int`;
      const rows = sql`
        select done.job_id as id, array[s.id::text, done.job_id::text] as place, s.finished_at <= ${before} as fits
        from (${batches}) s cross join unnest(s.job_ids) as done (job_id)
        where ${beyond} order by s.id, done.job_id`;
      return { rows, more: sql`(select count(*) from (${batches}) s) > ${batchesMax}::int` };
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
      const rows = sql`
        select w.id, array[w.id::text] as place, true as fits from millrace.jobs w where ${beyond} order by w.id limit ${limit}::int`;
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
    cross join lateral (select * from millrace.jobs where id = walked.id limit 1) j
    where ${join(conditions, sql` and `)} order by walked.n limit ${limit}::int`;
}

/** The time that `olderThanMs` and "no job that came later" mean. */
const beforeOf = ({ filter }: BulkOrder, asOf: string | null): Sql =>
  sql`(coalesce(${asOf}::timestamptz, now()) - ${filter.olderThanMs ?? 0}::float8 * interval '1 millisecond')`;

const numbered = (rows: Sql): Sql => sql`select w.*, row_number() over () as n from (${rows}) w`;

/** How many jobs match now; `countMax + 1` stands for more than `countMax`. */
export async function countMatching(db: Executor, order: BulkOrder): Promise<number> {
  const before = beforeOf(order, null);
  const { rows } = windowOf(order, before, null, true);
  const [row] = await db.query<{ n: number }>(sql`
    with walked as (${numbered(rows)})
    select count(*)::int as n from (${matching(order, before, null, countMax + 1)}) m`);
  return row?.n ?? 0;
}

export interface Batch {
  readonly ids: string[];
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
  const { rows: window, more } = windowOf(order, before, order.place, false);
  const rows = await tx.query<{ id: string | null; place: string[] | null; n: number; more: boolean }>(sql`
    with walked as materialized (${numbered(window)}),
    matching as materialized (${matching(order, before, order.id, limit)})
    select id::text, place, n::int, true as more from matching
    union all
    select null, (select place from walked order by n desc limit 1), 0, ${more}`);
  const found = rows.filter((row) => row.id !== null).sort((a, b) => a.n - b.n);
  const end = rows.find((row) => row.id === null);
  const ids = found.map(({ id }) => id as string);
  if (ids.length === limit) return { ids, place: found.at(-1)?.place ?? null };
  return { ids, place: end?.more ? end.place : null };
}

/** Writes an operation down, under the id of its job. */
export async function insertBulk(
  tx: Executor,
  { id, action, filter, options, expected, perSecond, by }: BulkInsert,
): Promise<void> {
  const details = JSON.stringify({ action, filter, options, expected });
  await tx.query(sql`
    with made as (
      insert into millrace.bulk_operations (id, action, filter, options, expected, per_second, created_by)
      values (${id}::uuid, ${action}, ${JSON.stringify(filter)}::jsonb, ${JSON.stringify(options)}::jsonb, ${expected}::bigint, ${perSecond}::int, ${by}::text)
    )
    insert into millrace.audit (by, action, subject, details)
    values (${by}::text, 'bulk.start', 'bulk:' || ${id}::text, ${details}::jsonb)`);
}

export interface BulkInsert extends BulkOrder {
  readonly id: string;
  readonly expected: number;
  readonly perSecond: number;
  readonly by: string | null;
}

export interface LockedBulk extends BulkOrder {
  readonly id: string;
  readonly status: BulkStatus;
  readonly asOf: string;
  readonly place: readonly string[] | null;
  readonly perSecond: number;
  readonly by: string | null;
  readonly stopAsked: boolean;
}

/** Holds the operation for the rest of the transaction: two workers that both believe it is theirs take turns. */
export async function lockBulk(tx: Executor, id: string): Promise<LockedBulk | undefined> {
  const [row] = await tx.query<LockedBulk>(sql`
    select id::text, action, filter, options, status, created_at::text as "asOf", place, per_second as "perSecond", created_by as by,
           stop_asked_at is not null as "stopAsked"
    from millrace.bulk_operations where id = ${id}::uuid for update`);
  return row;
}

export async function advanceBulk(
  tx: Executor,
  id: string,
  step: { lookedAt: number; changed: number; place: readonly string[] | null },
): Promise<void> {
  const over = step.place === null;
  await tx.query(sql`
    update millrace.bulk_operations set
      looked_at = looked_at + ${step.lookedAt}::int, changed = changed + ${step.changed}::int,
      place = ${over ? null : JSON.stringify(step.place)}::jsonb, started_at = coalesce(started_at, now()),
      status = case when ${over}::boolean then 'completed' else 'running' end,
      finished_at = case when ${over}::boolean then clock_timestamp() end
    where id = ${id}::uuid`);
}

/** It was asked to stop, and does. */
export async function endStopped(tx: Executor, id: string): Promise<void> {
  await tx.query(
    sql`update millrace.bulk_operations set status = 'stopped', finished_at = clock_timestamp() where id = ${id}::uuid`,
  );
}

/** Asks an operation to stop behind the batch it is at; one that was not begun is stopped at once. False: it had ended. */
export async function stopBulk(db: Executor, id: string, by: string | null): Promise<boolean> {
  const [row] = await db.query<{ changed: number }>(sql`
    with asked as (
      update millrace.bulk_operations set
        stop_asked_at = now(),
        status = case when status = 'waiting' then 'stopped' else status end,
        finished_at = case when status = 'waiting' then now() end
      where id = ${id}::uuid and status in ('waiting', 'running') and stop_asked_at is null returning id
    ),
    noted as (insert into millrace.audit (by, action, subject) select ${by}::text, 'bulk.stop', 'bulk:' || id from asked)
    select count(*)::int as changed from asked`);
  return row?.changed === 1;
}

/** Operations, the newest first, or one. One whose job has come to an end without it has failed, or was stopped by a cancel. */
export async function findBulks(
  db: Database,
  { id, limit, after }: { id?: string | undefined; limit: number; after?: string | undefined },
): Promise<BulkOperation[]> {
  return db.query<BulkOperation>(sql`
    select b.id::text, b.action, b.filter, b.options,
           case when b.finished_at is not null or (j.id is not null and d.job_id is null and gone.id is null) then b.status
                when gone.id is not null then 'stopped' else 'failed' end as status,
           b.expected::float8, b.looked_at::float8 as "lookedAt", b.changed::float8, b.per_second as "perSecond",
           b.created_at as "createdAt", b.created_by as "createdBy", b.started_at as "startedAt",
           coalesce(b.finished_at, d.failed_at, gone.finished_at) as "finishedAt", b.stop_asked_at as "stopAskedAt",
           case when b.finished_at is not null then b.error
                when d.job_id is not null then (
                  select coalesce(a.error_code || ': ', '') || a.error_message from millrace.attempts a where a.job_id = b.id and not a.late order by a.id desc limit 1)
                when j.id is null then 'Its job was removed.' end as error
    from millrace.bulk_operations b
    left join millrace.jobs j on j.id = b.id
    left join millrace.dead_letters d on d.job_id = b.id
    left join lateral (
      select a.id, a.finished_at from millrace.attempts a where a.job_id = b.id and a.outcome = 'cancelled' and not a.late limit 1
    ) gone on true
    where (${id ?? null}::uuid is null or b.id = ${id ?? null}::uuid) and (${after ?? null}::uuid is null or b.id < ${after ?? null}::uuid)
    order by b.id desc limit ${limit}::int`);
}
