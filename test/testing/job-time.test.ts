/** `Date` and the timers of a task's own code follow the clock of its TestMillrace; everybody else's do not. */
import { getEventListeners } from "node:events";
import { clearInterval as clearByName, setTimeout as byName } from "node:timers";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { afterEach, describe, expect, test, vi } from "vitest";
import { defineApp, task } from "millrace";
import { type TestMillrace, testMillrace } from "millrace/testing";
import { gate } from "../support/engine.ts";

const now = new Date("2027-03-01T08:00:00Z");
const at = (seconds: number): number => now.getTime() + seconds * 1_000;

const originals = { Date, setTimeout, setInterval, clearTimeout, clearInterval };
afterEach(() => {
  expect({ Date, setTimeout, setInterval, clearTimeout, clearInterval }).toEqual(originals);
  expect(Date).toBe(originals.Date);
});

/** Runs this as a job; what it returns. */
async function asJob<Output>(
  run: (mill: TestMillrace) => Promise<Output> | Output,
  meanwhile?: (mill: TestMillrace) => Promise<unknown>,
): Promise<Output> {
  let mill: TestMillrace | undefined;
  let output: Output | undefined;
  const job = task({
    name: "job",
    timeout: "2h",
    maxAttempts: 1,
    run: async () => {
      output = await run(mill as TestMillrace);
    },
  });
  mill = await testMillrace(defineApp({ tasks: [job] }), { now });
  try {
    const { id } = await mill.enqueue(job, null);
    const running = mill.runUntilIdle();
    await meanwhile?.(mill);
    const [attempt] = await running;
    if (attempt?.error !== undefined) throw attempt.error as Error;
    await mill.expectStatus(id, "completed");
    return output as Output;
  } finally {
    await mill.close();
  }
}

describe("Date", () => {
  test("tells the virtual time in a job, in every way there is to ask", async () => {
    const seen = await asJob(async (mill) => {
      await mill.advance("90s");
      const fresh = new Date();
      return {
        times: [Date.now(), fresh.getTime(), new Date(Date()).getTime(), mill.now()],
        isDate: fresh instanceof Date && new Date(7) instanceof Date && fresh.constructor === Date,
        given: new Date(7).getTime() + Date.UTC(1970, 0, 1) + Date.parse("1970-01-01T00:00:00Z"),
        sql: (await mill.pglite.query<{ now: Date }>("select now() as now")).rows[0]?.now.getTime(),
      };
    });
    expect(seen).toEqual({ times: [at(90), at(90), at(90), at(90)], isDate: true, given: 7, sql: at(90) });
  });

  test("tells the real time to everybody else, while a job runs too", async () => {
    const begun = gate();
    const finish = gate();
    let outside = 0;
    const inside = await asJob(
      async () => {
        begun.open();
        await finish.opened;
        return Date.now();
      },
      async () => {
        await begun.opened;
        outside = Date.now();
        finish.open();
      },
    );
    expect(inside).toBe(at(0));
    expect(Math.abs(outside - performance.timeOrigin - performance.now())).toBeLessThan(60_000);
  });

  test("is that of the Millrace whose job asks, when there are two", async () => {
    const seen: number[] = [];
    const look = task({ name: "look", run: () => void seen.push(Date.now()) });
    await using one = await testMillrace(defineApp({ tasks: [look] }), { now });
    await using two = await testMillrace(defineApp({ tasks: [look] }), { now: new Date(at(3_600)) });
    await one.enqueue(look, null);
    await two.enqueue(look, null);
    await Promise.all([one.runUntilIdle(), two.runUntilIdle()]);
    expect(seen.toSorted()).toEqual([at(0), at(3_600)]);
  });
});

