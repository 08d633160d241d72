/** Flows, steps and results under virtual time. */
import { expect, test } from "vitest";
import { defineApp, schedule, task } from "millrace";
import { runTask, testMillrace } from "millrace/testing";

const part = task({ name: "part", run: ({ input }) => input });
const whole = task({
  name: "whole",
  run: async ({ dependencies }) => (await dependencies()).map(({ result }) => result),
});
const did: string[] = [];
const remind = task({
  name: "remind",
  async run({ step, id }) {
    await step.run("first letter", () => void did.push("letter"));
    const paid = await step.waitForEvent("payment", { event: `${id}.paid`, timeout: "14d" });
    if (paid !== undefined) return "paid";
    await step.sleepUntil("new year", "2030-01-01T00:00:00Z");
    await step.run("second letter", () => void did.push("reminder"));
    return "reminded";
  },
});
const ticks: string[] = [];
const tick = task({ name: "tick", run: ({ schedule: by }) => void ticks.push(by?.at.toISOString() ?? "") });
const app = defineApp({
  tasks: [part, whole, remind, tick],
  schedules: [schedule({ name: "nightly", task: tick, cron: "30 2 * * *", zone: "Europe/Berlin" })],
});

test("a flow runs to its end in one call", async () => {
  await using mill = await testMillrace(app);
  const { jobs } = await mill.enqueueFlow({
    jobs: { sum: { task: whole, after: ["a", "b"] }, a: { task: part, input: 1 }, b: { task: part, input: 2 } },
  });
  expect((await mill.runUntilIdle()).map((run) => run.task)).toEqual(["part", "part", "whole"]);
  expect(await mill.result(jobs.sum)).toEqual([1, 2]);
});

test("a run that sleeps for years takes no time, and wakes when it should", async () => {
  await using mill = await testMillrace(app, { now: new Date("2029-12-01T00:00:00Z") });
  did.length = 0;
  const { id } = await mill.enqueue(remind, null);
  await mill.runUntilIdle();
  await mill.advance("13d");
  expect(did).toEqual(["letter"]);
  await mill.advanceTo(new Date("2029-12-31T23:59:59Z"));
  expect(did).toEqual(["letter"]);
  await mill.advance("1s");
  expect(did).toEqual(["letter", "reminder"]);
  expect(await mill.result(id)).toBe("reminded");
});

test("a run that sleeps is attempted twice, one that waits in vain as well, whatever was written meanwhile", async () => {
  const nap = task({ name: "nap", run: ({ step }) => step.sleep("nap", "1h") });
  const vain = task({
    name: "vain",
    run: ({ step }) => step.waitForEvent("answer", { event: "answer", timeout: "1h" }),
  });
  const busy = task({
    name: "busy",
    async run({ step }) {
      for (let n = 1; n <= 9; n++) await step.run(`write ${n}`, () => n);
      await step.sleep("nap", "1h");
    },
  });
  const slept = defineApp({ tasks: [nap, vain, busy] });
  await using mill = await testMillrace(slept, { now: new Date("2030-01-01T00:00:00Z") });
  for (const one of [nap, vain, busy]) {
    const { id } = await mill.enqueue(one, null);
    const runs = await mill.advance("2h");
    expect(runs.map(({ outcome, at }) => [outcome, at.getTime() - mill.now()])).toEqual([
      ["snoozed", -7_200_000],
      ["succeeded", -3_600_000],
    ]);
    expect((await mill.steps(id)).at(-1)?.until).toEqual(runs[1]?.at);
  }
});

test("an event wakes it at once", async () => {
  await using mill = await testMillrace(app);
  const { id } = await mill.enqueue(remind, null);
  await mill.runUntilIdle();
  await mill.emit(`${id}.paid`, { amount: 5 });
  await mill.runUntilIdle();
  expect(await mill.result(id)).toBe("paid");
});

test("a task alone walks through its steps, with what it is given", async () => {
  did.length = 0;
  expect(await runTask(remind, null, { id: "x", events: { "x.paid": true } })).toBe("paid");
  expect(await runTask(remind, null)).toBe("reminded");
  expect(did).toEqual(["letter", "letter", "reminder"]);
  const dependencies = [{ name: "a", id: "1", state: "completed", result: 7 }] as const;
  expect(await runTask(whole, null, { dependencies })).toEqual([7]);
});

test("schedules fire when their time comes, in the zone they are of", async () => {
  await using mill = await testMillrace(app, { now: new Date("2026-03-27T12:00:00Z") });
  ticks.length = 0;
  await mill.advance("3d"); // on the 29th there is no 2:30 in Berlin: it comes at 3:00
  expect(ticks).toEqual(["2026-03-28T01:30:00.000Z", "2026-03-29T01:00:00.000Z", "2026-03-30T00:30:00.000Z"]);
});

test("what a task says is kept before its job is settled", async () => {
  const talks = task({
    name: "talks",
    run({ log, progress }) {
      log.info({ n: 1 }, "one");
      progress(50);
      log.warn({}, "two");
    },
  });
  await using mill = await testMillrace(defineApp({ tasks: [talks] }));
  const { id } = await mill.enqueue(talks, null);
  await mill.runUntilIdle();
  expect(await mill.logs(id)).toMatchObject([
    { n: 1, message: "one", at: new Date(mill.now()) },
    { n: 2, message: "two" },
  ]);
  expect(await mill.job(id)).toMatchObject({ status: "completed", progress: 50 });
});
