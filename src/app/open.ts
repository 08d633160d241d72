/** Which database the options and the environment lead to. */
import { MillraceError } from "../core/errors.ts";
import type { Log } from "../core/log.ts";
import { wholeNumber } from "../core/options.ts";
import type { Database } from "../db/database.ts";
import { openEmbedded } from "../db/embedded.ts";
import { connectPostgres } from "../db/postgres.ts";
import type { Config } from "./config.ts";
import type { MillraceOptions } from "./options.ts";

/** Throws `OPTION_INVALID`, `DATABASE_*`, `EMBEDDED_IN_USE`. */
export async function open(options: MillraceOptions, config: Config, log: Log): Promise<Database> {
  const schema = options.schema ?? config.schema;
  if (!/^[A-Za-z_][A-Za-z0-9_]{0,47}$/.test(schema))
    throw new MillraceError(
      "OPTION_INVALID",
      `schema must be an identifier of at most 48 characters, not ${JSON.stringify(schema)}.`,
    );
  const url =
    options.databaseUrl === undefined && options.pglite === undefined && options.dataDir === undefined
      ? config.databaseUrl
      : options.databaseUrl;
  if (url === undefined || url === null) {
    const dataDir = options.dataDir === undefined ? config.dataDir : (options.dataDir ?? undefined);
    return openEmbedded({ schema, pglite: options.pglite, dataDir: options.pglite ? undefined : dataDir });
  }
  return connectPostgres({
    url,
    schema,
    log,
    poolSize: wholeNumber(options.poolSize ?? config.poolSize, "poolSize", 2, 500),
    pooler: options.pooler ?? config.pooler,
    listenUrl: options.listenUrl ?? config.listenUrl,
  });
}
