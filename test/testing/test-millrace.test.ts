import { defineApp, NonRetryableError, task } from "millrace";
import { type TestMillrace, testMillrace } from "millrace/testing";
import { expect, test } from "vitest";
import { z } from "zod";

const start = new Date("2030-01-01T00:00:00.000Z");
const after = (ms: number): Date => new Date(start.getTime() + ms);

test("time stands still, in JavaScript and in SQL, and moves only when told to", async () => {
  const hello = task({ name: "hello", run: () => undefined });
  await using mill = await testMillrace(defineApp({ tasks: [hello] }), { now: start });
  const inSql = async (): Promise<unknown> => (await mill.pglite.query("select now() as now")).rows;

  const { id } = await mill.enqueue(hello, {});
  expect(mill.now()).toBe(start.getTime());
  expect(await inSql()).toEqual([{ now: start }]);
  expect(await mill.job(id)).toMatchObject({ createdAt: start, runAt: start, status: "waiting" });

  await mill.advance("90m");
  expect(await inSql()).toEqual([{ now: after(90 * 60_000) }]);
  expect(mill.now()).toBe(after(90 * 60_000).getTime());
  expect(await mill.job(id)).toMatchObject({ status: "completed", startedAt: start, finishedAt: start });
  await expect(mill.advanceTo(start)).rejects.toThrow("time does not go back");
});

test("tables of one's own are made in public and read the same clock", async () => {
  await using mill = await testMillrace(defineApp({ tasks: [] }), { now: start });
  await mill.pglite.exec("create table orders (id int primary key, at timestamptz not null default now())");
  await mill.advance("1d");
  await mill.transaction((tx) => tx.query("insert into orders (id) values ($1)", [1]));
  const { rows } = await mill.pglite.query("select * from public.orders");
  expect(rows).toEqual([{ id: 1, at: after(86_400_000) }]);
});

test("no test sees what the one before it left, and numbers begin anew", async () => {
  const hello = task({ name: "hello", run: () => undefined });
  const ids: unknown[] = [];
  for (let i = 0; i < 3; i += 1) {
    await using mill = await testMillrace(defineApp({ tasks: [hello] }), { now: start });
    await mill.pglite.exec("create schema mine; create table mine.orders (id serial); create table orders (id serial)");
    await mill.enqueue(hello, {});
    await mill.runUntilIdle();
    expect(await mill.stats("default")).toMatchObject([{ total: 1 }]);
    ids.push((await mill.workers()).map((worker) => worker.id));
  }
  expect(ids).toEqual([[1], [1], [1]]);
});

test("two at the same time have a database and a clock each", async () => {
  const hello = task({ name: "hello", run: () => undefined });
  const app = defineApp({ tasks: [hello] });
  await using first = await testMillrace(app, { now: start });
  await using second = await testMillrace(app, { now: start });
  await first.enqueue(hello, {});
  await first.advance("1h");
  await second.expectNotEnqueued(hello);
  expect(second.now()).toBe(start.getTime());
});

test("runUntilIdle runs what is due, what that enqueues, and retries that are due at once", async () => {
  const seen: string[] = [];
  const child = task({
    name: "child",
    input: z.object({ n: z.number() }),
    backoff: { delay: 0 },
    run: ({ input, attempt }) => {
      seen.push(`child ${input.n} #${attempt}`);
      if (attempt === 1) throw new Error("not yet");
      return input.n * 2;
    },
  });
  const parent = task({
    name: "parent",
    run: async () => {
      seen.push("parent");
      for (const n of [1, 2]) await mill.enqueue(child, { n });
    },
  });
  await using mill: TestMillrace = await testMillrace(defineApp({ tasks: [parent, child] }), { now: start });
  await mill.enqueue(parent, {});
  const runs = await mill.runUntilIdle();

  expect(seen).toEqual(["parent", "child 1 #1", "child 2 #1", "child 1 #2", "child 2 #2"]);
  expect(runs.map((run) => [run.task, run.attempt, run.outcome, run.status, run.result])).toEqual([
    ["parent", 1, "succeeded", "completed", undefined],
    ["child", 1, "failed", "waiting", undefined],
    ["child", 1, "failed", "waiting", undefined],
    ["child", 2, "succeeded", "completed", 2],
    ["child", 2, "succeeded", "completed", 4],
  ]);
  expect(runs[1]?.error).toEqual(new Error("not yet"));
  expect(await mill.runUntilIdle()).toEqual([]);
});

