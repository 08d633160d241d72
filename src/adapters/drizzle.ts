/**
 * A Drizzle transaction, of any of its PostgreSQL drivers.
 *
 * Drizzle asks whatever it executes for `getSQL()`, and that for `toQuery()`. Answering both with a finished statement keeps text
 * and values as they are, where its `sql` tag would number the placeholders anew and spread arrays.
 */
import type { ForeignTransaction } from "../db/database.ts";
import { notATransaction } from "./transaction.ts";

interface DrizzleStatement {
  getSQL(): { toQuery(config: never): { sql: string; params: unknown[] } };
}

interface DrizzleTransaction {
  execute(statement: DrizzleStatement | string): PromiseLike<unknown>;
  /** The database itself has none. */
  rollback(): never;
}

/** What `enqueue` takes as `tx`, and `complete`. Throws `OPTION_INVALID` when given something that would commit by itself. */
export function fromDrizzle(tx: DrizzleTransaction): ForeignTransaction {
  if (typeof tx.rollback !== "function") throw notATransaction("fromDrizzle", "db.transaction(async (tx) => …)");
  return {
    async query(text, values) {
      const result = await tx.execute({ getSQL: () => ({ toQuery: () => ({ sql: text, params: values }) }) });
      // postgres.js answers with the rows themselves, the other drivers with an object that holds them.
      return Array.isArray(result) ? { rows: result } : (result as { rows: unknown[] });
    },
  };
}
