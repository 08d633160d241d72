/**
 * Claiming from queues that have limits, or jobs with concurrency keys: one job per lease, so that what runs is what can be counted.
 *
 * Claims on one such queue take turns: each holds the lock of the queue's row, and counts in a statement that began after the one
 * before had committed. Its time is that of the statement: `now()` is from before it waited for its turn, and a use written down
 * for then would leave the window too early. Nothing is ever counted down, so nothing can leak: a job that ended, or lost its worker,
 * has no lease.
 */
import type { Database, Executor } from "../db/database.ts";
import { type Sql, arrayLiteral, sql } from "../db/sql.ts";
import { type ClaimedRow, claimedOptions } from "./claim-store.ts";

export interface CarefulWanted {
  /** Ids for `limit` new leases, one after another from this one; see `leaseId`. */
  readonly firstLease: string;
  readonly worker: number;
  readonly queue: number;
  /** Task numbers this worker has; null: any. */
  readonly tasks: readonly number[] | null;
  /** No more than can start at once: a claimed job counts as running. */
  readonly limit: number;
  /** Only jobs that went down with a worker, or only others. */
  readonly suspects: boolean;
}

export interface CarefulTurn {
  readonly queueName: string;
  /** In the order of their leases. */
  readonly jobs: ClaimedRow[];
  /** How often each went down with a worker, in the same order. */
  readonly losses: number[];
  /** Milliseconds until it is worth asking again, if nobody calls; Infinity: nothing is known to be due. */
  readonly nextDueMs: number;
}

/** Keys looked at per claim at most. The next one begins behind the last that was served. */
const keysMax = 200;
/** A limit that is used up, and frees nobody knows when: somebody calls when a job ends, and this is for when the call is lost. */
const fullPauseMs = 500;

/** What is left of a rate limit: uses within the last `perMs`, and when the oldest of them leaves it. */
export const used = (kind: string, key: Sql, queue: number, perMs: Sql): Sql => sql`
  lateral (
    select coalesce(sum(e.n) filter (where e.at > statement_timestamp() - per.span), 0)::int as n,
           min(e.at) filter (where e.at > statement_timestamp() - per.span) + per.span as frees_at
    from (select ${perMs} * interval '1 millisecond' as span) per
    left join millrace.rate_windows w on w.queue = ${queue}::int and w.kind = ${kind} and w.key = ${key}
    left join unnest(w.at, w.n) as e (at, n) on true
    group by per.span
  )`;

interface Limits {
  name: string;
  paused: boolean;
  concurrency: number | null;
  in_flight: number;
  max_in_flight: number | null;
  rate_max: number | null;
  rate_used: number;
  rate_frees_ms: number | null;
  max_attempts_per_minute: number | null;
  attempts_used: number;
  throttle_delay_ms: number;
  throttled_ms: number;
}

/** Claims up to `limit` due jobs, as far as the limits of the queue and of the keys allow. */
export async function claimWithCare(db: Database, want: CarefulWanted): Promise<CarefulTurn> {
  return db.transaction(async (tx) => {
    // Its own statement: the one that counts must begin after the claim before it has committed.
    await tx.rows(sql`select from millrace.queues where id = ${want.queue}::int for update`);
    const limits = await readLimits(tx, want.queue);
    const nothing = { queueName: limits?.name ?? "", jobs: [], losses: [] };
    if (limits === undefined || limits.paused) return { ...nothing, nextDueMs: Number.POSITIVE_INFINITY };
    if (limits.throttled_ms > 0) return { ...nothing, nextDueMs: limits.throttled_ms };
    const storm = stormReason(limits);
    if (storm !== undefined && !want.suspects && (await throttle(tx, want, limits, storm)))
      return { ...nothing, nextDueMs: limits.throttle_delay_ms };
    const room = Math.min(
      want.limit,
      (limits.concurrency ?? want.limit + limits.in_flight) - limits.in_flight,
      (limits.max_in_flight ?? want.limit + limits.in_flight) - limits.in_flight,
      (limits.rate_max ?? want.limit + limits.rate_used) - limits.rate_used,
      (limits.max_attempts_per_minute ?? want.limit + limits.attempts_used) - limits.attempts_used,
    );
    if (room <= 0) {
      const rated = limits.rate_max !== null && limits.rate_used >= limits.rate_max;
      return { ...nothing, nextDueMs: rated ? (limits.rate_frees_ms ?? fullPauseMs) : fullPauseMs };
    }
    return { queueName: limits.name, ...(await take(tx, want, room)) };
  });
}

