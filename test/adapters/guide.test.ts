/** docs/guides/transactions.md: its examples, executed. */
import { readFileSync } from "node:fs";
import { drizzle as drizzleOverPg } from "drizzle-orm/node-postgres";
import { type PgDatabase, type PgQueryResultHKT, pgTable, text } from "drizzle-orm/pg-core";
import { drizzle as drizzleOverPglite } from "drizzle-orm/pglite";
import { task } from "millrace";
import { fromDrizzle } from "millrace/adapters";
import pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { z } from "zod";
import { gate, useDatabase } from "../support/engine.ts";

const file = useDatabase();
const orders = pgTable("orders", { id: text().primaryKey() });
const shipments = pgTable("shipments", { order: text("order_id").primaryKey() });
let db: PgDatabase<PgQueryResultHKT>;
let close = async (): Promise<void> => undefined;

beforeAll(async () => {
  const { database } = file;
  if (database.backend === "pglite") db = drizzleOverPglite(database.pglite);
  else {
    const pool = new pg.Pool({ connectionString: database.url });
    db = drizzleOverPg(pool);
    close = () => pool.end();
  }
  await db.execute("create table orders (id text primary key)");
  await db.execute("create table shipments (order_id text primary key)");
});
afterAll(() => close());

test("rows and jobs, written together, are completed together", async () => {
  const ship = task({
    name: "ship",
    input: z.object({ order: z.string() }),
    async run({ input, complete }) {
      await db.transaction(async (tx) => {
        await tx.insert(shipments).values({ order: input.order });
        await complete(fromDrizzle(tx));
      });
    },
  });
  const ended = gate();
  const last = task({ name: "last", priority: -1, run: () => ended.open() });
  await using mill = await file.open([ship, last]);

  await db.transaction(async (tx) => {
    await tx.insert(orders).values({ id: "order-1" });
    await mill.enqueue(ship, { order: "order-1" }, { tx: fromDrizzle(tx) });
  });
  await mill.transaction(async (tx) => {
    await tx.query("insert into orders values ($1)", ["order-2"]);
    await mill.enqueue(ship, { order: "order-2" }, { tx });
  });
  await mill.enqueue(last, {});
  const worker = mill.work({ concurrency: 1 });
  await ended.opened;
  await worker.stop();

  expect(await db.select().from(orders)).toEqual([{ id: "order-1" }, { id: "order-2" }]);
  expect(await db.select().from(shipments)).toEqual([{ order: "order-1" }, { order: "order-2" }]);
  expect(await mill.stats("default")).toMatchObject([{ completed: 3, total: 3 }]);
});

test("every example of the guide stands in this file", () => {
  const page = readFileSync("docs/guides/transactions.md", "utf8");
  const here = unindented(readFileSync(import.meta.filename, "utf8"));
  const examples = [...page.matchAll(/^```ts\n(.*?)^```$/gms)].map(([, code = ""]) => code);
  expect(examples).toHaveLength(3);
  for (const example of examples) expect(here).toContain(unindented(example));
});

function unindented(code: string): string {
  return code.replaceAll(/^ +/gm, "");
}
