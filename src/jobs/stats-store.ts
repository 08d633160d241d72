/** How many jobs are where, per queue: cheap with a million waiting and a hundred million done. */
import type { Database, Executor } from "../db/database.ts";
import { sql } from "../db/sql.ts";
import { foldTotals } from "./totals-store.ts";

/** Counts of one queue. `total` is the sum of the rest. */
export interface QueueStats {
  readonly name: string;
  readonly waiting: number;
  readonly active: number;
  readonly completed: number;
  readonly failed: number;
  readonly delayed: number;
  readonly total: number;
  readonly paused: boolean;
}

/** Counts of all queues, or of one. Waiting and delayed come from the index of `pending`, completed from folded tallies. */
export async function countQueues(db: Database, queue?: string): Promise<QueueStats[]> {
  return db.query<QueueStats>(sql`
    with chosen as (select id, name, paused_at from millrace.queues where ${queue ?? null}::text is null or name = ${queue ?? null}::text),
    -- once for all: the leases have no index by queue, and with a thousand queues they were read a thousand times
    running as materialized (
      select l.queue, sum(cardinality(l.job_ids) - cardinality(l.done)) as jobs from millrace.leases l
      where l.queue in (select id from chosen) group by l.queue
    ),
    recent as materialized ( -- both values of archived: two ranges of an index, where one by queue does not come first
      select s.queue, sum(s.n) as jobs from millrace.settled s
      where s.archived = any ('{f,t}'::boolean[]) and s.finished_at >= (select counted_until from millrace.tally_mark)
        and s.queue in (select id from chosen) group by s.queue
    ),
    counted as materialized ( -- or everything is counted a second time for the total
      select id, name, paused_at is not null as paused, due.waiting, due.delayed,
        coalesce(running.jobs, 0)::float8 as active,
        (coalesce((select completed from millrace.tallies t where t.queue = chosen.id), 0) + coalesce(recent.jobs, 0))::float8 as completed,
        (select count(*) from millrace.dead_letters d where d.queue = chosen.id)::float8 as failed
      from chosen cross join lateral ( -- in one pass: each of a million that wait is looked at
        select count(*) filter (where p.run_at <= now())::float8 as waiting, count(*) filter (where p.run_at > now())::float8 as delayed
        from millrace.pending p where p.line in (chosen.id, -chosen.id)
      ) due
      left join running on running.queue = chosen.id left join recent on recent.queue = chosen.id
    )
    select name, waiting, active, completed, failed, delayed, waiting + active + completed + failed + delayed as total, paused
    from counted order by name`);
}

/** Jobs folded in one round, about; what is left is for the next. */
const roundJobs = 500_000;
const roundBatches = 20_000;
/** New jobs counted in one round at most, once the mark is this far behind. */
const roundNew = 5_000_000;
const behindMs = 300_000;

/**
 * Moves finished history into the tallies and totals. Rows carry the start time of their transaction, so a time is safe to count up to
 * once every transaction that was running then has ended: that is noted first, and counted in later rounds. True when this was one.
 *
 * Transactions are told apart by their virtual ids, for one that has only read so far has no other and may write yet. Ids of a server
 * that was restarted or restored meanwhile are in nobody's hands. `marginMs`: a transaction has its time a moment before its id.
 */
export async function foldTallies(db: Database, marginMs = 1_000): Promise<boolean> {
  return db.transaction(async (tx) => {
    const [mark] = await tx.query<{ noted: boolean; ready: boolean }>(sql`
      select next_until is not null as noted,
             not exists (select from pg_locks where locktype = 'virtualxid' and virtualtransaction = any (next_waits)) as ready
      from millrace.tally_mark for update skip locked`);
    if (mark === undefined) return false; // another worker is at it
    if (!mark.noted) {
      await tx.query(sql`
        update millrace.tally_mark set next_until = now() - ${marginMs}::int * interval '1 millisecond', next_waits = array(
          select l.virtualtransaction from pg_locks l join pg_stat_activity a on a.pid = l.pid
          where l.locktype = 'virtualxid' and a.datname = current_database() and l.pid <> pg_backend_pid())`);
      // Nobody else does it there; on a server autovacuum does.
      if (db.kind === "embedded")
        await tx.query(sql`select brin_summarize_new_values('millrace.jobs_created'::regclass)`);
      return false;
    }
    if (!mark.ready) return false;
    const until = await endOfRound(tx);
    await foldTotals(tx, until);
    await tx.query(sql`
      update millrace.tally_mark set counted_until = greatest(counted_until, ${until}::timestamptz),
        next_until = case when next_until > ${until}::timestamptz then next_until end,
        next_waits = case when next_until > ${until}::timestamptz then next_waits end`);
    return true;
  });
}

/** Up to where one round counts: not further than what was noted, and not more than it can do in a moment. */
async function endOfRound(tx: Executor): Promise<string> {
  const [end] = await tx.query<{ until: string; behind: boolean }>(sql`
    select least(m.next_until, (
      select s.finished_at from (
        select b.finished_at, sum(b.n) over line as jobs, row_number() over line as place from (
          select s.finished_at, s.n, s.id from millrace.settled s
          where s.archived = any ('{f,t}'::boolean[]) and s.finished_at > m.counted_until and s.finished_at < m.next_until
          order by s.finished_at limit ${roundBatches}
        ) b window line as (order by b.finished_at, b.id)
      ) s where s.jobs >= ${roundJobs} or s.place = ${roundBatches} order by s.finished_at limit 1
    ))::text as until,
    m.counted_until > '-infinity' and m.next_until - m.counted_until > ${behindMs}::int * interval '1 millisecond' as behind
    from millrace.tally_mark m`);
  let { until, behind } = end as { until: string; behind: boolean };
  while (behind) {
    const [half] = await tx.query<{ until: string; many: boolean }>(sql`
      select (m.counted_until + (${until}::timestamptz - m.counted_until) / 2)::text as until,
        (select count(*) from (
          select from millrace.jobs j where j.created_at >= m.counted_until and j.created_at < ${until}::timestamptz limit ${roundNew}
        ) j) = ${roundNew} as many
      from millrace.tally_mark m`);
    behind = half?.many ?? false;
    if (behind && half !== undefined) ({ until } = half);
  }
  return until;
}
