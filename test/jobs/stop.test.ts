/** Stopping workers and pausing queues: what has not started goes back at once, what runs is waited for, nothing uses an attempt. */
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { type Job, type Log, type Millrace, task } from "millrace";
import { sql } from "../../src/db/sql.ts";
import { freshSchema, gate, measured, places, tally, useDatabase } from "../support/engine.ts";

const file = useDatabase();

const statuses = async (mill: Millrace, ids: readonly string[]): Promise<Record<string, number>> => {
  const jobs = (await Promise.all(ids.map((id) => mill.job(id)))) as Job[];
  const counts: Record<string, number> = {};
  for (const { status } of jobs) counts[status] = (counts[status] ?? 0) + 1;
  return counts;
};

/** Ends when its signal is aborted, or when it is let go. */
const holding = (started: (id: string) => void, letGo: Promise<unknown>) =>
  task({
    name: "holding",
    async run({ id, signal }) {
      started(id);
      const aborted = new Promise((_, reject) =>
        signal.addEventListener("abort", () => reject(signal.reason as Error)),
      );
      await Promise.race([letGo, aborted]);
    },
  });

describe("a worker that stops", () => {
  test("waits for what runs, gives back the rest at once, with the attempt they had, and starts nothing more", async () => {
    const started = tally<string>();
    const letGo = gate();
    const hold = holding(started.add, letGo.opened);
    await using mill = await file.open([hold]);
    const ids = await mill.enqueueMany(hold, Array.from({ length: 30 }));
    const worker = mill.work({ concurrency: 3 });
    await started.reached(3);
    const stopped = worker.stop();
    // The 27 others wait again although three still run.
    await vi.waitFor(async () => expect(await mill.stats("default")).toMatchObject([{ waiting: 27, active: 3 }]), {
      timeout: 20_000,
      interval: 10,
    });
    letGo.open();
    expect(await stopped).toMatchObject({ hung: 0 });
    expect(started.seen).toHaveLength(3);
    expect(await statuses(mill, ids)).toEqual({ completed: 3, waiting: 27 });
    expect(await mill.db.query(sql`select distinct attempt::int from millrace.pending`)).toEqual([{ attempt: 1 }]);
    expect(await mill.db.query(sql`select count(*)::int as n from millrace.attempts`)).toEqual([{ n: 0 }]);
    expect(await mill.db.query(sql`select count(*)::int as n from millrace.leases`)).toEqual([{ n: 0 }]);
    expect(worker.active).toBe(0);
  });

  test("aborts what still runs after `within`, and gives it back without an attempt used", async () => {
    const started = tally<string>();
    const hold = holding(started.add, new Promise(() => undefined));
    await using mill = await file.open([hold]);
    const ids = await mill.enqueueMany(hold, [1, 2]);
    const worker = mill.work();
    await started.reached(2);
    expect(await worker.stop({ within: 20 })).toEqual({ returned: 2, hung: 0 });
    for (const id of ids)
      expect(await mill.job(id)).toMatchObject({
        status: "waiting",
        attempt: 1,
        lastErrorCode: "WORKER_SHUTDOWN",
        deadLetterReason: null,
      });

    // and they run elsewhere, as the first attempt still
    const again = tally<number>();
    const quick = task({ name: "holding", run: ({ attempt }) => again.add(attempt) });
    await using other = await file.open([quick], { schema: mill.db.schema });
    other.work();
    expect(await again.reached(2)).toEqual([1, 1]);
  });

  test("believes a job that never looked at its signal and ends within the grace after it", async () => {
    const started = gate();
    const slow = task({
      name: "slow",
      async run() {
        started.open();
        await new Promise((resolve) => setTimeout(resolve, 100));
      },
    });
    await using mill = await file.open([slow]);
    const { id } = await mill.enqueue(slow, {});
    const worker = mill.work();
    await started.opened;
    expect(await worker.stop({ within: 0 })).toEqual({ returned: 0, hung: 0 });
    expect((await mill.job(id))?.status).toBe("completed");
  });

  test("says how many jobs ignored their signal, and leaves their lease to run out", async () => {
    const started = gate();
    const letGo = gate();
    const deaf = task({
      name: "deaf",
      async run() {
        started.open();
        await letGo.opened;
      },
    });
    await using mill = await file.open([deaf]);
    const { id } = await mill.enqueue(deaf, {});
    const worker = mill.work();
    await started.opened;
    expect(await worker.stop({ within: 0 })).toEqual({ returned: 0, hung: 1 });
    expect((await mill.job(id))?.status).toBe("active");
    expect(await mill.db.query(sql`select stopped_at, ended from millrace.workers`)).toEqual([
      { stopped_at: null, ended: null },
    ]);
    letGo.open();
  });

  test("gives the same answer when it is stopped twice", async () => {
    await using mill = await file.open([]);
    const worker = mill.work();
    const [first, second] = [worker.stop(), worker.stop({ within: "1m" })];
    expect(await first).toEqual({ returned: 0, hung: 0 });
    expect(await second).toBe(await first);
  });

  test("before it was ready never claims anything", async () => {
    const hold = task({ name: "hold", run: () => expect.unreachable() });
    await using mill = await file.open([hold]);
    const { id } = await mill.enqueue(hold, {});
    const worker = mill.work();
    await worker.stop();
    await worker.ready();
    expect(await mill.job(id)).toMatchObject({ status: "waiting", attempt: 1 });
    expect(await mill.db.query(sql`select count(*)::int as n from millrace.workers where stopped_at is null`)).toEqual([
      { n: 0 },
    ]);
  });

  test("signs off, so that nobody waits for its heartbeat", async () => {
    await using mill = await file.open([]);
    const worker = mill.work({ name: "tidy" });
    await worker.ready();
    expect(await mill.db.query(sql`select name, stopped_at from millrace.workers`)).toEqual([
      { name: "tidy", stopped_at: null },
    ]);
    await worker.stop();
    expect(await mill.db.query(sql`select ended, idle from millrace.workers where stopped_at is not null`)).toEqual([
      { ended: "stopped", idle: false },
    ]);
  });

  test("with `within` of a month waits for what runs, and does not cut it short", async () => {
    const started = tally<string>();
    const letGo = gate();
    const hold = holding(started.add, letGo.opened);
    await using mill = await file.open([hold]);
    const { id } = await mill.enqueue(hold, {});
    const worker = mill.work();
    await started.reached(1);
    const stopped = worker.stop({ within: "30d" });
    setTimeout(() => letGo.open(), 50);
    expect(await stopped).toEqual({ returned: 0, hung: 0 });
    expect((await mill.job(id))?.status).toBe("completed");
  });

  test("by the end of its scope is stopped", async () => {
    await using mill = await file.open([]);
    {
      await using worker = mill.work();
      await worker.ready();
    }
    expect(await mill.db.query(sql`select ended from millrace.workers`)).toEqual([{ ended: "stopped" }]);
  });
});

