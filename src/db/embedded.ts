/**
 * PostgreSQL inside this process (PGlite): no server to install. One process only, and it runs without fsync: it survives a
 * killed process, not a power cut. `DATABASE_URL` is the way to both.
 */
import {
  chmodSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { setImmediate as turnOfTheLoop } from "node:timers/promises";
import { PGlite, type Transaction } from "@electric-sql/pglite";
import { MillraceError } from "../core/errors.ts";
import type { Database, Executor, Subscription } from "./database.ts";
import { adopt } from "./postgres.ts";
import { Dialect, type Sql, quoteIdent } from "./sql.ts";

export type { PGlite };

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
  await lite.exec("set enable_seqscan = off; set enable_memoize = off; set jit = off");
  const all = executor(lite, dialect);
  const breathe = breather();

  return {
    kind: "embedded",
    schema: options.schema,
    async query(query) {
      await breathe();
      return all.query(query);
    },
    async rows(query) {
      await breathe();
      return all.rows(query);
    },
    async transaction(work) {
      await breathe();
      return lite.transaction((tx) => work(executor(tx, dialect)));
    },
    async lend(work) {
      await breathe();
      return lite.transaction((tx) => work({ query: (text, values) => tx.query(text, values) }));
    },
    script: async (text) => void (await lite.exec(dialect.inSchema(text))),
    async listen(channel, onMessage, onGap): Promise<Subscription> {
      // PGlite folds a channel's name to lower case unless it is quoted; what its `listen` returns forgets the quotes.
      const quoted = quoteIdent(channel);
      await lite.listen(quoted, onMessage);
      onGap();
      return { live: true, awake: undefined, close: () => lite.unlisten(quoted, onMessage) };
    },
    adopt: (tx) => adopt(tx, dialect),
    async close() {
      if (options.pglite === undefined) await lite.close();
      lock?.release();
    },
  };
}

/** Statements may follow each other for so long before timers, signals and sockets have their turn, in ms. */
const breathMs = 10;

/**
 * PGlite answers without the event loop turning. A worker that claims, runs and claims again would keep everybody else waiting until
 * its queue is empty: heartbeats, results, Ctrl-C.
 */
function breather(): () => Promise<void> {
  let turnedAt = 0;
  return async () => {
    if (performance.now() - turnedAt < breathMs) return;
    await turnOfTheLoop();
    turnedAt = performance.now();
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

/** The locks this process holds. Any other with our process id was left by a former life of that number, as containers have. */
const ours = new Set<string>();
/** A lock is empty for the moment in which it is made; one that stays so was left by a process killed in that moment. */
const emptyForMs = 5_000;

/**
 * Two processes on one PGlite folder would corrupt it, and PGlite does not refuse. A file with our process id does; one left by
 * a killed process is recognised by that process being gone.
 */
function lockFolder(dataDir: string): { release(): void } {
  mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  closeToOthers(dataDir);
  const path = join(realpathSync(dataDir), "millrace.lock");
  for (let tries = 1; ; tries += 1) {
    try {
      writeFileSync(path, String(process.pid), { flag: "wx" });
      break;
    } catch (error) {
      if ((error as { code?: string }).code !== "EEXIST") throw error;
    }
    try {
      const holder = readFileSync(path, "utf8");
      const isNew = holder === "" && Date.now() - statSync(path).mtimeMs < emptyForMs;
      if (tries === 10 || ours.has(path) || isNew || isAlive(Number(holder)))
        throw new MillraceError("EMBEDDED_IN_USE", `The data folder ${dataDir} is in use by process ${holder || "…"}.`);
      takeAway(path, holder);
    } catch (error) {
      if ((error as { code?: string }).code !== "ENOENT") throw error; // released, or taken away, meanwhile
    }
  }
  ours.add(path);
  return {
    release() {
      ours.delete(path);
      rmSync(path, { force: true });
    },
  };
}

/**
 * PGlite makes its files for everybody to write, whatever the umask. So nobody else may enter the folder: one that others can is closed
 * to them when it is ours, or empty, and refused when other things are in it, which others may have a reason to reach.
 */
function closeToOthers(dataDir: string): void {
  const { mode } = statSync(dataDir);
  if (process.platform === "win32" || (mode & 0o077) === 0) return;
  const names = readdirSync(dataDir).filter((name) => !name.startsWith("millrace."));
  try {
    if (names.length > 0 && !names.includes("data")) throw new Error("other things are in it");
    chmodSync(dataDir, 0o700);
  } catch (cause) {
    const why = (cause as Error).message;
    throw new MillraceError(
      "CONFIG_INVALID",
      `Other users can enter the data folder ${dataDir}, and could change what is in the database; it was not closed to them: ${why}. Set MILLRACE_DATA_DIR to a folder of its own, or close this one (chmod 700).`,
      { cause },
    );
  }
}

/** Removes the lock of a dead process, but not one that another process has put in its place meanwhile. */
function takeAway(path: string, dead: string): void {
  const aside = `${path}.${process.pid}`;
  renameSync(path, aside);
  if (readFileSync(aside, "utf8") === dead) rmSync(aside);
  else renameSync(aside, path);
}

function isAlive(pid: number): boolean {
  if (!Number.isInteger(pid) || pid <= 0 || pid === process.pid) return false;
  try {
    process.kill(pid, 0);
  } catch (error) {
    return (error as { code?: string }).code === "EPERM";
  }
  try {
    // Killed, but not yet reaped by its parent: it holds its number and nothing else.
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return !/^ [ZX]/.test(stat.slice(stat.lastIndexOf(")") + 1));
  } catch {
    return true; // not Linux
  }
}
