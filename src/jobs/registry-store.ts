/** Who runs jobs, and the orders given to them: written to the worker's row and to the audit, and told at once by NOTIFY `worker:<id>`. */
import { actorColumns, actorNow } from "../audit/actor-store.ts";
import type { Database, Executor } from "../db/database.ts";
import { sql } from "../db/sql.ts";

/** `lost`: it stopped beating for longer than its lease. */
export type WorkerState = "running" | "idle" | "draining" | "lost" | "stopped";

export interface HeldJob {
  readonly id: string;
  readonly task: string;
  /** When it was claimed; it started then or a moment later. */
  readonly since: Date;
}

export interface WorkerInfo {
  readonly id: number;
  readonly name: string;
  readonly host: string;
  readonly pid: number;
  readonly version: string;
  readonly state: WorkerState;
  /** Null: every queue. */
  readonly queues: string[] | null;
  /** Null: every task. */
  readonly tasks: string[] | null;
  readonly concurrency: number;
  /** It was asked to stop and start anew, and has not yet. */
  readonly recycling: boolean;
  /** Jobs it holds, running or about to, and the oldest hundred of them. */
  readonly active: number;
  readonly jobs: HeldJob[];
  readonly startedAt: Date;
  readonly beatAt: Date;
  /** By the database's clock. */
  readonly beatAgeMs: number;
  readonly stoppedAt: Date | null;
}

/** Workers shown at most; beyond them the oldest that have stopped are left out. */
const listMax = 1_000;
const heldMax = 100;

type Row = Omit<WorkerInfo, "jobs"> & { readonly jobs: readonly { id: string; task: string; since: string }[] | null };

/** Every worker that has not stopped, and those that did within a day. */
export async function listWorkers(db: Database): Promise<WorkerInfo[]> {
  const rows = await db.query<Row>(sql`
    select w.id, w.name, w.host, w.pid, w.version, w.concurrency, w.recycle_asked_at is not null and w.stopped_at is null as recycling,
      case when w.ended = 'lost' or (w.stopped_at is null and w.beat_at < now() - w.lease_ms * interval '1 millisecond') then 'lost'
           when w.stopped_at is not null then 'stopped'
           when w.draining or w.recycle_asked_at is not null then 'draining'
           when held.active > 0 then 'running' else 'idle' end as state,
      case when w.queues is not null then
        coalesce((select array_agg(q.name order by q.name) from millrace.queues q where q.id = any (w.queues)), '{}') end as queues,
      case when w.tasks is not null then
        coalesce((select array_agg(t.name order by t.name) from millrace.tasks t where t.id = any (w.tasks)), '{}') end as tasks,
      held.active, held.jobs, w.started_at as "startedAt", w.beat_at as "beatAt", w.stopped_at as "stoppedAt",
      greatest(extract(epoch from now() - w.beat_at) * 1000, 0)::float8 as "beatAgeMs"
    from millrace.workers w
    cross join lateral (
      select coalesce(sum(cardinality(l.job_ids) - cardinality(l.done)), 0)::int as active,
        (select json_agg(json_build_object('id', first.id, 'task', first.task, 'since', first.claimed_at) order by first.claimed_at, first.id)
         from (
           select open.id, t.name as task, o.claimed_at
           from millrace.leases o cross join unnest(o.job_ids) as open (id)
           cross join lateral (select task from millrace.jobs where id = open.id limit 1) j
           cross join lateral (select name from millrace.tasks where id = j.task limit 1) t
           where o.worker = w.id and open.id <> all (o.done) order by o.claimed_at, open.id limit ${heldMax}
         ) first) as jobs
      from millrace.leases l where l.worker = w.id
    ) held
    where w.stopped_at is null or w.stopped_at > now() - interval '1 day'
    order by w.stopped_at is not null, w.id desc limit ${listMax}`);
  return rows.map((row) => ({
    ...row,
    jobs: (row.jobs ?? []).map(({ id, task, since }) => ({ id, task, since: new Date(since) })),
  }));
}

/** Whether the worker can be given orders. */
export async function isAtWork(db: Database, worker: number): Promise<boolean> {
  const [row] = await db.query<{ there: boolean }>(
    sql`select exists (select from millrace.workers where id = ${worker} and stopped_at is null) as there`,
  );
  return row?.there ?? false;
}

/** That nothing is to be claimed, by any worker there is or that starts. */
export interface Drained {
  readonly since: Date;
  readonly by: string | null;
}

/** Null: the system is not drained. */
export async function readDrained(db: Database): Promise<Drained | null> {
  const [row] = await db.query<Drained>(
    sql`select drained_at as since, drained_by as by from millrace.system_state where drained_at is not null`,
  );
  return row ?? null;
}

/** That no schedule is to fire, while workers go on. Null: they fire. */
export async function readSchedulingStopped(db: Database): Promise<Drained | null> {
  const [row] = await db.query<Drained>(sql`
    select scheduling_stopped_at as since, scheduling_stopped_by as by
    from millrace.system_state where scheduling_stopped_at is not null`);
  return row ?? null;
}

