/** Who runs jobs, and the orders they take: draining, another concurrency, recycling. */
import { hostname } from "node:os";
import { describe, expect, test, vi } from "vitest";
import { type Millrace, type WorkerInfo, task } from "millrace";
import { sql } from "../../src/db/sql.ts";
import { recorder } from "../http/caller.ts";
import { type Gate, gate, tally, useDatabase } from "../support/engine.ts";

const file = useDatabase();
const patience = { timeout: 20_000, interval: 10 };

/** A task that runs until it is let go, or its signal is aborted. */
async function open() {
  const started = tally<string>();
  const letGo = gate();
  const hold = task({
    name: "hold",
    async run({ id, signal }) {
      started.add(id);
      const aborted = new Promise((_, reject) => {
        signal.addEventListener("abort", () => reject(signal.reason as Error));
      });
      await Promise.race([letGo.opened, aborted]);
    },
  });
  const log = recorder();
  /** Resolves when the worker has heard its order. */
  const hears = (pattern: RegExp) =>
    vi.waitFor(
      () => expect(log.lines.map(({ message }) => message)).toContainEqual(expect.stringMatching(pattern)),
      patience,
    );
  return { mill: await file.open([hold], { log }), hold, started, letGo, hears };
}

const only = async (mill: Millrace): Promise<WorkerInfo> => {
  const workers = await mill.workers();
  expect(workers).toHaveLength(1);
  return workers[0] as WorkerInfo;
};

const becomes = (mill: Millrace, expected: Partial<WorkerInfo>): Promise<WorkerInfo> =>
  vi.waitFor(async () => {
    const worker = await only(mill);
    expect(worker).toMatchObject(expected);
    return worker;
  }, patience);

const audit = (mill: Millrace) =>
  mill.db.query<{ action: string; subject: string; by: string; details: unknown }>(
    sql`select action, subject, by, details from millrace.audit order by id`,
  );

describe("the list", () => {
  test("tells of each worker who it is, what it takes, and what it holds since when", async () => {
    const { mill, hold, started, letGo } = await open();
    await using _ = mill;
    const worker = mill.work({ name: "one", concurrency: 3, queues: ["mail", "default"] });
    await worker.ready();
    expect(await only(mill)).toMatchObject({
      name: "one",
      host: hostname(),
      pid: process.pid,
      state: "idle",
      queues: ["default", "mail"],
      tasks: ["hold"],
      concurrency: 3,
      active: 0,
      jobs: [],
      recycling: false,
      stoppedAt: null,
    });
    const ids = await mill.enqueueMany(hold, [1, 2]);
    await started.reached(2);
    const busy = await only(mill);
    expect(busy).toMatchObject({ state: "running", active: 2 });
    expect(busy.jobs.map(({ id, task: name }) => `${id} ${name}`).sort()).toEqual(ids.map((id) => `${id} hold`).sort());
    expect(busy.jobs[0]?.since).toBeInstanceOf(Date);
    expect(busy.beatAgeMs).toBeLessThan(60_000);
    letGo.open();
    await worker.stop();
    expect(await only(mill)).toMatchObject({ state: "stopped", active: 0, stoppedAt: expect.any(Date) });
  });

  test("holds a hundred jobs of a worker at most, and counts all", async () => {
    const { mill, hold, started, letGo } = await open();
    await using _ = mill;
    await mill.enqueueMany(hold, Array.from({ length: 150 }));
    mill.work({ concurrency: 150 });
    await started.reached(150);
    const worker = await becomes(mill, { active: 150 });
    expect(worker.jobs).toHaveLength(100);
    letGo.open();
  });

  test("calls a worker lost that has not beaten for its lease, before and after somebody has said so", async () => {
    const { mill } = await open();
    await using _ = mill;
    const insert = (ended: string | null) => sql`
      insert into millrace.workers (name, host, pid, version, concurrency, lease_ms, beat_at, stopped_at, ended)
      values ('silent', 'h', 1, '1', 1, 1000, now() - interval '1 minute', ${ended === null ? null : new Date()}, ${ended})`;
    await mill.db.query(insert(null));
    await mill.db.query(insert("lost"));
    expect((await mill.workers()).map(({ state, queues, tasks }) => ({ state, queues, tasks }))).toEqual([
      { state: "lost", queues: null, tasks: null },
      { state: "lost", queues: null, tasks: null },
    ]);
  });

  test("forgets those that stopped more than a day ago", async () => {
    const { mill } = await open();
    await using _ = mill;
    await mill.work().stop();
    await mill.db.query(sql`update millrace.workers set stopped_at = now() - interval '25 hours'`);
    expect(await mill.workers()).toEqual([]);
  });
});

