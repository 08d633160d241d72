/** Flows, steps and unique jobs, at every statement at which a process can die. */
import { NonRetryableError, defineApp, task } from "millrace";
import { type TestMillrace, testMillrace } from "millrace/testing";
import { expect, test, vi } from "vitest";
import { places } from "../support/engine.ts";

// Some sixty crashes each.
vi.setConfig({ testTimeout: 180_000 });

const part = task({
  name: "part",
  run({ input }) {
    if (input === "bad") throw new NonRetryableError("bad");
    return input;
  },
});
const whole = task({
  name: "whole",
  run: async ({ dependencies }) => (await dependencies()).map(({ state, result }) => [state, result]),
});
const trip = task({
  name: "trip",
  backoff: { delay: "1s" },
  async run({ step, id }) {
    await step.transaction("pay", (tx) => tx.query("insert into paid values ($1)", [id]));
    await step.sleep("nap", "1m");
    const approved = await step.waitForEvent("approval", { event: "approved", timeout: "1h" });
    await step.transaction("book", (tx) => tx.query("insert into booked values ($1)", [id]));
    return approved;
  },
});
const app = defineApp({ tasks: [part, whole, trip] });

async function opened(): Promise<TestMillrace> {
  const mill = await testMillrace(app);
  await mill.pglite.exec("create table paid (job uuid); create table booked (job uuid)");
  return mill;
}

test("a flow: all of it or nothing, no job stranded, each result handed on once", async () => {
  await using mill = await opened();
  const points = await mill.eachCrash(
    async (process) => {
      await process.enqueueFlow({
        jobs: {
          a: { task: part, input: 1 },
          b: { task: part, input: "bad" },
          sum: { task: whole, after: ["a", "b"], onFailure: "ignore" },
          lost: { task: whole, after: ["b"] },
          more: { task: whole, after: ["lost", "a"], onFailure: "continue" },
        },
      });
      await process.runUntilIdle();
    },
    async (process) => {
      await process.advance("1h");
      const { jobs } = await process.jobs();
      expect([0, 5]).toContain(jobs.length);
      if (jobs.length === 0) return;
      expect(Object.values(await places(process.db)).toSorted()).toEqual([
        "dead",
        "dead",
        "settled",
        "settled",
        "settled",
      ]);
      const results = await process.pglite.query<{ result: unknown }>(
        "select result from millrace.results order by result::text",
      );
      expect(results.rows.map(({ result }) => result)).toContainEqual([
        ["completed", 1],
        ["failed", null],
      ]);
      const { rows } = await process.pglite.query("select * from millrace.endings");
      expect(rows).toEqual([]);
    },
  );
  expect(points.length).toBeGreaterThan(10);
});

test("steps: what is written in a step is written exactly once, and the run gets to its end", async () => {
  await using mill = await opened();
  const points = await mill.eachCrash(
    async (process) => {
      await process.enqueue(trip, null, { unique: { key: "trip" } });
      await process.runUntilIdle();
      await process.advance("2m");
      await process.emit("approved", "yes");
      await process.runUntilIdle();
    },
    async (process) => {
      // Whoever asked tries again after a crash; the key and the event's name make that harmless.
      const { id } = await process.enqueue(trip, null, {
        unique: { key: "trip", while: ["waiting", "delayed", "active", "completed"] },
      });
      await process.emit("approved", "yes");
      await process.advance("2h");
      expect(await process.job(id)).toMatchObject({ status: "completed" });
      expect(await process.result(id)).toBe("yes");
      for (const table of ["paid", "booked"]) {
        const { rows } = await process.pglite.query(`select job from ${table}`);
        expect(rows).toEqual([{ job: id }]);
      }
    },
  );
  expect(points.length).toBeGreaterThan(20);
});