describe("a timer of a job", () => {
  test.each([
    ["setTimeout", (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))],
    ["setTimeout of node:timers", (ms: number) => new Promise((resolve) => byName(resolve, ms))],
    ["setTimeout of node:timers/promises", (ms: number) => sleep(ms)],
    ["promisify(setTimeout)", (ms: number) => promisify(setTimeout)(ms)],
  ])("(%s) takes as long as it says, and time has gone on by that", async (_, wait) => {
    const seen = await asJob(async (mill) => {
      await wait(20);
      return [Date.now(), (await mill.pglite.query<{ now: Date }>("select now() as now")).rows[0]?.now.getTime()];
    });
    expect(seen).toEqual([at(0.02), at(0.02)]);
  });

  test("an hour is over at once when the test advances, step by step", async () => {
    const begun = gate();
    const seen = await asJob(
      async () => {
        begun.open();
        const ticks: number[] = [];
        const interval = setInterval(() => ticks.push((Date.now() - at(0)) / 60_000), 1_200_000);
        await sleep(1_800_000);
        const half = Date.now();
        await sleep(1_800_000, "value");
        clearByName(interval);
        return { half, end: Date.now(), ticks };
      },
      async (mill) => {
        await begun.opened;
        await mill.advance("1h");
      },
    );
    expect(seen).toEqual({ half: at(1_800), end: at(3_600), ticks: [20, 40, 60] });
  });

  test("moves the clock while the job holds the database in a transaction", async () => {
    const seen = await asJob((mill) =>
      mill.transaction(async () => {
        await sleep(5);
        return Date.now();
      }),
    );
    expect(seen).toBe(at(0.005));
  });

  test("that is cleared, aborted or left at the end never fires", async () => {
    const fired: string[] = [];
    const aborted = await asJob(async (mill) => {
      clearTimeout(setTimeout(() => fired.push("cleared"), 10));
      clearTimeout(Number(setTimeout(() => fired.push("cleared by its number"), 10)));
      const stop = new AbortController();
      const stopped = sleep(10, undefined, { signal: stop.signal }).catch((error: Error) => error.name);
      stop.abort();
      const never = sleep(10, undefined, { signal: stop.signal }).catch((error: Error) => error.name);
      await mill.advance("1m");
      setTimeout(() => fired.push("left"), 1);
      return [await stopped, await never];
    });
    await sleep(5);
    expect([aborted, fired]).toEqual([["AbortError", "AbortError"], []]);
  });

  test("of the engine, in which a job waits for another, does not take virtual time", async () => {
    const seen = await asJob(async (mill) => {
      const other = await mill.enqueue("nobody-runs-it", null, { delay: "1d" });
      const waited = await mill
        .waitUntilFinished(other, { within: 20 })
        .catch((error: { code?: string }) => error.code);
      return [waited, Date.now()];
    });
    expect(seen).toEqual(["WAIT_TIMEOUT", at(0)]);
  });

  test("whose signal aborts after it has fired leaves nothing behind", async () => {
    const refused = await asJob(async () => {
      const stop = new AbortController();
      const value = await sleep(1, "over", { signal: stop.signal });
      const listeners = getEventListeners(stop.signal, "abort").length;
      stop.abort();
      return [value, listeners];
    });
    expect(refused).toEqual(["over", 0]);
  });

  test("past the job's timeout, the job times out", async () => {
    const begun = gate();
    let toldAt = 0;
    const slow = task({
      name: "slow",
      timeout: "10ms",
      maxAttempts: 1,
      run: ({ signal }) => {
        signal.addEventListener("abort", () => (toldAt = Date.now()));
        begun.open();
        return sleep(1_000, undefined, { signal });
      },
    });
    await using mill = await testMillrace(defineApp({ tasks: [slow] }), { now });
    await mill.enqueue(slow, null);
    const running = mill.runUntilIdle();
    await begun.opened;
    await mill.advance("1s");
    expect((await running)[0]).toMatchObject({ task: "slow", outcome: "timed_out" });
    expect(toldAt).toBe(at(1));
  });

  test("that is longer than anybody waits is named", async () => {
    const long = task({ name: "long", run: () => sleep(7_200_000) });
    await using mill = await testMillrace(defineApp({ tasks: [long] }), { now, patience: 50 });
    await mill.enqueue(long, null);
    await expect(mill.runUntilIdle()).rejects.toThrow(/50 ms of real time, and waits for a timer of 2 h\..*advance/);
  });
});

test("a spy on Date.now is left to the test, in a job and outside", async () => {
  const seen = await asJob(() => {
    const spy = vi.spyOn(Date, "now").mockReturnValue(7);
    try {
      return [Date.now(), vi.isMockFunction(Date.now), new Date().getTime()];
    } finally {
      spy.mockRestore();
    }
  });
  expect(seen).toEqual([7, true, at(0)]);
});

test("fake timers of the test runner that come later are left in place", async () => {
  const mill = await testMillrace(defineApp({ tasks: [] }), { now });
  vi.useFakeTimers({ now: 7, toFake: ["Date"] });
  await mill.close();
  expect(Date.now()).toBe(7);
  vi.useRealTimers(); // brings back what it found: the Date that tells virtual time to jobs, of which there are none
  expect(Math.abs(Date.now() - originals.Date.now())).toBeLessThan(60_000);
  (globalThis as { Date: DateConstructor }).Date = originals.Date;
});