describe("close", () => {
  test("stops the workers and then refuses everything as CLOSED", async () => {
    const ran = gate();
    const note = task({ name: "note", run: () => ran.open() });
    const mill = await file.open([note]);
    await mill.enqueue(note, {});
    const worker = mill.work();
    await ran.opened;
    await Promise.all([mill.close(), mill.close()]);
    expect(worker.active).toBe(0);
    const closed = expect.objectContaining({ code: "CLOSED" });
    await expect(mill.enqueue(note, {})).rejects.toEqual(closed);
    await expect(mill.enqueueMany(note, [1])).rejects.toEqual(closed);
    await expect(mill.job("x")).rejects.toEqual(closed);
    await expect(mill.jobs()).rejects.toEqual(closed);
    await expect(mill.stats()).rejects.toEqual(closed);
    await expect(mill.pause("a")).rejects.toEqual(closed);
    await expect(mill.resume("a")).rejects.toEqual(closed);
    await expect(mill.clean("a")).rejects.toEqual(closed);
    await expect(mill.retry("a")).rejects.toEqual(closed);
    await expect(mill.promote("a")).rejects.toEqual(closed);
    await expect(mill.remove("a")).rejects.toEqual(closed);
    await expect(mill.transaction(async () => 1)).rejects.toEqual(closed);
    expect(() => mill.work()).toThrow(closed);
  });

  test("lets an enqueue that is under way end, well or not", async () => {
    const note = task({ name: "note", run: () => undefined });
    const mill = await file.open([note]);
    const enqueueing = Promise.allSettled(Array.from({ length: 50 }, (_, n) => mill.enqueue(note, n)));
    await mill.close();
    expect(await enqueueing).toHaveLength(50);
  });
});