describe("a worker that drains", () => {
  test("ends what runs, gives the rest back, claims nothing, keeps beating; and goes on when it resumes", async () => {
    const { mill, hold, started, letGo, hears } = await open();
    await using _ = mill;
    mill.work({ concurrency: 2, lease: 400 });
    const ids = await mill.enqueueMany(hold, Array.from({ length: 6 }));
    await started.reached(2);
    const { id } = await only(mill);
    expect(await mill.registry.drain(id, { by: "ada" })).toBe(true);
    expect(await mill.registry.drain(id)).toBe(false);
    await hears(/^worker drains/);
    await becomes(mill, { state: "draining", active: 2 });
    expect(await mill.stats("default")).toMatchObject([{ waiting: 4, active: 2 }]);

    letGo.open();
    const { beatAt } = await becomes(mill, { state: "draining", active: 0 });
    await mill.enqueue(hold, 7);
    await vi.waitFor(
      async () => expect((await only(mill)).beatAt.getTime()).toBeGreaterThan(beatAt.getTime()),
      patience,
    );
    expect(started.seen).toHaveLength(2);
    expect(await mill.stats("default")).toMatchObject([{ waiting: 5, active: 0, completed: 2 }]);

    expect(await mill.registry.resume(id)).toBe(true);
    expect(await mill.registry.resume(id)).toBe(false);
    await started.reached(7);
    for (const job of ids)
      await vi.waitFor(
        async () => expect(await mill.job(job)).toMatchObject({ status: "completed", attempt: 1 }),
        patience,
      );
    expect(await audit(mill)).toEqual([
      { action: "drain", subject: `worker:${id}`, by: "ada", details: null },
      { action: "resume", subject: `worker:${id}`, by: null, details: null },
    ]);
  });

  test("hears of it with its next beat when the NOTIFY is lost", async () => {
    const { mill, hold, started, hears } = await open();
    await using _ = mill;
    mill.work({ lease: 400 });
    await vi.waitFor(() => only(mill), patience);
    await mill.db.query(sql`update millrace.workers set draining = true`);
    await hears(/^worker drains/);
    await mill.enqueue(hold, 1);
    const { beatAt } = await only(mill);
    const later = async () => expect((await only(mill)).beatAt.getTime()).toBeGreaterThan(beatAt.getTime());
    await vi.waitFor(later, patience);
    expect(started.seen).toEqual([]);
    expect(await mill.stats("default")).toMatchObject([{ waiting: 1, active: 0 }]);
  });

  test("keeps its orders when it was declared dead before it heard them, and registers anew", async () => {
    const { mill, hold, started, hears } = await open();
    await using _ = mill;
    mill.work({ lease: 400, concurrency: 2 });
    const { id } = await vi.waitFor(() => only(mill), patience);
    await mill.db.query(
      sql`update millrace.workers set draining = true, wanted_concurrency = 5, stopped_at = now(), ended = 'lost' where id = ${id}`,
    );
    await hears(/^worker drains/);
    await hears(/another number of jobs/);
    const [newest, former] = await mill.workers();
    expect(newest).toMatchObject({ state: "draining" });
    expect(former).toMatchObject({ id, state: "lost" });
    await mill.enqueue(hold, 1);
    expect(started.seen).toEqual([]);
  });

  test("is one of all with mill.drain(), and of all again with mill.undrain()", async () => {
    const { mill, hold, started, letGo } = await open();
    await using _ = mill;
    const workers = [mill.work({ name: "a" }), mill.work({ name: "b" })];
    await Promise.all(workers.map((worker) => worker.ready()));
    expect(await mill.drain({ by: "ada" })).toHaveLength(2);
    expect(await mill.drain()).toEqual([]);
    expect((await mill.workers()).map(({ state }) => state)).toEqual(["draining", "draining"]);
    expect(await mill.undrain()).toHaveLength(2);
    letGo.open();
    await mill.enqueue(hold, 1);
    await started.reached(1);
  });
});

