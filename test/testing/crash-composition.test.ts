/** Flows, batches, steps, events, keys and schedules, at every statement at which a process can die. */
import {
  type App,
  type ForeignTransaction,
  NonRetryableError,
  type Schedule,
  type ScheduleFields,
  defineApp,
  schedule,
  task,
} from "millrace";
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
const order = task({
  name: "order",
  backoff: { delay: "1s" },
  async run({ step, id, attempt }) {
    const did = (what: string) => (tx: ForeignTransaction) => tx.query("insert into did values ($1, $2)", [id, what]);
    try {
      await step.run("charge", async () => {
        await alive.pglite.query("insert into tried values ($1)", [id]);
        throw Object.assign(new Error("declined"), { code: "DECLINED" });
      });
      await step.transaction("send", did("sent"));
    } catch (error) {
      await step.transaction("undo", did("undone"));
      if (attempt === 1) throw new Error("and then the attempt failed", { cause: error });
      await step.sleep("nap", "1m");
      return (error as { code?: string }).code;
    }
    return "sent";
  },
});
const app = defineApp({ tasks: [part, whole, trip, order] });

/** The Millrace of the process that runs now: what a module of an app would hold. */
let alive: TestMillrace;

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

test("a batch: all of it or nothing, and its callback runs once, with what became of each", async () => {
  await using mill = await opened();
  const points = await mill.eachCrash(
    async (process) => {
      await process.enqueueBatch(part, [1, "bad", 3], { callback: { task: whole } });
      await process.runUntilIdle();
    },
    async (process) => {
      await process.advance("1h");
      const { jobs } = await process.jobs();
      expect([0, 4]).toContain(jobs.length);
      if (jobs.length === 0) return;
      const callback = await process.expectEnqueued(whole, { status: "completed" });
      expect(await process.result(callback.id)).toEqual([
        ["completed", 1],
        ["failed", null],
        ["completed", 3],
      ]);
      expect(Object.values(await places(process.db)).toSorted()).toEqual(["dead", "settled", "settled", "settled"]);
      const { rows } = await process.pglite.query("select * from millrace.settled where $1 = any (job_ids)", [
        callback.id,
      ]);
      expect(rows).toHaveLength(1);
      expect((await process.pglite.query("select * from millrace.endings")).rows).toEqual([]);
    },
  );
  expect(points.length).toBeGreaterThan(10);
});

describe("keys: whoever asks again after a crash gets the job that is there, and it is one", () => {
  /** Jobs of `part`, with the inputs they have. */
  const inputs = async (process: TestMillrace): Promise<unknown[]> => {
    const { rows } = await process.pglite.query<{ input: unknown }>("select input from millrace.jobs order by id");
    return rows.map(({ input }) => input);
  };

  test("unique", async () => {
    await using mill = await opened();
    const ask = (process: TestMillrace) =>
      process.enqueue(part, "a", { unique: { key: "k", while: ["waiting", "active", "completed"] } });
    const points = await mill.eachCrash(
      async (process) => {
        await ask(process);
        await process.runUntilIdle();
        await ask(process);
      },
      async (process) => {
        const { id } = await ask(process);
        await process.runUntilIdle();
        await process.expectStatus(id, "completed");
        expect(await ask(process)).toMatchObject({ id, duplicate: true });
        expect(await inputs(process)).toEqual(["a"]);
      },
    );
    expect(points.length).toBeGreaterThan(4);
  });

  test("throttle: within its time, whatever became of the job", async () => {
    await using mill = await opened();
    const ask = (process: TestMillrace) => process.enqueue(part, "bad", { throttle: { key: "k", per: "1h" } });
    const points = await mill.eachCrash(
      async (process) => {
        await ask(process);
        await process.runUntilIdle();
      },
      async (process) => {
        const { id } = await ask(process);
        await process.runUntilIdle();
        await process.expectStatus(id, "failed");
        expect(await ask(process)).toMatchObject({ id, duplicate: true });
        await process.advance("1h");
        expect(await ask(process)).toMatchObject({ duplicate: false });
        expect(await inputs(process)).toEqual(["bad", "bad"]);
      },
    );
    expect(points.length).toBeGreaterThan(4);
  });

  test("debounce: put off once more, with the newest input, and never lost", async () => {
    await using mill = await opened();
    const start = mill.now();
    const ask = (process: TestMillrace, input: number) =>
      process.enqueue(part, input, { debounce: { key: "k", wait: "1m" } });
    const points = await mill.eachCrash(
      async (process) => {
        await ask(process, 1);
        await process.advance("30s");
        await ask(process, 2);
      },
      async (process) => {
        await process.advanceTo(new Date(start + 45_000)); // the wait after the first call is not over, whenever that was
        const { id } = await ask(process, 3);
        expect(await process.advance("59s")).toEqual([]);
        const runs = await process.advance("1s");
        expect(runs).toMatchObject([{ id, result: 3 }]);
        expect(await inputs(process)).toEqual([3]);
      },
    );
    expect(points.length).toBeGreaterThan(6);
  });
});

test("an event: emitted again after a crash it counts once, and every run that waits for it goes on", async () => {
  const waits = task({ name: "waits", run: ({ step }) => step.waitForEvent("go", { event: "go", timeout: "1h" }) });
  await using mill = await testMillrace(defineApp({ tasks: [waits] }));
  const early = await mill.enqueue(waits, null);
  await mill.runUntilIdle();
  const late = await mill.enqueue(waits, null); // it comes to wait when the event is there, or is about to be
  const points = await mill.eachCrash(
    async (process) => {
      await process.emit("go", "first");
      await process.runUntilIdle();
    },
    async (process) => {
      const { duplicate } = await process.emit("go", "second");
      await process.runUntilIdle();
      for (const { id } of [early, late]) expect(await process.result(id)).toBe(duplicate ? "first" : "second");
      const { rows } = await process.pglite.query("select from millrace.emitted_events");
      expect(rows).toHaveLength(1);
    },
  );
  expect(points.length).toBeGreaterThan(10);
});

test("a step that failed, and was undone, is not done anew: the next attempt finds its failure", async () => {
  await using mill = await opened();
  await mill.pglite.exec("create table tried (job uuid); create table did (job uuid, what text)");
  const { id } = await mill.enqueue(order, null);
  const points = await mill.eachCrash(
    async (process) => {
      alive = process;
      await process.advance("2m");
    },
    async (process) => {
      alive = process;
      const { rows: before } = await process.pglite.query("select what from did");
      const tried = async (): Promise<number> => (await process.pglite.query("select from tried")).rows.length;
      const triedBefore = await tried();
      await process.advance("10m");
      expect(await process.result(id)).toBe("DECLINED");
      expect((await process.pglite.query("select what from did")).rows).toEqual([{ what: "undone" }]);
      // It may be tried twice when the crash comes before its failure is kept, never after something was made of that.
      if (before.length > 0) expect(await tried()).toBe(triedBefore);
      expect(await tried()).toBeLessThanOrEqual(2);
    },
  );
  expect(points.length).toBeGreaterThan(20);
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
