/** The embedded database on disk: it is there again after a close, and belongs to one opener at a time. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, inject, onTestFinished, test } from "vitest";
import { type Database } from "../../src/db/database.ts";
import { openEmbedded } from "../../src/db/embedded.ts";
import { sql } from "../../src/db/sql.ts";
import { defineApp, millrace, task } from "millrace";
import { backend } from "../support/database.ts";
import { openSnapshot } from "../support/pglite-snapshot.ts";
import { tally } from "../support/engine.ts";
import { StoreWorker } from "../support/store-worker.ts";

describe.runIf(backend === "pglite")("a data folder", () => {
  let root: string;
  beforeAll(() => {
    root = mkdtempSync(join(tmpdir(), "millrace-embedded-"));
  });
  afterAll(() => rmSync(root, { recursive: true, force: true }));

  /** One that the first test here made, and every test closes. */
  const folder = (): string => {
    const dataDir = join(root, "made");
    mkdirSync(dataDir, { recursive: true });
    expect(existsSync(lockOf(dataDir))).toBe(false);
    return dataDir;
  };
  const open = (dataDir: string): Promise<Database> => openEmbedded({ dataDir, schema: "millrace" });
  const lockOf = (dataDir: string): string => join(dataDir, "millrace.lock");

  const modeOf = (path: string): string => (statSync(path).mode & 0o777).toString(8);

  async function otherProcess(): Promise<ChildProcess> {
    const child = spawn(process.execPath, ["-e", "process.stdin.resume()"], { stdio: ["pipe", "ignore", "ignore"] });
    await once(child, "spawn");
    onTestFinished(() => void child.kill());
    return child;
  }

  test("holds what was written after it was closed and opened again, jobs and all", async () => {
    const dataDir = join(root, "made");
    const ran = tally<unknown>();
    const note = task({ name: "note", run: ({ input }) => ran.add(input) });
    const app = defineApp({ tasks: [note] });
    const before = await millrace(app, { dataDir });
    const { id } = await before.enqueue(note, { text: "still here" });
    expect(readFileSync(lockOf(dataDir), "utf8")).toBe(String(process.pid));
    await before.close();
    expect(existsSync(lockOf(dataDir))).toBe(false);
    expect(modeOf(dataDir)).toBe("700");

    await using after = await millrace(app, { dataDir });
    expect(await after.job(id)).toMatchObject({ status: "waiting", input: { text: "still here" } });
    after.work();
    expect(await ran.reached(1)).toEqual([{ text: "still here" }]);
  });

  test("opened again takes back at once what its last process was working on, without waiting for the lease", async () => {
    const dataDir = folder();
    const app = defineApp({ tasks: [] });
    const before = await millrace(app, { dataDir, schema: "again" });
    const { id } = await before.enqueue("note", {});
    const worker = await StoreWorker.register(before, "killed", 3_600_000);
    await worker.claim(1);
    expect(await before.job(id)).toMatchObject({ status: "active" });
    await before.close();

    await using after = await millrace(app, { dataDir, schema: "again" });
    expect(await after.job(id)).toMatchObject({ status: "waiting", lastErrorCode: "WORKER_LOST" });
  });

  test("that another process has open is refused as EMBEDDED_IN_USE, and its lock is left alone", async () => {
    const dataDir = folder();
    const { pid } = await otherProcess();
    writeFileSync(lockOf(dataDir), String(pid));
    await expect(open(dataDir)).rejects.toMatchObject({
      code: "EMBEDDED_IN_USE",
      message: `The data folder ${dataDir} is in use by process ${pid}.`,
    });
    await expect(millrace(defineApp({ tasks: [] }), { dataDir })).rejects.toMatchObject({ code: "EMBEDDED_IN_USE" });
    expect(readFileSync(lockOf(dataDir), "utf8")).toBe(String(pid));
    rmSync(lockOf(dataDir));
  });

  test("that this process has open already is refused as well, by whatever path it is named", async () => {
    const dataDir = folder();
    const first = await open(dataDir);
    await expect(open(dataDir)).rejects.toMatchObject({ code: "EMBEDDED_IN_USE" });
    await expect(open(join(dataDir, "..", dataDir.slice(root.length + 1), "."))).rejects.toMatchObject({
      code: "EMBEDDED_IN_USE",
    });
    expect(await first.query(sql`select 1 as x`)).toEqual([{ x: 1 }]);
    await first.close();
    const second = await open(dataDir);
    await second.close();
  });

  test("whose process was killed is taken over", async () => {
    const dataDir = folder();
    const child = await otherProcess();
    child.kill("SIGKILL");
    await once(child, "exit");
    writeFileSync(lockOf(dataDir), String(child.pid));
    const db = await open(dataDir);
    expect(readFileSync(lockOf(dataDir), "utf8")).toBe(String(process.pid));
    await db.close();
  });

  test("whose lock has this process's number from a former life, as in a container, is taken over", async () => {
    const dataDir = folder();
    writeFileSync(lockOf(dataDir), String(process.pid));
    const db = await open(dataDir);
    await db.close();
    expect(existsSync(lockOf(dataDir))).toBe(false);
  });

  test("whose lock is being written at this moment is refused; one left empty long ago is taken over", async () => {
    const dataDir = folder();
    writeFileSync(lockOf(dataDir), "");
    await expect(open(dataDir)).rejects.toMatchObject({ code: "EMBEDDED_IN_USE" });
    const minuteAgo = Date.now() / 1_000 - 60;
    utimesSync(lockOf(dataDir), minuteAgo, minuteAgo);
    const db = await open(dataDir);
    await db.close();
  });

  test("whose database cannot be opened is unlocked again", async () => {
    const dataDir = join(root, "broken");
    mkdirSync(join(dataDir, "data"), { recursive: true });
    writeFileSync(join(dataDir, "data", "PG_VERSION"), "3");
    await expect(open(dataDir)).rejects.toThrow();
    expect(existsSync(lockOf(dataDir))).toBe(false);
  });

  test("that an older version left open to everybody is closed to others", async () => {
    const older = join(root, "older");
    mkdirSync(join(older, "data"), { recursive: true });
    writeFileSync(join(older, "data", "PG_VERSION"), "3");
    chmodSync(older, 0o755);
    await expect(open(older)).rejects.toThrow();
    expect(modeOf(older)).toBe("700");
  });

  test("that others can enter, and that has other things in it, is refused and left as it is", async () => {
    const shared = join(root, "shared");
    mkdirSync(shared);
    chmodSync(shared, 0o755);
    writeFileSync(join(shared, "notes.txt"), "");
    await expect(open(shared)).rejects.toMatchObject({
      code: "CONFIG_INVALID",
      message: expect.stringMatching(
        /^Other users can enter the data folder .*: other things are in it\. Set MILLRACE_DATA_DIR/,
      ),
    });
    expect([modeOf(shared), readdirSync(shared)]).toEqual(["755", ["notes.txt"]]);
  });

  test("whose migrations fail is unlocked again", async () => {
    const dataDir = folder();
    const db = await openEmbedded({ dataDir, schema: "newer" });
    await db.script(
      "create schema newer; create table millrace.migrations (version int, name text); insert into millrace.migrations values (9999, 'x')",
    );
    await db.close();
    const opening = millrace(defineApp({ tasks: [] }), { dataDir, schema: "newer" });
    await expect(opening).rejects.toMatchObject({ code: "DATABASE_NEWER" });
    expect(existsSync(lockOf(dataDir))).toBe(false);
  });
});

test.runIf(backend === "pglite")("a PGlite of the user's own is left open when Millrace closes", async () => {
  const pglite = await openSnapshot(inject("pgliteSnapshot"));
  const mill = await millrace(defineApp({ tasks: [] }), { pglite });
  await mill.close();
  expect((await pglite.query("select 1 as x")).rows).toEqual([{ x: 1 }]);
  await pglite.close();
});

test.runIf(backend === "pglite")("statements on end leave timers their turn", async () => {
  const pglite = await openSnapshot(inject("pgliteSnapshot"));
  const db = await openEmbedded({ schema: "millrace", pglite });
  let turns = 0;
  const timer = setInterval(() => (turns += 1), 1);
  // Enough statements to starve a timer, however slow the machine is.
  for (let n = 0; turns <= 3 && n < 20_000; n += 1) {
    await db.rows(sql`select 1`);
    await db.transaction((tx) => tx.rows(sql`select 1`));
  }
  clearInterval(timer);
  expect(turns).toBeGreaterThan(3);
  await pglite.close();
});