test("the order is: priority, then due time, then age, over all queues", async () => {
  const work = task({ name: "work", input: z.string(), run: () => undefined });
  await using mill = await testMillrace(defineApp({ tasks: [work] }), { now: start });
  const later = await mill.enqueue(work, "later", { delay: "1s" });
  const high = await mill.enqueue(work, "high", { priority: 5, queue: "b" });
  const first = await mill.enqueue(work, "first", { queue: "z" });
  const second = await mill.enqueue(work, "second", { queue: "a" });
  expect((await mill.advance("1m")).map((run) => run.id)).toEqual([high.id, first.id, second.id, later.id]);
});

test("advance goes from due time to due time: a job that enqueues itself every minute runs 60 times in an hour", async () => {
  const at: number[] = [];
  const tick = task({
    name: "tick",
    run: async () => {
      at.push(mill.now());
      await mill.enqueue(tick, {}, { delay: "1m" });
    },
  });
  await using mill: TestMillrace = await testMillrace(defineApp({ tasks: [tick] }), { now: start });
  await mill.enqueue(tick, {}, { delay: "1m" });
  const runs = await mill.advance("1h");
  expect(runs).toHaveLength(60);
  expect(at).toEqual(Array.from({ length: 60 }, (_, i) => after((i + 1) * 60_000).getTime()));
  expect(await mill.advance("5h")).toHaveLength(5 * 60);
  expect(mill.now()).toBe(after(6 * 3_600_000).getTime());
});

test("retries come when their backoff says, without jitter, until attempts are used up", async () => {
  const at: number[] = [];
  const fails = task({
    name: "fails",
    maxAttempts: 4,
    backoff: { delay: "10s" },
    run: () => {
      at.push(mill.now() - start.getTime());
      throw new Error("always");
    },
  });
  await using mill: TestMillrace = await testMillrace(defineApp({ tasks: [fails] }), { now: start });
  const { id } = await mill.enqueue(fails, {});
  const runs = await mill.advance("1h");
  expect(at).toEqual([0, 10_000, 30_000, 70_000]);
  expect(runs.map((run) => run.status)).toEqual(["delayed", "delayed", "delayed", "failed"]);
  await mill.expectStatus(id, "failed");

  // The same instant: retried by hand, failed again. History still knows what came last.
  await mill.retry(id);
  await mill.expectStatus(id, "waiting");
  await mill.runUntilIdle();
  await mill.expectStatus(id, "failed");
});

test("what happens in one moment keeps its order: a retry by hand, and the attempt after it", async () => {
  const fails = task({
    name: "fails",
    maxAttempts: 1,
    run: () => {
      throw new NonRetryableError("never");
    },
  });
  const slow = task({ name: "slow", backoff: { delay: "1h" }, run: () => Promise.reject(new Error("later")) });
  await using mill = await testMillrace(defineApp({ tasks: [fails, slow] }), { now: start });
  const { id } = await mill.enqueue(slow, {});
  await mill.runUntilIdle();
  await mill.promote(id);
  await mill.expectStatus(id, "waiting");
  await mill.runUntilIdle();
  expect(await mill.expectStatus(id, "delayed")).toMatchObject({ runAt: after(3_600_000), attempt: 3 });
  await mill.cancel(id);
  const { story } = await mill.timeline(id);
  expect(story.map(({ kind }) => kind)).toEqual([
    "Enqueued",
    "Attempt",
    "Operation",
    "Attempt",
    "Attempt",
    "Operation",
  ]);
  await mill.expectStatus(id, "cancelled");
});

test("a job that takes time takes virtual time, and times out when that is too much", async () => {
  const slow = task({
    name: "slow",
    input: z.object({ takes: z.enum(["5s", "2m"]) }),
    timeout: "1m",
    maxAttempts: 1,
    run: async ({ input, signal }) => {
      await mill.advance(input.takes);
      signal.throwIfAborted();
    },
  });
  await using mill: TestMillrace = await testMillrace(defineApp({ tasks: [slow] }), { now: start });
  const quick = await mill.enqueue(slow, { takes: "5s" });
  const late = await mill.enqueue(slow, { takes: "2m" });
  const runs = await mill.runUntilIdle();
  expect(runs.map((run) => run.outcome)).toEqual(["succeeded", "timed_out"]);
  expect(await mill.job(quick.id)).toMatchObject({ startedAt: start, finishedAt: after(5_000) });
  await mill.expectStatus(late.id, "failed");
});

