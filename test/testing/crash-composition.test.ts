/** Flows, steps, unique jobs and schedules, at every statement at which a process can die. */
import { type App, NonRetryableError, type Schedule, type ScheduleFields, defineApp, schedule, task } from "millrace";
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

  /** Runs of ticks, oldest first: `minute status outcome`; each fired one has one job, and no job is without. */
  const toldOf = async (process: TestMillrace, name: string, start: number): Promise<string[]> => {
    const runs = (await process.schedules.runs(name, { limit: 500 })).toReversed();
    const jobs = (await process.jobs({ limit: 500 })).jobs.map(({ id }) => id);
    expect(jobs.toSorted()).toEqual(runs.flatMap(({ jobId }) => (jobId === null ? [] : [jobId])).toSorted());
    expect(runs.filter(({ status, endedAt }) => status === "fired" && endedAt === null).length).toBeLessThan(2);
    return runs.map(({ tickAt, status, outcome, count }) =>
      [(tickAt.getTime() - start) / 60_000, status, ...(outcome ? [outcome] : []), ...(count > 1 ? [count] : [])].join(
        " ",
      ),
    );
  };

  const overlapping = (fields: ScheduleFields): App =>
    defineApp({ tasks: [part], schedules: [schedule({ name: "one", task: part, input: 1, every: "1m", ...fields })] });

  async function started(app: App, name: string): Promise<{ mill: TestMillrace; start: number }> {
    const mill = await testMillrace(app);
    await mill.runUntilIdle();
    return { mill, start: (await mill.schedules.get(name)).nextAt?.getTime() ?? 0 };
  }

  const fire = async (process: TestMillrace, start: number, ...minutes: number[]): Promise<void> => {
    for (const n of minutes) await process.schedules.fire({ at: new Date(start + n * 60_000) });
  };

  test("overlap skip: a tick is skipped while a run before it goes on, and none after it has ended", async () => {
    const { mill, start } = await started(overlapping({}), "one");
    await using _ = mill;
    const scenario = async (process: TestMillrace): Promise<void> => {
      await fire(process, start, 0, 1);
      await process.runUntilIdle();
      await fire(process, start, 2);
    };
    const points = await mill.eachCrash(scenario, async (process, crash) => {
      await toldOf(process, "one", start);
      await fire(process, start, 0, 1, 2);
      await process.runUntilIdle();
      const told = await toldOf(process, "one", start);
      expect(told.map((line) => line.split(" ")[0])).toEqual(["0", "1", "2"]);
      expect(told[0]).toBe("0 fired completed");
      for (const line of told) expect(line).toMatch(/^\d (fired completed|skipped)$/);
      if (crash === undefined) expect(told).toEqual(["0 fired completed", "1 skipped", "2 fired completed"]);
      await process.advanceTo(new Date(start + 3 * 60_000));
      expect((await toldOf(process, "one", start)).at(-1)).toBe("3 fired completed");
    });
    expect(points.length).toBeGreaterThan(20);
  });

  test("overlap queue: each tick runs, in order, and never two at once", async () => {
    const { mill, start } = await started(overlapping({ overlap: "queue" }), "one");
    await using _ = mill;
    const scenario = async (process: TestMillrace): Promise<void> => {
      await fire(process, start, 0, 1);
      await process.runUntilIdle();
    };
    const points = await mill.eachCrash(scenario, async (process) => {
      await toldOf(process, "one", start);
      await fire(process, start, 0, 1);
      await process.runUntilIdle();
      expect(await toldOf(process, "one", start)).toEqual(["0 fired completed", "1 fired completed"]);
      const ended = (await process.jobs({ limit: 500 })).jobs.toSorted((a, b) => (a.id < b.id ? -1 : 1));
      const runs = (await process.schedules.runs("one")).toReversed();
      expect(runs.map(({ jobId }) => jobId)).toEqual(ended.map(({ id }) => id));
    });
    expect(points.length).toBeGreaterThan(20);
  });

  test("late ticks with overlap skip: all are made up for, in order, and never two at once", async () => {
    const { mill, start } = await started(overlapping({ catchUp: "all", startGrace: "10s" }), "one");
    await using _ = mill;
    const late = 1.5;
    const points = await mill.eachCrash(
      async (process) => {
        await fire(process, start, late);
        await process.runUntilIdle();
      },
      async (process) => {
        await toldOf(process, "one", start);
        await fire(process, start, late);
        await process.runUntilIdle();
        expect(await toldOf(process, "one", start)).toEqual(["0 fired completed", "1 fired completed"]);
      },
    );
    expect(points.length).toBeGreaterThan(10);
  });

  test("a new version starts: its schedules are brought to what it says, all of them or none yet, and noted once", async () => {
    const say = (name: string, fields: ScheduleFields): Schedule => schedule({ name, task: part, ...fields });
    const schedules = [
      say("kept", { every: "1h" }),
      say("changed", { cron: "0 8 * * *", overlap: "queue" }),
      say("edited", { every: "30m", input: "new" }),
      say("fresh", { every: "1m" }),
    ];
    await using mill = await testMillrace(defineApp({ tasks: [part], schedules }));
    const before = [
      say("kept", { every: "1h" }),
      say("changed", { every: "1h" }),
      say("edited", { every: "20m", input: "old" }),
      say("gone", { every: "1h" }),
    ];
    await mill.schedules.define([{ source: "code", schedules: before }], { alone: true });
    await mill.schedules.update("edited", { every: "10m" }, { by: "ada" });
    await mill.schedules.pause("kept", { by: "ada" });

    const whatHolds = async (process: TestMillrace): Promise<string[]> =>
      (await process.schedules.list()).map(({ name, cron, everyMs, input, paused, retiredAt }) =>
        [name, cron ?? everyMs, input, ...(paused ? ["paused"] : []), ...(retiredAt ? ["retired"] : [])].join(" "),
      );
    const old = ["changed 3600000 ", "edited 600000 old", "gone 3600000 ", "kept 3600000  paused"];
    const now = [
      "changed 0 8 * * * ",
      "edited 600000 new",
      "fresh 60000 ",
      "gone 3600000  retired",
      "kept 3600000  paused",
    ];
    const points = await mill.eachCrash(
      async (process) => void (await process.runUntilIdle()),
      async (process) => {
        expect([old, now]).toContainEqual(await whatHolds(process));
        await process.runUntilIdle();
        expect(await whatHolds(process)).toEqual(now);
        const { rows } = await process.pglite.query<{ noted: string }>(
          "select action || ' ' || subject as noted from millrace.audit where action in ('schedule.defined', 'schedule.retired') order by 1",
        );
        expect(rows.map(({ noted }) => noted)).toEqual([
          "schedule.defined schedule:changed",
          "schedule.defined schedule:edited",
          "schedule.retired schedule:gone",
        ]);
        await process.advance("1m");
        expect(await process.schedules.runs("fresh")).toMatchObject([{ status: "fired", outcome: "completed" }]);
      },
    );
    expect(points.length).toBeGreaterThan(10);
  });
});
