/**
 * Lists of jobs: by status, by tag, or all. Each walks an index in the order of the list; what no index knows, such as what is in an
 * input, is looked for among the jobs of the walk, so many and for so long a page at most.
 */
import type { Database } from "../db/database.ts";
import { type Sql, join, sql } from "../db/sql.ts";
import { uuidFloor } from "../core/uuid.ts";
import { ranksOf } from "./careful-store.ts";
import { type Extent, type Job, type JobRow, type JobStatus, described, toJob } from "./read-store.ts";

/** Which jobs to list. `after` is where the page before ended. */
export interface JobFilter {
  readonly status?: JobStatus | undefined;
  readonly queue?: number | undefined;
  readonly task?: number | undefined;
  readonly tag?: string | undefined;
  /** Of dead letters only. */
  readonly reason?: string | undefined;
  readonly errorCode?: string | undefined;
  /** JSON text that the input contains, as PostgreSQL's `@>` has it. */
  readonly input?: string | undefined;
  /** Stands somewhere in the JSON of the input, in capitals or not. */
  readonly search?: string | undefined;
  readonly createdAfter?: Date | undefined;
  readonly createdBefore?: Date | undefined;
  readonly limit: number;
  readonly after?: readonly string[] | undefined;
}

export interface JobPage {
  readonly jobs: Job[];
  /** Where the next page starts; null at the end. A page may be short before the end: a walk looks at 20 000 jobs at most. */
  readonly after: readonly string[] | null;
  /** Jobs that this page has looked at. */
  readonly looked: number;
}

/** Inputs are of any size: looking through them ends after about so long, in ms. */
const searchMs = 500;
/** Ids are made by clients: their clocks may differ so much from the server's, in ms. */
const clockSlackMs = 3_600_000;

interface Window {
  readonly most: number;
  /** At least as many, as a text of the statement and not a value: the planner must know how few they are. */
  readonly text: Sql;
}

const far: Window = { most: 19_500, text: sql`19500` };
/** Jobs looked at per page, when a filter has no index to follow: these first, and that many more when the page is not full then. */
const windows: readonly Window[] = [{ most: 500, text: sql`500` }, far];
/** Where nothing is filtered, a page is full after as many as it holds. A page holds 500 at most. */
const plainWindows = (limit: number): readonly Window[] => [{ most: limit, text: sql`500` }, far];

/** Looking through inputs is interrupted often, to see the time. */
const searchWindows: readonly Window[] = Array.from({ length: 40 }, () => ({ most: 500, text: sql`500` }));

/** `extent`: `lean` leaves out what may be large, where it would be thrown away. */
export async function listJobs(db: Database, filter: JobFilter, extent: Extent = "whole"): Promise<JobPage> {
  const jobs: Job[] = [];
  let { after } = filter;
  let looked = 0;
  const searching = filter.input !== undefined || filter.search !== undefined;
  const until = searching ? performance.now() + searchMs : Number.POSITIVE_INFINITY;
  const plain = conditions(filter).length === 0;
  for (const next of searching ? searchWindows : plain ? plainWindows(filter.limit) : windows) {
    const window = await look(db, { ...filter, after, limit: filter.limit - jobs.length }, next, extent);
    jobs.push(...window.jobs);
    looked += window.looked;
    const full = jobs.length === filter.limit;
    after = full ? window.last : window.looked < next.most ? undefined : window.end;
    if (full || after === undefined || performance.now() > until) break;
  }
  return { jobs, after: after ?? null, looked };
}

/** Lists by number reach so far: each begins at the start of its walk. */
export const reachMax = 100_000;
const reaches = [
  { most: 500, text: sql`500` },
  { most: 10_000, text: sql`10000` },
  { most: reachMax, text: sql`100000` },
] as const;

/** For those who count pages instead of following them: ids of a queue's jobs of one status, from the place `offset` of their list on. */
export async function idsAt(
  db: Database,
  { status, queue, offset, limit }: { status: JobStatus; queue: number; offset: number; limit: number },
): Promise<string[]> {
  const reach = reaches.find(({ most }) => offset + limit <= most);
  if (reach === undefined) return [];
  const rows = await db.query<{ id: string }>(sql`
    select w.id::text as id from (${walkOf({ status, queue, limit }, reach.text)} limit ${reach.text}) w
    order by w.n offset ${offset}::int limit ${limit}::int`);
  return rows.map(({ id }) => id);
}

/** What a look at some jobs of the walk has found. */
interface Look {
  readonly jobs: Job[];
  readonly looked: number;
  /** Where the last of the jobs stands. */
  readonly last: readonly string[] | undefined;
  /** Where the look ended, if there may be more. */
  readonly end: readonly string[] | undefined;
}

/** The first row has the edge of the look behind its job. It is there also when nothing matches: then its job is null. */
type LookRow = readonly [
  ...JobRow,
  n: number,
  looked: number | null,
  last: readonly string[] | null,
  end: readonly string[] | null,
];

