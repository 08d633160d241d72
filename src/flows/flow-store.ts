/** Who waits for whom, and what happens to those that wait when a job they need has ended. */
import type { Executor } from "../db/database.ts";
import { arrayLiteral, sql } from "../db/sql.ts";
import type { Ending } from "../jobs/endings-store.ts";
import { lineOf } from "../jobs/settle-store.ts";

/** What a failed dependency does: takes the job along, counts as done, or lets the job go on at once without the others. */
export type OnFailure = "fail" | "ignore" | "continue";

/** `jobId` waits for `needs`, whose result it finds under `name`. */
export interface Edge {
  readonly jobId: string;
  readonly place: number;
  readonly needs: string;
  readonly name: string;
  readonly onFailure: OnFailure;
}

/** A job that waits, and when it is due once it no longer does. */
export interface BlockedJob {
  readonly id: string;
  readonly open: number;
  readonly runAt?: Date | undefined;
  readonly delayMs?: number | undefined;
}

/** Part of the transaction that inserts the jobs. */
export async function insertEdges(tx: Executor, edges: readonly Edge[], blocked: readonly BlockedJob[]): Promise<void> {
  const edgeRows = JSON.stringify(
    edges.map((edge) => ({
      job_id: edge.jobId,
      place: edge.place,
      needs: edge.needs,
      name: edge.name,
      on_failure: edge.onFailure,
    })),
  );
  const blockedRows = JSON.stringify(
    blocked.map(({ id, open, runAt, delayMs }) => ({ job_id: id, open, run_at: runAt, delay_ms: delayMs })),
  );
  await tx.query(sql`
    with edges as (
      insert into millrace.dependencies (job_id, place, needs, name, on_failure)
      select job_id, place, needs, name, on_failure
      from jsonb_to_recordset(${edgeRows}::jsonb) as e (job_id uuid, place int, needs uuid, name text, on_failure text)
    )
    insert into millrace.blocked (job_id, open, run_at, delay_ms)
    select job_id, open, run_at, delay_ms
    from jsonb_to_recordset(${blockedRows}::jsonb) as b (job_id uuid, open int, run_at timestamptz, delay_ms float8)`);
}

interface Counted {
  readonly id: string;
  readonly open: number;
  readonly broken: number;
  readonly impatient: number;
}

/** An `EndingListener`: frees jobs that no longer wait for anything, and fails those that cannot run any more. */
export async function settleDependents(tx: Executor, channel: string, endings: readonly Ending[]): Promise<void> {
  const counted = await count(tx, endings);
  if (counted.length === 0) return;
  const idsOf = (jobs: readonly Counted[]): string[] => jobs.map(({ id }) => id);
  const broken = counted.filter((job) => job.broken > 0);
  const free = counted.filter((job) => job.broken === 0 && (job.open === 0 || job.impatient > 0));
  const mended = counted.filter((job) => job.broken === 0 && job.open > 0 && job.impatient === 0);
  if (broken.length > 0) await fail(tx, idsOf(broken));
  if (free.length > 0) await release(tx, channel, idsOf(free));
  if (mended.length > 0) await blockAgain(tx, idsOf(mended));
}

/** Notes the ends with those who wait. A job may end more than once: retried, it may succeed after all. */
function count(tx: Executor, endings: readonly Ending[]): Promise<Counted[]> {
  const last = new Map(endings.map(({ jobId, outcome }) => [jobId, outcome === "completed" ? "completed" : "failed"]));
  return tx.query<Counted>(sql`
    with ended as (
      select * from unnest(${arrayLiteral([...last.keys()])}::uuid[], ${arrayLiteral([...last.values()])}::text[]) as e (id, state)
    ),
    edges as materialized (
      select d.job_id, d.place, d.state as was, d.on_failure, e.state
      from ended e join millrace.dependencies d on d.needs = e.id where d.state <> e.state
    ),
    noted as (
      update millrace.dependencies d set state = edges.state from edges where d.job_id = edges.job_id and d.place = edges.place
    )
    update millrace.blocked b set open = b.open - n.ended, broken = b.broken + n.broken, impatient = b.impatient + n.impatient
    from (
      select job_id, count(*) filter (where was = 'open') as ended,
             coalesce(sum(case when state = 'failed' then 1 when was = 'failed' then -1 end) filter (where on_failure = 'fail'), 0) as broken,
             coalesce(sum(case when state = 'failed' then 1 when was = 'failed' then -1 end) filter (where on_failure = 'continue'), 0) as impatient
      from edges group by job_id
    ) n where b.job_id = n.job_id
    returning b.job_id::text as id, b.open, b.broken, b.impatient`);
}

