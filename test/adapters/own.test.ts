/** Transactions that Millrace takes as they are. */
import pg from "pg";
import { contract, onPglite, onServer } from "./contract.ts";

contract("a pg client after BEGIN", onServer, async ({ url }) => {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  return {
    async transaction(work) {
      await client.query("begin");
      try {
        await work(client, (id) => client.query("insert into orders values ($1)", [id]));
        await client.query("commit");
      } catch (error) {
        await client.query("rollback");
        throw error;
      }
    },
    close: () => client.end(),
  };
});

contract("a PGlite transaction", onPglite, ({ pglite }) => ({
  transaction: (work) => pglite.transaction((tx) => work(tx, (id) => tx.query("insert into orders values ($1)", [id]))),
  close: async () => undefined,
}));