describe("a slow task does not strand the jobs behind it", () => {
  test("that its worker has claimed already: another worker gets them", async () => {
    const fast = tally<unknown>();
    const slowStarted = gate();
    const letGo = gate();
    const mixed = task({
      name: "mixed",
      async run({ input }) {
        if (input === "slow") {
          slowStarted.open();
          await letGo.opened;
        } else fast.add(input);
      },
    });
    await using mill = await file.open([mixed]);
    // Fast ones first, so that the worker learns to claim far ahead; then the slow one and, behind it, what it may strand.
    await mill.enqueueMany(
      mixed,
      Array.from({ length: 2_000 }, (_, n) => n),
    );
    await mill.enqueue(mixed, "slow");
    await mill.enqueueMany(
      mixed,
      Array.from({ length: 500 }, (_, n) => 2_000 + n),
    );
    const first = mill.work({ concurrency: 1, name: "first" });
    await slowStarted.opened;
    const second = mill.work({ concurrency: 1, name: "second" });
    await fast.reached(2_500);
    expect(first.active).toBe(1);
    letGo.open();
    await Promise.all([first.stop(), second.stop()]);
    expect(await mill.stats("default")).toMatchObject([{ completed: 2_501, waiting: 0, active: 0 }]);
  });

  /** Fast jobs teach a worker to claim far ahead; slow ones follow, and end. */
  async function changeOfPace(): Promise<{
    open: (name: string) => Promise<Millrace>;
    slowStarted: Promise<void>;
    slowDone: (count: number) => Promise<unknown>;
    by: Map<string, number>;
    urgent: Promise<number>;
    schema: string;
  }> {
    const schema = freshSchema();
    const slowStarted = gate();
    const slow = tally<string>();
    const by = new Map<string, number>();
    const urgent = gate<number>();
    const open = (name: string): Promise<Millrace> => {
      const pacing = task({
        name: "pacing",
        async run({ input }) {
          if (input === "urgent") urgent.open(performance.now());
          if (input !== "slow") return;
          slowStarted.open();
          await new Promise((resolve) => setTimeout(resolve, 50));
          by.set(name, (by.get(name) ?? 0) + 1);
          slow.add(name);
        },
      });
      return file.open([pacing], { schema });
    };
    const mill = await open("first");
    await mill.enqueueMany(
      "pacing",
      Array.from({ length: 5_000 }, () => "fast"),
    );
    await mill.enqueueMany(
      "pacing",
      Array.from({ length: 100 }, () => "slow"),
    );
    mill.work({ concurrency: 1 });
    onTestFinished(() => mill.close());
    return { open, slowStarted: slowStarted.opened, slowDone: slow.reached, by, urgent: urgent.opened, schema };
  }

  test("that are slow themselves: what a worker claimed at a faster pace goes to an idle one", async () => {
    const { open, slowStarted, slowDone, by } = await changeOfPace();
    await slowStarted;
    await using second = await open("second");
    second.work({ concurrency: 10 });
    await slowDone(100);
    // One slot against ten, but for the time it takes to notice.
    expect(by.get("second") ?? 0).toBeGreaterThan(50);
  });

  test("nor an urgent one: it overtakes what was claimed at a faster pace", measured, async () => {
    const { open, slowStarted, slowDone, urgent, by } = await changeOfPace();
    await slowStarted;
    await using producer = await open("producer");
    const asked = performance.now();
    await producer.enqueue("pacing", "urgent", { priority: 10 });
    expect((await urgent) - asked).toBeLessThan(2_000);
    expect(by.get("first") ?? 0).toBeLessThan(60);
    await slowDone(by.get("first") ?? 0);
  });
});

