/** What the engine promises, at every statement at which a process can die. */
import { defineApp, task } from "millrace";
import { type CrashPoint, type TestMillrace, CrashError, testMillrace } from "millrace/testing";
import { expect, test, vi } from "vitest";
import { z } from "zod";
import { places } from "../support/engine.ts";

// Some fifty crashes each.
vi.setConfig({ testTimeout: 120_000 });

const charge = task({
  name: "charge",
  input: z.object({ order: z.string() }),
  backoff: { delay: "1s" },
  run: async ({ input, complete }) => {
    const mill = alive;
    await mill.transaction(async (tx) => {
      await tx.query("insert into charges (order_id) values ($1)", [input.order]);
      await complete(tx);
    });
  },
});
const note = task({
  name: "note",
  input: z.object({ text: z.string() }),
  run: async ({ input }) => void (await alive.pglite.query("insert into notes values ($1)", [input.text])),
});
const flaky = task({
  name: "flaky",
  backoff: { delay: "1s" },
  run: ({ attempt }) => {
    if (attempt === 1) throw new Error("not yet");
  },
});
const app = defineApp({ tasks: [charge, note, flaky] });

/** The Millrace of the process that runs now: what a module of an app would hold. */
let alive: TestMillrace;

async function opened(): Promise<TestMillrace> {
  const mill = await testMillrace(app);
  await mill.pglite.exec(`
    create table orders (id text primary key);
    create table charges (id serial primary key, order_id text not null);
    create table notes (text text)`);
  return mill;
}

async function column(mill: TestMillrace, sql: string): Promise<unknown[]> {
  return (await mill.pglite.query<{ value: unknown }>(sql)).rows.map(({ value }) => value);
}

/** Every job is in exactly one place, and that is one of these. */
async function expectPlaces(mill: TestMillrace, ...allowed: string[]): Promise<void> {
  for (const place of Object.values(await places(mill.db))) expect(allowed).toContain(place);
}

/** After a crash, all that is left runs to its end. */
async function goOn(mill: TestMillrace): Promise<void> {
  alive = mill;
  await mill.advance("1h");
}

const moments = (points: readonly CrashPoint[]): string[] =>
  [...new Set(points.map(({ moment }) => moment))].toSorted();

test("rows and their job: both or neither, and the effect exactly once", async () => {
  await using mill = await opened();
  const points = await mill.eachCrash(
    async (process) => {
      alive = process;
      await process.transaction(async (tx) => {
        await tx.query("insert into orders values ($1)", ["o-1"]);
        await process.enqueue(charge, { order: "o-1" }, { tx });
      });
      await process.runUntilIdle();
    },
    async (process, crash) => {
      await goOn(process);
      const orders = await column(process, "select id as value from orders");
      expect(await column(process, "select order_id as value from charges")).toEqual(orders);
      if (crash === undefined) expect(orders).toEqual(["o-1"]);
      await expectPlaces(process, "settled");
    },
  );
  expect(moments(points)).toEqual(["after", "before"]);
  expect(points.some(({ sql, moment }) => sql === "commit" && moment === "after")).toBe(true);
  expect(points.length).toBeGreaterThan(20);
  // Afterwards all is as before.
  expect(await column(mill, "select id as value from orders")).toEqual([]);
  await mill.expectNotEnqueued(charge);
});

test("an effect outside of complete happens at least once, and never without its job having been asked for", async () => {
  await using mill = await opened();
  const counts = new Set<number>();
  await mill.eachCrash(
    async (process) => {
      alive = process;
      await process.enqueue(note, { text: "hello" });
      await process.runUntilIdle();
    },
    async (process) => {
      await goOn(process);
      const jobs = await column(process, "select id as value from millrace.jobs");
      const notes = await column(process, "select text as value from notes");
      expect(notes.length).toBeGreaterThanOrEqual(jobs.length);
      counts.add(notes.length);
    },
  );
  // Died before it was durable; well; and between the effect and the report of it.
  expect([...counts].toSorted()).toEqual([0, 1, 2]);
});

test("retries: a job that fails, is retried and succeeds is never lost and never in two places", async () => {
  await using mill = await opened();
  await mill.eachCrash(
    async (process) => {
      alive = process;
      await process.enqueue(flaky, {}, { idempotencyKey: "one" });
      await process.advance("1m");
    },
    async (process) => {
      await process.enqueue(flaky, {}, { idempotencyKey: "one" });
      await goOn(process);
      expect(await process.stats("default")).toMatchObject([{ completed: 1, total: 1 }]);
      await expectPlaces(process, "settled");
    },
  );
});

