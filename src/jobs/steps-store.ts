/** Steps and the events they wait for. A step is kept only while its worker holds the job: one that was declared dead keeps nothing. */
import type { Database, Executor } from "../db/database.ts";
import { sql } from "../db/sql.ts";
import type { NewStep, StepFailure, StepKind, StepRecord } from "../steps/steps.ts";
import { moveJobs } from "./orders-store.ts";

/** A step with whose it is. */
export interface OwnStep extends NewStep {
  readonly lease: string;
  readonly jobId: string;
  readonly attempt: number;
  /** None of this job was kept before: from now on its claims say that there are some. */
  readonly first: boolean;
}

const columns = sql`
  place, name, kind, finished_at is not null as finished, result, result is not null as returned, failure, event,
  greatest(extract(epoch from until - now()) * 1000, 0)::float8 as "leftMs"`;

export async function loadSteps(db: Executor, jobId: string): Promise<StepRecord[]> {
  const rows = await db.query<StepRow>(sql`
    select ${columns} from millrace.steps where job_id = ${jobId}::uuid order by place`);
  return rows.map(asRecord);
}

/** Keeps steps of any jobs of one worker; says which, and for how much longer each lasts (ms): the others are no longer this worker's. */
export async function keepSteps(
  db: Executor,
  worker: number,
  steps: readonly OwnStep[],
): Promise<ReadonlyMap<string, number>> {
  const given = JSON.stringify(
    steps.map((step) => ({
      lease: step.lease,
      job_id: step.jobId,
      attempt: step.attempt,
      first: step.first,
      place: step.place,
      name: step.name,
      kind: step.kind,
      result: step.result,
      failure: step.failure,
      finished: step.finished,
      until_ms: step.untilMs,
      until_time: step.untilTime,
      event: step.event,
    })),
  );
  const rows = await db.rows<[string, number]>(sql`
    with given as materialized (
      select * from jsonb_to_recordset(${given}::jsonb) as g (
        lease bigint, job_id uuid, attempt smallint, first boolean, place int, name text, kind text, result text, failure jsonb, finished boolean,
        until_ms float8, until_time timestamptz, event text)
    ),
    held as materialized (
      select id, job_ids, done from millrace.leases
      where id in (select lease from given) and worker = ${worker}::int order by id for key share
    ),
    ours as materialized (
      select g.* from given g join held h on h.id = g.lease and g.job_id = any (h.job_ids) and g.job_id <> all (h.done)
    ),
    marked as (
      update millrace.jobs j set options = coalesce(j.options, '{}') || '{"steps": true}' from ours where ours.first and j.id = ours.job_id
    ),
    kept as (
      insert into millrace.steps (job_id, place, name, kind, until, event, result, failure, attempt, finished_at)
      select job_id, place, name, kind, coalesce(until_time, now() + until_ms * interval '1 millisecond'), event, result::jsonb, failure, attempt,
             case when finished then now() end
      from ours on conflict (job_id, place) do nothing returning job_id, place, until
    )
    select job_id || ':' || place, greatest(extract(epoch from coalesce(until, now()) - now()) * 1000, 0)::float8 from kept`);
  return new Map(rows);
}

export const keyOf = ({ jobId, place }: Pick<OwnStep, "jobId" | "place">): string => `${jobId}:${place}`;

/** A wait and the event it waits for take turns: whichever comes second sees the first. */
async function lockEvent(tx: Executor, channel: string, event: string): Promise<void> {
  await tx.rows(
    sql`select pg_advisory_xact_lock(hashtextextended(${channel}::text || ':event:' || ${event}::text, 0))::text`,
  );
}

/** Undefined: the job is no longer this worker's. */
export async function awaitEvent(
  db: Database,
  channel: string,
  worker: number,
  step: OwnStep & { readonly event: string },
): Promise<StepRecord | undefined> {
  return db.transaction(async (tx) => {
    await lockEvent(tx, channel, step.event);
    const kept = await keepSteps(tx, worker, [step]);
    if (!kept.has(keyOf(step))) return undefined;
    await tx.query(sql`
      update millrace.steps s set result = e.payload, finished_at = now() from millrace.emitted_events e
      where s.job_id = ${step.jobId}::uuid and s.place = ${step.place}::int and e.name = ${step.event}`);
    return (await loadSteps(tx, step.jobId)).find(({ place }) => place === step.place);
  });
}

