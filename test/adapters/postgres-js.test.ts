import { fromPostgresJs } from "millrace/adapters";
import postgres from "postgres";
import { expect, test } from "vitest";
import { contract, onServer } from "./contract.ts";

contract("postgres.js", onServer, ({ url }) => {
  const sql = postgres(url);
  return {
    transaction: async (work) => {
      await sql.begin((tx) => work(fromPostgresJs(tx), (id) => tx`insert into orders values (${id})`));
    },
    close: () => sql.end(),
  };
});

contract("postgres.js with prepared statements off and names in camel case", onServer, ({ url }) => {
  const sql = postgres(url, { prepare: false, transform: postgres.camel, fetch_types: false });
  return {
    transaction: async (work) => {
      await sql.begin((tx) => work(fromPostgresJs(tx), (id) => tx`insert into orders values (${id})`));
    },
    close: () => sql.end(),
  };
});

test("fromPostgresJs refuses the pool itself, which would commit at once", async () => {
  const sql = postgres();
  // @ts-expect-error: only a transaction has savepoints
  expect(() => fromPostgresJs(sql)).toThrow("sql.begin(async (sql) => …)");
  await sql.end();
});
