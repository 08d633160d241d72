/** What tasks say while they run: marks of progress and lines of logs. Kept only while their worker holds the job. */
import type { Database, Executor } from "../db/database.ts";
import { sql } from "../db/sql.ts";

export const logLevels = ["info", "warn", "error"] as const;

/** One line, or so many that are not there. Times in ms before now. */
interface NewLine {
  /** Number among the lines of this attempt on this worker, from 1; what is missing counts. */
  readonly place: number;
  readonly agoMs: number;
  readonly level: (typeof logLevels)[number];
  readonly message: string;
  /** JSON text. */
  readonly fields: string | undefined;
  readonly missed: number | undefined;
}

/** What is new of one job. */
export interface NewNotes {
  readonly lease: string;
  readonly jobId: string;
  readonly attempt: number;
  /** Lines that the job may have. */
  readonly most: number;
  /** JSON text of the newest mark. */
  readonly progress: string | undefined;
  readonly progressAgoMs: number | undefined;
  readonly lines: readonly NewLine[];
}

/** Writes the notes of any jobs of one worker, and says of which: the others are no longer this worker's. */
export async function writeNotes(
  db: Executor,
  worker: number,
  notes: readonly NewNotes[],
): Promise<ReadonlySet<string>> {
  const given = JSON.stringify(
    notes.map(({ lease, jobId, attempt, most, progress, progressAgoMs, lines }) => ({
      lease,
      job_id: jobId,
      attempt,
      most,
      progress,
      progress_ago: progressAgoMs,
      lines: lines.map(({ agoMs, ...line }) => ({ ...line, ago: agoMs })),
    })),
  );
  const rows = await db.rows<[string]>(sql`
    with given as materialized (
      select * from jsonb_to_recordset(${given}::jsonb) as g (
        lease bigint, job_id uuid, attempt smallint, most int, progress text, progress_ago float8, lines jsonb)
    ),
    held as materialized (
      select id, job_ids, done from millrace.leases
      where id in (select lease from given) and worker = ${worker}::int order by id for key share
    ),
    ours as materialized (
      select g.*, coalesce(last.n, 0) as n, case when last.lease = g.lease then last.place else 0 end as written,
             case when coalesce(last.n, 0) < g.most then g.most + 1 when last.missed is null then last.n + 1 else last.n end as tail
      from given g join held h on h.id = g.lease and g.job_id = any (h.job_ids) and g.job_id <> all (h.done)
      left join lateral (
        select l.n, l.lease, l.place, l.missed from millrace.job_logs l where l.job_id = g.job_id order by l.n desc limit 1
      ) last on true
    ),
    marks as (
      insert into millrace.progress (job_id, value, attempt, at)
      select job_id, progress::jsonb, attempt, now() - progress_ago * interval '1 millisecond' from ours where progress is not null
      on conflict (job_id) do update set value = excluded.value, attempt = excluded.attempt, at = excluded.at
    ),
    lines as materialized (
      select o.job_id, o.lease, o.attempt, o.most, o.tail, l.place, now() - l.ago * interval '1 millisecond' as at, l.level, l.message,
             l.fields::jsonb as fields, l.missed, o.n + row_number() over (partition by o.job_id order by l.place) as n
      from ours o cross join lateral jsonb_to_recordset(o.lines) as l (
        place int, ago float8, level text, message text, fields text, missed int)
      where l.place > o.written
    ),
    kept as (
      insert into millrace.job_logs (job_id, n, lease, place, attempt, at, level, message, fields, missed)
      select job_id, n, lease, place, attempt, at, level, message, fields, missed from lines where n <= most
    ),
    beyond as ( -- one line stands for all of them
      insert into millrace.job_logs (job_id, n, lease, place, attempt, at, level, message, missed)
      select job_id, tail, lease, max(place), attempt, max(at), 'warn', '', sum(coalesce(missed, 1))
      from lines where n > most group by job_id, tail, lease, attempt
      on conflict (job_id, n) do update set lease = excluded.lease, place = excluded.place, attempt = excluded.attempt, at = excluded.at,
        missed = job_logs.missed + excluded.missed
    )
    select job_id::text from ours`);
  return new Set(rows.map(([jobId]) => jobId));
}

/** A line of a job's log. */
export interface LogLine {
  /** 1, 2, 3 …, over all attempts of the job. */
  readonly n: number;
  readonly at: Date;
  readonly level: (typeof logLevels)[number];
  readonly message: string;
  readonly fields: Readonly<Record<string, unknown>> | null;
  readonly attempt: number;
  /** This line stands for so many that were not kept; null: it is one. */
  readonly missed: number | null;
}

/** Lines behind number `after`. Undefined: there is no such job. */
export async function readLogs(
  db: Database,
  jobId: string,
  after: number,
  limit: number,
): Promise<LogLine[] | undefined> {
  const lines = await db.query<LogLine>(sql`
    select n, at, level,
           case when missed is null then message else missed || case missed when 1 then ' line was' else ' lines were' end || ' not kept.' end as message,
           fields, attempt::int, missed
    from millrace.job_logs where job_id = ${jobId}::uuid and n > ${after}::int order by n limit ${limit}::int`);
  if (lines.length > 0) return lines;
  const known = await db.query(sql`
    select id from millrace.jobs where id = ${jobId}::uuid union all select id from millrace.jobs_archive where id = ${jobId}::uuid limit 1`);
  return known.length === 0 ? undefined : [];
}
