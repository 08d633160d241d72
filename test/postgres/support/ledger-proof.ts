/** What must be true of the tables, whatever happened to the processes. Each check is one statement, so it sees one moment. */
import pg from "pg";
import { until } from "./until.ts";

/** Where every job is. What a lease lists and history already has is settled: it was completed in its task's own transaction. */
const places = `
  select job_id, 'pending' as place from millrace.pending
  union all
  select open.job_id, 'leased' from millrace.leases l cross join unnest(l.job_ids) as open (job_id)
  where open.job_id <> all (l.done)
    and not exists (select from millrace.settled s where s.lease = l.id and open.job_id = any (s.job_ids))
  union all
  select unnest(job_ids), 'settled' from millrace.settled
  union all
  select job_id, 'dead' from millrace.dead_letters
  union all
  select job_id, 'cancelled' from millrace.attempts where outcome = 'cancelled' and not late`;

export class Observer implements AsyncDisposable {
  client: pg.Client;

  private constructor(client: pg.Client) {
    this.client = client;
  }

  static async on(url: string): Promise<Observer> {
    return new Observer(await connect(url));
  }

  /** After the server it looked at has gone down. */
  async reconnect(url: string): Promise<void> {
    this.client = await connect(url);
  }

  async rows<Row>(text: string, values: unknown[] = []): Promise<Row[]> {
    return (await this.client.query(text, values)).rows as Row[];
  }

  async number(text: string, values: unknown[] = []): Promise<number> {
    const [row] = (await this.client.query({ text, values, rowMode: "array" })).rows as unknown[][];
    return Number(row?.[0] ?? 0);
  }

  /** Jobs in no place or in more than one, and places without a job. Empty when all is well. */
  misplaced(): Promise<{ job: string; places: string[] }[]> {
    return this.rows(`
      with places as (${places})
      select coalesce(j.id, p.job_id)::text as job, coalesce(array_agg(p.place) filter (where p.place is not null), '{}') as places
      from millrace.jobs j full join places p on p.job_id = j.id
      group by 1 having count(p.place) <> 1 or count(j.id) = 0 limit 20`);
  }

  /** Jobs that two leases hold at once, or that wait while a lease holds them. */
  heldTwice(): Promise<{ job: string; n: number }[]> {
    return this.rows(`
      select job_id::text as job, count(*)::int as n from (
        select open.job_id from millrace.leases l cross join unnest(l.job_ids) as open (job_id)
        where open.job_id <> all (l.done)
          and not exists (select from millrace.settled s where s.lease = l.id and open.job_id = any (s.job_ids))
        union all select job_id from millrace.pending
      ) held group by 1 having count(*) > 1 limit 20`);
  }

  /** Jobs with more than one success in history that counts. */
  succeededTwice(): Promise<{ job: string; n: number }[]> {
    return this.rows(`
      select job_id::text as job, count(*)::int as n from millrace.settled cross join unnest(job_ids) as done (job_id)
      group by 1 having count(*) > 1 limit 20`);
  }

  /** Attempts beyond a job's limit, and attempt numbers that were used up twice. */
  async attemptsOverLimit(): Promise<unknown[]> {
    return this.rows(`
      select a.job_id::text, a.attempt, j.max_attempts from millrace.attempts a join millrace.jobs j on j.id = a.job_id
      where a.attempt > j.max_attempts
      union all
      select job_id::text, attempt, count(*)::smallint from millrace.attempts
      where not late and (outcome in ('failed', 'timed_out') or (outcome = 'lost' and alone))
      group by 1, 2 having count(*) > 1 limit 20`);
  }

  /** Workers that ended and still hold something, leases of nobody, and ends without a reason. */
  async inconsistentWorkers(): Promise<unknown[]> {
    return this.rows(`
      select l.worker, 'lease of a worker that ended' as fault from millrace.leases l join millrace.workers w on w.id = l.worker
      where w.stopped_at is not null
      union all
      select l.worker, 'lease of nobody' from millrace.leases l where not exists (select from millrace.workers w where w.id = l.worker)
      union all
      select id, 'ended without a reason' from millrace.workers where (stopped_at is null) <> (ended is null)
      union all
      select id, 'idle after its end' from millrace.workers where stopped_at is not null and idle`);
  }

  /** Jobs that wait or run. */
  async unfinished(): Promise<number> {
    return this.number(`
      select (select count(*) from millrace.pending)
           + (select coalesce(sum(cardinality(job_ids) - cardinality(done)), 0) from millrace.leases)`);
  }

  /** Resolves when every worker but those of these processes is known to have ended: who was killed is lost. */
  async untilMissed(survivors: readonly (number | undefined)[]): Promise<void> {
    const living = "select count(*) from millrace.workers where stopped_at is null and pid <> all ($1::int[])";
    await until("who died is known as lost", async () => (await this.number(living, [survivors])) === 0, {
      within: 30_000,
      every: 100,
    });
  }

  async completed(): Promise<number> {
    return this.number("select coalesce(sum(n), 0) from millrace.settled");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.client.end().catch(() => undefined); // it may have been cut off on purpose
  }
}

async function connect(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  client.on("error", () => undefined); // a server that is taken down on purpose; the next query says so too
  await client.connect();
  return client;
}
