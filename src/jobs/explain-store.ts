/**
 * What has to be known to say why a job is where it is. A handful of statements, each along an index and within bounds: as fast
 * with a million jobs in line as with ten. They are read one after the other, so a job may move in between.
 */
import type { Database } from "../db/database.ts";
import { type Sql, sql } from "../db/sql.ts";
import { bulkTaskName } from "./bulk.ts";
import { type NamedJob, type Outstanding, culprits, outstanding } from "./dependencies-store.ts";
import { type Job, type JobStatus, findJobs } from "./read-store.ts";
import { used } from "./careful-store.ts";
import { dueTime, lineOf } from "./settle-store.ts";
import { type Step, currentStep } from "./steps-store.ts";

/** The job's surroundings: its queue, its lease, what was done to it last. Times by the database's clock. */
export interface Standing {
  readonly now: Date;
  readonly queueId: number;
  readonly taskId: number;
  readonly key: string;
  readonly rank: number;
  /** Where it stands in line, exactly: the text of a timestamptz. */
  readonly due: string;
  /** It does stand there. */
  readonly waits: boolean;
  readonly losses: number;
  /** Of this job; null: the task's. */
  readonly timeoutMs: number | null;
  readonly archivedAt: Date | null;
  /** The whole system is drained. */
  readonly drainedAt: Date | null;
  readonly drainedBy: string | null;
  readonly pausedAt: Date | null;
  readonly pausedBy: string | null;
  readonly pausedReason: string | null;
  /** Limits apply to the queue. */
  readonly careful: boolean;
  /** Concurrency keys take turns in the queue. */
  readonly keyed: boolean;
  readonly throttledUntil: Date | null;
  /** Jobs under its lease that are not settled; null when it does not run. */
  readonly leaseJobs: number | null;
  readonly claimedAt: Date | null;
  /** What orders to its worker name. */
  readonly workerId: number | null;
  readonly host: string | null;
  readonly pid: number | null;
  readonly beatAt: Date | null;
  /** When its worker is taken for dead unless it beats. */
  readonly leaseEndsAt: Date | null;
  readonly workerEnded: string | null;
  readonly cancelAskedAt: Date | null;
  readonly cancelAskedBy: string | null;
  readonly cancelReason: string | null;
  readonly cancelIgnoredAt: Date | null;
  /** The outcome or the operation that gave it its due time; null: its enqueue. */
  readonly movedBy: string | null;
  readonly movedAt: Date | null;
  readonly moverCode: string | null;
  readonly moverName: string | null;
  readonly moverReason: string | null;
  /** Somebody's last cancel, whether it was done at once or asked of a worker. */
  readonly cancelNoted: boolean;
  readonly cancelledBy: string | null;
  readonly cancelledReason: string | null;
  /** Ended attempts, but for the success, that counted; and those that failed. Of the newest 10 000. */
  readonly ended: number;
  readonly failed: number;
  readonly errorCode: string | null;
  readonly errorMessage: string | null;
}

/** Workers that have the job's task and work on its queue. */
export interface Serving {
  /** Live workers of any kind. */
  readonly running: number;
  /** Of these, on the queue; with the task; and both: those serve it. */
  readonly onQueue: number;
  readonly withTask: number;
  readonly serving: number;
  /** Of those that serve, told to take no more. */
  readonly leaving: number;
  /** Jobs that those that serve run at once, and hold now. */
  readonly places: number;
  readonly held: number;
  /** The last one that served it, dead or alive, of the newest 1 000. */
  readonly lastName: string | null;
  readonly lastSeenAt: Date | null;
}

/** Who is before it. */
export interface Line {
  /** Due jobs that go first, `lineMax` at most. */
  readonly ahead: number;
  /** There are more than were counted. */
  readonly more: boolean;
  readonly first: readonly string[];
  /** Jobs of the queue that went well in the last minute, per second. */
  readonly perSecond: number;
}

interface Holder {
  readonly job_id: string;
  readonly worker: string | null;
  readonly since: string;
}

/** The limits of a queue, and how far each is used up. */
export interface Limits {
  readonly concurrency: number | null;
  readonly maxInFlight: number | null;
  readonly keyConcurrency: number | null;
  readonly rateMax: number | null;
  readonly ratePerMs: number | null;
  readonly keyRateMax: number | null;
  readonly keyRatePerMs: number | null;
  readonly maxAttemptsPerMinute: number | null;
  readonly running: number;
  readonly keyRunning: number;
  readonly rateUsed: number;
  readonly rateFreesAt: Date | null;
  readonly keyRateUsed: number;
  readonly keyRateFreesAt: Date | null;
  readonly attemptsUsed: number;
  readonly attemptsFreeAt: Date | null;
  /** Why storm control held the queue the last time. */
  readonly decision: string | null;
  /** Who has the places, the longest first, five at most. */
  readonly holders: readonly Holder[];
  readonly keyHolders: readonly Holder[];
}

