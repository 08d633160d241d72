import pg from "pg";
import { expect, test } from "vitest";
import { backend, testDatabase, type TestDatabase } from "./database.ts";

type Query = (text: string) => Promise<{ rows: unknown[] }>;

async function withQuery<Result>(database: TestDatabase, work: (query: Query) => Promise<Result>): Promise<Result> {
  if (database.backend === "pglite") return work((text) => database.pglite.query(text));
  const client = new pg.Client({ connectionString: database.url });
  await client.connect();
  try {
    return await work((text) => client.query(text));
  } finally {
    await client.end();
  }
}

test("two test databases do not see each other's tables", async () => {
  await using first = await testDatabase();
  await using second = await testDatabase();
  const tables = "select count(*)::int as n from pg_tables where schemaname = 'public'";

  await withQuery(first, (query) => query("create table orders (id int primary key)"));

  expect(await withQuery(first, async (query) => (await query(tables)).rows)).toEqual([{ n: 1 }]);
  expect(await withQuery(second, async (query) => (await query(tables)).rows)).toEqual([{ n: 0 }]);
});

test("a test database speaks UTF-8 and sorts text by code point, on both backends", async () => {
  await using database = await testDatabase();
  const { rows } = await withQuery(database, (query) =>
    query("select string_agg(x, '' order by x) as sorted from unnest(array['é','b','B','a']) x"),
  );
  expect(rows).toEqual([{ sorted: "Babé" }]);
  expect(database.backend).toBe(backend);
});
