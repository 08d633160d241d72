/** What a job waits for, for the job itself and for those who ask why it waits. */
import type { Executor } from "../db/database.ts";
import { type Sql, sql } from "../db/sql.ts";

/** A job that another one needs. */
export interface Dependency {
  /** What the flow calls it. */
  readonly name: string;
  readonly id: string;
  /** `open`: it has not ended. */
  readonly state: "open" | "completed" | "failed";
  /** What its task returned; null when that was nothing. */
  readonly result: unknown;
}

/** All of them, in the order in which they were named. */
export function dependenciesOf(db: Executor, jobId: string): Promise<Dependency[]> {
  return db.query<Dependency>(sql`
    select d.name, d.needs::text as id, d.state, r.result
    from millrace.dependencies d left join millrace.results r on r.job_id = d.needs and d.state = 'completed'
    where d.job_id = ${jobId}::uuid order by d.place`);
}

/** A job of a flow, and what the flow calls it. */
export interface NamedJob {
  readonly id: string;
  readonly name: string;
}

/** What a job that waits is still waiting for: how many, how many there are, and the first few. */
export interface Outstanding {
  readonly open: number;
  readonly total: number;
  readonly first: readonly NamedJob[];
}

/** Named at most. */
const namedMax = 5;

export async function outstanding(db: Executor, jobId: string): Promise<Outstanding> {
  const [row] = await db.query<{ open: number; total: number; first: { id: string; name: string }[] | null }>(sql`
    select coalesce((select open from millrace.blocked where job_id = ${jobId}::uuid), 0) as open,
           (select count(*)::int from millrace.dependencies where job_id = ${jobId}::uuid) as total,
           (select json_agg(json_build_object('id', first.needs, 'name', first.name) order by first.place) from (
              select needs, name, place from millrace.dependencies
              where job_id = ${jobId}::uuid and state = 'open' order by place limit ${namedMax}
            ) first) as first`);
  return { open: row?.open ?? 0, total: row?.total ?? 0, first: row?.first ?? [] };
}

/** One of them in a list: without its result, which may be large. */
export interface ListedDependency extends Omit<Dependency, "result"> {
  readonly onFailure: "fail" | "ignore" | "continue";
  /** From 1, in the order in which they were named. */
  readonly place: number;
}

/** In order, those behind the place `after`. */
export function listDependencies(
  db: Executor,
  jobId: string,
  limit: number,
  after: number,
): Promise<ListedDependency[]> {
  return db.query<ListedDependency>(sql`
    select place + 1 as place, name, needs::text as id, state, on_failure as "onFailure"
    from millrace.dependencies where job_id = ${jobId}::uuid and place >= ${after}::int order by place limit ${limit}::int`);
}

/** How many jobs this one needs, by what became of them. */
export interface DependencyCounts {
  readonly total: number;
  readonly open: number;
  readonly completed: number;
  readonly failed: number;
}

/** `DependencyCounts` of the dependencies `d`, as JSON. */
export const countsOf: Sql = sql`json_build_object('total', count(*), 'open', count(*) filter (where d.state = 'open'),
  'completed', count(*) filter (where d.state = 'completed'), 'failed', count(*) filter (where d.state = 'failed'))`;

export async function countDependencies(db: Executor, jobId: string): Promise<DependencyCounts> {
  const [row] = await db.query<{ counts: DependencyCounts }>(
    sql`select ${countsOf} as counts from millrace.dependencies d where d.job_id = ${jobId}::uuid`,
  );
  return (row as { counts: DependencyCounts }).counts;
}

/** The jobs that took this one along when they failed, the first few of them. */
export function culprits(db: Executor, jobId: string): Promise<NamedJob[]> {
  return db.query<NamedJob>(sql`
    select needs::text as id, name from millrace.dependencies
    where job_id = ${jobId}::uuid and state = 'failed' and on_failure = 'fail' order by place limit ${namedMax}`);
}

/** Jobs that wait for others, per queue; queues without any are left out. */
export async function countBlocked(db: Executor): Promise<{ queue: string; jobs: number }[]> {
  return db.query<{ queue: string; jobs: number }>(sql`
    select queue, jobs from (
      select q.name as queue,
        (select count(*) from millrace.pending p where p.line in (q.id, -q.id) and p.run_at = 'infinity')::float8 as jobs
      from millrace.queues q
    ) counted where jobs > 0 order by queue`);
}