/** A job that another one needs, and how it stands; null: it is no more. */
export type NeededJob = NamedJob & { readonly status: JobStatus | null; readonly deadLetterReason: string | null };

/** What a job of a flow waits for, or what has taken it along. */
export interface Needs extends Pick<Outstanding, "open" | "total"> {
  readonly first: readonly NeededJob[];
}

export interface Observation {
  readonly job: Job;
  readonly standing: Standing;
  readonly needs?: Needs;
  /** In which its run sleeps or waits. */
  readonly step?: Step | undefined;
  readonly serving?: Serving;
  readonly line?: Line;
  readonly limits?: Limits;
  /** Of a bulk operation that somebody stopped. */
  readonly stopped?: Stopped;
}

export interface Stopped {
  readonly at: Date;
  readonly by: string | null;
  readonly lookedAt: number;
  readonly changed: number;
}

/** Reads what concerns this job. Undefined when there is none of that id. */
export async function observe(db: Database, id: string): Promise<Observation | undefined> {
  const [job] = await findJobs(db, [id]);
  const standing = job && (await readStanding(db, id));
  if (job === undefined || standing === undefined) return undefined;
  if (job.status === "blocked") return { job, standing, needs: await readNeeds(db, await outstanding(db, id)) };
  if (job.deadLetterReason === "DEPENDENCY_FAILED") {
    const first = await culprits(db, id);
    return { job, standing, needs: await readNeeds(db, { open: 0, total: first.length, first }) };
  }
  const stopped = job.task === bulkTaskName ? await readStopped(db, id) : undefined;
  if (stopped !== undefined && job.status !== "active") return { job, standing, stopped };
  if (job.status !== "waiting" && job.status !== "delayed") return { job, standing };
  const serving = await readServing(db, standing);
  if (job.status === "delayed") {
    const kind = suspensions.get(standing.moverCode);
    return { job, standing, serving, step: kind && (await currentStep(db, id, kind)) };
  }
  const line = await readLine(db, job.id, standing);
  return { job, standing, serving, line, ...(standing.careful && { limits: await readLimits(db, standing) }) };
}

async function readStopped(db: Database, id: string): Promise<Stopped | undefined> {
  const [row] = await db.query<Stopped>(sql`
    select stop_asked_at as at, stop_asked_by as by, looked_at::float8 as "lookedAt", changed::float8 from millrace.bulk_operations
    where id = ${id}::uuid and status = 'stopped' and stop_asked_at is not null`);
  return row;
}

/** What a run does that was put off with this code. */
const suspensions: ReadonlyMap<string | null, "sleep" | "event"> = new Map([
  ["STEP_SLEEPS", "sleep"],
  ["STEP_WAITS", "event"],
]);

async function readNeeds(db: Database, { open, total, first }: Outstanding): Promise<Needs> {
  const ids = first.map(({ id }) => id);
  const found = new Map((ids.length === 0 ? [] : await findJobs(db, ids)).map((job) => [job.id, job]));
  return {
    open,
    total,
    first: first.map(({ id, name }) => {
      const { status = null, deadLetterReason = null } = found.get(id) ?? {};
      return { id, name, status, deadLetterReason };
    }),
  };
}

/** Attempts counted at most. */
const attemptsMax = 10_000;

