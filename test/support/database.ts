/**
 * An empty database of the backend under test, gone when it leaves its scope:
 *
 *     await using database = await testDatabase();
 *
 * Every test file runs twice, once per backend (see vitest.config.ts), and should rarely need to know which one it got.
 */
import { randomUUID } from "node:crypto";
import type { PGlite } from "@electric-sql/pglite";
import pg from "pg";
import { inject } from "vitest";
import { openSnapshot } from "./pglite-snapshot.ts";

export type TestDatabase = AsyncDisposable &
  ({ readonly backend: "pglite"; readonly pglite: PGlite } | { readonly backend: "postgres"; readonly url: string });

export const backend: TestDatabase["backend"] =
  process.env["MILLRACE_TEST_BACKEND"] === "postgres" ? "postgres" : "pglite";

export async function testDatabase(): Promise<TestDatabase> {
  return backend === "pglite" ? pgliteDatabase() : postgresDatabase();
}

async function pgliteDatabase(): Promise<TestDatabase> {
  const pglite = await openSnapshot(inject("pgliteSnapshot"));
  return { backend: "pglite", pglite, [Symbol.asyncDispose]: async () => pglite.close() };
}

async function postgresDatabase(): Promise<TestDatabase> {
  const server = inject("postgresUrl");
  const name = `millrace_test_${randomUUID().replaceAll("-", "")}`;
  const url = new URL(server);
  url.pathname = `/${name}`;
  await runOn(server, `create database ${name}`);
  return {
    backend: "postgres",
    url: url.href,
    [Symbol.asyncDispose]: () => runOn(server, `drop database ${name} with (force)`),
  };
}

async function runOn(url: string, statement: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    await client.query(statement);
  } finally {
    await client.end();
  }
}