async function readLimits(tx: Executor, queue: number): Promise<Limits | undefined> {
  const [limits] = await tx.query<Limits>(sql`
    select q.name, q.paused_at is not null as paused, p.concurrency, p.max_in_flight, p.rate_max, p.max_attempts_per_minute,
           coalesce(p.throttle_delay_ms, 500) as throttle_delay_ms,
           (select coalesce(sum(cardinality(l.job_ids) - cardinality(l.done)), 0)::int from millrace.leases l where l.queue = q.id) as in_flight,
           rate.n as rate_used, ceil(extract(epoch from rate.frees_at - statement_timestamp()) * 1000)::float8 as rate_frees_ms,
           attempts.n as attempts_used,
           greatest(ceil(extract(epoch from q.throttled_until - now()) * 1000), 0)::float8 as throttled_ms
    from millrace.queues q left join millrace.queue_policies p on p.queue = q.id
    cross join ${used("rate", sql`''`, queue, sql`coalesce(p.rate_per_ms, 0)`)} rate
    cross join ${used("attempts", sql`''`, queue, sql`60000`)} attempts
    where q.id = ${queue}::int`);
  return limits;
}

function stormReason(limits: Limits): { code: string; details: object } | undefined {
  if (limits.max_in_flight !== null && limits.in_flight >= limits.max_in_flight)
    return {
      code: "IN_FLIGHT_EXCEEDED",
      details: { in_flight: limits.in_flight, max_in_flight: limits.max_in_flight },
    };
  if (limits.max_attempts_per_minute !== null && limits.attempts_used >= limits.max_attempts_per_minute)
    return {
      code: "RETRY_RATE_EXCEEDED",
      details: {
        attempts_last_minute: limits.attempts_used,
        max_attempts_per_minute: limits.max_attempts_per_minute,
      },
    };
  return undefined;
}

/** Holds the queue's breath, and writes down why, if anything is due at all. */
async function throttle(
  tx: Executor,
  { queue, tasks }: CarefulWanted,
  { name, throttle_delay_ms: delayMs }: Limits,
  { code, details }: { code: string; details: object },
): Promise<boolean> {
  const text = JSON.stringify({ queue: name, ...details, throttle_delay_ms: delayMs });
  const [row] = await tx.query<{ throttled: number }>(sql`
    with due as (
      select p.job_id from (values (${queue}::int), (-${queue}::int)) as lines (line)
      cross join lateral (${ranksOf(sql`lines.line`)}) r
      cross join lateral (
        select job_id from millrace.pending p
        where p.line = lines.line and p.rank = r.rank and p.run_at <= now() and losses = 0 ${ofTasks(tasks)} order by p.run_at limit 1
      ) p
      limit 1
    ),
    noted as (
      insert into millrace.policy_decisions (queue, job_id, decision, reason_code, details)
      select ${queue}::int, job_id, 'THROTTLED', ${code}, ${text}::jsonb from due
    ),
    held as (
      update millrace.queues set throttled_until = now() + ${delayMs}::int * interval '1 millisecond'
      where id = ${queue}::int and exists (select from due) returning id
    )
    select count(*)::int as throttled from held`);
  return row?.throttled === 1;
}

const ofTasks = (tasks: readonly number[] | null): Sql =>
  tasks === null ? sql`` : sql`and task = any (${arrayLiteral(tasks)}::int[])`;

/** The ranks somebody waits in, the first in line first: one probe each, whatever waits there. `key`: only under this key. */
export const ranksOf = (line: Sql, key?: Sql): Sql => {
  const here = key === undefined ? sql`p.line = ${line}` : sql`p.line = ${line} and p.key = ${key}`;
  return sql`
  with recursive ranks as (
    (select p.rank from millrace.pending p where ${here} order by p.rank limit 1)
    union all
    select next.rank from ranks cross join lateral (
      select p.rank from millrace.pending p where ${here} and p.rank > ranks.rank order by p.rank limit 1
    ) next
  )
  select rank from ranks`;
};

