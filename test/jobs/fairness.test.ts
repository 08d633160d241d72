/** Concurrency keys take turns: a tenant with many jobs does not make the others wait for all of them. */
import { expect, test } from "vitest";
import { task } from "millrace";
import { useDatabase } from "../support/engine.ts";

const file = useDatabase();

test.each([1, 8])("two thousand jobs of one key do not hold up ten of another, %i at a time", async (concurrency) => {
  const ran: string[] = [];
  const work = task({ name: "work", run: ({ input }) => void ran.push(input as string) });
  await using mill = await file.open([work]);
  await mill.enqueueMany(work, Array<string>(2_000).fill("large"), { concurrencyKey: "large" });
  const small = await mill.enqueueMany(work, Array<string>(10).fill("small"), { concurrencyKey: "small" });
  const worker = mill.work({ concurrency });
  await Promise.all(small.map((id) => mill.waitUntilFinished(id)));
  await worker.stop();
  const done = ran.lastIndexOf("small");
  expect(ran.slice(0, done + 1).filter((key) => key === "large").length).toBeLessThanOrEqual(40);
});

test("a key that comes later gets its turn at once", async () => {
  const ran: string[] = [];
  const work = task({
    name: "work",
    async run({ input }) {
      ran.push(input as string);
      if (ran.length === 20) await mill.enqueue(work, "late", { concurrencyKey: "late" });
    },
  });
  await using mill = await file.open([work]);
  await mill.enqueueMany(work, Array<string>(500).fill("large"), { concurrencyKey: "large" });
  const worker = mill.work({ concurrency: 2 });
  await expect.poll(() => ran.indexOf("late"), { timeout: 20_000, interval: 5 }).toBeGreaterThan(0);
  await worker.stop();
  expect(ran.indexOf("late") - 20).toBeLessThanOrEqual(40);
});
