/**
 * Bulk operations as they are stored. A batch changes its jobs and moves the operation's place on in one transaction, under the lock
 * of its row: whoever dies in between, the counts are exact and the next one goes on behind the last batch that was committed.
 */
import { actorColumns, actorNow } from "../audit/actor-store.ts";
import type { Database, Executor } from "../db/database.ts";
import { sql } from "../db/sql.ts";
import type { BulkOrder } from "./bulk-walk-store.ts";

export const bulkStatuses = ["waiting", "running", "completed", "stopped", "failed"] as const;
export type BulkStatus = (typeof bulkStatuses)[number];

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
  /** Who asked it to stop, or cancelled its job. */
  readonly stoppedBy: string | null;
  readonly error: string | null;
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
    insert into millrace.audit (by, action, subject, details, ${actorColumns})
    values (${by}::text, 'bulk.start', 'bulk:' || ${id}::text, ${details}::jsonb, ${actorNow()})`);
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
        stop_asked_at = now(), stop_asked_by = ${by}::text,
        status = case when status = 'waiting' then 'stopped' else status end,
        finished_at = case when status = 'waiting' then now() end
      where id = ${id}::uuid and status in ('waiting', 'running') and stop_asked_at is null returning id
    ),
    noted as (insert into millrace.audit (by, action, subject, ${actorColumns}) select ${by}::text, 'bulk.stop', 'bulk:' || id, ${actorNow()} from asked)
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
           case when b.stop_asked_at is not null then b.stop_asked_by when gone.id is not null then (
             select o.by from millrace.operations o where o.job_id = b.id and o.action = 'cancel' order by o.id desc limit 1) end as "stoppedBy",
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
