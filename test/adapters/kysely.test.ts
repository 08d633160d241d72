import { CamelCasePlugin, Kysely, PostgresDialect } from "kysely";
import { fromKysely } from "millrace/adapters";
import pg from "pg";
import { expect, test } from "vitest";
import { contract, onServer } from "./contract.ts";

interface Tables {
  orders: { id: string };
}

contract("Kysely, with a plugin that renames columns", onServer, ({ url }) => {
  const db = new Kysely<Tables>({
    dialect: new PostgresDialect({ pool: new pg.Pool({ connectionString: url }) }),
    plugins: [new CamelCasePlugin()],
  });
  return {
    transaction: (work) =>
      db
        .transaction()
        .execute((trx) => work(fromKysely(trx), (id) => trx.insertInto("orders").values({ id }).execute())),
    close: () => db.destroy(),
  };
});

contract("a controlled transaction of Kysely", onServer, ({ url }) => {
  const db = new Kysely<Tables>({
    dialect: new PostgresDialect({ pool: new pg.Pool({ connectionString: url }) }),
  });
  return {
    async transaction(work) {
      const trx = await db.startTransaction().execute();
      try {
        await work(fromKysely(trx), (id) => trx.insertInto("orders").values({ id }).execute());
        await trx.commit().execute();
      } catch (error) {
        await trx.rollback().execute();
        throw error;
      }
    },
    close: () => db.destroy(),
  };
});

test("fromKysely refuses the database itself, which would commit at once", async () => {
  const db = new Kysely<Tables>({ dialect: new PostgresDialect({ pool: new pg.Pool() }) });
  // @ts-expect-error: isTransaction is true of transactions only
  expect(() => fromKysely(db)).toThrow("db.transaction().execute(async (trx) => …)");
  await db.destroy();
});