/** Ends a wait that has lasted as long as it may, unless its event has come. */
export async function giveUpWait(db: Executor, jobId: string, place: number): Promise<StepRecord | undefined> {
  const [row] = await db.query<StepRow>(sql`
    update millrace.steps set finished_at = coalesce(finished_at, now())
    where job_id = ${jobId}::uuid and place = ${place}::int returning ${columns}`);
  return row && asRecord(row);
}

export interface Emitted {
  /** An event of this name came before, and counts; this one does not. */
  readonly duplicate: boolean;
  /** Runs that waited for it. */
  readonly woken: number;
}

/** The first event of a name counts, for runs that wait for it and for those that will. `payload` is JSON text. */
export async function emitEvent(
  db: Database,
  channel: string,
  event: string,
  payload: string,
  by: string | null,
): Promise<Emitted> {
  return db.transaction(async (tx) => {
    await lockEvent(tx, channel, event);
    const made = await tx.query(sql`
      insert into millrace.emitted_events (name, payload, by) values (${event}, ${payload}::jsonb, ${by})
      on conflict (name) do nothing returning name`);
    if (made.length === 0) return { duplicate: true, woken: 0 };
    const waiting = await tx.query<{ id: string }>(sql`
      update millrace.steps set result = ${payload}::jsonb, finished_at = now()
      where event = ${event} and finished_at is null returning job_id::text as id`);
    const ids = waiting.map(({ id }) => id);
    // Those that are just about to wait are not in line yet; `settle` looks whether their event has come.
    if (ids.length > 0) await moveJobs(tx, channel, ids, "event", { delayMs: 0 }, { by, reason: event });
    return { duplicate: false, woken: ids.length };
  });
}

/** A step as its readers see it. Times are Dates; what does not apply is null. */
export interface Step {
  /** From 1, in the order in which the run asked for them. */
  readonly place: number;
  readonly name: string;
  readonly kind: StepKind;
  /** Of a sleep and of a wait: when it is over. */
  readonly until: Date | null;
  /** What it waits for. */
  readonly event: string | null;
  /** What it returned, or what came with the event. */
  readonly result: unknown;
  /** What it threw, before the run went on to another step. */
  readonly failure: Pick<StepFailure, "name" | "code" | "message"> | null;
  /** The attempt that began it. */
  readonly attempt: number;
  readonly startedAt: Date;
  /** Null: it is not done, or it is a sleep, which is over by itself. */
  readonly finishedAt: Date | null;
}

const described = sql`place + 1 as place, name, kind, until, event, result, failure - 'retryable' - 'retryAfterMs' as failure, attempt::int, started_at as "startedAt", finished_at as "finishedAt"`;

/** In order, those behind the place `after`. */
export function readSteps(db: Executor, jobId: string, limit: number, after: number): Promise<Step[]> {
  return db.query<Step>(sql`
    select ${described} from millrace.steps where job_id = ${jobId}::uuid and place >= ${after}::int order by place limit ${limit}::int`);
}

/** The step in which a run sleeps or waits at present. */
export async function currentStep(db: Executor, jobId: string, kind: "sleep" | "event"): Promise<Step | undefined> {
  const [step] = await db.query<Step>(sql`
    select ${described} from millrace.steps
    where job_id = ${jobId}::uuid and kind = ${kind} and finished_at is null and until > now() order by until, place limit 1`);
  return step;
}

interface StepRow extends StepRecord {
  readonly returned: boolean;
}

/** A step may return null, and so may an event say; SQL's null is neither. */
function asRecord({ returned, ...record }: StepRow): StepRecord {
  return { ...record, result: returned ? record.result : undefined };
}
