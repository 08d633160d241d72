/**
 * Jobs that have come. `jobs` has no numbers in the order of anything, and an index for this would be paid by every enqueue. But ids
 * begin with the time they were made, and rows with the time their transaction began: a look reads the ids that are young enough, and
 * tells the rows whose transaction has ended since the look before (docs/decisions/0012-events-are-read.md).
 */
import type { Executor } from "../db/database.ts";
import { arrayLiteral, sql } from "../db/sql.ts";
import { type Writers, singlesMax } from "./events-store.ts";

/** Where a look left off: everything that had been committed by `at` is told, but for what `open` transactions have written. */
export interface ArrivalsMark {
  /** Microseconds since 1970, by the database's clock, like all times here. */
  readonly at: number;
  readonly open: readonly number[];
  /** Those of `open` that may have written jobs, whose ids are as old as they are. */
  readonly enqueuing: readonly number[];
  readonly hidden: boolean;
  /** What could be seen: a `pg_snapshot`. */
  readonly snapshot: string;
}

/** Ids made so much before their transaction began, in ms: more than `from`, at most `to`. */
export interface Lateness {
  readonly from: number;
  readonly to: number;
}

/** What nearly every job is; and those that waited to be inserted, or whose host's clock is behind. */
export const prompt: Lateness = { from: -Number.MAX_SAFE_INTEGER, to: 2_000 };
export const belated: Lateness = { from: 2_000, to: 60_000 };

/** Rows looked at per statement. */
const walkMax = 20_000;
/** A transaction has its time a moment before others can see that it runs. Microseconds. */
const marginUs = 1_000_000;
const namedMax = 20;

export interface Arrival {
  readonly id: string;
  readonly at: Date;
  readonly queue: string;
  readonly task: string;
  readonly runAt: Date | null;
  readonly replayOf: string | null;
}

export interface Arrivals {
  readonly count: number;
  readonly at: Date;
  readonly queue: string;
  readonly task: string;
  readonly named: string[];
}

export interface ArrivalsRead {
  readonly singles: Arrival[];
  /** Instead of singles, when there are more than a few; `singles` are those asked for by name then. */
  readonly groups: Arrivals[];
  readonly mark: ArrivalsMark;
}

/** The mark of somebody who begins to look now. */
export async function readArrivalsMark(db: Executor, writers: Writers): Promise<ArrivalsMark> {
  const [row] = await db.rows<[string]>(sql`select pg_current_snapshot()::text`);
  return markOf(writers, row?.[0] ?? "");
}

function markOf({ at, open, enqueuing, hidden }: Writers, snapshot: string): ArrivalsMark {
  return { at, open, enqueuing, hidden, snapshot };
}

/** Everything that has come since `mark`; `writers` are those of a moment before. */
export async function readArrivals(
  db: Executor,
  mark: ArrivalsMark,
  writers: Writers,
  wanted: readonly string[],
  { from, to }: Lateness,
): Promise<ArrivalsRead> {
  const ended = mark.enqueuing.filter((start) => !writers.open.includes(start));
  const oldest = Math.min(mark.at, ...ended) / 1_000 - to - (mark.hidden ? belated.to : 0);
  const singles: Arrival[] = [];
  const groups: Arrivals[] = [];
  let after = lowestId(oldest);
  let snapshot: string | undefined;
  for (;;) {
    const room = Math.max(singlesMax - singles.length, 0);
    const rows = await db.query<Row>(sql`
      with before as materialized (
        select 'epoch'::timestamptz + ${mark.at}::float8 * interval '1 microsecond' as told_until,
               'epoch'::timestamptz + ${writers.at}::float8 * interval '1 microsecond' as now,
               array(select 'epoch'::timestamptz + o * interval '1 microsecond' from unnest(${arrayLiteral(mark.open)}::float8[]) o) as were_open,
               array(select 'epoch'::timestamptz + o * interval '1 microsecond' from unnest(${arrayLiteral(writers.open)}::float8[]) o) as are_open,
               ${mark.snapshot}::pg_snapshot as seen, pg_snapshot_xmax(pg_current_snapshot())::text::bigint as xmax
      ),
      walked as materialized (
        select j.id, j.queue, j.task, j.created_at, j.xmin from millrace.jobs j where j.id > ${after}::uuid order by j.id limit ${walkMax}::int
      ),
      -- most have been told, and are to cost little
      untold as materialized (
        select w.id, w.queue, w.task, w.created_at from walked w cross join before b
        where (w.created_at > b.told_until - ${marginUs}::float8 * interval '1 microsecond' or ${mark.hidden}::boolean or w.created_at = any (b.were_open))
          and w.created_at <= b.now and w.created_at <> all (b.are_open)
          and case when w.created_at > b.told_until or w.created_at = any (b.were_open) then true else
            not pg_visible_in_snapshot((
              -- the transaction's number without its era, which is that of the newest one or the one before
              (b.xmax & ~4294967295) + w.xmin::text::bigint - case when w.xmin::text::bigint > (b.xmax & 4294967295) then 4294967296 else 0 end)::text::xid8, b.seen)
          end
      ),
      fresh as materialized (
        select u.* from untold u cross join lateral (
          select extract(epoch from u.created_at) * 1000 - ('x' || translate(left(u.id::text, 13), '-', ''))::bit(48)::bigint as ms
        ) late
        where late.ms > ${from}::float8 and late.ms <= ${to}::float8
      ),
      counted as materialized (select count(*) <= ${room}::int as whole from fresh)
      select f.id::text, f.created_at as at, q.name as queue, t.name as task, nullif(j.run_at, 'infinity') as "runAt", j.replay_of::text as "replayOf",
             null::float8 as count, null::text[] as named, null as snapshot, false as more
      from fresh f cross join lateral (select run_at, replay_of from millrace.jobs where id = f.id limit 1) j join millrace.queues q on q.id = f.queue join millrace.tasks t on t.id = f.task
      where (select whole from counted) or f.id = any (${arrayLiteral(wanted)}::uuid[])
      union all
      select null, max(f.created_at), q.name, t.name, null, null, count(*)::float8, (array_agg(f.id order by f.id))[1:${namedMax}::int]::text[], null, false
      from fresh f join millrace.queues q on q.id = f.queue join millrace.tasks t on t.id = f.task
      where not (select whole from counted) group by q.name, t.name
      union all
      select (select max(id::text) from walked), null, null, null, null, null, null, null, pg_current_snapshot()::text, (select count(*) from walked) = ${walkMax}::int
      order by 1 nulls last`);
    let more = false;
    for (const row of rows) {
      if (row.snapshot !== null) {
        snapshot ??= row.snapshot;
        more = row.more;
        after = row.id ?? after;
      } else if (row.count === null) singles.push(row as Arrival);
      else groups.push(row as Arrivals);
    }
    if (!more) return { singles, groups, mark: markOf(writers, snapshot ?? mark.snapshot) };
  }
}

interface Row {
  readonly id: string | null;
  readonly at: Date | null;
  readonly queue: string | null;
  readonly task: string | null;
  readonly runAt: Date | null;
  readonly replayOf: string | null;
  readonly count: number | null;
  readonly named: string[] | null;
  readonly snapshot: string | null;
  readonly more: boolean;
}

/** The lowest id that can have been made at that time. */
function lowestId(ms: number): string {
  const time = Math.max(Math.floor(ms), 0).toString(16).padStart(12, "0");
  return `${time.slice(0, 8)}-${time.slice(8)}-0000-0000-000000000000`;
}
