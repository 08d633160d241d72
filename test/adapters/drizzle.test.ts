import { drizzle as drizzleOverPg } from "drizzle-orm/node-postgres";
import { pgTable, text } from "drizzle-orm/pg-core";
import { drizzle as drizzleOverPglite } from "drizzle-orm/pglite";
import { drizzle as drizzleOverPostgresJs } from "drizzle-orm/postgres-js";
import { fromDrizzle } from "millrace/adapters";
import pg from "pg";
import postgres from "postgres";
import { expect, test } from "vitest";
import { contract, onPglite, onServer } from "./contract.ts";

const orders = pgTable("orders", { id: text().primaryKey() });

contract("Drizzle over pg", onServer, ({ url }) => {
  const pool = new pg.Pool({ connectionString: url });
  const db = drizzleOverPg(pool);
  return {
    transaction: (work) => db.transaction((tx) => work(fromDrizzle(tx), (id) => tx.insert(orders).values({ id }))),
    close: () => pool.end(),
  };
});

contract("Drizzle over postgres.js", onServer, ({ url }) => {
  const client = postgres(url);
  const db = drizzleOverPostgresJs(client);
  return {
    transaction: (work) => db.transaction((tx) => work(fromDrizzle(tx), (id) => tx.insert(orders).values({ id }))),
    close: () => client.end(),
  };
});

contract("Drizzle over PGlite", onPglite, ({ pglite }) => {
  const db = drizzleOverPglite(pglite);
  return {
    transaction: (work) => db.transaction((tx) => work(fromDrizzle(tx), (id) => tx.insert(orders).values({ id }))),
    close: async () => undefined,
  };
});

test("fromDrizzle refuses the database itself, which would commit at once", async () => {
  const pool = new pg.Pool();
  const db = drizzleOverPg(pool);
  // @ts-expect-error: only a transaction can be rolled back
  expect(() => fromDrizzle(db)).toThrow("db.transaction(async (tx) => …)");
  await pool.end();
});
