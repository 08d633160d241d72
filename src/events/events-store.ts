/** Reads events from the tables that tell them. Nothing here writes, and nothing was written for it. */
import type { Database, Executor } from "../db/database.ts";
import { type Sql, arrayLiteral, join, sql } from "../db/sql.ts";
import { type IdLine, prepared } from "./id-line.ts";
import type { Numbered } from "./types.ts";

/** Rows of one table read at once. */
export const pageMax = 1_000;
/** Completed or enqueued jobs told one by one per look; beyond them they are told together. */
export const singlesMax = 1_000;
/** Jobs named by an event that stands for many. */
const namedMax = 20;

/** Who writes at a moment. Times in microseconds since 1970. */
export interface Writers {
  readonly at: number;
  /** By table: the transactions that may have written it and have not ended. */
  readonly of: ReadonlyMap<string, ReadonlySet<string>>;
  /** When each open transaction began; and of those, the ones that may have written `jobs`. */
  readonly open: readonly number[];
  readonly enqueuing: readonly number[];
  /** Somebody else's transactions, whose begin this role may not see. */
  readonly hidden: boolean;
}

const us = (time: Sql): Sql => sql`(extract(epoch from ${time}) * 1000000)::float8`;

/**
 * A statement of its own, before the one that reads: whoever is not in it has ended, and what it has committed is visible to the next.
 * A writer holds its table's lock from before it takes a number until after its commit can be seen.
 */
export async function readWriters(db: Database): Promise<Writers> {
  if (db.kind === "embedded") {
    // One connection, which is ours at this moment: nobody else is in the middle of anything.
    const [row] = await db.rows<[number]>(sql`select ${us(sql`now()`)}`);
    return { at: row?.[0] ?? 0, of: new Map(), open: [], enqueuing: [], hidden: false };
  }
  const [row] = await db.query<{
    at: number;
    locks: [table: string, writer: string][] | null;
    open: number[] | null;
    enqueuing: number[] | null;
    hidden: boolean;
  }>(sql`
    with locks as materialized (
      select c.relname as name, case when l.pid is null then ${prepared} else l.virtualtransaction end as writer, l.pid
      from pg_locks l join pg_class c on c.oid = l.relation
      where l.locktype = 'relation' and l.granted and l.pid is distinct from pg_backend_pid()
        and l.mode in ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
        and l.database = (select oid from pg_database where datname = current_database())
        and l.relation in ('millrace.jobs'::regclass, 'millrace.workers'::regclass, 'millrace.operations'::regclass,
          'millrace.policy_decisions'::regclass, 'millrace.ingest_decisions'::regclass, 'millrace.attempts'::regclass,
          'millrace.settled'::regclass, 'millrace.audit'::regclass)
    ),
    running as materialized (
      select pid, xact_start, query = '<insufficient privilege>' as hidden from pg_stat_activity
      where datname = current_database() and pid <> pg_backend_pid()
    )
    select ${us(sql`now()`)} as at,
           (select json_agg(distinct jsonb_build_array(name, writer)) from locks) as locks,
           (select array_agg(distinct ${us(sql`xact_start`)}) from running where xact_start is not null) as open,
           (select array_agg(distinct ${us(sql`r.xact_start`)}) from running r join locks l on l.pid = r.pid
            where l.name = 'jobs' and r.xact_start is not null) as enqueuing,
           coalesce((select bool_or(hidden) from running), false) or exists (select from locks where pid is null) as hidden`);
  const { at = 0, locks, open, enqueuing, hidden = false } = row ?? {};
  const of = new Map<string, Set<string>>();
  for (const [table, writer] of locks ?? []) of.set(table, (of.get(table) ?? new Set()).add(writer));
  return { at, of, open: open ?? [], enqueuing: enqueuing ?? [], hidden };
}

const tables: Readonly<Record<Numbered, Sql>> = {
  workers: sql`millrace.workers`,
  operations: sql`millrace.operations`,
  policy_decisions: sql`millrace.policy_decisions`,
  ingest_decisions: sql`millrace.ingest_decisions`,
  attempts: sql`millrace.attempts`,
  settled: sql`millrace.settled`,
  audit: sql`millrace.audit`,
};

/** One cheap look: the numbers these tables have come to. */
export async function readEnds(db: Executor, followed: readonly Numbered[]): Promise<ReadonlyMap<Numbered, number>> {
  if (followed.length === 0) return new Map();
  const ends = followed.map((name) => sql`coalesce((select max(id) from ${tables[name]}), 0)::float8`);
  const [row = []] = await db.rows<number[]>(sql`select ${join(ends, sql`, `)}`);
  return new Map(followed.map((name, i) => [name, row[i] ?? 0]));
}

