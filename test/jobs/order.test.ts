/** Who runs first, and when. */
import { describe, expect, test } from "vitest";
import { type EnqueueOptions, task } from "millrace";
import { sql } from "../../src/db/sql.ts";
import { gate, measured, tally, useDatabase } from "../support/engine.ts";

const file = useDatabase();

describe("with one slot, jobs run", () => {
  test("by priority, then by due time, then in the order they were enqueued", async () => {
    const ran = tally<unknown>();
    const note = task({ name: "note", run: ({ input }) => ran.add(input) });
    await using mill = await file.open([note]);
    const add = (name: string, options: EnqueueOptions = {}): Promise<unknown> => mill.enqueue(note, name, options);
    await Promise.all([add("first"), add("second"), add("third")]);
    await add("fourth");
    await mill.enqueueMany(note, ["fifth", "sixth"]);
    await add("low", { priority: -1 });
    await add("high", { priority: 1 });
    await add("highest", { priority: 32_767 });
    await add("high too", { priority: 1 });
    await add("lowest", { priority: -32_767 });
    mill.work({ concurrency: 1 });
    const order = [
      "highest",
      "high",
      "high too",
      "first",
      "second",
      "third",
      "fourth",
      "fifth",
      "sixth",
      "low",
      "lowest",
    ];
    expect(await ran.reached(order.length)).toEqual(order);
  });

  test("by due time, whenever they were enqueued", async () => {
    const ran = tally<unknown>();
    const note = task({ name: "note", run: ({ input }) => ran.add(input) });
    await using mill = await file.open([note]);
    const day = (n: number): Date => new Date(Date.UTC(2090, 0, n));
    for (const n of [3, 1, 4, 2]) await mill.enqueue(note, n, { runAt: day(n) });
    // the year 2090 has come
    await mill.db.query(sql`update millrace.jobs set run_at = run_at - interval '90 years'`);
    await mill.db.query(sql`update millrace.pending set run_at = run_at - interval '90 years'`);
    await mill.enqueue(note, "now");
    mill.work({ concurrency: 1 });
    expect(await ran.reached(5)).toEqual([1, 2, 3, 4, "now"]);
  });

  test("queue by queue in turns, so that none waits for another to empty", async () => {
    const ran = tally<string>();
    const note = task({ name: "note", run: ({ queue }) => ran.add(queue) });
    await using mill = await file.open([note]);
    // so many that no single claim takes all of them
    await mill.enqueueMany(note, Array.from({ length: 3_000 }), { queue: "a" });
    await mill.enqueueMany(note, Array.from({ length: 10 }), { queue: "b" });
    mill.work({ concurrency: 1 });
    const seen = await ran.reached(3_010);
    expect(seen.lastIndexOf("b")).toBeLessThan(2_000);
  });
});

test(
  "a higher priority enqueued while a worker drains a queue overtakes what waits there within the sweep's half second",
  measured,
  async () => {
    let ran = 0;
    const started = gate();
    const overtook = gate<number>();
    const note = task({
      name: "note",
      async run({ input }) {
        started.open();
        ran += 1;
        if (input === "high") overtook.open(performance.now());
        await new Promise((resolve) => setTimeout(resolve, 2));
      },
    });
    await using mill = await file.open([note]);
    await mill.enqueueMany(
      note,
      Array.from({ length: 5_000 }, () => "low"),
    );
    const worker = mill.work({ concurrency: 2 });
    await started.opened;
    const asked = performance.now();
    await mill.enqueue(note, "high", { priority: 10 });
    const tookMs = (await overtook.opened) - asked;
    const left = 5_001 - ran;
    await worker.stop();
    // 500 ms, what was claimed ahead (100 ms at most), and a machine that has other things to do.
    expect(tookMs).toBeLessThan(1_500);
    expect(left).toBeGreaterThan(1_000);
  },
);

describe("a delayed job", () => {
  test("never runs early, and runs promptly on an idle worker that nobody calls again", measured, async () => {
    const ran = tally<{ id: string; lateMs: number }>();
    const note = task({
      name: "note",
      async run({ id }) {
        // by the database's clock, the only one that counts
        const [row] = await mill.db.query<{ late: number }>(
          sql`select extract(epoch from now() - run_at)::float8 * 1000 as late from millrace.jobs where id = ${id}::uuid`,
        );
        ran.add({ id, lateMs: row?.late ?? Number.NaN });
      },
    });
    await using mill = await file.open([note]);
    const worker = mill.work({ concurrency: 5 });
    await worker.ready();
    const delays = [400, 150, 40, 1, 275];
    const ids: string[] = [];
    for (const delay of delays) ids.push((await mill.enqueue(note, delay, { delay })).id);
    const seen = await ran.reached(delays.length);
    expect(new Set(seen.map(({ id }) => id))).toEqual(new Set(ids));
    for (const { lateMs } of seen) {
      expect(lateMs).toBeGreaterThanOrEqual(0);
      expect(lateMs).toBeLessThan(1_000);
    }
  });

  test("that is due before the worker starts runs at once", async () => {
    const ran = tally<unknown>();
    const note = task({ name: "note", run: ({ input }) => ran.add(input) });
    await using mill = await file.open([note]);
    await mill.enqueue(note, "later", { delay: "1h" });
    await mill.enqueue(note, "due", { delay: 1 });
    mill.work();
    expect(await ran.reached(1)).toEqual(["due"]);
  });

  test("behind a thousand jobs that are not its turn yet is found when it is due", async () => {
    const ran = tally<unknown>();
    const note = task({ name: "note", run: ({ input }) => ran.add(input) });
    await using mill = await file.open([note]);
    await mill.enqueueMany(
      note,
      Array.from({ length: 1_000 }, () => "far"),
      { delay: "1h", priority: 5 },
    );
    const worker = mill.work();
    await worker.ready();
    await mill.enqueue(note, "soon", { delay: 100 });
    expect(await ran.reached(1)).toEqual(["soon"]);
  });
});

test("an idle worker hears of a new job at once, without waiting for its next look", measured, async () => {
  const ran = tally<number>();
  const note = task({ name: "note", run: () => ran.add(performance.now()) });
  await using mill = await file.open([note]);
  const worker = mill.work();
  await worker.ready();
  // idle, and past its second look, when the registry says so
  const latencies: number[] = [];
  for (let n = 0; n < 20; n += 1) {
    const asked = performance.now();
    await mill.enqueue(note, n);
    latencies.push(((await ran.reached(n + 1))[n] ?? 0) - asked);
  }
  // Polling alone would make it a second each on average.
  expect(latencies.toSorted((a, b) => a - b)[10]).toBeLessThan(200);
});
