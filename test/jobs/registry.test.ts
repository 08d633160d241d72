/** Who runs jobs, and the orders they take: draining, another concurrency, recycling. */
import { hostname } from "node:os";
import { describe, expect, test, vi } from "vitest";
import { type Millrace, type QueueStats, type WorkerInfo, schedule, task } from "millrace";
import { sql } from "../../src/db/sql.ts";
import { recorder } from "../http/caller.ts";
import { register } from "../../src/jobs/workers-store.ts";
import { backend } from "../support/database.ts";
import { StoreWorker } from "../support/store-worker.ts";
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
    const worker = mill.work({ name: "one", concurrency: 3, queues: ["mail", "default"], maintenance: false });
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

const nobody = { name: "n", host: "h", pid: 1, version: "1", queues: null, concurrency: 1, leaseMs: 60_000 };

describe("the drained system", () => {
  test("drains workers that start later, says who wanted it and since when, and one may be resumed alone", async () => {
    const { mill, hold, started, letGo, hears } = await open();
    await using _ = mill;
    expect(await mill.drained()).toBeNull();
    expect(await mill.drain({ by: "ada" })).toEqual([]);
    const drained = await mill.drained();
    expect(drained).toEqual({ since: expect.any(Date), by: "ada" });
    await mill.drain({ by: "bob" });
    expect(await mill.drained()).toEqual(drained);

    const worker = mill.work({ name: "late", lease: 400 });
    await worker.ready();
    expect(await only(mill)).toMatchObject({ state: "draining" });
    await hears(/^worker drains.*the whole system is drained/);
    await mill.enqueue(hold, 1);
    const { id, beatAt } = await only(mill);
    await vi.waitFor(
      async () => expect((await only(mill)).beatAt.getTime()).toBeGreaterThan(beatAt.getTime()),
      patience,
    );
    expect(await mill.stats("default")).toMatchObject([{ waiting: 1, active: 0 }]);

    expect(await mill.registry.resume(id, { by: "bob" })).toBe(true);
    await started.reached(1);
    expect(await mill.drained()).toEqual(drained);
    expect(await mill.undrain({ by: "cyd" })).toEqual([]);
    expect(await mill.drained()).toBeNull();
    await mill.undrain();
    letGo.open();
    expect(await audit(mill)).toMatchObject([
      { action: "drain", subject: "system", by: "ada" },
      { action: "resume", subject: `worker:${id}`, by: "bob" },
      { action: "resume", subject: "system", by: "cyd" },
    ]);
  });

  test("is resumed also for a worker that was declared dead meanwhile, and drained for one that missed the order", async () => {
    const { mill, hears } = await open();
    await using _ = mill;
    mill.work({ lease: 400 });
    await vi.waitFor(() => only(mill), patience);
    await mill.db.query(sql`update millrace.workers set stopped_at = now(), ended = 'lost'`);
    await mill.drain();
    await hears(/^worker drains/);
    await vi.waitFor(async () => expect((await mill.workers())[0]).toMatchObject({ state: "draining" }), patience);
    await mill.db.query(sql`update millrace.workers set stopped_at = now(), ended = 'lost' where stopped_at is null`);
    await mill.undrain();
    await hears(/^worker claims again/);
    await vi.waitFor(async () => expect((await mill.workers())[0]).toMatchObject({ state: "idle" }), patience);
  });

  test.runIf(backend === "postgres")("does not miss a worker that registers while it is ordered", async () => {
    const { mill } = await open();
    await using _ = mill;
    const blocked = () =>
      mill.db.query(
        sql`select from pg_locks where not granted and pid in (select pid from pg_stat_activity where datname = current_database())`,
      );
    let registering: Promise<unknown> | undefined;
    await mill.db.transaction(async (tx) => {
      await tx.query(sql`update millrace.system_state set drained_at = now()`);
      registering = StoreWorker.register(mill);
      await vi.waitFor(async () => expect(await blocked()).toHaveLength(1), patience);
    });
    await registering;
    expect(await only(mill)).toMatchObject({ state: "draining" });
    await mill.undrain();
    // and the other way round: the order waits until who registers is there to be told
    let ordering: Promise<number[]> | undefined;
    await mill.db.transaction(async (tx) => {
      await register(tx, { ...nobody, tasks: null });
      ordering = mill.drain();
      await vi.waitFor(async () => expect(await blocked()).toHaveLength(1), patience);
    });
    expect(await ordering).toHaveLength(2);
  });
});

