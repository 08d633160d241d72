/** Jobs that wait for jobs: order, results, failures, retries, and what is refused. */
import { expect, describe, test } from "vitest";
import { NonRetryableError, task } from "millrace";
import { useDatabase, rowCounts } from "../support/engine.ts";

const file = useDatabase();

const ran: string[] = [];
const step = task({
  name: "step",
  maxAttempts: 1,
  async run({ input, dependencies }) {
    const { name, fails } = input as { name: string; fails?: boolean };
    ran.push(name);
    if (fails) throw new NonRetryableError(`${name} fails`);
    const found = await dependencies();
    return {
      name,
      from: found.map((one) => [one.name, one.state, (one.result as { name: string } | null)?.name ?? null]),
    };
  },
});
const job = (name: string, more: object = {}) => ({ task: step, input: { name }, ...more });
const failing = (name: string, more: object = {}) => ({ task: step, input: { name, fails: true }, ...more });

describe("a flow", () => {
  test("runs each job when what it needs has completed, and hands results on", async () => {
    await using mill = await file.open([step]);
    ran.length = 0;
    const { jobs } = await mill.enqueueFlow({
      jobs: {
        load: job("load", { after: ["left", "right"] }),
        left: job("left", { after: ["extract"] }),
        right: job("right", { after: ["extract"] }),
        extract: job("extract"),
      },
    });
    expect(await mill.job(jobs.load)).toMatchObject({ status: "blocked" });
    mill.work();
    expect(await mill.waitUntilFinished(jobs.load)).toEqual({
      name: "load",
      from: [
        ["left", "completed", "left"],
        ["right", "completed", "right"],
      ],
    });
    expect(ran[0]).toBe("extract");
    expect(ran.slice(1, 3).sort()).toEqual(["left", "right"]);
    expect(ran[3]).toBe("load");
  });

  test("of which a job fails gives up what needs it, down the line", async () => {
    await using mill = await file.open([step]);
    const { jobs } = await mill.enqueueFlow({
      jobs: { a: failing("a"), b: job("b", { after: ["a"] }), c: job("c", { after: ["b"] }), d: job("d") },
    });
    mill.work();
    await expect(mill.waitUntilFinished(jobs.c)).rejects.toMatchObject({
      code: "JOB_FAILED",
      message: `Job ${jobs.c} was given up (DEPENDENCY_FAILED): Job ${jobs.b} ("b"), which this one needs, has failed.`,
    });
    await mill.waitUntilFinished(jobs.d);
    expect(await mill.job(jobs.b)).toMatchObject({ status: "failed", deadLetterReason: "DEPENDENCY_FAILED" });
  });

  test("goes on by itself when the job that failed is retried and completes", async () => {
    await using mill = await file.open([step]);
    let broken = true;
    const flaky = task({
      name: "flaky",
      run() {
        if (broken) throw new NonRetryableError("not yet");
        return { name: "flaky" };
      },
    });
    await using other = await file.open([step, flaky], { schema: mill.db.schema });
    const { jobs } = await mill.enqueueFlow({
      jobs: { a: { task: flaky }, b: job("b", { after: ["a"] }), c: job("c", { after: ["b"] }) },
    });
    other.work();
    await expect(mill.waitUntilFinished(jobs.c)).rejects.toMatchObject({ code: "JOB_FAILED" });
    broken = false;
    await mill.retry(jobs.a);
    await mill.waitUntilFinished(jobs.a);
    await expect.poll(async () => (await mill.job(jobs.c))?.status, { timeout: 10_000 }).toBe("completed");
    expect(await mill.result(jobs.c)).toMatchObject({ from: [["b", "completed", "b"]] });
  });

  test("ignores a failure, or goes on without waiting, where it is told to", async () => {
    await using mill = await file.open([step]);
    const { jobs } = await mill.enqueueFlow({
      jobs: {
        bad: failing("bad"),
        late: job("late", { delay: "1h" }),
        all: job("all", { after: ["bad", "good"], onFailure: "ignore" }),
        good: job("good"),
        soon: job("soon", { after: ["late", "bad"], onFailure: "continue" }),
      },
    });
    mill.work();
    expect(await mill.waitUntilFinished(jobs.all)).toMatchObject({
      from: [
        ["bad", "failed", null],
        ["good", "completed", "good"],
      ],
    });
    expect(await mill.waitUntilFinished(jobs.soon)).toMatchObject({
      from: [
        ["late", "open", null],
        ["bad", "failed", null],
      ],
    });
  });

  test("hears of a cancel and of a removal", async () => {
    await using mill = await file.open([step]);
    const { jobs } = await mill.enqueueFlow({
      jobs: {
        a: job("a", { delay: "1h" }),
        b: job("b", { delay: "1h" }),
        needsA: job("needsA", { after: ["a"] }),
        needsB: job("needsB", { after: ["b"] }),
      },
    });
    mill.work();
    await mill.cancel(jobs.a);
    await mill.remove(jobs.b);
    await expect(mill.waitUntilFinished(jobs.needsA)).rejects.toMatchObject({ code: "JOB_FAILED" });
    await expect(mill.waitUntilFinished(jobs.needsB)).rejects.toMatchObject({ code: "JOB_FAILED" });
  });

  test("may wait and then be put off", async () => {
    await using mill = await file.open([step]);
    const { jobs } = await mill.enqueueFlow({ jobs: { a: job("a"), b: job("b", { after: ["a"], delay: "1h" }) } });
    mill.work();
    await mill.waitUntilFinished(jobs.a);
    await expect.poll(async () => (await mill.job(jobs.b))?.status, { timeout: 10_000 }).toBe("delayed");
    const { runAt } = (await mill.job(jobs.b)) as { runAt: Date };
    expect(runAt.getTime() - Date.now()).toBeGreaterThan(3_500_000);
  });

  test("is part of the caller's transaction", async () => {
    await using mill = await file.open([step]);
    const flow = { a: job("a"), b: job("b", { after: ["a"] }) };
    const before = await rowCounts(mill.db);
    await expect(
      mill.transaction(async (tx) => {
        await mill.enqueueFlow({ jobs: flow, tx });
        throw new Error("no");
      }),
    ).rejects.toThrow("no");
    expect({ ...(await rowCounts(mill.db)), tasks: 0, queues: 0 }).toEqual({ ...before, tasks: 0, queues: 0 });
    await mill.transaction((tx) => mill.enqueueFlow({ jobs: flow, tx }));
    expect(await rowCounts(mill.db)).toMatchObject({ jobs: 2, pending: 2 });
  });

  const refused: [string, Record<string, object>, string, string][] = [
    ["nothing", {}, "FLOW_INVALID", "1 to 50000 jobs"],
    [
      "a circle",
      { a: job("a", { after: ["c"] }), b: job("b", { after: ["a"] }), c: job("c", { after: ["b"] }) },
      "FLOW_CYCLE",
      "a → c → b → a",
    ],
    ["one that waits for itself", { a: job("a", { after: ["a"] }) }, "FLOW_CYCLE", "a → a"],
    [
      "a name that is not there",
      { extract: job("a"), b: job("b", { after: ["extrcat"] }) },
      "FLOW_INVALID",
      'Did you mean "extract"?',
    ],
    ["a name twice", { a: job("a"), b: job("b", { after: ["a", "a"] }) }, "FLOW_INVALID", "twice"],
    ["a job without a task", { a: { input: 1 } }, "FLOW_INVALID", "has no task"],
    ["an option it does not know", { a: job("a", { dealy: 1 }) }, "OPTION_UNKNOWN", 'Did you mean "delay"?'],
    [
      "a policy it does not know",
      { a: job("a", { onFailure: "panic" }) },
      "OPTION_INVALID",
      "onFailure must be one of",
    ],
  ];
  test.for(refused)("refuses %s, and writes nothing", async ([, jobs, code, sentence]) => {
    await using mill = await file.open([step]);
    const before = await rowCounts(mill.db);
    await expect(mill.enqueueFlow({ jobs: jobs as never })).rejects.toMatchObject({
      code,
      message: expect.stringContaining(sentence) as string,
    });
    expect(await rowCounts(mill.db)).toEqual(before);
  });
});

describe("a batch", () => {
  test("of many jobs is followed by one, with their results, however they ended", async () => {
    await using mill = await file.open([step]);
    const inputs = Array.from({ length: 200 }, (_, n) => ({ name: `n${n}`, fails: n === 7 }));
    const { callback, ids } = await mill.enqueueBatch(step, inputs, { callback: job("callback") });
    expect(ids).toHaveLength(200);
    mill.work();
    const { from } = (await mill.waitUntilFinished(callback)) as { from: [string, string, string][] };
    expect(from).toHaveLength(200);
    expect(from[7]).toEqual(["8", "failed", null]);
    expect(from[8]).toEqual(["9", "completed", "n8"]);
  });
});
