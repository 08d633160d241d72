/** Which job has a key of a task. The key's row is locked until the transaction ends, so that calls under one key take turns. */
import type { Executor } from "../db/database.ts";
import { sql } from "../db/sql.ts";
import type { NewJob } from "./enqueue-store.ts";
import { moveJobs } from "./orders-store.ts";
import { type JobStatus, findJobs } from "./read-store.ts";

/** When a later call under the same key gets the job that is there already. Times in ms. */
export interface UniqueRule {
  readonly key: string;
  /** While that job is in one of these statuses … */
  readonly statuses: readonly JobStatus[];
  /** … and was enqueued no longer ago than this; null: however long ago. */
  readonly keepMs: number | null;
  /** The later call puts the job off, and gives it its own input. */
  readonly debounce: { readonly waitMs: number; readonly maxWaitMs: number | null } | undefined;
}

/** The job that has the key: this new one, which the caller has yet to insert, or an earlier one. Part of the caller's transaction. */
export async function takeKey(tx: Executor, channel: string, job: NewJob, rule: UniqueRule): Promise<string> {
  const until = sql`now() + ${rule.keepMs}::float8 * interval '1 millisecond'`;
  const { waitMs = 0, maxWaitMs = null } = rule.debounce ?? {};
  const [row] = await tx.query<{ holder: string; expired: boolean; waitMs: number }>(sql`
    insert into millrace.unique_keys as k (task, key, job_id, until)
    values (${job.task}::int, ${rule.key}, ${job.id}::uuid, ${until})
    on conflict (task, key) do update set key = k.key
    returning job_id::text as holder, coalesce(until <= now(), false) as expired,
      greatest(least(${waitMs}::float8, extract(epoch from since - now()) * 1000 + ${maxWaitMs}::float8), 0)::float8 as "waitMs"`);
  if (row === undefined || row.holder === job.id) return job.id;
  const { holder } = row;
  const found = row.expired ? undefined : (await findJobs(tx, [holder]))[0];
  if (found !== undefined && rule.statuses.includes(found.status)) {
    if (rule.debounce === undefined) return holder;
    // One that has begun works on what it was given, and one that is due has been quiet long enough: it keeps its place in line.
    const waitMs = found.status === "waiting" ? undefined : row.waitMs;
    if (found.startedAt === null && (await putOff(tx, channel, holder, job, waitMs))) return holder;
  }
  await tx.query(sql`
    update millrace.unique_keys set job_id = ${job.id}::uuid, since = now(), until = ${until}
    where task = ${job.task}::int and key = ${rule.key}`);
  return job.id;
}

/** Gives the key up that `takeKey` took for a job which is not let in. */
export async function releaseKey(tx: Executor, job: NewJob): Promise<void> {
  await tx.query(sql`delete from millrace.unique_keys where job_id = ${job.id}::uuid`);
}

/** False when a worker has just taken it. `waitMs` undefined: only its input changes. */
async function putOff(
  tx: Executor,
  channel: string,
  holder: string,
  job: NewJob,
  waitMs: number | undefined,
): Promise<boolean> {
  const by = job.special?.options?.by ?? null;
  const moved = await moveJobs(tx, channel, [holder], "debounce", { delayMs: waitMs }, { by, reason: null });
  if (moved.length === 0) return false;
  // The newest one says where the job is; a job that is put off a thousand times has one line of history, not a thousand.
  await tx.query(sql`
    with put_off as (
      delete from millrace.operations where job_id = ${holder}::uuid and action = 'debounce'
        and id < (select max(id) from millrace.operations where job_id = ${holder}::uuid)
    )
    update millrace.jobs set input = ${job.input}::jsonb where id = ${holder}::uuid`);
  return true;
}
