/** PostgreSQL through `pg`. See docs/decisions/0001: connections are reserved before BEGIN, never pipelined behind it. */
import { Socket } from "node:net";
import pg from "pg";
import { MillraceError } from "../core/errors.ts";
import type { Log } from "../core/log.ts";
import type { Database, Executor, ForeignTransaction, Subscription } from "./database.ts";
import { Dialect, type Sql, type Statement, quoteIdent, sql } from "./sql.ts";

export interface PostgresOptions {
  readonly url: string;
  readonly schema: string;
  /** Connections at most. */
  readonly poolSize: number;
  /**
   * True behind PgBouncer or another pooler in transaction mode: no prepared statements, no session settings. LISTEN needs a
   * session, so it uses `listenUrl`, and without one workers poll.
   */
  readonly pooler: boolean;
  readonly listenUrl?: string | undefined;
  readonly log: Log;
}

/** A statement that has not answered for this long is given up, and its connection with it: a cut network answers never. */
const statementTimeoutMs = 30_000;
const connectTimeoutMs = 10_000;
/**
 * A connection that nobody needs is kept for so long: on a busy server a new one takes 50 ms more for its first statement, half of it
 * to connect and half to plan. Networks forget a silent one after four minutes and more.
 */
const idleMs = 60_000;
/** A listening connection has nothing to say for hours, and a network may drop it in silence meanwhile: it is asked this often. */
const pulseMs = 10_000;

/**
 * The queue is read through its primary key whatever the statistics say: right after a burst they still describe an empty table,
 * and a sequential scan chosen then is kept in the prepared plan. JIT costs more than any statement here. What is looked up is another
 * job's each time: remembering it in between made a page of a hundred jobs a sixth dearer.
 */
const sessionSettings =
  "set enable_seqscan = off; set enable_memoize = off; set jit = off; set plan_cache_mode = force_generic_plan";

export function openPostgres(options: PostgresOptions): Database {
  const dialect = new Dialect(options.schema, !options.pooler);
  const pool = new pg.Pool({
    connectionString: options.url,
    max: options.poolSize,
    connectionTimeoutMillis: connectTimeoutMs,
    idleTimeoutMillis: idleMs,
    query_timeout: statementTimeoutMs,
    keepAlive: true,
    application_name: "millrace",
    // The pool waits for what onConnect returns; its types do not say so.
    ...(options.pooler
      ? {}
      : { onConnect: (client: pg.ClientBase) => client.query(sessionSettings) as unknown as void }),
  });
  // An idle connection that breaks is the pool's to replace; the next statement finds out whether the database is back.
  pool.on("error", (error) => options.log.debug({ err: error }, "idle connection lost"));
  // One that breaks while a transaction holds it fails the statement under way, or the next; an "error" nobody listens to would
  // end the process besides.
  pool.on("connect", (client) => client.on("error", () => undefined));
  const all = executor(pool, dialect);

  return {
    kind: "postgres",
    schema: options.schema,
    ...all,
    transaction: (work) => reserved(pool, (client) => work(executor(client, dialect))),
    lend: (work) => reserved(pool, (client) => work({ query: (text, values) => client.query(text, values) })),
    async script(text) {
      const client = await pool.connect();
      let broken: Error | undefined;
      try {
        // The simple protocol: several statements, no values, each its own transaction unless the text says otherwise.
        await client.query({ text: dialect.inSchema(text), query_timeout: 3_600_000 } as pg.QueryConfig);
      } catch (error) {
        broken = error as Error;
        throw error;
      } finally {
        client.release(broken);
      }
    },
    listen: (channel, onMessage, onGap) =>
      listen(options, new Dialect(options.schema, true), channel, onMessage, onGap),
    adopt: (tx) => adopt(tx, dialect),
    close: () => pool.end(),
  };
}

/** One connection for one transaction, taken before BEGIN and thrown away if it could not be rolled back. */
async function reserved<Result>(pool: pg.Pool, work: (client: pg.PoolClient) => Promise<Result>): Promise<Result> {
  const client = await pool.connect();
  let broken: Error | undefined;
  try {
    await client.query("begin");
    const result = await work(client);
    await client.query("commit");
    return result;
  } catch (error) {
    await client.query("rollback").catch((rollbackError: Error) => {
      broken = rollbackError;
    });
    throw error;
  } finally {
    client.release(broken);
  }
}

function executor(target: pg.Pool | pg.ClientBase, dialect: Dialect): Executor {
  return {
    query: async <Row>(query: Sql) => (await target.query(dialect.statement(query))).rows as Row[],
    rows: async <Row extends readonly unknown[]>(query: Sql) =>
      (await target.query<Row[]>({ ...dialect.statement(query), rowMode: "array" } as pg.QueryArrayConfig))
        .rows as unknown as Row[],
  };
}