/** Where each table begins, and the last number it ever gave; for whoever comes back after long. */
export async function readBounds(db: Executor): Promise<Map<string, { first: number | null; last: number }>> {
  const bound = (name: Numbered, sequence: Sql): Sql => sql`
    select ${name}::text as name, (select min(id) from ${tables[name]})::float8 as first,
           coalesce(pg_sequence_last_value(pg_get_serial_sequence(${sequence}, 'id')::regclass), 0)::float8 as last`;
  const rows = await db.query<{ name: string; first: number | null; last: number }>(sql`
    ${bound("workers", sql`'millrace.workers'`)} union all
    ${bound("operations", sql`'millrace.operations'`)} union all
    ${bound("policy_decisions", sql`'millrace.policy_decisions'`)} union all
    ${bound("ingest_decisions", sql`'millrace.ingest_decisions'`)} union all
    ${bound("attempts", sql`'millrace.attempts'`)} union all
    ${bound("settled", sql`'millrace.settled'`)} union all
    select 'audit', (select min(id) from millrace.audit)::float8, (select last_id from millrace.audit_checkpoint)::float8`);
  return new Map(rows.map(({ name, first, last }) => [name, { first, last }]));
}

/** The shortest time for which the policy of a queue keeps what has ended, in ms; null: none says. */
export async function readShortestKept(db: Executor): Promise<number | null> {
  const [row] = await db.rows<[number | null]>(
    sql`select min(least(keep_completed_ms, keep_failed_ms))::float8 from millrace.queue_policies`,
  );
  return row?.[0] ?? null;
}

/** The numbers that are there, of these. */
export async function readIds(db: Executor, source: Numbered, from: number, to: number): Promise<number[]> {
  const rows = await db.rows<[number]>(
    sql`select id::float8 from ${tables[source]} where id between ${from}::bigint and ${to}::bigint order by id`,
  );
  return rows.map(([id]) => id);
}

/** What is told of a job by its task: it may be archived by now, or gone. */
const taskOf = (id: Sql): Sql => sql`
  lateral (
    select t.name as task, q.name as queue from (
      select j.task, j.queue from millrace.jobs j where j.id = ${id}
      union all
      select j.task, j.queue from millrace.jobs_archive j where j.id = ${id}
      limit 1
    ) j join millrace.tasks t on t.id = j.task join millrace.queues q on q.id = j.queue
  )`;

/** The next rows of a table, and those that have come into gaps since. */
const next = (source: Numbered, { high, gaps }: IdLine): Sql => sql`
  (select * from ${tables[source]} where id > ${high}::bigint order by id limit ${pageMax}::int)
  union all
  select late.* from unnest(${arrayLiteral(gaps.map(([from]) => from))}::bigint[], ${arrayLiteral(gaps.map(([, to]) => to))}::bigint[]) as gap (a, b)
  cross join lateral (select * from ${tables[source]} where id between gap.a and gap.b) late`;

export interface SettledRow {
  readonly id: number;
  readonly at: Date;
  readonly queue: string | null;
  readonly worker: string | null;
  readonly count: number;
  readonly tookMsSum: number;
  /** The first of its jobs. */
  readonly named: string[];
  /** Whether `singles` are all of its jobs, or only those that were asked for by name. */
  readonly whole: boolean;
  readonly singles: [n: number, id: string, task: string | null, startedAt: string, tookMs: number][] | null;
}

/** `wanted`: jobs that are told by themselves in any case. */
export async function readSettled(db: Executor, line: IdLine, wanted: readonly string[]): Promise<SettledRow[]> {
  const asked = arrayLiteral(wanted);
  return db.query<SettledRow>(sql`
    with picked as materialized (${next("settled", line)}),
    counted as materialized (select *, sum(n) over (order by id) <= ${singlesMax}::int as whole from picked)
    select c.id::float8, c.finished_at as at, q.name as queue, w.name as worker, c.n as count, c.took_ms_sum::float8 as "tookMsSum",
           c.job_ids[1:${namedMax}::int]::text[] as named, c.whole,
           case when c.whole or c.job_ids && ${asked}::uuid[] then (
             select json_agg(json_build_array(d.n, d.id, j.task, c.claimed_at + d.started_ms * interval '1 millisecond', d.took_ms) order by d.n)
             from unnest(c.job_ids, c.started_ms, c.took_ms) with ordinality as d (id, started_ms, took_ms, n)
             left join ${taskOf(sql`d.id`)} j on true
             where c.whole or d.id = any (${asked}::uuid[])
           ) end as singles
    from counted c left join millrace.queues q on q.id = c.queue left join millrace.workers w on w.id = c.worker
    order by c.id`);
}

