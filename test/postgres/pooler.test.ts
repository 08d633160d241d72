/**
 * Behind a pooler in transaction mode every statement may run on another server connection: nothing may be left behind on one, and
 * nothing expected there. What is sent is read along; and where PgBouncer is installed, the same work is done through it.
 */
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { type Millrace, defineApp, millrace, task } from "millrace";
import { expect, test } from "vitest";
import { testDatabase } from "../support/database.ts";
import { measured } from "../support/engine.ts";
import { type Message, Proxy, texts } from "./support/proxy.ts";
import { Observer } from "./support/ledger-proof.ts";
import { until } from "./support/until.ts";

const pooler = "pgbouncer";
const app = defineApp({
  tasks: [
    task({ name: "plain", run() {} }),
    task({ name: "failing", maxAttempts: 2, backoff: { delay: 10 }, run: () => Promise.reject(new Error("no")) }),
    task({
      name: "snoozing",
      async run({ attempt, input, snooze }) {
        if (attempt === 1 && Date.now() < (input as number)) snooze("20ms");
      },
    }),
  ],
});

/** A bit of everything, to the end: both ways in, all outcomes, what people do, a transaction, a stop. */
async function useEverything(mill: Millrace, observer: Observer): Promise<void> {
  const worker = mill.work({ concurrency: 5, lease: "2s", reapEvery: "200ms" });
  await worker.ready();
  await Promise.all(Array.from({ length: 50 }, () => mill.enqueue("plain", null)));
  await mill.enqueueMany(
    "plain",
    Array.from({ length: 500 }, () => null),
  );
  const { id: failed } = await mill.enqueue("failing", null, { maxAttempts: 2, backoff: { delay: 10 } });
  await mill.enqueue("snoozing", Date.now() + 50);
  await mill.enqueue("plain", null, { idempotencyKey: "once" });
  expect((await mill.enqueue("plain", null, { idempotencyKey: "once" })).duplicate).toBe(true);
  const { id: delayed } = await mill.enqueue("plain", null, { delay: "1h", tags: ["later"] });
  await mill.promote(delayed);
  await mill.transaction((tx) => mill.enqueue("plain", null, { tx }));
  await expect(
    mill.transaction(async (tx) => {
      await mill.enqueue("plain", null, { tx });
      throw new Error("rolled back");
    }),
  ).rejects.toThrow("rolled back");
  await until("all is done", async () => (await observer.unfinished()) === 0);
  expect(await mill.job(failed)).toMatchObject({ status: "failed", deadLetterReason: "MAX_ATTEMPTS_EXCEEDED" });
  await mill.retry(failed);
  await until("all is done again", async () => (await observer.unfinished()) === 0);
  await mill.pause("default");
  await mill.resume("default");
  expect((await mill.stats("default"))[0]).toMatchObject({ completed: 554, failed: 1, total: 555 });
  expect((await mill.jobs({ tag: "later" })).jobs).toHaveLength(1);
  // The chores of a worker come round too: beat, reap, fold.
  const beat = async (): Promise<number> =>
    observer.number("select extract(epoch from max(beat_at) - max(started_at)) from millrace.workers");
  await until("the worker has beaten", async () => (await beat()) > 1);
  await worker.stop();
  expect(await mill.clean("default", 0)).toEqual({ completed: 554, failed: 1, cancelled: 0 });
  expect(await observer.misplaced()).toEqual([]);
}

/** Due to the next poll without LISTEN, at once with it. The median of a few, in ms. */
async function startDelay(mill: Millrace): Promise<number> {
  let began = (): void => undefined;
  const watched = task({ name: "watched", run: () => began() });
  const worker = mill.startWorker({}, [watched], "leave");
  await worker.ready();
  const delays: number[] = [];
  for (let n = 0; n < 7; n += 1) {
    const started = new Promise<void>((resolve) => (began = resolve));
    const before = performance.now();
    await mill.enqueue(watched, null);
    await started;
    delays.push(performance.now() - before);
  }
  await worker.stop();
  return delays.sort((a, b) => a - b)[3] as number;
}

