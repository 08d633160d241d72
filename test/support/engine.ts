/**
 * One database per test file, one schema per engine: every test proves that the schema's name is free. The schema of a closed engine
 * is emptied and used again, which is several times as fast as making one.
 *
 *     const file = useDatabase();
 *     test("…", async () => {
 *       await using mill = await file.open([hello]);
 *     });
 */
import pg from "pg";
import { afterAll, beforeAll, vi } from "vitest";
import { latestVersion } from "../../src/db/migrate.ts";
import { type Database } from "../../src/db/database.ts";
import { openEmbedded } from "../../src/db/embedded.ts";
import { openPostgres } from "../../src/db/postgres.ts";
import { foldTallies } from "../../src/jobs/stats-store.ts";
import { Sql, sql } from "../../src/db/sql.ts";
import { silent } from "../../src/core/log.ts";
import { type AnyTask, type Millrace, type MillraceOptions, type Schedule, defineApp, millrace } from "millrace";
import { type TestDatabase, testDatabase } from "./database.ts";

export interface FileDatabase {
  /** The database of this file; there from the first test on. */
  readonly database: TestDatabase;
  /** A Millrace in a schema of its own, or, given `schema`, a second one beside another. */
  open(tasks?: readonly AnyTask[], options?: MillraceOptions, schedules?: readonly Schedule[]): Promise<Millrace>;
  /** The door to the database alone, before any migration. */
  openDoor(schema?: string, options?: { pooler?: boolean }): Promise<Database>;
  /** The options that lead to this file's database. */
  readonly door: MillraceOptions;
}

/** The tables with a row, or part of one, for each job or thing done to one. */
export const jobTables = [
  "jobs",
  "pending",
  "leases",
  "settled",
  "attempts",
  "dead_letters",
  "operations",
  "cancel_requests",
  "idempotency_keys",
] as const;

/** How many rows each table has: what "nothing was written" means. */
export async function rowCounts(db: Database): Promise<Record<string, number>> {
  const counts = [...jobTables, "queues", "tasks"].map(
    (table) => `select '${table}' as name, count(*)::int as n from millrace.${table}`,
  );
  const rows = await db.query<{ name: string; n: number }>(new Sql([counts.join(" union all ")], []));
  return Object.fromEntries(rows.map(({ name, n }) => [name, n]));
}

/** Jobs by where they are. A job that is nowhere, or in two places, stands out. */
export async function places(db: Database): Promise<Record<string, string>> {
  const rows = await db.query<{ id: string; place: string }>(sql`
    select j.id::text, coalesce((
      select string_agg(place, '+' order by place) from (
        select 'pending' as place from millrace.pending p where p.job_id = j.id
        union all
        select 'lease' from millrace.leases l where j.id = any (l.job_ids) and j.id <> all (l.done)
        union all
        select 'settled' from millrace.settled s where j.id = any (s.job_ids)
        union all
        select 'dead' from millrace.dead_letters d where d.job_id = j.id
        union all
        select 'cancelled' from millrace.attempts a where a.job_id = j.id and a.outcome = 'cancelled' and not a.late
      ) found), 'nowhere') as place
    from millrace.jobs j order by j.id`);
  return Object.fromEntries(rows.map(({ id, place }) => [id, place]));
}

/** What happens in one minute of the database's clock; from the start again when the minute ends meanwhile. */
export async function withinAMinute({ db }: Millrace, what: () => Promise<void>): Promise<void> {
  const minute = async (): Promise<unknown> => db.query(sql`select date_trunc('minute', now())::text as minute`);
  for (;;) {
    const before = JSON.stringify(await minute());
    try {
      await what();
      return;
    } catch (error) {
      if (before === JSON.stringify(await minute())) throw error;
      for (const table of [
        "jobs",
        "pending",
        "leases",
        "dead_letters",
        "attempts",
        "operations",
        "bulk_operations",
        "idempotency_keys",
        "enqueue_rate_counters",
        "ingest_decisions",
      ])
        await db.script(`delete from millrace.${table}`);
    }
  }
}

/** Folds counts until all that is settled now is in the tallies. */
export async function foldAll({ db }: { db: Database }): Promise<void> {
  await foldTallies(db, 0); // may still count up to what was noted before
  await foldTallies(db, 0);
  await vi.waitUntil(() => foldTallies(db, 0), { timeout: 20_000, interval: 5 });
}

/**
 * For tests that measure how soon something happens. A busy machine may spoil a measure once, and hardly three times in a row; what
 * is slow by itself is so each time. So their limits can be narrow.
 */
export const measured = { retry: 2 } as const;

let schemas = 0;