/** The caller's transaction may run through any driver, so statements go unnamed and rows come as objects. */
export function adopt(tx: ForeignTransaction, dialect: Dialect): Executor {
  if (tx instanceof pg.Pool || "totalCount" in tx)
    throw new MillraceError(
      "OPTION_INVALID",
      "tx must be one connection inside a transaction, not a pool: each statement would commit by itself.",
    );
  const run = async (statement: Statement) => (await tx.query(statement.text, statement.values)).rows;
  return {
    query: async <Row>(query: Sql) => (await run(dialect.statement(query))) as Row[],
    rows: async <Row extends readonly unknown[]>(query: Sql) =>
      (await run(dialect.statement(query))).map((row) => Object.values(row as object)) as unknown as Row[],
  };
}

/** One connection, one statement at a time: whoever finds it busy takes another. */
class Single implements Executor {
  readonly #all: Executor;
  busy = false;

  constructor(all: Executor) {
    this.#all = all;
  }

  query<Row>(query: Sql): Promise<Row[]> {
    return this.#alone(() => this.#all.query<Row>(query));
  }

  rows<Row extends readonly unknown[]>(query: Sql): Promise<Row[]> {
    return this.#alone(() => this.#all.rows<Row>(query));
  }

  async #alone<Result>(ask: () => Promise<Result>): Promise<Result> {
    this.busy = true;
    try {
      return await ask();
    } finally {
      this.busy = false;
    }
  }
}

/** One connection of its own that is made again, with growing pauses up to 5 s, for as long as the subscription lives. */
async function listen(
  options: PostgresOptions,
  dialect: Dialect,
  channel: string,
  onMessage: (payload: string) => void,
  onGap: () => void,
): Promise<Subscription> {
  const url = options.listenUrl ?? (options.pooler ? undefined : options.url);
  let closed = false;
  let client: pg.Client | undefined;
  let awake: Single | undefined;
  let hangUp = (): void => undefined;
  let pause = 100;
  let timer: NodeJS.Timeout | undefined;

  const connect = async (): Promise<void> => {
    if (closed || url === undefined) return;
    const socket = new Socket();
    const next = new pg.Client({
      connectionString: url,
      stream: () => socket,
      keepAlive: true,
      connectionTimeoutMillis: connectTimeoutMs,
      query_timeout: connectTimeoutMs,
      application_name: "millrace listen",
    });
    let pulse: NodeJS.Timeout | undefined;
    let dropped = false;
    const drop = (): void => {
      if (dropped) return;
      dropped = true;
      clearInterval(pulse);
      if (client === next) client = awake = undefined;
      next.removeAllListeners("notification");
      socket.destroy(); // no goodbye: it is broken already, and nobody may be there to answer
      if (closed) return;
      timer = setTimeout(() => void connect(), pause);
      pause = Math.min(pause * 2, 5_000);
    };
    next.on("error", drop);
    next.on("end", drop);
    next.on("notification", (message) => onMessage(message.payload ?? ""));
    try {
      await next.connect();
      await next.query(sessionSettings);
      await next.query(`listen ${quoteIdent(channel)}`);
      if (closed) return await next.end();
      client = next;
      const single = new Single(executor(next, dialect));
      awake = single;
      hangUp = drop;
      pulse = setInterval(() => {
        if (!single.busy) single.query(sql`select 1`).catch(drop);
      }, pulseMs);
      pause = 100;
      onGap();
    } catch (error) {
      options.log.debug({ err: error }, "listen connection not made");
      drop();
    }
  };
  await connect();

  return {
    get live() {
      return client !== undefined;
    },
    get awake() {
      return awake?.busy ? undefined : awake;
    },
    async close() {
      closed = true;
      clearTimeout(timer);
      hangUp();
    },
  };
}

/** Opens PostgreSQL and makes sure that it answers and is new enough. Throws `DATABASE_UNREACHABLE`, `DATABASE_UNSUPPORTED`. */
export async function connectPostgres(options: PostgresOptions): Promise<Database> {
  const db = openPostgres(options);
  try {
    await requireVersion(db);
    return db;
  } catch (error) {
    await db.close();
    if (error instanceof MillraceError) throw error;
    const { message, code } = error as { message?: string; code?: string };
    throw new MillraceError("DATABASE_UNREACHABLE", `PostgreSQL did not answer: ${message || code}`, { cause: error });
  }
}

/** Throws `DATABASE_UNSUPPORTED` below PostgreSQL 14, the oldest this engine is tested on. */
async function requireVersion(db: Executor): Promise<number> {
  const [row] = await db.query<{ version: number }>(sql`select current_setting('server_version_num')::int as version`);
  const version = row?.version ?? 0;
  if (version >= 140_000) return version;
  throw new MillraceError(
    "DATABASE_UNSUPPORTED",
    `This server is PostgreSQL ${Math.floor(version / 10_000)}; Millrace needs 14 or newer.`,
  );
}