/** Looks at the next `most` jobs of the walk, and takes those that match. */
async function look(db: Database, filter: JobFilter, { most, text }: Window, extent: Extent): Promise<Look> {
  const { walk, order, place, probe } = walkThrough(filter, text);
  const rows = await db.rows<LookRow>(sql`
    with walked as materialized (select w.* from (${walk} limit ${text}) w limit ${most}::int),
    matching as materialized (
      select w.id, row_number() over (order by ${order})::int as n, ${place} as place from walked w ${probe}
      order by ${order} limit ${filter.limit}::int
    ),
    edge as (
      select 1 as first, (select count(*)::int from walked) as looked, (select to_json(place) from matching order by n desc limit 1) as last,
             (select to_json(${place}) from (select * from walked offset ${most}::int - 1) w) as "end" -- in their order: it is kept
    )
    select d.*, edge.looked, edge.last, edge."end"
    from (${described(sql`select id, n from matching`, extent, sql`, f.n`)}) d full join edge on edge.first = d.n order by d.n`);
  const [first] = rows;
  const jobs = rows.filter(([id]) => id !== null).map(toJob);
  return { jobs, looked: first?.[22] ?? 0, last: first?.[23] ?? undefined, end: first?.[24] ?? undefined };
}

interface Walk {
  /** `select id` and what is needed to sort by and to go on from. */
  readonly walk: Sql;
  readonly order: Sql;
  /** Where a job `w` of the walk stands: text[]. */
  readonly place: Sql;
  /** Joins what the filter asks for, and keeps those that match. */
  readonly probe: Sql;
}

/**
 * Through the jobs themselves, each tells at once whether it fits, and nothing is worked out for one that does not: of 20 000 it took
 * four times as long to number them and look each up again.
 */
function walkThrough(filter: JobFilter, most: Sql): Walk {
  if (filter.status === undefined && filter.tag === undefined) {
    const walk = sql`select j.id, ${fits(filter)} as fits from millrace.jobs j where ${idBounds(filter, sql`j.id`)} order by j.id desc`;
    return { walk, order: sql`w.id desc`, place: sql`array[w.id::text]`, probe: sql`where w.fits` };
  }
  const probe = sql`cross join lateral (${probeOf(filter)}) j where ${fits(filter)}`;
  return { walk: walkOf(filter, most), order: sql`w.n`, place: sql`w.place`, probe };
}

/** One probe per job. Only a list by tag holds archived jobs: the index on tags knows them. */
function probeOf({ status, tag }: JobFilter): Sql {
  const columns = sql`queue, task, tags, input, created_at`;
  const live = sql`select ${columns} from millrace.jobs where id = w.id limit 1`;
  if (tag === undefined || status !== undefined) return live;
  return sql`(${live}) union all (select ${columns} from millrace.jobs_archive where id = w.id limit 1) limit 1`;
}

/** Ids hold the time they were made. */
function idBounds({ after, createdAfter, createdBefore }: JobFilter, id: Sql): Sql {
  const bounds = [
    ...(after === undefined ? [] : [sql`${id} < ${after[0]}::uuid`]),
    ...(createdAfter === undefined ? [] : [sql`${id} >= ${uuidFloor(createdAfter.getTime() - clockSlackMs)}::uuid`]),
    ...(createdBefore === undefined ? [] : [sql`${id} < ${uuidFloor(createdBefore.getTime() + clockSlackMs)}::uuid`]),
  ];
  return join([sql`true`, ...bounds], sql` and `);
}

const fits = (filter: JobFilter): Sql => join([sql`true`, ...conditions(filter)], sql` and `);

function conditions({ queue, task, tag, input, search, createdAfter, createdBefore }: JobFilter): Sql[] {
  return [
    ...(createdAfter === undefined ? [] : [sql`j.created_at >= ${createdAfter.toISOString()}::timestamptz`]),
    ...(createdBefore === undefined ? [] : [sql`j.created_at < ${createdBefore.toISOString()}::timestamptz`]),
    ...(input === undefined ? [] : [sql`j.input @> ${input}::jsonb`]),
    ...(search === undefined ? [] : [sql`strpos(lower(j.input::text), lower(${search}::text)) > 0`]),
    ...(queue === undefined ? [] : [sql`j.queue = ${queue}::int`]),
    ...(task === undefined ? [] : [sql`j.task = ${task}::int`]),
    ...(tag === undefined ? [] : [sql`j.tags @> array[${tag}::text]`]),
  ];
}

/** The lines somebody waits in, in order, from `first` on: one probe each. */
const linesFrom = (first: string | undefined): Sql => sql`
  with recursive lines as (
    (select p.line from millrace.pending p where ${first === undefined ? sql`true` : sql`p.line >= ${first}::int`} order by p.line limit 1)
    union all
    select next.line from lines cross join lateral (
      select p.line from millrace.pending p where p.line > lines.line order by p.line limit 1
    ) next
  )
  select line from lines`;

/**
 * `select id, n, place`: jobs in the order of the list, n to sort by, place (text[]) to go on from. Every one follows an index, and is
 * read no further than `most` jobs.
 */
