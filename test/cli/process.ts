/**
 * The CLI as a process of its own, built as it is published, in an empty folder:
 *
 *     await using place = await cliPlace();
 *     const { code, stdout } = await place.run("jobs", "--json");
 *     await using up = place.start("up", "--app", app);
 *     await up.says(/is up/);
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { expect, inject } from "vitest";
import { builtPackage } from "../support/build.ts";
import { backend, testDatabase } from "../support/database.ts";
import { openSnapshot } from "../support/pglite-snapshot.ts";

interface Finished {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

interface Started extends AsyncDisposable {
  /** The first line that matches, from the beginning of its output or from one to come. Throws when it ends without. */
  says(pattern: RegExp): Promise<string>;
  /** Every line so far that matches. */
  heard(pattern: RegExp): string[];
  /** Resolves at the nth line that matches. */
  hasSaid(count: number, pattern: RegExp): Promise<void>;
  kill(signal: NodeJS.Signals): void;
  readonly ended: Promise<Finished>;
}

export interface Place {
  readonly folder: string;
  /** What leads to the place's database, besides the folder. */
  readonly env: Readonly<Record<string, string>>;
  /** Writes a file into the folder; returns its path. */
  write(name: string, text: string): Promise<string>;
  run(...args: string[]): Promise<Finished>;
  /** Runs it with `--json`, which must go well and say nothing else. */
  json<Answer = Record<string, unknown>>(...args: string[]): Promise<Answer>;
  /** Enqueues a job; returns its id. */
  enqueue(...args: string[]): Promise<string>;
  start(...args: string[]): Started;
  /** The same below two shells, as npm runs it; `kill` then reaches the outer one only. */
  startBelowShells(...args: string[]): Started;
  /** The same place with more variables. */
  with(env: Readonly<Record<string, string>>): Place;
  /** Ends what still runs there, then removes the folder and the database. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** An empty folder, and an empty database of the backend under test: embedded, it is in the folder. */
export async function cliPlace(): Promise<Place> {
  const folder = await mkdtemp(join(tmpdir(), "millrace-cli-"));
  if (backend === "pglite") {
    // An embedded database is made in seconds, and copied in half of one.
    await mkdir(join(folder, ".millrace"));
    const pglite = await openSnapshot(inject("pgliteSnapshot"), join(folder, ".millrace", "data"));
    await pglite.close();
    return placeIn(folder, {}, () => rm(folder, { recursive: true, force: true }));
  }
  const database = await testDatabase();
  const url = database.backend === "postgres" ? database.url : "";
  // An API over PostgreSQL asks for a token, also of this machine.
  const token = "the-token-of-this-test";
  const env = { DATABASE_URL: url, API_TOKENS: `test:admin:${token}`, MILLRACE_TOKEN: token };
  return placeIn(folder, env, async () => {
    await rm(folder, { recursive: true, force: true });
    await database[Symbol.asyncDispose]();
  });
}

/** An empty folder, and no database. */
export async function emptyPlace(): Promise<Place> {
  const folder = await mkdtemp(join(tmpdir(), "millrace-cli-"));
  return placeIn(folder, {}, () => rm(folder, { recursive: true, force: true }));
}

function placeIn(
  folder: string,
  env: Readonly<Record<string, string>>,
  remove: () => Promise<void>,
  started: Started[] = [],
): Place {
  const begin = (args: readonly string[], below: readonly string[] = []): Started => {
    const { cli, env: forTsx } = builtPackage();
    const one = start(folder, { ...forTsx, ...env }, [...below, process.execPath, cli, ...args]);
    started.push(one);
    return one;
  };
  const json = async <Answer = Record<string, unknown>>(...args: string[]): Promise<Answer> => {
    const { code, stdout, stderr } = await begin([...args, "--json"]).ended;
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    return JSON.parse(stdout) as Answer;
  };
  return {
    folder,
    env,
    json,
    enqueue: async (...args) => (await json<{ id: string }>("enqueue", ...args)).id,
    async write(name, text) {
      const path = join(folder, name);
      await writeFile(path, text);
      return path;
    },
    run: (...args) => begin(args).ended,
    start: (...args) => begin(args),
    startBelowShells: (...args) => begin(args, ["sh", "-c", 'sh -c \'"$0" "$@"; true\' "$0" "$@"; true']),
    with: (more) => placeIn(folder, { ...env, ...more }, remove, started),
    async [Symbol.asyncDispose]() {
      await Promise.all(started.map((one) => one[Symbol.asyncDispose]()));
      await remove();
    },
  };
}

/** Settings of whoever runs the tests must not reach the processes under test. */
const inherited = Object.fromEntries(
  Object.entries(process.env).filter(
    ([name]) =>
      !/^(MILLRACE_|PGFLOW_|DATABASE_URL|PORT$|WORKER_|LOG_LEVEL|npm_|NODE_OPTIONS|VITEST|FORCE_COLOR)/.test(name),
  ),
);

function start(cwd: string, env: Readonly<Record<string, string>>, words: readonly string[]): Started {
  const [program = "", ...args] = words;
  const child = spawn(program, args, {
    cwd,
    env: {
      ...inherited,
      MILLRACE_PORTS: "0",
      ...env,
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const lines: string[] = [];
  const stderr: string[] = [];
  const listeners = new Set<() => void>();
  const tellAll = (): void => listeners.forEach((listener) => listener());
  createInterface({ input: child.stdout }).on("line", (line) => {
    lines.push(line);
    tellAll();
  });
  createInterface({ input: child.stderr }).on("line", (line) => stderr.push(line));
  const finished = (): Finished => ({ code: child.exitCode, stdout: lines.join("\n"), stderr: stderr.join("\n") });
  const ended = once(child, "close").then(() => {
    tellAll();
    return finished();
  });

  const hasSaid = (count: number, pattern: RegExp): Promise<void> =>
    new Promise((done, reject) => {
      const look = (): void => {
        const enough = lines.filter((line) => pattern.test(line)).length >= count;
        if (!enough && isAlive(child)) return;
        listeners.delete(look);
        if (enough) done();
        else reject(new Error(`It ended without saying ${pattern}:\n${JSON.stringify(finished(), undefined, 2)}`));
      };
      listeners.add(look);
      look();
    });
  return {
    ended,
    hasSaid,
    async says(pattern) {
      await hasSaid(1, pattern);
      return lines.find((line) => pattern.test(line)) as string;
    },
    heard: (pattern) => lines.filter((line) => pattern.test(line)),
    kill: (signal) => void child.kill(signal),
    async [Symbol.asyncDispose]() {
      if (isAlive(child)) child.kill("SIGKILL");
      await ended;
    },
  };
}

function isAlive({ exitCode, signalCode }: ChildProcess): boolean {
  return exitCode === null && signalCode === null;
}