/** Lets no schedule fire, or all of them again. Firings under way end first. False: it was so already. */
export async function orderScheduling(
  db: Database,
  channel: string,
  stopped: boolean,
  by: string | null,
): Promise<boolean> {
  return db.transaction(async (tx) => {
    if (stopped) await tx.query(sql`lock table millrace.schedules in exclusive mode`);
    const changed = await tx.query(sql`
      with changed as (
        update millrace.system_state
        set scheduling_stopped_at = case when ${stopped}::boolean then now() end,
            scheduling_stopped_by = case when ${stopped}::boolean then ${by}::text end
        where (scheduling_stopped_at is not null) <> ${stopped}::boolean returning singleton
      ),
      noted as (
        insert into millrace.audit (by, action, subject)
        select ${by}::text, ${stopped ? "scheduling.stop" : "scheduling.resume"}::text, 'system' from changed
      )
      select pg_notify(${channel}, 'schedules') from changed`);
    return changed.length > 0;
  });
}

/** Every worker, and those that start from now on. Going on, schedules fire again too. Returns those for which it changed something. */
export async function orderSystemDrain(
  db: Database,
  channel: string,
  draining: boolean,
  by: string | null,
): Promise<number[]> {
  return db.transaction(async (tx) => {
    // Its own statement, for the one that follows must see the workers that registered before this had the row; see `register`.
    const changed = await tx.query(sql`
      update millrace.system_state
      set drained_at = case when ${draining}::boolean then now() end, drained_by = case when ${draining}::boolean then ${by}::text end,
          scheduling_stopped_at = case when ${draining}::boolean then scheduling_stopped_at end,
          scheduling_stopped_by = case when ${draining}::boolean then scheduling_stopped_by end
      where (drained_at is not null) <> ${draining}::boolean or (not ${draining}::boolean and scheduling_stopped_at is not null)
      returning singleton`);
    const workers = await orderDrain(tx, channel, null, draining, by);
    if (changed.length > 0) {
      await tx.query(sql`
        insert into millrace.audit (by, action, subject, ${actorColumns}) values (${by}::text, ${draining ? "drain" : "resume"}::text, 'system', ${actorNow()})`);
    }
    return workers;
  });
}

/** One worker, or, without an id, every one. Returns those for which it changed something. */
export async function orderDrain(
  db: Executor,
  channel: string,
  worker: number | null,
  draining: boolean,
  by: string | null,
): Promise<number[]> {
  const rows = await db.query<{ id: number }>(sql`
    -- in order, for of two orders for all of them each would have rows that the other wants
    with found as materialized (
      select id from millrace.workers
      where draining <> ${draining} and (${worker}::int is null or id = ${worker})
        -- one that was declared dead takes its orders along when it registers anew: what is resumed must not drain then
        and (stopped_at is null or (${worker}::int is null and not ${draining}::boolean))
      order by id for update
    ),
    changed as (
      update millrace.workers w set draining = ${draining} from found where w.id = found.id returning w.id, w.stopped_at
    ),
    told as (select id from changed where stopped_at is null),
    noted as (
      insert into millrace.audit (by, action, subject, ${actorColumns})
      -- sorted, so that all are changed before the first is noted: writers of the audit wait for each other
      select ${by}::text, ${draining ? "drain" : "resume"}::text, 'worker:' || id, ${actorNow()} from told order by id
    ),
    woken as (select id, pg_notify(${channel}, 'worker:' || id) from told)
    select id from woken order by id`);
  return rows.map(({ id }) => id);
}

/** False when there is no such worker. */
export async function orderConcurrency(
  db: Database,
  channel: string,
  worker: number,
  concurrency: number,
  by: string | null,
): Promise<boolean> {
  const [row] = await db.query<{ changed: number }>(sql`
    with told as (
      update millrace.workers set wanted_concurrency = ${concurrency} where id = ${worker} and stopped_at is null returning id
    ),
    noted as (
      insert into millrace.audit (by, action, subject, details, ${actorColumns})
      select ${by}::text, 'concurrency', 'worker:' || id, jsonb_build_object('concurrency', ${concurrency}::int), ${actorNow()} from told
    ),
    woken as (select pg_notify(${channel}, 'worker:' || id) from told)
    select count(*)::int as changed from woken`);
  return row?.changed === 1;
}

/** False when there is no such worker. Asking again while it is on its way changes nothing. */
export async function orderRecycle(db: Database, channel: string, worker: number, by: string | null): Promise<boolean> {
  const [row] = await db.query<{ changed: number }>(sql`
    with told as (
      update millrace.workers set recycle_asked_at = coalesce(recycle_asked_at, now())
      where id = ${worker} and stopped_at is null returning id
    ),
    noted as (insert into millrace.audit (by, action, subject, ${actorColumns}) select ${by}::text, 'recycle', 'worker:' || id, ${actorNow()} from told),
    woken as (select pg_notify(${channel}, 'worker:' || id) from told)
    select count(*)::int as changed from woken`);
  return row?.changed === 1;
}