export async function readStanding(db: Database, id: string): Promise<Standing | undefined> {
  const [row] = await db.query<Standing>(sql`
    with job as materialized (
      select id, queue, task, key, priority, run_at, options, null::timestamptz as archived_at from millrace.jobs where id = ${id}::uuid
      union all
      select id, queue, task, key, priority, run_at, options, archived_at from millrace.jobs_archive where id = ${id}::uuid
      limit 1
    ),
    j as materialized (select j.*, ${dueTime} as due_at from job j)
    select now() as now, j.queue as "queueId", j.task as "taskId", j.key, (-j.priority)::int as rank, j.due_at::text as due,
           waits.losses is not null as waits, coalesce(waits.losses, 0)::int as losses, (j.options ->> 'timeout_ms')::float8 as "timeoutMs", j.archived_at as "archivedAt",
           state.drained_at as "drainedAt", state.drained_by as "drainedBy", q.paused_at as "pausedAt", q.paused_by as "pausedBy", q.paused_reason as "pausedReason", q.careful, q.keyed,
           case when q.throttled_until > now() then q.throttled_until end as "throttledUntil",
           runs.jobs as "leaseJobs", runs.claimed_at as "claimedAt", w.id as "workerId", w.host, w.pid, w.beat_at as "beatAt",
           w.beat_at + w.lease_ms * interval '1 millisecond' as "leaseEndsAt", w.ended as "workerEnded",
           c.at as "cancelAskedAt", c.by as "cancelAskedBy", c.reason as "cancelReason", c.ignored_at as "cancelIgnoredAt",
           moved.what as "movedBy", moved.at as "movedAt", moved.error_code as "moverCode", moved.by as "moverName", moved.reason as "moverReason",
           cancel.at is not null as "cancelNoted", cancel.by as "cancelledBy", cancel.reason as "cancelledReason",
           past.ended, past.failed, error.error_code as "errorCode", error.error_message as "errorMessage"
    from j join millrace.queues q on q.id = j.queue left join millrace.system_state state on true
    left join lateral (
      select p.losses from millrace.pending p
      where p.line = ${lineOf(sql`j`)} and p.rank = -j.priority and p.run_at = j.due_at and p.job_id = j.id limit 1
    ) waits on true
    left join lateral (
      select l.worker, l.claimed_at, cardinality(l.job_ids) - cardinality(l.done) as jobs
      from millrace.leases l where j.id = any (l.job_ids) and j.id <> all (l.done) limit 1
    ) runs on true
    left join lateral (select * from millrace.workers where id = runs.worker limit 1) w on true
    left join lateral (select * from millrace.cancel_requests where job_id = j.id limit 1) c on true
    left join lateral ( -- the first to say so: who moves a job within its line repeats its time
      select * from (
        select a.outcome as what, a.finished_at as at, a.error_code, null::text as by, null::text as reason
        from millrace.attempts a where a.job_id = j.id and a.retry_at = j.due_at and not a.late
        union all
        select o.action, o.at, null, o.by, o.reason from millrace.operations o where o.job_id = j.id and o.run_at = j.due_at
      ) m where j.due_at <> j.run_at order by m.at limit 1
    ) moved on true
    left join lateral (
      select o.at, o.by, o.reason from millrace.operations o where o.job_id = j.id and o.action = 'cancel' order by o.id desc limit 1
    ) cancel on true
    cross join lateral (
      select count(*) filter (where one.counts)::int as ended, count(*) filter (where one.counts and one.outcome not in ('succeeded', 'cancelled'))::int as failed
      from (
        select a.outcome, case a.outcome when 'snoozed' then false when 'lost' then a.alone when 'cancelled' then a.started_at is not null
                          else a.started_at is not null or a.error_code is distinct from 'DEPENDENCY_FAILED' end as counts
        from millrace.attempts a where a.job_id = j.id and not a.late order by a.id desc limit ${attemptsMax}
      ) one
    ) past
    left join lateral (
      select a.error_code, a.error_message from millrace.attempts a
      where a.job_id = j.id and not a.late and a.error_code is not null order by a.id desc limit 1
    ) error on true`);
  return row;
}

export async function readServing(db: Database, { queueId, taskId }: Standing): Promise<Serving> {
  const [row] = await db.query<Serving>(sql`
    with live as materialized (
      select w.id, coalesce(w.wanted_concurrency, w.concurrency) as places, w.draining or w.recycle_asked_at is not null as leaving,
             w.queues is null or ${queueId}::int = any (w.queues) as on_queue, w.tasks is null or ${taskId}::int = any (w.tasks) as with_task
      from millrace.workers w where w.stopped_at is null and w.beat_at >= now() - w.lease_ms * interval '1 millisecond'
    ),
    last as (
      select w.name, greatest(w.beat_at, w.started_at) as seen_at
      from (select * from millrace.workers order by id desc limit 1000) w
      where (w.queues is null or ${queueId}::int = any (w.queues)) and (w.tasks is null or ${taskId}::int = any (w.tasks))
      order by w.beat_at desc limit 1
    )
    select count(*)::int as running, count(*) filter (where on_queue)::int as "onQueue", count(*) filter (where with_task)::int as "withTask",
           count(*) filter (where on_queue and with_task)::int as serving,
           count(*) filter (where on_queue and with_task and leaving)::int as leaving,
           coalesce(sum(places) filter (where on_queue and with_task and not leaving), 0)::int as places,
           (select coalesce(sum(cardinality(l.job_ids) - cardinality(l.done)), 0)::int from millrace.leases l
            where l.worker in (select id from live where on_queue and with_task and not leaving)) as held,
           (select name from last) as "lastName", (select seen_at from last) as "lastSeenAt"
    from live`);
  return row as Serving;
}

/** Jobs counted before one at most. */
export const lineMax = 5_000;
/** Different priorities looked at, most urgent first. */
const ranksMax = 1_000;
/** Settled batches read for the rate of a queue. */
const batchesMax = 5_000;