function walkOf(filter: JobFilter, most: Sql): Sql {
  const { status, queue, after, reason, errorCode } = filter;
  const inQueue = (column: Sql): Sql => (queue === undefined ? sql`true` : sql`${column} = ${queue}::int`);
  switch (status) {
    case "waiting":
    case "delayed":
    case "blocked": {
      const when = {
        waiting: sql`p.run_at <= now()`,
        delayed: sql`p.run_at > now() and p.run_at < 'infinity'`,
        blocked: sql`p.run_at = 'infinity'`,
      }[status];
      const beyond =
        after === undefined
          ? sql`true`
          : sql`(p.line, p.rank, p.run_at, p.job_id) > (${after[0]}::int, ${after[1]}::smallint, ${after[2]}::timestamptz, ${after[3]}::uuid)`;
      // One (line, rank) after the other, and in each from where the status begins: or all that waits would be read to find what is
      // delayed. Their order is kept.
      const lines =
        queue === undefined
          ? linesFrom(after?.[0])
          : sql`select line from (values (-${queue}::int), (${queue}::int)) as own (line)`;
      const near =
        after === undefined ? sql`true` : sql`(lines.line, ranks.rank) >= (${after[0]}::int, ${after[1]}::smallint)`;
      return sql`
        select p.job_id as id, row_number() over () as n, array[p.line::text, p.rank::text, p.run_at::text, p.job_id::text] as place
        from (${lines}) lines cross join lateral (${ranksOf(sql`lines.line`)}) ranks
        cross join lateral (
          select p.line, p.rank, p.run_at, p.job_id from millrace.pending p
          where p.line = lines.line and p.rank = ranks.rank and ${when} and ${beyond}
          order by p.run_at, p.job_id limit ${most}
        ) p
        where ${near}`;
    }
    case "active": {
      const beyond = after === undefined ? sql`true` : sql`open.job_id > ${after[0]}::uuid`;
      return sql`
        select open.job_id as id, row_number() over (order by open.job_id) as n, array[open.job_id::text] as place
        from millrace.leases l cross join unnest(l.job_ids) as open (job_id)
        where open.job_id <> all (l.done) and ${inQueue(sql`l.queue`)} and ${beyond} order by open.job_id`;
    }
    case "failed": {
      const beyond =
        after === undefined
          ? sql`true`
          : sql`d.failed_at <= ${after[0]}::timestamptz and (d.failed_at, d.job_id) < (${after[0]}::timestamptz, ${after[1]}::uuid)`;
      const why = sql`${reason === undefined ? sql`` : sql`and d.reason = ${reason}`} ${errorCode === undefined ? sql`` : sql`and d.error_code = ${errorCode}`}`;
      return sql`
        select d.job_id as id, row_number() over () as n, array[d.failed_at::text, d.job_id::text] as place
        from (
          select d.job_id, d.failed_at from millrace.dead_letters d where ${inQueue(sql`d.queue`)} and ${beyond} ${why}
          order by d.failed_at desc, d.job_id desc limit ${most}
        ) d`;
    }
    case "completed": {
      const beyond =
        after === undefined
          ? sql`true`
          : sql`(s.finished_at, s.id, done.n) < (${after[0]}::timestamptz, ${after[1]}::bigint, ${after[2]}::bigint)`;
      const near =
        after === undefined
          ? sql`true`
          : sql`s.finished_at <= ${after[0]}::timestamptz and (s.finished_at, s.id) <= (${after[0]}::timestamptz, ${after[1]}::bigint)`;
      // In the order of an index with the queue or without, archived batches left out there: their jobs are elsewhere. One batch more than is
      // looked at: the first may have nothing left beyond the cursor. Their order, and that of the jobs within each, is kept.
      return sql`
        select done.job_id as id, row_number() over () as n, array[s.finished_at::text, s.id::text, done.n::text] as place
        from (
          select s.id, s.finished_at, s.job_ids from millrace.settled s
          where ${queue === undefined ? sql`not s.archived` : inQueue(sql`s.queue`)} and ${near} and s.n > 0
          order by s.finished_at desc, s.id desc limit ${most} + 1
        ) s
        cross join lateral (select job_id, n from unnest(s.job_ids) with ordinality as one (job_id, n) order by n desc) done
        where ${beyond}`;
    }
    case "cancelled": {
      const beyond =
        after === undefined
          ? sql`true`
          : sql`a.finished_at <= ${after[0]}::timestamptz and (a.finished_at, a.id) < (${after[0]}::timestamptz, ${after[1]}::bigint)`;
      return sql`
        select a.job_id as id, row_number() over () as n, array[a.finished_at::text, a.id::text] as place
        from (
          select a.job_id, a.id, a.finished_at from millrace.attempts a where a.outcome = 'cancelled' and not a.late and ${inQueue(sql`a.queue`)} and ${beyond}
          order by a.finished_at desc, a.id desc limit ${most}
        ) a`;
    }
    case undefined:
      return sql`
        select w.job_id as id, row_number() over (order by w.job_id desc) as n, array[w.job_id::text] as place
        from millrace.job_tags w where w.tag = ${filter.tag} and ${idBounds(filter, sql`w.job_id`)} order by w.job_id desc`;
  }
}
