/**
 * A postgres.js transaction.
 *
 * postgres.js looks up what type the server wants for each value and converts accordingly, and would write our JSON text as a JSON
 * string. Values that say they are of type `unknown` go as they are, and the server infers as usual.
 */
import type { ForeignTransaction } from "../db/database.ts";
import { notATransaction } from "./transaction.ts";

interface PostgresJsTransaction {
  /** The pool itself has none. */
  savepoint(...parts: never): unknown;
  typed(value: string, oid: number): unknown;
  unsafe(text: string, values?: unknown[]): PromiseLike<unknown[]>;
}

/** pg_type's number for `unknown`. */
const unknownType = 705;

/** What `enqueue` takes as `tx`, and `complete`. Throws `OPTION_INVALID` when given something that would commit by itself. */
export function fromPostgresJs(sql: PostgresJsTransaction): ForeignTransaction {
  if (typeof sql.savepoint !== "function") throw notATransaction("fromPostgresJs", "sql.begin(async (sql) => …)");
  const plain = (value: unknown): unknown =>
    value === null ? null : sql.typed(`${value as string | number | boolean}`, unknownType);
  return { query: async (text, values) => ({ rows: await sql.unsafe(text, values.map(plain)) }) };
}
