/** A Kysely transaction, controlled ones too. The statement has the shape that Kysely's own `CompiledQuery.raw` makes. */
import type { ForeignTransaction } from "../db/database.ts";
import { notATransaction } from "./transaction.ts";

interface KyselyStatement {
  readonly sql: string;
  readonly parameters: readonly unknown[];
  readonly query: { kind: "RawNode"; sqlFragments: readonly string[]; parameters: readonly [] };
  /** Plugins keep what they know of a statement under this object. */
  readonly queryId: { readonly queryId: string };
}

interface KyselyTransaction {
  /** False, or just boolean, for the database itself. */
  readonly isTransaction: true;
  executeQuery(statement: KyselyStatement): Promise<{ rows: unknown[] }>;
}

/** What `enqueue` takes as `tx`, and `complete`. Throws `OPTION_INVALID` when given something that would commit by itself. */
export function fromKysely(trx: KyselyTransaction): ForeignTransaction {
  if (!trx.isTransaction) throw notATransaction("fromKysely", "db.transaction().execute(async (trx) => …)");
  return {
    query: (text, values) =>
      trx.executeQuery({
        sql: text,
        parameters: values,
        query: { kind: "RawNode", sqlFragments: [text], parameters: [] },
        queryId: { queryId: "millrace" },
      }),
  };
}