describe("a paused queue", () => {
  test("starts nothing: not what waits, not what comes, not what a worker had claimed ahead", async () => {
    const started = tally<string>();
    const letGo = gate();
    const hold = holding(started.add, letGo.opened);
    await using mill = await file.open([hold]);
    const ids = await mill.enqueueMany(hold, Array.from({ length: 50 }));
    const worker = mill.work({ concurrency: 2 });
    await started.reached(2);
    expect(await mill.pause("default", { by: "ann", reason: "the database is being moved" })).toBe(true);
    expect(await mill.pause("default")).toBe(false);
    const late = await mill.enqueue(hold, "late");
    await vi.waitFor(
      async () => expect(await mill.stats("default")).toMatchObject([{ paused: true, waiting: 49, active: 2 }]),
      { timeout: 20_000, interval: 10 },
    );
    letGo.open();
    await vi.waitFor(
      async () => expect(await mill.stats("default")).toMatchObject([{ waiting: 49, active: 0, completed: 2 }]),
      { timeout: 20_000, interval: 10 },
    );
    // Another queue goes on meanwhile, and shows that the worker looks for work.
    const other = tally<string>();
    await using beside = await file.open(
      [task({ name: "other", queue: "beside", run: ({ queue }) => other.add(queue) })],
      { schema: mill.db.schema },
    );
    beside.work();
    await beside.enqueue("other", {}, { queue: "beside" });
    await other.reached(1);
    expect(started.seen).toHaveLength(2);
    expect(
      await mill.db.query(sql`select paused_by, paused_reason from millrace.queues where name = 'default'`),
    ).toEqual([{ paused_by: "ann", paused_reason: "the database is being moved" }]);

    expect(await mill.resume("default")).toBe(true);
    expect(await mill.resume("default")).toBe(false);
    await started.reached(51);
    await worker.stop();
    expect(await statuses(mill, [...ids, late.id])).toEqual({ completed: 51 });
    expect(await mill.stats("default")).toMatchObject([{ paused: false }]);
  });

  test("can be paused before it had a job, and holds its first one back from an idle worker", async () => {
    const started = tally<string>();
    const note = task({ name: "note", run: ({ queue }) => started.add(queue) });
    await using mill = await file.open([note]);
    await mill.pause("night");
    const worker = mill.work();
    await worker.ready();
    await mill.enqueue(note, {}, { queue: "night" });
    await mill.enqueue(note, {}, { queue: "day" });
    expect(await started.reached(1)).toEqual(["day"]);
    await mill.resume("night");
    expect(await started.reached(2)).toEqual(["day", "night"]);
  });

  test("that does not exist cannot be resumed", async () => {
    await using mill = await file.open([]);
    await expect(mill.resume("nowhere")).rejects.toMatchObject({ code: "QUEUE_NOT_FOUND" });
    await expect(mill.clean("nowhere")).rejects.toMatchObject({ code: "QUEUE_NOT_FOUND" });
    await expect(mill.pause("no way")).rejects.toMatchObject({ code: "QUEUE_NAME_INVALID" });
  });
});

describe("a worker", () => {
  test("works on the queues it was given and on no other", async () => {
    const ran = tally<string>();
    const note = task({ name: "note", run: ({ queue }) => ran.add(queue) });
    await using mill = await file.open([note]);
    for (const queue of ["a", "b", "c", "a"]) await mill.enqueue(note, {}, { queue });
    const worker = mill.work({ queues: ["a", "c"] });
    await ran.reached(3);
    await mill.enqueue(note, {}, { queue: "b" });
    await mill.enqueue(note, {}, { queue: "c" });
    await ran.reached(4);
    await worker.stop();
    expect(ran.seen.toSorted()).toEqual(["a", "a", "c", "c"]);
    expect(await mill.stats("b")).toMatchObject([{ waiting: 2 }]);
  });

  test.each<[string, object, string]>([
    ["an unknown option", { concurency: 1 }, "OPTION_UNKNOWN"],
    ["no slots", { concurrency: 0 }, "OPTION_INVALID"],
    ["too many slots", { concurrency: 10_001 }, "OPTION_INVALID"],
    ["a lease that is none", { lease: "short" }, "OPTION_INVALID"],
    ["a queue name that is none", { queues: ["a b"] }, "QUEUE_NAME_INVALID"],
    ["unknownTasks that says neither", { unknownTasks: "ignore" }, "OPTION_INVALID"],
  ])("is refused %s", async (_, options, code) => {
    await using mill = await file.open([]);
    expect(() => mill.work(options as object)).toThrow(expect.objectContaining({ code }));
  });

  test.each<[string, object]>([
    ["a lease of a month", { lease: "30d" }],
    ["a lease of a fraction of a millisecond", { lease: 1_000.5 }],
    ["a lease of nothing", { lease: 0 }],
    ["a look for dead workers once a year", { reapEvery: "365d" }],
  ])("starts with %s, and does not beat or look without a pause", async (_, options) => {
    const warnings: string[] = [];
    const log: Log = { debug() {}, info() {}, warn: (_fields, message) => void warnings.push(message), error() {} };
    const ran = tally<string>();
    const note = task({ name: "note", run: ({ id }) => ran.add(id) });
    await using mill = await file.open([note], { log });
    const onWarning = vi.fn<(warning: Error) => void>();
    process.on("warning", onWarning);
    const worker = mill.work(options);
    await mill.enqueue(note, {});
    await ran.reached(1);
    await worker.stop();
    process.off("warning", onWarning);
    expect(onWarning).not.toHaveBeenCalled();
    expect(warnings).toEqual([]);
  });

  test("keeps its hands off a job after the last one: an empty database is left in peace", async () => {
    const note = task({ name: "note", run: () => undefined });
    await using mill = await file.open([note]);
    const worker = mill.work();
    await worker.ready();
    await vi.waitFor(
      async () => expect(await mill.db.query(sql`select idle from millrace.workers`)).toEqual([{ idle: true }]),
      { timeout: 20_000, interval: 10 },
    );
    expect(await places(mill.db)).toEqual({});
  });
});