test("a task that waits for its signal is told of its timeout by advance", async () => {
  const waits = task({
    name: "waits",
    timeout: "1m",
    maxAttempts: 1,
    run: ({ signal }) =>
      new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason as Error))),
  });
  await using mill = await testMillrace(defineApp({ tasks: [waits] }), { now: start });
  await mill.enqueue(waits, {});
  const running = mill.runUntilIdle();
  while ((await mill.stats("default"))[0]?.active !== 1) await new Promise((resolve) => setImmediate(resolve));
  await mill.advance("1m");
  expect(await running).toMatchObject([{ outcome: "timed_out", status: "failed" }]);
});

test("a running job is cancelled", async () => {
  const waits = task({
    name: "waits",
    run: ({ signal }) =>
      new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason as Error))),
  });
  await using mill = await testMillrace(defineApp({ tasks: [waits] }), { now: start });
  const { id } = await mill.enqueue(waits, {});
  const running = mill.runUntilIdle();
  while ((await mill.job(id))?.status !== "active") await new Promise((resolve) => setImmediate(resolve));
  expect(await mill.cancel(id)).toMatchObject({ status: "cancelled" });
  expect(await running).toMatchObject([{ outcome: "cancelled", status: "cancelled" }]);
});

test("a job that hangs, and jobs that go in circles, fail the test and say which", async () => {
  const hangs = task({ name: "hangs", run: () => new Promise(() => undefined) });
  const circle = task({ name: "circle", run: async () => void (await mill.enqueue(circle, {})) });
  const app = defineApp({ tasks: [hangs, circle] });
  await using mill: TestMillrace = await testMillrace(app, { patience: "20ms", maxRuns: 20 });
  await mill.enqueue(circle, {});
  await expect(mill.runUntilIdle()).rejects.toThrow("20 attempts and no end, at last of circle");
  await using other = await testMillrace(app, { patience: "20ms" });
  await other.enqueue(hangs, {});
  await expect(other.runUntilIdle()).rejects.toThrow('of task "hangs" has been running for 20 ms of real time');
});

test("paused queues wait, limits hold, and a drained worker takes nothing", async () => {
  const work = task({ name: "work", run: () => undefined });
  await using mill = await testMillrace(defineApp({ tasks: [work] }), { now: start });
  await mill.policies.set("default", { rate: { max: 2, per: "10s" } });
  await mill.enqueueMany(work, [1, 2, 3, 4, 5]);
  await mill.pause("default");
  expect(await mill.runUntilIdle()).toEqual([]);
  await mill.resume("default");
  expect(await mill.runUntilIdle()).toHaveLength(2);
  const rest = await mill.advance("1m");
  const at = rest.map((run) => run.at.getTime() - start.getTime());
  expect(at).toHaveLength(3);
  expect(at[0]).toBeGreaterThanOrEqual(10_000);
  expect(at[0]).toBeLessThan(10_500);
  expect(at[1]).toBe(at[0]);
  expect(at[2]).toBeGreaterThanOrEqual(20_000);

  await mill.enqueue(work, {});
  await mill.drain();
  expect(await mill.runUntilIdle()).toEqual([]);
  await mill.undrain();
  expect(await mill.advance("1m")).toHaveLength(1);
});

test("complete(tx) and bulk operations run as they do in earnest", async () => {
  const charge = task({
    name: "charge",
    run: ({ complete }) =>
      mill.transaction(async (tx) => {
        await tx.query("insert into charges default values", []);
        await complete(tx);
      }),
  });
  await using mill: TestMillrace = await testMillrace(defineApp({ tasks: [charge] }));
  await mill.pglite.exec("create table charges (id serial)");
  const ids = await mill.enqueueMany(charge, [1, 2, 3]);
  const [first = ""] = ids;
  expect(await mill.runUntilIdle()).toMatchObject([
    { status: "completed" },
    { status: "completed" },
    { status: "completed" },
  ]);
  await mill.bulk("replay", { task: "charge", status: "completed" });
  expect((await mill.runUntilIdle()).map((run) => run.task)).toEqual(["millrace.bulk", "charge", "charge", "charge"]);
  expect((await mill.pglite.query("select count(*)::int as n from charges")).rows).toEqual([{ n: 6 }]);
  await mill.expectStatus(first, "completed");
});

test("two calls at once are refused, and a closed one is closed", async () => {
  const again = task({ name: "again", run: async () => void (await mill.runUntilIdle()) });
  const mill: TestMillrace = await testMillrace(defineApp({ tasks: [again] }));
  await mill.enqueue(again, {}, { maxAttempts: 1 });
  const [run] = await mill.runUntilIdle();
  expect(run?.error).toMatchObject({ code: "JOB_STATE" });
  await mill.close();
  await expect(mill.runUntilIdle()).rejects.toThrow("closed");
  await expect(mill.pglite.query("select 1")).rejects.toThrow("closed");
});
