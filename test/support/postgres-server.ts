/**
 * A real PostgreSQL for tests and benches, made from nothing and gone without trace.
 *
 * The server is watched by a process of its own (postgres-watch.ts), which ends it and removes its folder as soon as this
 * process lets go of the pipe between them: by `stop()`, by exiting, or by being killed. Nothing is installed on the machine.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { text } from "node:stream/consumers";

export interface PostgresServer extends AsyncDisposable {
  /** A superuser's URL of the database `postgres`. */
  readonly url: string;
  stop(): Promise<void>;
}

/** Starts a server on a free local port. `settings` are server parameters, such as `{ fsync: "on" }`. */
export async function startPostgres(settings: Readonly<Record<string, string>> = {}): Promise<PostgresServer> {
  // Detached, so that Ctrl-C in a terminal reaches us alone: the watcher then sees the pipe close and cleans up in peace.
  const watcher = spawn(process.execPath, ["--import", "tsx", "postgres-watch.ts", JSON.stringify(settings)], {
    cwd: import.meta.dirname,
    stdio: ["pipe", "pipe", "inherit"],
    detached: true,
  });
  const exit = once(watcher, "exit");
  const url = await Promise.race([once(watcher.stdout, "data").then(String), exit.then(() => text(watcher.stdout))]);
  if (!url.startsWith("postgres://"))
    throw new Error("PostgreSQL for the tests did not start; the reason is printed above.");
  watcher.unref();
  watcher.stdout.destroy();

  const stop = async (): Promise<void> => {
    watcher.ref();
    watcher.stdin.end();
    await exit;
  };
  return { url: url.trim(), stop, [Symbol.asyncDispose]: stop };
}