export async function readLine(db: Database, id: string, { queueId, key, rank, due }: Standing): Promise<Line> {
  // A key is a line of its own; see `lineOf`.
  const inLine = key === "" ? sql`p.line = ${queueId}::int` : sql`p.line = -${queueId}::int and p.key = ${key}`;
  const [row] = await db.query<Line>(sql`
    with recursive ranks as (
      (select p.rank, 1 as n from millrace.pending p where ${inLine} order by p.rank limit 1)
      union all
      select next.rank, ranks.n + 1 from ranks cross join lateral (
        select p.rank from millrace.pending p
        where ${inLine} and p.rank > ranks.rank and p.rank < ${rank}::smallint order by p.rank limit 1
      ) next where ranks.n < ${ranksMax}::int
    ),
    ahead as materialized (
      select before.* from (
        select first.* from (select ranks.rank from ranks where ranks.rank < ${rank}::smallint) r cross join lateral (
          select p.job_id, p.losses from millrace.pending p
          where ${inLine} and p.rank = r.rank and p.run_at <= now()
          order by p.run_at, p.job_id limit ${lineMax}::int
        ) first
        union all
        (select p.job_id, p.losses from millrace.pending p
         where ${inLine} and p.rank = ${rank}::smallint and p.run_at <= now()
           and (p.run_at, p.job_id) < (${due}::timestamptz, ${id}::uuid)
         order by p.run_at, p.job_id limit ${lineMax}::int)
      ) before limit ${lineMax}::int
    ),
    recent as (
      select s.n, s.finished_at from millrace.settled s
      where s.queue = ${queueId}::int and s.finished_at > now() - interval '1 minute' order by s.finished_at desc limit ${batchesMax}::int
    )
    select (select count(*) from ahead where losses = 0)::int as ahead,
           (select count(*) from ahead) >= ${lineMax}::int or (select count(*) from ranks) >= ${ranksMax}::int as more,
           array(select job_id::text from ahead where losses = 0 limit 3) as first,
           (select coalesce(sum(n), 0) / case when count(*) < ${batchesMax}::int then 60
              else greatest(extract(epoch from now() - min(finished_at)), 0.001) end from recent)::float8 as "perSecond"`);
  return row as Line;
}

/** Who runs in the queue, or under a key of it, the longest first. A queue with limits has one lease per job. */
const holders = (queue: number, underKey: Sql): Sql => sql`
  (select coalesce(jsonb_agg(jsonb_build_object('job_id', h.job_id, 'worker', h.name, 'since', h.claimed_at) order by h.claimed_at, h.job_id), '[]')
   from (
     select l.job_ids[1] as job_id, w.name, l.claimed_at from millrace.leases l left join millrace.workers w on w.id = l.worker
     where l.queue = ${queue}::int and ${underKey} order by l.claimed_at, l.id limit 5
   ) h)`;

export async function readLimits(db: Database, { queueId, key }: Standing): Promise<Limits> {
  const [row] = await db.query<Limits>(sql`
    select p.concurrency, p.max_in_flight as "maxInFlight", p.key_concurrency as "keyConcurrency", p.rate_max as "rateMax",
           p.rate_per_ms::float8 as "ratePerMs", p.key_rate_max as "keyRateMax", p.key_rate_per_ms::float8 as "keyRatePerMs",
           p.max_attempts_per_minute as "maxAttemptsPerMinute",
           (select coalesce(sum(cardinality(l.job_ids) - cardinality(l.done)), 0)::int from millrace.leases l where l.queue = q.id) as running,
           (select count(*)::int from millrace.leases l where l.queue = q.id and l.key = ${key}) as "keyRunning",
           rate.n as "rateUsed", rate.frees_at as "rateFreesAt", by_key.n as "keyRateUsed", by_key.frees_at as "keyRateFreesAt",
           attempts.n as "attemptsUsed", attempts.frees_at as "attemptsFreeAt",
           (select d.reason_code from millrace.policy_decisions d where d.queue = q.id order by d.id desc limit 1) as decision,
           ${holders(queueId, sql`true`)} as holders, ${holders(queueId, sql`l.key = ${key}`)} as "keyHolders"
    from millrace.queues q left join millrace.queue_policies p on p.queue = q.id
    cross join ${used("rate", sql`''`, queueId, sql`coalesce(p.rate_per_ms, 0)`)} rate
    cross join ${used("rate", sql`${key}`, queueId, sql`coalesce(p.key_rate_per_ms, 0)`)} by_key
    cross join ${used("attempts", sql`''`, queueId, sql`60000`)} attempts
    where q.id = ${queueId}::int`);
  return row as Limits;
}
