/** Counts per queue: what is there, and what was done, folded or not. */
import { describe, expect, test } from "vitest";
import { task } from "millrace";
import { foldTallies } from "../../src/jobs/stats-store.ts";
import { sql } from "../../src/db/sql.ts";
import { backend } from "../support/database.ts";
import { foldAll, gate, places, tally, useDatabase } from "../support/engine.ts";
import { StoreWorker, succeeded } from "../support/store-worker.ts";

const file = useDatabase();
const plain = task({ name: "plain", run: () => undefined });

describe("counts", () => {
  test("are of each queue by name, each status by itself, and the sum", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    await mill.enqueueMany(plain, Array.from({ length: 10 }), { queue: "b" });
    const claim = await worker.claim(6, "b");
    const [first = "", second = "", third = ""] = claim.jobs.map(({ id }) => id);
    await worker.settle(claim, { [first]: succeeded, [second]: succeeded, [third]: { next: "dead" } });
    await mill.enqueueMany(plain, [1, 2], { queue: "b", delay: "1h" });
    await mill.enqueue(plain, {}, { queue: "a" });
    await mill.pause("a");
    const b = { name: "b", waiting: 4, active: 3, completed: 2, failed: 1, delayed: 2, total: 12, paused: false };
    expect(await mill.stats()).toEqual([
      { name: "a", waiting: 1, active: 0, completed: 0, failed: 0, delayed: 0, total: 1, paused: true },
      b,
      { name: "default", waiting: 0, active: 0, completed: 0, failed: 0, delayed: 0, total: 0, paused: false },
    ]);
    expect(await mill.stats("b")).toEqual([b]);
    expect(await mill.stats("nowhere")).toEqual([]);
  });

  test("of a queue name that is none are refused", async () => {
    await using mill = await file.open([plain]);
    await expect(mill.stats("a\0b")).rejects.toMatchObject({ code: "QUEUE_NAME_INVALID" });
  });

  test("of what a real worker did are what happened", async () => {
    const ran = tally<unknown>();
    const mixed = task({
      name: "mixed",
      maxAttempts: 2,
      backoff: { delay: 1, jitter: 0 },
      run({ input, attempt, snooze }) {
        ran.add(input);
        const kind = (input as number) % 4;
        if (kind === 1) throw new Error("always");
        if (kind === 2 && attempt === 1) throw new Error("once");
        if (kind === 3) snooze("1h");
      },
    });
    await using mill = await file.open([mixed]);
    await mill.enqueueMany(
      mixed,
      Array.from({ length: 400 }, (_, n) => n),
    );
    const worker = mill.work({ concurrency: 20 });
    await ran.reached(600);
    await worker.stop();
    expect(await mill.stats("default")).toMatchObject([
      { waiting: 0, active: 0, completed: 200, failed: 100, delayed: 100, total: 400 },
    ]);
    const where = Object.values(await places(mill.db));
    expect(where.filter((place) => place === "settled")).toHaveLength(200);
    expect(where.filter((place) => place === "dead")).toHaveLength(100);
    expect(where.filter((place) => place === "pending")).toHaveLength(100);
  });
});

describe("folding", () => {
  test("changes no count, however often and whenever it happens", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    let done = 0;
    for (const n of [1, 20, 3, 0, 7, 100]) {
      for (const queue of ["a", "b"]) {
        if (n > 0) await mill.enqueueMany(plain, Array.from({ length: n }), { queue });
        if (n > 0) await worker.close(await worker.claim(n, queue));
      }
      done += n;
      for (let times = 0; times < n % 4; times += 1) await foldTallies(mill.db, 0);
      expect(await mill.stats("a")).toMatchObject([{ completed: done }]);
      expect(await mill.stats("b")).toMatchObject([{ completed: done }]);
    }
    await foldAll(mill);
    expect(await mill.stats("a")).toMatchObject([{ completed: done }]);
    expect(await mill.db.query(sql`select sum(completed)::int as n from millrace.tallies`)).toEqual([{ n: 2 * done }]);
  });

  test("leaves nothing but the latest to be counted row by row", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    await mill.enqueueMany(plain, [1, 2, 3]);
    await worker.close(await worker.claim(3));
    await foldAll(mill);
    const uncounted = sql`select count(*)::int as n from millrace.settled where finished_at >= (select counted_until from millrace.tally_mark)`;
    expect(await mill.db.query(uncounted)).toEqual([{ n: 0 }]);
  });

  test.runIf(backend === "postgres").each([
    ["has written already", true],
    ["has only read so far", false],
  ])("waits for a transaction that began before and %s: its rows are counted, and once", async (_, writesFirst) => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const { id } = await mill.enqueue(plain, {});
    const claim = await worker.claim(1);
    const begun = gate();
    const goOn = gate();
    const slow = mill.db.transaction(async (tx) => {
      if (writesFirst) await worker.completeIn(tx, claim, id);
      else await tx.query(sql`select count(*) from millrace.jobs`);
      begun.open();
      await goOn.opened;
      if (!writesFirst) await worker.completeIn(tx, claim, id);
    });
    await begun.opened;
    const folded: boolean[] = [];
    for (let times = 0; times < 5; times += 1) folded.push(await foldTallies(mill.db, 0));
    goOn.open();
    await slow;
    expect(await mill.stats("default")).toMatchObject([{ completed: 1 }]);
    await foldAll(mill);
    expect(await mill.stats("default")).toMatchObject([{ completed: 1 }]);
    await foldAll(mill);
    expect(await mill.db.query(sql`select completed::int from millrace.tallies`)).toEqual([{ completed: 1 }]);
    expect(folded).toEqual([false, false, false, false, false]);
  });

  test.runIf(backend === "postgres")("by many at once counts each batch once", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    for (let n = 1; n <= 10; n += 1) {
      await mill.enqueueMany(plain, [1, 2]);
      await worker.close(await worker.claim(2));
      await Promise.all(Array.from({ length: 5 }, () => foldTallies(mill.db, 0)));
      expect(await mill.stats("default")).toMatchObject([{ completed: 2 * n }]);
    }
    await foldAll(mill);
    expect(await mill.db.query(sql`select completed::int from millrace.tallies`)).toEqual([{ completed: 20 }]);
  });

  test("does not wait for transactions of a server that was restarted or restored meanwhile", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    await mill.enqueue(plain, {});
    await worker.close(await worker.claim(1));
    await mill.db.query(sql`update millrace.tally_mark set next_until = now(), next_waits = '{9999/123456789}'`);
    expect(await foldTallies(mill.db, 0)).toBe(true);
    expect(await mill.db.query(sql`select completed::int from millrace.tallies`)).toEqual([{ completed: 1 }]);
  });

  test("leaves the last second alone, in which a transaction may have its time but not yet its id", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    await mill.enqueue(plain, {});
    await worker.close(await worker.claim(1));
    await foldTallies(mill.db);
    expect(await foldTallies(mill.db)).toBe(true);
    expect(await mill.db.query(sql`select count(*)::int as n from millrace.tallies`)).toEqual([{ n: 0 }]);
    expect(await mill.stats("default")).toMatchObject([{ completed: 1 }]);
  });
});