/** Makes jobs that wait due; so too those that had failed because of a dependency which has succeeded since. */
async function release(tx: Executor, channel: string, ids: readonly string[]): Promise<void> {
  await tx.query(sql`
    with chosen as materialized (
      select j.id, j.queue, j.priority, j.key, j.task, ${lineOf(sql`j`)} as line,
             greatest(now() + coalesce(b.delay_ms, 0) * interval '1 millisecond', b.run_at) as run_at
      from unnest(${arrayLiteral(ids)}::uuid[]) as given (id)
      cross join lateral (select * from millrace.jobs where id = given.id limit 1) j
      join millrace.blocked b on b.job_id = j.id
    ),
    waited as (
      delete from millrace.pending p using chosen c
      where p.line = c.line and p.rank = -c.priority and p.run_at = 'infinity' and p.job_id = c.id
      returning p.job_id, p.attempt
    ),
    raised as (
      delete from millrace.dead_letters d using chosen c
      where d.job_id = c.id and d.reason = 'DEPENDENCY_FAILED' returning d.job_id, d.attempt
    ),
    placed as (
      insert into millrace.pending (line, key, rank, run_at, job_id, task, attempt)
      select c.line, nullif(c.key, ''), -c.priority, c.run_at, c.id, c.task, w.attempt
      from (select * from waited union all select * from raised) w join chosen c on c.id = w.job_id
      returning job_id, abs(line) as queue, rank, run_at
    ),
    noted as (
      insert into millrace.operations (job_id, action, at, run_at) select job_id, 'release', clock_timestamp(), run_at from placed
    )
    select count(pg_notify(${channel}, lane.queue || ':' || lane.rank || ':' || lane.wait_ms)) from (
      select queue, rank, ceil(greatest(extract(epoch from min(run_at) - now()) * 1000, 0)) as wait_ms from placed group by queue, rank
    ) lane`);
}

/** Gives up jobs that wait for one that failed. They may be waited for themselves. */
async function fail(tx: Executor, ids: readonly string[]): Promise<void> {
  await tx.query(sql`
    with chosen as materialized (
      select j.id, j.queue, j.priority, j.task, ${lineOf(sql`j`)} as line, coalesce(j.options ? 'watched', false) as watched, why.needs, why.name
      from unnest(${arrayLiteral(ids)}::uuid[]) as given (id)
      cross join lateral (select * from millrace.jobs where id = given.id limit 1) j
      cross join lateral (
        select needs, name from millrace.dependencies d
        where d.job_id = j.id and d.state = 'failed' and d.on_failure = 'fail' order by place limit 1
      ) why
    ),
    waited as (
      delete from millrace.pending p using chosen c
      where p.line = c.line and p.rank = -c.priority and p.run_at = 'infinity' and p.job_id = c.id
      returning p.job_id, p.attempt
    ),
    told as (
      insert into millrace.attempts (job_id, queue, attempt, outcome, error_code, error_message, dead_reason)
      select c.id, c.queue, w.attempt, 'failed', 'DEPENDENCY_FAILED', 'Job ' || c.needs || ' ("' || c.name || '"), which this one needs, has failed.',
             'DEPENDENCY_FAILED'
      from waited w join chosen c on c.id = w.job_id
    ),
    buried as (
      insert into millrace.dead_letters (job_id, queue, task, attempt, reason, error_code)
      select c.id, c.queue, c.task, w.attempt, 'DEPENDENCY_FAILED', 'DEPENDENCY_FAILED' from waited w join chosen c on c.id = w.job_id
      on conflict (job_id) do nothing
    )
    insert into millrace.endings (job_id, outcome) select c.id, 'failed' from waited w join chosen c on c.id = w.job_id where c.watched`);
}

/** A job that had failed because of a dependency which has succeeded since waits for the others again. */
async function blockAgain(tx: Executor, ids: readonly string[]): Promise<void> {
  await tx.query(sql`
    with raised as (
      delete from millrace.dead_letters where job_id = any (${arrayLiteral(ids)}::uuid[]) and reason = 'DEPENDENCY_FAILED'
      returning job_id, attempt
    ),
    noted as (
      insert into millrace.operations (job_id, action, at, run_at) select job_id, 'block', clock_timestamp(), 'infinity' from raised
    )
    insert into millrace.pending (line, key, rank, run_at, job_id, task, attempt)
    select ${lineOf(sql`j`)}, nullif(j.key, ''), -j.priority, 'infinity', j.id, j.task, r.attempt
    from raised r cross join lateral (select * from millrace.jobs where id = r.job_id limit 1) j`);
}
