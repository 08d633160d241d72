/** Flows, steps, unique jobs and schedules, at every statement at which a process can die. */
import { NonRetryableError, defineApp, schedule, task } from "millrace";
import { type TestMillrace, testMillrace } from "millrace/testing";
import { describe, expect, test, vi } from "vitest";
import { startClock } from "../../src/testing/clock-store.ts";
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

describe("schedules", () => {
  const app = defineApp({
    tasks: [part],
    schedules: [schedule({ name: "often", task: part, input: 1, every: "1m", overlap: "allow" })],
  });
  const ticksOf = async (process: TestMillrace): Promise<number[]> => {
    const runs = (await process.schedules.runs("often", { status: "fired", limit: 500 })).toReversed();
    expect(await process.schedules.runs("often", { limit: 500 })).toHaveLength(runs.length);
    const { jobs } = await process.jobs({ limit: 500 });
    expect(jobs.map(({ id }) => id).toSorted()).toEqual(runs.map(({ jobId }) => jobId).toSorted());
    return runs.map(({ tickAt }) => tickAt.getTime());
  };

  test("a tick has its run, its job and the tick after it, or none of them yet; it fires once", async () => {
    await using mill = await testMillrace(app);
    await mill.runUntilIdle();
    const start = (await mill.schedules.get("often")).nextAt?.getTime() ?? 0;
    const points = await mill.eachCrash(
      async (process) => void (await process.schedules.fire({ at: new Date(start) })),
      async (process) => {
        await process.advanceTo(new Date(start + 2 * 60_000));
        expect(await ticksOf(process)).toEqual([0, 1, 2].map((n) => start + n * 60_000));
      },
    );
    expect(points.length).toBeGreaterThan(4);
  });

  test("set back after a wrong clock, it goes on from there, whenever that was interrupted", async () => {
    await using mill = await testMillrace(app);
    await mill.runUntilIdle();
    const now = mill.now();
    await startClock(mill.pglite, now + 365 * 86_400_000);
    await mill.schedules.fire();
    await startClock(mill.pglite, now);
    const points = await mill.eachCrash(
      async (process) => void (await process.schedules.setBack()),
      async (process) => {
        expect(await process.schedules.setBack()).toBeLessThanOrEqual(1);
        expect((await process.schedules.get("often")).nextAt?.getTime()).toBeLessThanOrEqual(now + 60_000);
        const { rows } = await process.pglite.query("select from millrace.audit where action = 'schedule.set_back'");
        expect(rows).toHaveLength(1);
      },
    );
    expect(points.length).toBeGreaterThan(2);
  });
});