describe("drain({ untilEmpty })", () => {
  test("lets workers go on until nothing waits or runs, whatever is delayed or failed, and tells the sizes", async () => {
    const { mill, hold, started, letGo } = await open();
    await using _ = mill;
    mill.work({ concurrency: 2 });
    await mill.enqueueMany(hold, [1, 2, 3]);
    await mill.enqueue(hold, 4, { delay: "1h" });
    await started.reached(2);
    const looks = tally<readonly QueueStats[]>();
    const draining = mill.drain({ by: "ada", untilEmpty: true, onLook: (queues) => looks.add(queues) });
    const [first] = await looks.reached(1);
    expect(first).toMatchObject([{ name: "default", active: 2, waiting: 1, delayed: 1 }]);
    expect(await mill.drained()).toBeNull();
    letGo.open();
    expect(await draining).toHaveLength(1);
    expect(looks.seen.at(-1)).toMatchObject([{ active: 0, waiting: 0, delayed: 1, completed: 3 }]);
    expect(await mill.drained()).toMatchObject({ by: "ada" });
  });

  test("ends although a schedule never lets up: it stops scheduling first, and resuming starts it again", async () => {
    const begun = tally<number>();
    const letGo = gate();
    const next: (() => void)[] = [];
    // A run ends when the next one has begun: there is always one.
    const lasting = task({
      name: "lasting",
      run: async () => {
        const followed = new Promise<void>((resolve) => next.push(resolve));
        next[begun.seen.length - 1]?.();
        begun.add(begun.seen.length);
        await Promise.race([followed, letGo.opened]);
      },
    });
    await using mill = await file.open([lasting], {}, [
      schedule({ name: "restless", task: lasting, every: "1s", overlap: "allow" }),
    ]);
    mill.work();
    await begun.reached(2);
    const looks = tally<readonly QueueStats[]>();
    const draining = mill.drain({ by: "ada", untilEmpty: true, onLook: (queues) => looks.add(queues) });
    await looks.reached(1);
    expect(await mill.registry.schedulingStopped()).toEqual({ since: expect.any(Date), by: "ada" });
    letGo.open();
    await draining;
    const ran = begun.seen.length;
    await mill.undrain();
    expect(await mill.registry.schedulingStopped()).toBeNull();
    await begun.reached(ran + 1);
  }, 60_000);

  test("given up, lets schedules fire again, unless somebody else had stopped them", async () => {
    const { mill, hold } = await open();
    await using _ = mill;
    await mill.enqueue(hold, 1);
    const giveUp = async (): Promise<void> => {
      const wish = new AbortController();
      const onLook = (): void => wish.abort(new Error("no more"));
      await expect(mill.drain({ untilEmpty: true, signal: wish.signal, onLook })).rejects.toThrow("no more");
    };
    await giveUp();
    expect(await mill.registry.schedulingStopped()).toBeNull();
    await mill.registry.stopScheduling({ by: "ada" });
    await giveUp();
    expect(await mill.registry.schedulingStopped()).toMatchObject({ by: "ada" });
    expect((await audit(mill)).map(({ action, subject }) => `${action} ${subject}`)).toEqual([
      "scheduling.stop system",
      "scheduling.resume system",
      "scheduling.stop system",
    ]);
  });

  test("leaves everything as it is when it is given up, and refuses to wait for what cannot come", async () => {
    const { mill, hold } = await open();
    await using _ = mill;
    await mill.enqueue(hold, 1);
    const looks = tally<unknown>();
    const wish = new AbortController();
    const draining = mill.drain({ untilEmpty: true, signal: wish.signal, onLook: (queues) => looks.add(queues) });
    void looks.reached(1).then(() => wish.abort(new Error("no more")));
    await expect(draining).rejects.toThrow("no more");
    expect(await mill.drained()).toBeNull();
    await mill.drain();
    await expect(mill.drain({ untilEmpty: true })).rejects.toMatchObject({ code: "SYSTEM_DRAINED" });
    await expect(mill.drain({ untillEmpty: true } as never)).rejects.toMatchObject({ code: "OPTION_UNKNOWN" });
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
