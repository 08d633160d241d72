/** Opens the database the environment names, for commands that look at it without an app and without touching its schema. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Config } from "../app/config.ts";
import { silent } from "../core/log.ts";
import type { Database } from "../db/database.ts";
import { openEmbedded } from "../db/embedded.ts";
import { connectPostgres } from "../db/postgres.ts";

/** Whether there is a database to open without making one: PostgreSQL, or an embedded one that was made before. */
export function hasData({ databaseUrl, dataDir }: Config): boolean {
  return databaseUrl !== undefined || existsSync(join(dataDir, "data", "PG_VERSION"));
}

/** Throws `DATABASE_*`, `EMBEDDED_IN_USE`. */
export async function openDatabase(config: Config): Promise<Database> {
  const { databaseUrl: url, dataDir, schema, pooler, listenUrl } = config;
  if (url === undefined) return openEmbedded({ schema, dataDir });
  return connectPostgres({ url, schema, pooler, listenUrl, poolSize: 2, log: silent });
}
