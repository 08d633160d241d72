/** The settings of queues: limits, storm control, admission, retention. Every change is written down with who made it. */
import { actorColumns, actorNow } from "../audit/actor-store.ts";
import type { Database } from "../db/database.ts";
import { sql } from "../db/sql.ts";

/** As stored. Null: not limited. Times in ms. */
export interface StoredPolicy {
  readonly concurrency: number | null;
  readonly key_concurrency: number | null;
  readonly rate_max: number | null;
  readonly rate_per_ms: number | null;
  readonly key_rate_max: number | null;
  readonly key_rate_per_ms: number | null;
  readonly max_in_flight: number | null;
  readonly max_attempts_per_minute: number | null;
  readonly throttle_delay_ms: number;
  readonly max_payload_bytes: number | null;
  readonly max_enqueue_per_minute: number | null;
  readonly priority: number | null;
  readonly keep_completed_ms: number | null;
  readonly keep_failed_ms: number | null;
}

export interface PolicyRow extends StoredPolicy {
  readonly queue: string;
  readonly updated_at: Date;
  readonly updated_by: string | null;
}

/** All of them, by name of their queue, or that of one. */
export async function readPolicies(db: Database, queue?: number): Promise<PolicyRow[]> {
  return db.query<PolicyRow>(sql`
    select q.name as queue, p.concurrency, p.key_concurrency, p.rate_max, p.rate_per_ms::float8, p.key_rate_max, p.key_rate_per_ms::float8,
           p.max_in_flight, p.max_attempts_per_minute, p.throttle_delay_ms, p.max_payload_bytes, p.max_enqueue_per_minute,
           p.priority::int, p.keep_completed_ms::float8, p.keep_failed_ms::float8, p.updated_at, p.updated_by
    from millrace.queue_policies p join millrace.queues q on q.id = p.queue
    where ${queue ?? null}::int is null or p.queue = ${queue ?? null}::int order by q.name`);
}

/** Replaces what is named in `changes`; the rest stays. Idle workers hear of it; busy ones see it with their next claim. */
export async function writePolicy(
  db: Database,
  channel: string,
  queue: number,
  changes: Partial<StoredPolicy>,
  by: string | null,
): Promise<void> {
  const given = JSON.stringify(changes);
  await db.query(sql`
    with asked as (select ${given}::jsonb as changes),
    before as (select to_jsonb(p) as policy from millrace.queue_policies p where p.queue = ${queue}::int),
    -- what stood there, with the changes laid over it
    wanted as (
      select (jsonb_populate_record(null::millrace.queue_policies,
                jsonb_build_object('throttle_delay_ms', 500) || coalesce((select policy from before), '{}') || asked.changes
                || jsonb_build_object('queue', ${queue}::int, 'updated_at', now(), 'updated_by', ${by}::text))).*
      from asked
    ),
    written as (
      insert into millrace.queue_policies as p select * from wanted
      on conflict (queue) do update set
        (concurrency, key_concurrency, rate_max, rate_per_ms, key_rate_max, key_rate_per_ms, max_in_flight, max_attempts_per_minute, throttle_delay_ms,
         max_payload_bytes, max_enqueue_per_minute, priority, keep_completed_ms, keep_failed_ms, updated_at, updated_by)
        = (excluded.concurrency, excluded.key_concurrency, excluded.rate_max, excluded.rate_per_ms, excluded.key_rate_max, excluded.key_rate_per_ms,
           excluded.max_in_flight, excluded.max_attempts_per_minute, excluded.throttle_delay_ms, excluded.max_payload_bytes,
           excluded.max_enqueue_per_minute, excluded.priority, excluded.keep_completed_ms, excluded.keep_failed_ms, excluded.updated_at, excluded.updated_by)
      returning *
    ),
    marked as (
      update millrace.queues q set
        careful = q.keyed or coalesce(w.concurrency, w.rate_max, w.max_in_flight, w.max_attempts_per_minute) is not null,
        guarded = coalesce(w.max_payload_bytes, w.max_enqueue_per_minute, w.priority) is not null,
        throttled_until = null
      from written w where q.id = w.queue returning q.name
    ),
    noted as (insert into millrace.audit (by, action, subject, details, ${actorColumns}) select ${by}::text, 'policy.set', 'queue:' || name, asked.changes, ${actorNow()} from marked, asked)
    select pg_notify(${channel}, 'look') from marked`);
}

/** False when there was none. */
export async function deletePolicy(db: Database, channel: string, queue: number, by: string | null): Promise<boolean> {
  const [row] = await db.query<{ deleted: number }>(sql`
    with deleted as (delete from millrace.queue_policies where queue = ${queue}::int returning *),
    marked as (
      update millrace.queues q set careful = q.keyed, guarded = false, throttled_until = null from deleted d where q.id = d.queue returning q.name
    ),
    noted as (
      insert into millrace.audit (by, action, subject, details, ${actorColumns}) select ${by}::text, 'policy.removed', 'queue:' || name, to_jsonb(deleted), ${actorNow()} from marked, deleted
    ),
    told as (select pg_notify(${channel}, 'look') from marked)
    select count(*)::int as deleted from told`);
  return row?.deleted === 1;
}

/** What storm control decided last, the newest first. */
export interface PolicyDecision {
  readonly id: string;
  readonly queue: string;
  readonly job_id: string;
  readonly at: Date;
  readonly decision: string;
  readonly reason_code: string;
  readonly details: unknown;
}

export async function readPolicyDecisions(db: Database, queue: number, limit: number): Promise<PolicyDecision[]> {
  return db.query<PolicyDecision>(sql`
    select d.id::text, q.name as queue, d.job_id::text, d.at, d.decision, d.reason_code, d.details
    from millrace.policy_decisions d join millrace.queues q on q.id = d.queue
    where d.queue = ${queue}::int order by d.id desc limit ${limit}::int`);
}
