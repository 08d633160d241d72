/** What could run now, and when something next can. */
import type { Database } from "../db/database.ts";
import { arrayLiteral, sql } from "../db/sql.ts";

/** The first job of one (queue, rank), or of the suspects. */
export interface Head {
  readonly queue: number;
  readonly rank: number;
  readonly jobId: string;
  readonly runAt: string;
  /** Its queue has limits or concurrency keys. */
  readonly careful: boolean;
  /** It went down with a worker before. */
  readonly suspect: boolean;
  readonly due: boolean;
  /** Milliseconds since 1970, rounded up. */
  readonly at: number;
}

/**
 * In the order in which they run: what is due before what is not, suspects first, then by priority, due time and age. Jobs of
 * other tasks and of paused queues are left out, and those in `not`.
 */
export async function headsOfLine(db: Database, tasks: readonly number[], not: readonly string[]): Promise<Head[]> {
  const own = arrayLiteral(tasks);
  const others = arrayLiteral(not);
  return db.query<Head>(sql`
    with recursive lanes as (
      (select line, rank from millrace.pending order by line, rank limit 1)
      union all
      select next.* from lanes cross join lateral (
        select p.line, p.rank from millrace.pending p where (p.line, p.rank) > (lanes.line, lanes.rank) order by p.line, p.rank limit 1
      ) next
    ),
    heads as (
      select abs(l.line) as queue, l.rank, false as suspect, h.run_at, h.job_id
      from lanes l cross join lateral (
        select run_at, job_id from millrace.pending p
        where p.line = l.line and p.rank = l.rank and p.losses = 0 and p.run_at < 'infinity' and p.task = any (${own}::int[])
          and p.job_id <> all (${others}::uuid[])
        order by p.run_at, p.job_id limit 1
      ) h
      union all
      select abs(line), rank, true, run_at, job_id from millrace.pending where losses > 0 and task = any (${own}::int[]) and job_id <> all (${others}::uuid[])
    )
    select h.queue, h.rank::int, h.job_id::text as "jobId", h.run_at::text as "runAt", q.careful, h.suspect, h.run_at <= now() as due, ceil(extract(epoch from h.run_at) * 1000)::float8 as at
    from heads h join millrace.queues q on q.id = h.queue where q.paused_at is null
    order by h.run_at > now(), h.suspect desc, case when h.run_at <= now() then h.rank end, h.run_at, h.job_id`);
}

/** When the first worker that holds jobs will have been silent for its lease, in ms since 1970. Null: none holds any but us. */
export async function nextLoss(db: Database, self: number): Promise<number | null> {
  const [row] = await db.query<{ at: number | null }>(sql`
    select (floor(extract(epoch from min(w.beat_at + w.lease_ms * interval '1 millisecond')) * 1000) + 1)::float8 as at
    from millrace.workers w
    where w.stopped_at is null and w.id <> ${self} and exists (select from millrace.leases l where l.worker = w.id)`);
  return row?.at ?? null;
}
