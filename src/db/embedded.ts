/**
 * PostgreSQL inside this process (PGlite): no server to install. One process only, and it runs without fsync: it survives a
 * killed process, not a power cut. `DATABASE_URL` is the way to both.
 */
import { mkdirSync, openSync, readFileSync, rmSync, writeSync, closeSync } from "node:fs";
import { join } from "node:path";
import { PGlite, type Transaction } from "@electric-sql/pglite";
import { MillraceError } from "../core/errors.ts";
import type { Database, Executor, Subscription } from "./database.ts";
import { adopt } from "./postgres.ts";
import { Dialect, type Sql } from "./sql.ts";

export interface EmbeddedOptions {
  /** Folder that holds the data, or undefined for memory only. */
  readonly dataDir?: string | undefined;
  readonly schema: string;
  /** A PGlite that somebody else made and will close (tests; users who already have one). */
  readonly pglite?: PGlite | undefined;
}

export async function openEmbedded(options: EmbeddedOptions): Promise<Database> {
  const lock = options.dataDir === undefined ? undefined : lockFolder(options.dataDir);
  let lite: PGlite;
  try {
    lite =
      options.pglite ??
      (await (options.dataDir === undefined ? PGlite.create() : PGlite.create(join(options.dataDir, "data"))));
  } catch (error) {
    lock?.release();
    throw error;
  }
  const dialect = new Dialect(options.schema, false);
  await lite.exec("set enable_seqscan = off; set jit = off");
  const all = executor(lite, dialect);

  return {
    kind: "embedded",
    schema: options.schema,
    ...all,
    transaction: (work) => lite.transaction((tx) => work(executor(tx, dialect))),
    lend: (work) => lite.transaction((tx) => work({ query: (text, values) => tx.query(text, values) })),
    script: async (text) => void (await lite.exec(dialect.inSchema(text))),
    async listen(channel, onMessage, onGap): Promise<Subscription> {
      const stop = await lite.listen(channel, onMessage);
      onGap();
      return { live: true, close: () => stop() };
    },
    adopt: (tx) => adopt(tx, dialect),
    async close() {
      if (options.pglite === undefined) await lite.close();
      lock?.release();
    },
  };
}

function executor(target: PGlite | Transaction, dialect: Dialect): Executor {
  const run = async (query: Sql, rowMode: "object" | "array"): Promise<unknown[]> => {
    const { text, values } = dialect.statement(query);
    return (await target.query(text, values, { rowMode })).rows;
  };
  return {
    query: async <Row>(query: Sql) => (await run(query, "object")) as Row[],
    rows: async <Row extends readonly unknown[]>(query: Sql) => (await run(query, "array")) as Row[],
  };
}

/**
 * Two processes on one PGlite folder would corrupt it, and PGlite does not refuse. A file with our process id does; one left by
 * a killed process is recognised by that process being gone.
 */
function lockFolder(dataDir: string): { release(): void } {
  mkdirSync(dataDir, { recursive: true });
  const path = join(dataDir, "millrace.lock");
  for (let tries = 0; ; tries += 1) {
    try {
      const file = openSync(path, "wx");
      writeSync(file, String(process.pid));
      closeSync(file);
      return { release: () => rmSync(path, { force: true }) };
    } catch (error) {
      if ((error as { code?: string }).code !== "EEXIST") throw error;
      const holder = Number(readFileSync(path, "utf8"));
      if (tries === 0 && !isAlive(holder)) {
        rmSync(path, { force: true });
        continue;
      }
      throw new MillraceError("EMBEDDED_IN_USE", `The data folder ${dataDir} is in use by process ${holder}.`);
    }
  }
}

function isAlive(pid: number): boolean {
  if (!Number.isInteger(pid) || pid <= 0 || pid === process.pid) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as { code?: string }).code === "EPERM";
  }
}
