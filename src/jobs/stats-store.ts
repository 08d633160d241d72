/** How many jobs are where, per queue: cheap with a million waiting and a hundred million done. */
import type { Database } from "../db/database.ts";
import { type Sql, sql } from "../db/sql.ts";

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
      select id, name, paused_at is not null as paused,
        (select count(*) from millrace.pending p where p.line in (chosen.id, -chosen.id) and p.run_at <= now())::float8 as waiting,
        (select count(*) from millrace.pending p where p.line in (chosen.id, -chosen.id) and p.run_at > now())::float8 as delayed,
        coalesce(running.jobs, 0)::float8 as active,
        (coalesce((select completed from millrace.tallies t where t.queue = chosen.id), 0) + coalesce(recent.jobs, 0))::float8 as completed,
        (select count(*) from millrace.dead_letters d where d.queue = chosen.id)::float8 as failed
      from chosen left join running on running.queue = chosen.id left join recent on recent.queue = chosen.id
    )
    select name, waiting, active, completed, failed, delayed, waiting + active + completed + failed + delayed as total, paused
    from counted order by name`);
}

/**
 * Moves finished history into the tallies. Rows carry the start time of their transaction, so a time is safe to count up to once
 * every transaction that was running then has ended: that is noted first, and counted in a later round. True when this was one.
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
      return false;
    }
    if (!mark.ready) return false;
    await tx.query(sql`
      insert into millrace.tallies as t (queue, completed)
      select q.id, sum(s.n) from millrace.tally_mark m cross join millrace.queues q
      join millrace.settled s on s.queue = q.id and s.finished_at >= m.counted_until and s.finished_at < m.next_until
      group by q.id
      on conflict (queue) do update set completed = t.completed + excluded.completed`);
    await tx.query(
      sql`update millrace.tally_mark set counted_until = greatest(counted_until, next_until), next_until = null, next_waits = null`,
    );
    return true;
  });
}

/**
 * What is deleted from history and was folded into the tally must leave it again. `deleted` gives `queue, finished_at, n` of what this
 * statement deleted; the lock keeps the tallies from being folded meanwhile.
 */
export const recount = (deleted: Sql): Sql => sql`
  mark as materialized (select counted_until from millrace.tally_mark for share),
  recounted as (
    -- not an update: it would not see a tally that was folded for the first time while this waited for the lock
    insert into millrace.tallies as t (queue, completed)
    select d.queue, -sum(d.n) from (${deleted}) d, mark where d.finished_at < mark.counted_until group by d.queue
    on conflict (queue) do update set completed = t.completed + excluded.completed
  )`;