/** Due jobs of one line, or of one of its keys, in order. */
const dueOf = (line: Sql, key: Sql | undefined, { tasks, suspects }: CarefulWanted): Sql => sql`
  select ${line} as line, p.* from (${ranksOf(line, key)}) r cross join lateral (
    select p.rank, p.run_at, p.job_id from millrace.pending p
    where p.line = ${line} and ${key === undefined ? sql`true` : sql`p.key = ${key}`} and p.rank = r.rank and p.run_at <= now()
      and (losses > 0) = ${suspects}::boolean ${ofTasks(tasks)}
    order by p.run_at, p.job_id limit free.room
  ) p limit free.room`;

/**
 * Takes turns between the keys, beginning behind the one that was served last; jobs without a key count as one key without limits.
 * A key that is full costs one probe, whatever waits behind it.
 */
async function take(tx: Executor, want: CarefulWanted, room: number): Promise<Omit<CarefulTurn, "queueName">> {
  const { firstLease, worker, queue } = want;
  const keyed = sql`-${queue}::int`;
  const lastKey = sql`(select last_key from policy)`;
  const rows = await tx.rows<
    readonly [number, string | null, number, string | null, number, number, string | null, number]
  >(sql`
    with recursive policy as materialized (
      select q.last_key, p.key_concurrency, p.key_rate_max, p.key_rate_per_ms, p.rate_per_ms, p.rate_max, p.max_attempts_per_minute
      from millrace.queues q left join millrace.queue_policies p on p.queue = q.id where q.id = ${queue}::int
    ),
    ahead as ( -- last_key by a subselect: joined, it would be compared with every entry of the line instead of looked up
      (select p.key, 1 as n from millrace.pending p where p.line = ${keyed} and p.key > ${lastKey} order by p.key limit 1)
      union all
      select next.key, ahead.n + 1 from ahead cross join lateral (
        select p.key from millrace.pending p where p.line = ${keyed} and p.key > ahead.key order by p.key limit 1
      ) next where ahead.n < ${keysMax}::int
    ),
    behind as ( -- and round to the beginning
      (select p.key, 1 as n from millrace.pending p where p.line = ${keyed} and p.key <= ${lastKey} order by p.key limit 1)
      union all
      select next.key, behind.n + 1 from behind cross join lateral (
        select p.key from millrace.pending p where p.line = ${keyed} and p.key > behind.key and p.key <= ${lastKey} order by p.key limit 1
      ) next where behind.n < ${keysMax}::int
    ),
    keys as materialized (
      select key, n from ahead
      union all
      select '', ${keysMax}::int + 1
      union all
      select key, ${keysMax}::int + 1 + n from behind
    ),
    running as materialized (select l.key, count(*)::int as n from millrace.leases l where l.queue = ${queue}::int and l.key <> '' group by l.key),
    free as materialized (
      select keys.key, keys.n, policy.key_rate_max is not null and rate.n >= policy.key_rate_max as rated, rate.frees_at,
             case when keys.key = '' then ${room}::int else least(
               ${room}::int, policy.key_concurrency - coalesce((select running.n from running where running.key = keys.key), 0), policy.key_rate_max - rate.n
             ) end as room
      from keys cross join policy
      cross join ${used("rate", sql`keys.key`, queue, sql`coalesce(policy.key_rate_per_ms, 0)`)} rate
    ),
    candidates as (
      select free.key, free.n as turn, row_number() over (partition by free.key order by first.rank, first.run_at, first.job_id) as round, first.*
      from free cross join lateral (${dueOf(keyed, sql`free.key`, want)}) first where free.room > 0 and free.key <> ''
      union all
      select '', free.n, row_number() over (order by first.rank, first.run_at, first.job_id), first.*
      from free cross join lateral (${dueOf(sql`${queue}::int`, undefined, want)}) first where free.room > 0 and free.key = ''
    ),
    chosen as materialized (select * from candidates order by round, turn limit ${room}::int),
    held as materialized ( -- somebody may be cancelling or moving one this moment. limit 1: one probe per job, whatever is believed of chosen
      select c.key, c.round, c.turn, c.run_at, p.* from chosen c cross join lateral (
        select ctid as place, job_id, attempt, losses from millrace.pending p
        where p.line = c.line and p.rank = c.rank and p.run_at = c.run_at and p.job_id = c.job_id limit 1 for update
      ) p
    ),
    taken as (delete from millrace.pending where ctid = any (array(select place from held))), -- rows of pending are never updated
    numbered as materialized (select *, row_number() over (order by round, turn) as n from held),
    lease as (
      insert into millrace.leases (id, queue, worker, job_ids, attempts, key, claimed_at)
      select ${firstLease}::bigint + n - 1, ${queue}::int, ${worker}::int, array[job_id], array[attempt], key, statement_timestamp() from numbered
    ),
    counts as (
      select 'rate' as kind, '' as key, count(*)::int as n, (select rate_per_ms from policy) as per_ms from numbered where (select rate_max from policy) is not null
      union all
      select 'attempts', '', count(*)::int, 60000 from numbered where (select max_attempts_per_minute from policy) is not null
      union all
      select 'rate', key, count(*)::int, (select key_rate_per_ms from policy) from numbered where key <> '' and (select key_rate_max from policy) is not null group by key
    ),
    uses as ( -- counted at the end of their hundredth of the window: a window holds few entries, and nothing leaves it too early
      select kind, key, n, span, date_bin(span / 100, statement_timestamp(), 'epoch') + span / 100 as at
      from (select *, per_ms * interval '1 millisecond' as span from counts where n > 0) c
    ),
    counted as (
      insert into millrace.rate_windows as w (queue, kind, key, at, n)
      select ${queue}::int, kind, key, array[at], array[n] from uses
      on conflict (queue, kind, key) do update set (at, n, updated_at) = (
        select array_agg(m.at order by m.at), array_agg(m.n order by m.at), now() from (
          select e.at, sum(e.n)::int as n
          from (select u.span from uses u where u.kind = w.kind and u.key = w.key) u
          cross join (select * from unnest(w.at, w.n) as old (at, n) union all select * from unnest(excluded.at, excluded.n) as new (at, n)) e
          where e.at > statement_timestamp() - u.span
          group by e.at
        ) m
      )
    ),
    moved as (
      update millrace.queues set last_key = (select key from numbered order by round desc, turn desc limit 1)
      where id = ${queue}::int and exists (select from numbered where key <> '')
    )
    select numbered.n::int, numbered.job_id::text, j.task, j.input::text, numbered.attempt::int, j.max_attempts::int,
           ${claimedOptions(sql`numbered.run_at`)}, numbered.losses::int
    from numbered left join lateral (select task, input, max_attempts, options, created_at from millrace.jobs where id = numbered.job_id limit 1) j on true
    union all
    select -1, null, 0, (
      select ceil(extract(epoch from min(later.at) - now()) * 1000)::text from (
        select p.run_at as at from (values (${queue}::int), (${keyed})) as lines (line)
        cross join lateral (${ranksOf(sql`lines.line`)}) r
        cross join lateral (
          select p.run_at from millrace.pending p
          where p.line = lines.line and p.rank = r.rank and p.run_at > now() and p.run_at < 'infinity' order by p.run_at limit 1
        ) p
        union all
        select min(frees_at) from free where rated
      ) later
    ), 0, 0, null, 0`);
  const jobs: ClaimedRow[] = [];
  const losses: number[] = [];
  let nextDueMs = Number.POSITIVE_INFINITY;
  for (const [n, id, task, input, attempt, maxAttempts, options, lost] of rows) {
    if (n < 0) nextDueMs = input === null ? nextDueMs : Number(input);
    else {
      // Each is the first, and only, job of its lease.
      jobs[n - 1] = [1, id as string, task, input as string, attempt, maxAttempts, options];
      losses[n - 1] = lost;
    }
  }
  return { jobs, losses, nextDueMs };
}
