/** What queues with limits on enqueueing let in, and what was not let in. */
import type { Executor } from "../db/database.ts";
import { sql } from "../db/sql.ts";

/** The rules of one queue for the minute that runs, and how much of it is used. */
export interface Gate {
  readonly max_payload_bytes: number | null;
  readonly max_per_minute: number | null;
  readonly priority: number | null;
  /** Jobs let in since the minute began. */
  readonly count: number;
  /** Milliseconds until the next one begins. */
  readonly next_minute_ms: number;
}

/** Reads the rules and holds the minute's counter for this transaction, so that producers count one after another. */
export async function openGate(tx: Executor, queue: number, defaultPerMinute: number | null): Promise<Gate> {
  // Its own statement: what it waits for must be seen by the one that reads.
  await tx.query(sql`
    insert into millrace.enqueue_rate_counters as c (queue, window_start, count)
    select ${queue}::int, date_trunc('minute', now()), 0
    where coalesce((select max_enqueue_per_minute from millrace.queue_policies where queue = ${queue}::int), ${defaultPerMinute}::int) is not null
    on conflict (queue, window_start) do update set count = c.count`);
  const [gate] = await tx.query<Gate>(sql`
    select p.max_payload_bytes, coalesce(p.max_enqueue_per_minute, ${defaultPerMinute}::int) as max_per_minute, p.priority::int,
           coalesce((select count from millrace.enqueue_rate_counters c where c.queue = ${queue}::int and c.window_start = date_trunc('minute', now())), 0) as count,
           ceil(extract(epoch from date_trunc('minute', now()) + interval '1 minute' - now()) * 1000)::float8 as next_minute_ms
    from (select) as one left join millrace.queue_policies p on p.queue = ${queue}::int`);
  return gate as Gate;
}

/** The largest input the queue takes; null: no rule of its own. */
export async function maxPayload(db: Executor, queue: number): Promise<number | null> {
  const [row] = await db.rows<[number | null]>(
    sql`select max_payload_bytes from millrace.queue_policies where queue = ${queue}::int`,
  );
  return row?.[0] ?? null;
}

/** Counts jobs that were let in. Call with the gate held. */
export async function countIn(tx: Executor, queue: number, jobs: number): Promise<void> {
  await tx.query(sql`
    update millrace.enqueue_rate_counters set count = count + ${jobs}::int
    where queue = ${queue}::int and window_start = date_trunc('minute', now())`);
}

export type DenialCode = "PAYLOAD_TOO_LARGE" | "ENQUEUE_RATE_EXCEEDED";

export async function recordDenial(db: Executor, queue: string, code: DenialCode, details: object): Promise<void> {
  await db.query(sql`
    insert into millrace.ingest_decisions (queue, decision, reason_code, details)
    values (${queue}, 'DENIED', ${code}, ${JSON.stringify(details)}::jsonb)`);
}

/** Something that was not let in. Field names of runbook 004. */
export interface IngestDecision {
  readonly id: string;
  readonly queue: string;
  readonly decision: string;
  readonly reason_code: string;
  readonly details_json: unknown;
  readonly created_at: Date;
}

/** The newest first. */
export async function readDenials(db: Executor, queue: string | undefined, limit: number): Promise<IngestDecision[]> {
  return db.query<IngestDecision>(sql`
    select id::text, queue, decision, reason_code, details as details_json, at as created_at
    from millrace.ingest_decisions where ${queue ?? null}::text is null or queue = ${queue ?? null}::text
    order by id desc limit ${limit}::int`);
}