test("concurrency changes while the worker runs, up and down", async () => {
  const running = new Map<string, Gate<void>>();
  const started = tally<string>();
  const each = task({
    name: "each",
    async run({ id }) {
      const end = gate();
      running.set(id, end);
      started.add(id);
      await end.opened;
      running.delete(id);
    },
  });
  await using mill = await file.open([each]);
  mill.work({ concurrency: 1 });
  await mill.enqueueMany(each, Array.from({ length: 8 }));
  await started.reached(1);
  const { id } = await only(mill);
  await mill.registry.setConcurrency(id, 4, { by: "ada" });
  await started.reached(4);
  await becomes(mill, { concurrency: 4 });
  expect(running.size).toBe(4);

  await mill.registry.setConcurrency(id, 2);
  await becomes(mill, { concurrency: 2 });
  const ended = [...running.values()].slice(0, 2);
  for (const end of ended) end.open();
  await becomes(mill, { active: 2 });
  expect(started.seen).toHaveLength(4);
  [...running.values()][0]?.open();
  await started.reached(5);
  expect(running.size).toBe(2);
  expect(await audit(mill)).toMatchObject([{ action: "concurrency", by: "ada", details: { concurrency: 4 } }, {}]);
  for (let seen = 5; seen <= 8; seen += 1) {
    for (const end of running.values()) end.open();
    await started.reached(Math.min(seen + 1, 8));
  }
  for (const end of running.values()) end.open();
  await expect(mill.registry.setConcurrency(id, 0)).rejects.toMatchObject({ code: "OPTION_INVALID" });
});

test("a worker that is recycled ends what runs, stops, and says so to who started it", async () => {
  const { mill, hold, started, letGo, hears } = await open();
  await using _ = mill;
  const worker = mill.work({ concurrency: 1 });
  const [first = "", second = ""] = await mill.enqueueMany(hold, [1, 2]);
  await started.reached(1);
  const { id } = await only(mill);
  await mill.registry.recycle(id, { by: "ada" });
  await hears(/^worker is recycled/);
  await becomes(mill, { state: "draining", recycling: true, active: 1 });
  letGo.open();
  expect(await worker.recycled).toMatchObject({ hung: 0 });
  expect(await only(mill)).toMatchObject({ state: "stopped", recycling: false });
  const states = await Promise.all([first, second].map(async (job) => (await mill.job(job))?.status));
  expect(states.sort()).toEqual(["completed", "waiting"]);
  expect(await audit(mill)).toMatchObject([{ action: "recycle", subject: `worker:${id}`, by: "ada" }]);
});

test("orders for a worker that is not at work are refused", async () => {
  const { mill } = await open();
  await using _ = mill;
  const worker = mill.work();
  await worker.ready();
  const { id } = await only(mill);
  await worker.stop();
  const { registry } = mill;
  const orders = [
    () => registry.drain(id),
    () => registry.resume(id),
    () => registry.recycle(id),
    () => registry.setConcurrency(id, 2),
  ];
  for (const order of orders) await expect(order()).rejects.toMatchObject({ code: "WORKER_NOT_FOUND" });
  expect(await audit(mill)).toEqual([]);
});