export function useDatabase(): FileDatabase {
  let database: TestDatabase | undefined;
  let isOver = false;
  beforeAll(async () => {
    database = await testDatabase();
  });
  afterAll(async () => {
    isOver = true; // what is closed after this finds no database any more
    await database?.[Symbol.asyncDispose]();
  });

  /** How many engines are open in each of our schemas, and which schemas lie empty. */
  const engines = new Map<string, number>();
  const spare: string[] = [];
  /** Schemas in which a test made or changed tables. */
  const altered = new Set<string>();

  const file = {
    get database(): TestDatabase {
      if (database === undefined) throw new Error("The database is there from beforeAll on.");
      return database;
    },
    get door(): MillraceOptions {
      const own = file.database;
      return own.backend === "postgres" ? { databaseUrl: own.url } : { databaseUrl: null, pglite: own.pglite };
    },
    openDoor: async (
      schema: string = freshSchema(),
      { pooler = false }: { pooler?: boolean } = {},
    ): Promise<Database> => {
      const own = file.database;
      return own.backend === "pglite"
        ? openEmbedded({ schema, pglite: own.pglite })
        : openPostgres({ url: own.url, schema, poolSize: 5, pooler, log: silent });
    },
    async open(
      tasks: readonly AnyTask[] = [],
      options: MillraceOptions = {},
      schedules: readonly Schedule[] = [],
    ): Promise<Millrace> {
      const schema = options.schema ?? spare.pop() ?? freshSchema();
      const isOurs = options.schema === undefined || engines.has(schema);
      const mill = await millrace(defineApp({ tasks, schedules }), { poolSize: 5, ...file.door, ...options, schema });
      if (!isOurs) return mill;
      engines.set(schema, (engines.get(schema) ?? 0) + 1);
      const { close } = mill;
      const { script } = mill.db;
      let closed: Promise<void> | undefined;
      Object.assign(mill, { close: () => (closed ??= close.call(mill).then(() => leave(schema))) });
      Object.assign(mill.db, {
        script(text: string) {
          if (/\b(create|alter|drop)\b/.test(text)) altered.add(schema);
          return script(text);
        },
      });
      return mill;
    },
  };

  async function leave(schema: string): Promise<void> {
    const left = (engines.get(schema) ?? 1) - 1;
    engines.set(schema, left);
    if (left > 0 || isOver || altered.has(schema)) return;
    await empty(file.database, schema);
    engines.delete(schema);
    spare.push(schema);
  }

  return file;
}

/** As right after the migration, but for the numbers that identities give next. */
async function empty(database: TestDatabase, schema: string): Promise<void> {
  const text = `
    do $$ declare name text; begin
      perform set_config('session_replication_role', 'replica', true); -- the audit refuses to be emptied
      for name in select tablename from pg_tables where schemaname = '${schema}' and tablename <> 'migrations' loop
        execute format('delete from %I.%I', '${schema}', name);
      end loop;
      insert into "${schema}".audit_checkpoint (last_id, last_hash) values (0, decode(repeat('00', 32), 'hex'));
    end $$;
    delete from "${schema}".migrations where version > ${latestVersion};
    insert into "${schema}".tally_mark default values;
    insert into "${schema}".system_state default values;`;
  if (database.backend === "pglite") return void (await database.pglite.exec(text));
  const client = new pg.Client({ connectionString: database.url });
  await client.connect();
  try {
    await client.query(text);
  } finally {
    await client.end();
  }
}

/** Capital letters, digits and underscores: a name that must be quoted everywhere. */
export function freshSchema(): string {
  return `Mill_Race_${(schemas += 1)}`;
}

/** A promise and its key: what a handler resolves and a test waits for, or the other way round. */
export interface Gate<Value> {
  readonly opened: Promise<Value>;
  open(value: Value): void;
}

export function gate<Value = void>(): Gate<Value> {
  let open!: (value: Value) => void;
  const opened = new Promise<Value>((resolve) => {
    open = resolve;
  });
  return { opened, open };
}

/** Collects what handlers report; `reached(n)` resolves as soon as there are n. */
export interface Tally<Value> {
  readonly seen: readonly Value[];
  add(value: Value): void;
  reached(count: number): Promise<readonly Value[]>;
}

export function tally<Value>(): Tally<Value> {
  const seen: Value[] = [];
  let waiting: { count: number; open: () => void }[] = [];
  return {
    seen,
    add(value) {
      seen.push(value);
      for (const one of waiting) if (seen.length >= one.count) one.open();
      waiting = waiting.filter((one) => seen.length < one.count);
    },
    async reached(count) {
      if (seen.length < count) await new Promise<void>((open) => waiting.push({ count, open }));
      return seen;
    },
  };
}
