/** The one door to PostgreSQL: a `pg` pool, or PGlite inside this process. Everything above sees only what is here. */
import type { Sql } from "./sql.ts";

/** Anything that runs a statement: the database, one transaction, or the caller's own transaction. */
export interface Executor {
  /** Rows as objects. */
  query<Row>(query: Sql): Promise<Row[]>;
  /** Rows as arrays, columns in the order of the statement. For the hot path. */
  rows<Row extends readonly unknown[]>(query: Sql): Promise<Row[]>;
}

export interface Database extends Executor {
  readonly kind: "postgres" | "embedded";
  readonly schema: string;
  /** One transaction on one connection; a throw rolls back. */
  transaction<Result>(work: (tx: Executor) => Promise<Result>): Promise<Result>;
  /** A transaction in the user's hands: their own SQL as it stands, and Millrace's statements by `adopt`. */
  lend<Result>(work: (tx: ForeignTransaction) => Promise<Result>): Promise<Result>;
  /** Statements that cannot run in a transaction or take values: migrations, vacuum. */
  script(text: string): Promise<void>;
  /**
   * Calls `onMessage` for each NOTIFY on the channel. A lost connection is made again; `onGap` is called whenever messages may
   * have been missed (including once at the start).
   */
  listen(channel: string, onMessage: (payload: string) => void, onGap: () => void): Promise<Subscription>;
  /** Enqueue's view of a transaction that somebody else began. */
  adopt(tx: ForeignTransaction): Executor;
  close(): Promise<void>;
}

export interface Subscription {
  /** Whether messages arrive now. Without it, wake-ups come from polling. */
  readonly live: boolean;
  /**
   * The connection that brings the messages, while it is live: what a message asks for is answered sooner by the server process
   * that has just been woken than by one that sleeps. Undefined where there is only one connection anyway.
   */
  readonly awake: Executor | undefined;
  close(): Promise<void>;
}

/**
 * The caller's own transaction: a `pg` client after BEGIN, a PGlite transaction, or one of the adapters of `millrace/adapters`.
 * Millrace sends it one statement and never commits or rolls back.
 */
export interface ForeignTransaction {
  query(text: string, values: unknown[]): Promise<{ rows: unknown[] }>;
}

const connectionCodes: ReadonlySet<string> = new Set([
  "ECONNREFUSED",
  "ECONNRESET",
  "EPIPE",
  "ETIMEDOUT",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "CONNECTION_LOST",
  // crash_shutdown, admin_shutdown, cannot_connect_now, too_many_connections, and class 08: connection exceptions
  "57P01",
  "57P02",
  "57P03",
  "53300",
  "08000",
  "08001",
  "08003",
  "08004",
  "08006",
  // a deadlock or a cancelled statement: the same statement may well succeed the next time
  "40P01",
  "40001",
  "55P03",
  "57014",
]);

/** Whether trying again later can help: the database is away, starting, full, or chose this statement as a victim. */
export function isTransient(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const code = (error as { code?: unknown }).code;
  if (typeof code === "string" && connectionCodes.has(code)) return true;
  // node-postgres gives these no code.
  return /Connection terminated|connection timeout|timeout exceeded when trying to connect|Query read timeout|Client has encountered a connection error|not queryable/i.test(
    error.message,
  );
}
