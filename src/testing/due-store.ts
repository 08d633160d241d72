/** What could run now, and when something next can. One look: it is what a test spends its time with. */
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

export interface Outlook {
  readonly heads: Head[];
  /** When the first other worker that holds jobs will have been silent for its lease, in ms since 1970. Null: none does. */
  readonly lossAt: number | null;
  /** Somebody asked running jobs to end. */
  readonly cancels: boolean;
}

/**
 * A function, since its plan is then made once and not for every look, which takes several times as long as the look. Heads are in
 * the order in which they run: what is due before what is not, suspects first, then by priority, due time and age. Jobs of other
 * tasks and of paused queues are left out, and `others`. Part of the template.
 */
export const lookDefinition = `
create function millrace_clock.look_ahead(self int, tasks int[], others uuid[]) returns table ("heads" json, "lossAt" float8, "cancels" boolean)
language plpgsql stable set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
begin
  return query
    with recursive lanes as (
      (select line, rank from millrace.pending order by line, rank limit 1)
      union all
      select next.* from lanes cross join lateral (
        select p.line, p.rank from millrace.pending p where (p.line, p.rank) > (lanes.line, lanes.rank) order by p.line, p.rank limit 1
      ) next
    ),
    found as (
      select abs(l.line) as queue, l.rank, false as suspect, h.run_at, h.job_id
      from lanes l cross join lateral (
        select run_at, job_id from millrace.pending p
        where p.line = l.line and p.rank = l.rank and p.losses = 0 and p.run_at < 'infinity' and p.task = any (tasks) and p.job_id <> all (others)
        order by p.run_at, p.job_id limit 1
      ) h
      union all
      select abs(line), rank, true, run_at, job_id from millrace.pending where losses > 0 and task = any (tasks) and job_id <> all (others)
    )
    select
      (select json_agg(json_build_object(
          'queue', h.queue, 'rank', h.rank, 'jobId', h.job_id, 'runAt', h.run_at::text, 'careful', q.careful, 'suspect', h.suspect,
          'due', h.run_at <= millrace_clock.now(), 'at', ceil(extract(epoch from h.run_at) * 1000)
        ) order by h.run_at > millrace_clock.now(), h.suspect desc, case when h.run_at <= millrace_clock.now() then h.rank end, h.run_at, h.job_id)
       from found h join millrace.queues q on q.id = h.queue where q.paused_at is null),
      (select (floor(extract(epoch from min(w.beat_at + w.lease_ms * interval '1 millisecond')) * 1000) + 1)::float8
       from millrace.workers w
       where w.stopped_at is null and w.id <> self and exists (select from millrace.leases l where l.worker = w.id)),
      exists (select from millrace.cancel_requests);
end $$`;

export async function lookAhead(
  db: Database,
  self: number,
  tasks: readonly number[],
  not: readonly string[],
): Promise<Outlook> {
  const [row] = await db.query<Omit<Outlook, "heads"> & { heads: Head[] | null }>(
    sql`select * from millrace_clock.look_ahead(${self}::int, ${arrayLiteral(tasks)}::int[], ${arrayLiteral(not)}::uuid[])`,
  );
  return { heads: row?.heads ?? [], lossAt: row?.lossAt ?? null, cancels: row?.cancels ?? false };
}