export interface AttemptRow {
  readonly id: number;
  readonly at: Date;
  readonly jobId: string;
  readonly queue: string | null;
  readonly task: string | null;
  readonly attempt: number;
  readonly worker: string | null;
  readonly outcome: string;
  readonly errorCode: string | null;
  readonly errorMessage: string | null;
  readonly retryAt: Date | null;
  readonly late: boolean;
  readonly deadLetterReason: string | null;
}

export async function readAttempts(db: Executor, line: IdLine): Promise<AttemptRow[]> {
  return db.query<AttemptRow>(sql`
    with picked as materialized (${next("attempts", line)})
    select a.id::float8, a.finished_at as at, a.job_id::text as "jobId", q.name as queue, j.task, a.attempt::int, w.name as worker, a.outcome,
           a.error_code as "errorCode", left(a.error_message, 1000) as "errorMessage", nullif(a.retry_at, 'infinity') as "retryAt", a.late,
           d.reason as "deadLetterReason"
    from picked a left join ${taskOf(sql`a.job_id`)} j on true
    left join millrace.queues q on q.id = a.queue left join millrace.workers w on w.id = a.worker
    left join millrace.dead_letters d on d.job_id = a.job_id
    order by a.id`);
}

export interface OperationRow {
  readonly id: number;
  readonly at: Date;
  readonly jobId: string;
  readonly queue: string | null;
  readonly task: string | null;
  readonly action: string;
  readonly by: string | null;
  readonly reason: string | null;
  readonly runAt: Date | null;
}

export async function readOperations(db: Executor, line: IdLine): Promise<OperationRow[]> {
  return db.query<OperationRow>(sql`
    with picked as materialized (${next("operations", line)})
    select o.id::float8, o.at, o.job_id::text as "jobId", j.queue, j.task, o.action, o.by, o.reason, nullif(o.run_at, 'infinity') as "runAt"
    from picked o left join ${taskOf(sql`o.job_id`)} j on true order by o.id`);
}

export interface AuditRow {
  readonly id: number;
  readonly at: Date;
  readonly by: string | null;
  readonly action: string;
  readonly subject: string;
  readonly details: unknown;
}

export async function readAudit(db: Executor, line: IdLine): Promise<AuditRow[]> {
  return db.query<AuditRow>(sql`
    with picked as materialized (${next("audit", line)})
    select id::float8, at, by, action, subject, details from picked order by id`);
}

/** What storm control and admission decided. `jobId`: only the former's. */
export interface DecisionRow {
  readonly id: number;
  readonly at: Date;
  readonly queue: string | null;
  readonly jobId: string | null;
  readonly reasonCode: string;
  readonly details: unknown;
}

export async function readPolicyDecisions(db: Executor, line: IdLine): Promise<DecisionRow[]> {
  return db.query<DecisionRow>(sql`
    with picked as materialized (${next("policy_decisions", line)})
    select d.id::float8, d.at, q.name as queue, d.job_id::text as "jobId", d.reason_code as "reasonCode", d.details
    from picked d left join millrace.queues q on q.id = d.queue order by d.id`);
}

export async function readIngestDecisions(db: Executor, line: IdLine): Promise<DecisionRow[]> {
  return db.query<DecisionRow>(sql`
    with picked as materialized (${next("ingest_decisions", line)})
    select id::float8, at, queue, null as "jobId", reason_code as "reasonCode", details from picked order by id`);
}

export interface WorkerRow {
  readonly id: number;
  readonly name: string;
  readonly host: string;
  readonly startedAt: Date;
  readonly stoppedAt: Date | null;
  readonly ended: string | null;
}

export async function readWorkers(db: Executor, line: IdLine): Promise<WorkerRow[]> {
  return db.query<WorkerRow>(sql`
    with picked as materialized (${next("workers", line)})
    select id::float8, name, host, started_at as "startedAt", stopped_at as "stoppedAt", ended from picked order by id`);
}

/** Of these workers, those that are not at work any more. */
export async function readEnded(db: Executor, live: readonly number[]): Promise<WorkerRow[]> {
  return db.query<WorkerRow>(sql`
    select id::float8, name, host, started_at as "startedAt", stopped_at as "stoppedAt", ended from millrace.workers
    where id = any (${arrayLiteral(live)}::int[]) and stopped_at is not null order by stopped_at, id`);
}

export async function readLive(db: Executor): Promise<number[]> {
  const rows = await db.rows<[number]>(sql`select id from millrace.workers where stopped_at is null order by id`);
  return rows.map(([id]) => id);
}