test("a cancel either holds or was never asked for", async () => {
  await using mill = await opened();
  const { id } = await mill.enqueue(note, { text: "unwanted" });
  const ended = new Set<string>();
  await mill.eachCrash(
    async (process) => {
      alive = process;
      await process.cancel(id, { by: "ada" });
      await process.runUntilIdle();
    },
    async (process, crash) => {
      await goOn(process);
      const status = (await process.job(id))?.status ?? "gone";
      expect(await column(process, "select text as value from notes")).toHaveLength(status === "cancelled" ? 0 : 1);
      if (crash === undefined) expect(status).toBe("cancelled");
      ended.add(status);
      await expectPlaces(process, "settled", "cancelled");
    },
  );
  expect([...ended].toSorted()).toEqual(["cancelled", "completed"]);
});

test("a bulk operation goes on behind its last batch, with exact counts", async () => {
  await using mill = await opened();
  const texts = ["a", "b", "c", "d", "e"];
  await mill.enqueueMany(
    note,
    texts.map((text) => ({ text })),
    { delay: "2h" },
  );
  await mill.eachCrash(
    async (process) => {
      alive = process;
      await process.bulk("replay", { task: "note", status: "delayed" }, { delay: 0 });
      await process.runUntilIdle();
    },
    async (process) => {
      await goOn(process);
      const [operation] = await process.bulkOperations();
      const replayed = await column(process, "select id as value from millrace.jobs where replay_of is not null");
      expect(replayed).toHaveLength(operation === undefined ? 0 : texts.length);
      if (operation) expect(operation).toMatchObject({ status: "completed", changed: texts.length });
      await expectPlaces(process, "settled", "pending");
    },
  );
});

test("a queue with limits: what a dead process held frees its room", async () => {
  await using mill = await opened();
  await mill.policies.set("default", { concurrency: 1 });
  await mill.eachCrash(
    async (process) => {
      alive = process;
      await process.enqueueMany(charge, [{ order: "o-1" }, { order: "o-2" }], { concurrencyKey: "ada" });
      await process.runUntilIdle();
    },
    async (process) => {
      await goOn(process);
      const charges = await column(process, "select order_id as value from charges order by id");
      expect(charges.length === 0 || charges.length === 2).toBe(true);
      expect(new Set(charges).size).toBe(charges.length);
      await expectPlaces(process, "settled");
    },
  );
});

test("a process that died stays dead, for everybody who holds it; the next one goes on", async () => {
  await using mill = await opened();
  alive = mill;
  const dies = task({ name: "dies", run: () => mill.crash() });
  await using other = await testMillrace(defineApp({ tasks: [dies] }));
  const { id } = await mill.enqueue(charge, { order: "o-1" });
  mill.crash();
  await expect(mill.job(id)).rejects.toThrow(CrashError);
  await expect(mill.pglite.query("select 1")).rejects.toThrow(CrashError);
  await expect(mill.enqueue(charge, { order: "o-2" })).rejects.toMatchObject({ code: "DATABASE_UNREACHABLE" });
  const next = await mill.recover();
  expect((alive = next).now()).toBe(mill.now());
  expect(await next.runUntilIdle()).toMatchObject([{ id, attempt: 1, status: "completed" }]);
  await other.expectNotEnqueued(dies);
});

test("a crash in the middle of a job ends the run, and the job is a suspect that runs again", async () => {
  let lives = 0;
  const dies = task({
    name: "dies",
    run: async () => {
      lives += 1;
      if (lives === 1) process.crash();
    },
  });
  await using mill = await testMillrace(defineApp({ tasks: [dies] }));
  let process = mill;
  const { id } = await mill.enqueue(dies, {});
  await expect(mill.runUntilIdle()).rejects.toThrow("because the test said so");
  process = await mill.recover();
  await process.expectStatus(id, "waiting");
  expect(await process.runUntilIdle()).toMatchObject([{ id, attempt: 2, outcome: "succeeded" }]);
});

test("a proof that fails says where the process had died", async () => {
  await using mill = await opened();
  const failing = mill.eachCrash(
    (process) => process.enqueue(note, { text: "hello" }),
    (process) => process.expectEnqueued(note),
  );
  await expect(failing).rejects.toThrow(
    /^After a crash before statement \d+, `.*`: No job of task "note" was enqueued/s,
  );
  await expect(
    mill.eachCrash(
      () => Promise.reject(new Error("the scenario is wrong")),
      () => Promise.resolve(),
    ),
  ).rejects.toThrow("the scenario is wrong");
});