test("with pooler: true nothing is prepared, set, listened to or locked beyond its transaction", async () => {
  await using database = await testDatabase();
  const { url } = database as { url: string };
  await using proxy = await Proxy.to(url);
  const prepared = new Set<string>();
  const statements = new Set<string>();
  const startups: string[][] = [];
  proxy.onClientMessage = (message: Message) => {
    if (message.type === "startup") startups.push(texts({ ...message, body: message.body.subarray(4) }, 20));
    if (message.type === "Q") statements.add(texts(message, 1)[0] ?? "");
    if (message.type !== "P") return;
    const [name = "", text = ""] = texts(message, 2);
    statements.add(text);
    if (name !== "") prepared.add(name);
  };
  await using mill = await millrace(app, { databaseUrl: proxy.url, pooler: true, poolSize: 4 });
  await using observer = await Observer.on(url);
  await useEverything(mill, observer);

  expect(statements.size).toBeGreaterThan(25);
  expect([...prepared]).toEqual([]);
  const lasting =
    /^\s*(set(?!\s+local\b)|reset|listen|unlisten|prepare|deallocate|discard|declare|load)\b|\bset_config\([^)]*,\s*false\s*\)|pg_(try_)?advisory_lock|\btemp(orary)?\s+table\b/i;
  expect([...statements].filter((text) => lasting.test(text))).toEqual([]);
  // What a session is asked to be: nothing but who and where. PgBouncer refuses parameters it does not track.
  const parameters = startups.flatMap((pairs) => pairs.filter((_, n) => n % 2 === 0));
  expect([...new Set(parameters)].filter((name) => name !== "").sort()).toEqual([
    "application_name",
    "client_encoding",
    "database",
    "user",
  ]);
}, 60_000);

test(
  "without a listening connection a pooled worker polls; with one of its own it is called",
  { ...measured, timeout: 60_000 },
  async () => {
    await using database = await testDatabase();
    const { url } = database as { url: string };
    await using pooled = await Proxy.to(url);
    await using direct = await Proxy.to(url);
    const listens: string[] = [];
    const note = (where: string) => (message: Message) => {
      if (message.type === "Q" && /^listen/i.test(texts(message, 1)[0] ?? "")) listens.push(where);
    };
    pooled.onClientMessage = note("pooled");
    direct.onClientMessage = note("direct");
    {
      await using mill = await millrace(app, { databaseUrl: pooled.url, pooler: true });
      expect(await startDelay(mill)).toBeLessThan(250);
      expect(listens).toEqual([]);
    }
    await using mill = await millrace(app, { databaseUrl: pooled.url, pooler: true, listenUrl: direct.url });
    expect(await startDelay(mill)).toBeLessThan(60);
    expect(listens).toEqual(["direct"]);
  },
);

test("everything works through PgBouncer in transaction mode", { ...measured, timeout: 60_000 }, async ({ skip }) => {
  const found = spawnSync(pooler, ["--version"]);
  skip(found.error !== undefined, "PgBouncer is not on the PATH; the test above says what it would have been sent");

  await using database = await testDatabase();
  const { url } = database as { url: string };
  await using bouncer = await startBouncer(url);
  await using mill = await millrace(app, { databaseUrl: bouncer.url, pooler: true, listenUrl: url, poolSize: 8 });
  await using observer = await Observer.on(url);
  await useEverything(mill, observer);
  expect(await startDelay(mill)).toBeLessThan(60);
});

/** PgBouncer in front of one database, with fewer server connections than clients. Gone when its scope is left. */
async function startBouncer(url: string): Promise<AsyncDisposable & { readonly url: string }> {
  const { hostname, port, username, password, pathname } = new URL(url);
  const folder = mkdtempSync(join(tmpdir(), "millrace-pgbouncer-"));
  chmodSync(folder, 0o755); // started by root, it runs as nobody
  const listenPort = await freePort();
  const target = `host=${hostname} port=${port || 5432} user=${username} password=${password}`;
  writeFileSync(
    join(folder, "pgbouncer.ini"),
    `[databases]\n* = ${target}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = ${listenPort}\nunix_socket_dir =\nauth_type = any\n` +
      `pool_mode = transaction\ndefault_pool_size = 3\nserver_reset_query =\nmax_client_conn = 100\n`,
  );
  const asNobody = process.getuid?.() === 0 ? ["-u", "nobody"] : [];
  const bouncer = spawn(pooler, [...asNobody, join(folder, "pgbouncer.ini")], { stdio: "ignore" });
  const exited = once(bouncer, "exit");
  const through = `postgres://${username}:${password}@127.0.0.1:${listenPort}${pathname}`;
  const end = async (): Promise<void> => {
    bouncer.kill("SIGKILL");
    await exited;
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    await until("PgBouncer answers", () => answers(through));
  } catch (error) {
    await end();
    throw error;
  }
  return { url: through, [Symbol.asyncDispose]: end };
}

async function answers(url: string): Promise<boolean> {
  const client = new pg.Client({ connectionString: url });
  try {
    await client.connect();
    await client.query("select 1");
    return true;
  } catch {
    return false; // not yet
  } finally {
    await client.end();
  }
}

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = probe.address() as AddressInfo;
  await new Promise((closed) => probe.close(closed));
  return port;
}
