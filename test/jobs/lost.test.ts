/** Workers that die, or are taken for dead: their jobs run elsewhere, what they report afterwards changes nothing, killers are found out. */
import { describe, expect, test, vi } from "vitest";
import { type Log, type Millrace, task } from "millrace";
import { sql } from "../../src/db/sql.ts";
import { backend } from "../support/database.ts";
import { gate, places, rowCounts, tally, useDatabase } from "../support/engine.ts";
import { type End, StoreWorker, reapNow, succeeded } from "../support/store-worker.ts";

const file = useDatabase();
const plain = task({ name: "plain", run: () => undefined });

const attemptsOf = async (mill: Millrace, id: string): Promise<unknown[]> =>
  mill.db.query(
    sql`select attempt::int, outcome, alone, late, error_code as code from millrace.attempts where job_id = ${id}::uuid order by id`,
  );

describe("the reaper", () => {
  test("queues what a dead worker held again: in company it costs no attempt and makes suspects", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill, "doomed");
    const ids = await mill.enqueueMany(plain, [1, 2, 3]);
    const claim = await worker.claim(3);
    await worker.settle(claim, { [ids[0] ?? ""]: succeeded });
    await worker.die();
    expect(await reapNow(mill)).toEqual({ workers: ["doomed"], requeued: 2, buried: 0 });
    expect(Object.values(await places(mill.db))).toEqual(["settled", "pending", "pending"]);
    for (const id of ids.slice(1)) {
      expect(await mill.job(id)).toMatchObject({
        status: "waiting",
        attempt: 1,
        lastErrorCode: "WORKER_LOST",
        worker: "doomed",
      });
      expect(await attemptsOf(mill, id)).toEqual([
        { attempt: 1, outcome: "lost", alone: false, late: false, code: "WORKER_LOST" },
      ]);
    }
    expect(await mill.db.query(sql`select losses::int from millrace.pending`)).toEqual([{ losses: 1 }, { losses: 1 }]);
    expect(await mill.db.query(sql`select ended, stopped_at is not null as stopped from millrace.workers`)).toEqual([
      { ended: "lost", stopped: true },
    ]);
    expect(await rowCounts(mill.db)).toMatchObject({ leases: 0 });
    expect(await reapNow(mill)).toEqual({ workers: [], requeued: 0, buried: 0 });
  });

  test("counts an attempt for a job that was lost alone", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const { id } = await mill.enqueue(plain, {});
    await worker.claim(1);
    await worker.die();
    expect(await reapNow(mill)).toMatchObject({ requeued: 1 });
    expect(await mill.job(id)).toMatchObject({ status: "waiting", attempt: 2 });
    expect(await attemptsOf(mill, id)).toMatchObject([{ attempt: 1, outcome: "lost", alone: true }]);
  });

  test("takes two batches of one job each for company", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const ids = await mill.enqueueMany(plain, [1, 2]);
    await worker.claim(1);
    await worker.claim(1);
    await worker.die();
    await reapNow(mill);
    for (const id of ids) expect(await mill.job(id)).toMatchObject({ attempt: 1 });
  });

  test("gives a job up as POISON when it was lost alone for the third time, and never before", async () => {
    await using mill = await file.open([plain]);
    const { id } = await mill.enqueue(plain, {}, { maxAttempts: 25 });
    for (const strike of [1, 2, 3]) {
      const worker = await StoreWorker.register(mill);
      const claim = strike === 1 ? await worker.claim(1) : await worker.claimSuspect();
      expect(claim?.jobs).toMatchObject([{ id, attempt: strike }]);
      await worker.die();
      expect(await reapNow(mill)).toMatchObject(strike < 3 ? { requeued: 1, buried: 0 } : { requeued: 0, buried: 1 });
    }
    expect(await mill.job(id)).toMatchObject({
      status: "failed",
      attempt: 3,
      deadLetterReason: "POISON",
      lastErrorCode: "WORKER_LOST",
    });
    expect(await places(mill.db)).toEqual({ [id]: "dead" });
  });

  test("gives a job up as MAX_ATTEMPTS_EXCEEDED when it was lost alone on its last attempt", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const { id } = await mill.enqueue(plain, {}, { maxAttempts: 1 });
    await worker.claim(1);
    await worker.die();
    expect(await reapNow(mill)).toMatchObject({ requeued: 0, buried: 1 });
    expect(await mill.job(id)).toMatchObject({
      status: "failed",
      deadLetterReason: "MAX_ATTEMPTS_EXCEEDED",
      lastErrorCode: "WORKER_LOST",
    });
  });

  test("never gives up a job that was lost in company, however often", async () => {
    await using mill = await file.open([plain]);
    const ids = await mill.enqueueMany(plain, [1, 2], { maxAttempts: 1 });
    for (let n = 0; n < 5; n += 1) {
      const worker = await StoreWorker.register(mill);
      const first = n === 0 ? await worker.claim(2) : await worker.claimSuspect();
      const second = n === 0 ? first : await worker.claimSuspect();
      expect([first?.jobs.length, second?.jobs.length]).toEqual(n === 0 ? [2, 2] : [1, 1]);
      await worker.die();
      await reapNow(mill);
    }
    for (const id of ids) expect(await mill.job(id)).toMatchObject({ status: "waiting", attempt: 1 });
    expect(await mill.db.query(sql`select distinct losses::int from millrace.pending`)).toEqual([{ losses: 5 }]);
  });

  test("forgets the suspicion once the job has ended an attempt by itself", async () => {
    await using mill = await file.open([plain]);
    const { id } = await mill.enqueue(plain, {});
    const doomed = await StoreWorker.register(mill);
    await doomed.claim(1);
    await doomed.die();
    await reapNow(mill);
    const worker = await StoreWorker.register(mill);
    const claim = await worker.claimSuspect();
    if (claim) await worker.settle(claim, { [id]: { next: "retry", delayMs: 0 } });
    expect(await mill.db.query(sql`select losses::int, attempt::int from millrace.pending`)).toEqual([
      { losses: 0, attempt: 3 },
    ]);
    expect((await worker.claim(1)).jobs).toMatchObject([{ id, attempt: 3 }]);
  });

  test("leaves a worker alone that beats, and the one that looks", async () => {
    await using mill = await file.open([plain]);
    const alive = await StoreWorker.register(mill);
    const self = await StoreWorker.register(mill);
    await mill.enqueueMany(plain, [1, 2]);
    await alive.claim(1);
    await self.claim(1);
    await self.die();
    expect(await reapNow(mill, self.id)).toEqual({ workers: [], requeued: 0, buried: 0 });
    expect(await rowCounts(mill.db)).toMatchObject({ leases: 2, attempts: 0 });
  });

  test("takes back what a worker still held that signed off", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const { id } = await mill.enqueue(plain, {});
    await worker.claim(1);
    await worker.signOff();
    expect(await reapNow(mill)).toMatchObject({ workers: [], requeued: 1 });
    expect(await mill.job(id)).toMatchObject({ status: "waiting" });
  });

  test("many times at once queues each job once", async () => {
    await using mill = await file.open([plain]);
    await mill.enqueueMany(plain, Array.from({ length: 60 }));
    for (let n = 0; n < 6; n += 1) {
      const worker = await StoreWorker.register(mill);
      await worker.claim(10);
      await worker.die();
    }
    const rounds = await Promise.all(Array.from({ length: 8 }, () => reapNow(mill)));
    expect(rounds.reduce((sum, { requeued }) => sum + requeued, 0)).toBe(60);
    expect(new Set(Object.values(await places(mill.db)))).toEqual(new Set(["pending"]));
    expect(await rowCounts(mill.db)).toMatchObject({ pending: 60, attempts: 60, leases: 0 });
  });

  test("of a real worker finds the dead within its interval, says so, and runs what they held", async () => {
    const ran = tally<unknown>();
    const warned = gate<string>();
    const log: Log = {
      debug() {},
      info() {},
      warn: (_, message) => message.startsWith("reap") && warned.open(message),
      error() {},
    };
    const note = task({ name: "plain", run: ({ input }) => ran.add(input) });
    await using mill = await file.open([note], { log });
    const doomed = await StoreWorker.register(mill, "doomed");
    await mill.enqueueMany(note, [1, 2, 3]);
    await doomed.claim(3);
    await doomed.die();
    mill.work({ reapEvery: 50 });
    expect(await warned.opened).toBe("reap_expired_locks: 1 workers lost, 3 jobs queued again, 0 given up");
    expect((await ran.reached(3)).toSorted()).toEqual([1, 2, 3]);
  });
});

describe("a suspect", () => {
  test("is never claimed with others, and never before it is due, nor from a paused queue", async () => {
    await using mill = await file.open([plain]);
    const doomed = await StoreWorker.register(mill);
    const [first = "", second = ""] = await mill.enqueueMany(plain, [1, 2]);
    await doomed.claim(2);
    await doomed.die();
    await reapNow(mill);
    await mill.enqueue(plain, 3);
    const worker = await StoreWorker.register(mill);
    expect((await worker.claim(10)).jobs).toHaveLength(1);
    await mill.pause("default");
    expect(await worker.claimSuspect()).toBeUndefined();
    await mill.resume("default");
    expect((await worker.claimSuspect())?.jobs.map(({ id }) => id)).toEqual([first]);
    expect((await worker.claimSuspect())?.jobs.map(({ id }) => id)).toEqual([second]);
    expect(await worker.claimSuspect()).toBeUndefined();
  });

  test("given back unstarted is as suspect as before; one that has failed since then is not", async () => {
    await using mill = await file.open([plain]);
    const doomed = await StoreWorker.register(mill);
    const [back = "", failed = ""] = await mill.enqueueMany(plain, [1, 2]);
    await doomed.claim(2);
    await doomed.die();
    await reapNow(mill);
    const worker = await StoreWorker.register(mill);
    const suspect = await worker.claimSuspect();
    const other = await worker.claimSuspect();
    if (suspect === undefined || other === undefined) return expect.unreachable();
    await worker.giveBack(suspect);
    await worker.settle(other, { [failed]: { next: "retry", delayMs: 0 } });
    expect(
      await mill.db.query(sql`select job_id::text as id, losses::int from millrace.pending order by losses`),
    ).toEqual([
      { id: failed, losses: 0 },
      { id: back, losses: 1 },
    ]);
    const again = await worker.claim(10);
    expect(again.jobs.map(({ id }) => id)).toEqual([failed]);
    await worker.giveBack(again);
    expect((await worker.claim(10)).jobs.map(({ id }) => id)).toEqual([failed]);
  });

  test("of many slow ones takes turns with ordinary jobs: these wait for some, not for all", async () => {
    const ran = tally<unknown>();
    const note = task({
      name: "plain",
      async run({ input }) {
        if (input === "suspect") await new Promise((resolve) => setTimeout(resolve, 400));
        ran.add(input);
      },
    });
    await using mill = await file.open([note]);
    const doomed = await StoreWorker.register(mill);
    await mill.enqueueMany(
      note,
      Array.from({ length: 8 }, () => "suspect"),
    );
    await doomed.claim(8);
    await doomed.die();
    await reapNow(mill);
    await mill.enqueueMany(
      note,
      Array.from({ length: 50 }, () => "ordinary"),
    );
    mill.work({ concurrency: 5 });
    const order = await ran.reached(58);
    expect(order[0]).toBe("suspect");
    expect(order.lastIndexOf("ordinary")).toBeLessThan(order.lastIndexOf("suspect"));
  });

  test("runs with the whole worker to itself, among any number of other jobs", async () => {
    const running = new Set<unknown>();
    const together: unknown[][] = [];
    const ran = tally<unknown>();
    const note = task({
      name: "plain",
      async run({ input }) {
        running.add(input);
        await new Promise((resolve) => setTimeout(resolve, 5));
        if (String(input).startsWith("suspect")) together.push([...running]);
        running.delete(input);
        ran.add(input);
      },
    });
    await using mill = await file.open([note]);
    const doomed = await StoreWorker.register(mill);
    const suspects = ["suspect 1", "suspect 2", "suspect 3"];
    await mill.enqueueMany(note, suspects);
    await doomed.claim(3);
    await doomed.die();
    await mill.enqueueMany(
      note,
      Array.from({ length: 100 }, (_, n) => n),
    );
    const worker = mill.work({ concurrency: 8, reapEvery: 50 });
    await ran.reached(103);
    await worker.stop();
    expect(together.toSorted()).toEqual(suspects.map((name) => [name]));
    expect(await mill.stats("default")).toMatchObject([{ completed: 103, waiting: 0 }]);
  });

  test("that takes long does not keep its worker to itself for ever: others run beside it after a while", async () => {
    const others = tally<unknown>();
    const letGo = gate();
    const note = task({
      name: "plain",
      async run({ input }) {
        if (input === "suspect") await letGo.opened;
        else others.add(input);
      },
    });
    await using mill = await file.open([note]);
    const doomed = await StoreWorker.register(mill);
    await mill.enqueueMany(note, ["suspect"]);
    await doomed.claim(1);
    await doomed.die();
    await reapNow(mill);
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"], shouldAdvanceTime: true, advanceTimeDelta: 50 });
    try {
      const worker = mill.work({ concurrency: 2, lease: "1d" });
      await vi.waitUntil(() => worker.active === 1, { timeout: 20_000 });
      await mill.enqueue(note, "behind");
      expect(others.seen).toEqual([]);
      await vi.advanceTimersByTimeAsync(11_000);
      expect(await others.reached(1)).toEqual(["behind"]);
      letGo.open();
    } finally {
      vi.useRealTimers();
    }
  });

  test("claimed at the moment its worker is stopped is not run, and does not stay behind", async () => {
    await using mill = await file.open([task({ name: "plain", run: () => expect.unreachable() })]);
    const doomed = await StoreWorker.register(mill);
    const { id } = await mill.enqueue("plain", {});
    await doomed.claim(1);
    await doomed.die();
    await reapNow(mill);
    // The claim is asked for, and answered only after stop() was called.
    const asked = gate();
    const answer = gate();
    const rows = mill.db.rows.bind(mill.db);
    const slowly: typeof mill.db.rows = async (query) => {
      const isClaim = query.strings.join("").includes("suspect as materialized");
      if (isClaim) {
        asked.open();
        await answer.opened;
      }
      return rows(query);
    };
    Object.assign(mill.db, { rows: slowly });
    const worker = mill.work();
    await asked.opened;
    const stopped = worker.stop({ within: 1_000 });
    answer.open();
    expect(await stopped).toMatchObject({ hung: 0 });
    expect(await mill.job(id)).toMatchObject({ status: "waiting", attempt: 2 });
    expect(await rowCounts(mill.db)).toMatchObject({ leases: 0, pending: 1 });
  });
});

describe("a worker that was taken for dead and was not", () => {
  test("settles nothing: its late result is recorded as late, and the job runs elsewhere", async () => {
    const slowly = gate();
    const started = tally<number>();
    const note = task({
      name: "plain",
      async run({ attempt }) {
        started.add(attempt);
        if (started.seen.length === 1) await slowly.opened;
      },
    });
    const warned = tally<string>();
    const log: Log = { debug() {}, info() {}, warn: (_, message) => warned.add(message), error() {} };
    await using mill = await file.open([note], { log });
    const { id } = await mill.enqueue(note, {});
    const first = mill.work({ lease: "1h", concurrency: 1, name: "first" });
    await started.reached(1);
    await mill.db.query(sql`update millrace.workers set beat_at = now() - interval '2 hours'`);
    expect(await reapNow(mill)).toEqual({ workers: ["first"], requeued: 1, buried: 0 });
    const second = mill.work({ name: "second" });
    await started.reached(2);
    await second.stop();
    expect(await mill.job(id)).toMatchObject({ status: "completed", attempt: 2, worker: "second" });

    slowly.open();
    await first.stop();
    expect(await mill.job(id)).toMatchObject({ status: "completed", attempt: 2, worker: "second" });
    expect(await attemptsOf(mill, id)).toEqual([
      { attempt: 1, outcome: "lost", alone: true, late: false, code: "WORKER_LOST" },
      { attempt: 1, outcome: "succeeded", alone: false, late: true, code: null },
    ]);
    expect(warned.seen).toContain("results came after the lease was taken away; recorded, not applied");
    expect(await mill.stats("default")).toMatchObject([{ completed: 1, waiting: 0, active: 0 }]);
    expect(await places(mill.db)).toEqual({ [id]: "settled" });
  });

  test("hears of it with its next beat: its tasks are told, it registers anew and works on", async () => {
    const reasons = tally<unknown>();
    const ran = tally<unknown>();
    const first = gate();
    const note = task({
      name: "plain",
      async run({ input, signal }) {
        ran.add(input);
        if (ran.seen.length > 1) return;
        first.open();
        await new Promise<void>((resolve) =>
          signal.addEventListener("abort", () => {
            reasons.add(signal.reason);
            resolve();
          }),
        );
      },
    });
    await using mill = await file.open([note]);
    const { id } = await mill.enqueue(note, "one");
    const worker = mill.work({ lease: "1s", concurrency: 1, reapEvery: "1h" });
    await first.opened;
    await mill.db.query(sql`update millrace.workers set beat_at = now() - interval '1 hour'`);
    // its own beat may come first: then it was never dead
    await vi.waitUntil(
      async () => {
        await mill.db.query(
          sql`update millrace.workers set beat_at = now() - interval '1 hour' where stopped_at is null`,
        );
        return (await reapNow(mill)).workers.length > 0;
      },
      { timeout: 20_000 },
    );
    expect(await reasons.reached(1)).toMatchObject([{ code: "WORKER_LOST" }]);
    await mill.enqueue(note, "two");
    await ran.reached(3);
    await worker.stop();
    expect(ran.seen.toSorted()).toEqual(["one", "one", "two"]);
    expect(await mill.job(id)).toMatchObject({ status: "completed", attempt: 2 });
    expect(await mill.db.query(sql`select ended from millrace.workers order by id`)).toEqual([
      { ended: "lost" },
      { ended: "stopped" },
    ]);
  });

  test.each<[string, End, string]>([
    ["success", succeeded, "succeeded"],
    ["failure", { next: "retry", code: "LATE", delayMs: 0 }, "failed"],
    ["refusal", { next: "dead", code: "LATE" }, "failed"],
    ["snooze", { next: "again", delayMs: 0 }, "snoozed"],
    ["completion that did not commit", { ...succeeded, completed: true }, "succeeded"],
  ])("reports a %s: recorded once, applied never, however often it is sent", async (_, end, outcome) => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const [id = "", other = ""] = await mill.enqueueMany(plain, [1, 2]);
    const claim = await worker.claim(2);
    await worker.die();
    await reapNow(mill);
    const before = [await places(mill.db), await mill.db.query(sql`select * from millrace.pending order by job_id`)];
    expect(await worker.settle(claim, { [id]: end })).toEqual([id]);
    expect(await worker.settle(claim, { [id]: end })).toEqual([]);
    expect(await worker.settle(claim, { [id]: end, [other]: end })).toEqual([other]);
    expect([await places(mill.db), await mill.db.query(sql`select * from millrace.pending order by job_id`)]).toEqual(
      before,
    );
    expect(await attemptsOf(mill, id)).toMatchObject([
      { outcome: "lost", late: false },
      { outcome, late: true },
    ]);
    expect(await mill.job(id)).toMatchObject({ status: "waiting", attempt: 1, lastErrorCode: "WORKER_LOST" });
    expect(await mill.stats("default")).toMatchObject([{ completed: 0, failed: 0, waiting: 2 }]);
  });

  test("cannot close its batch as a whole, nor give it back, nor complete a job of it", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const [id = ""] = await mill.enqueueMany(plain, [1, 2]);
    const claim = await worker.claim(2);
    await worker.die();
    await reapNow(mill);
    const before = await rowCounts(mill.db);
    expect(await worker.close(claim)).toBe(false);
    expect(await worker.giveBack(claim)).toBe(0);
    expect(await worker.complete(claim, id)).toBe(false);
    expect(await rowCounts(mill.db)).toEqual(before);
  });
});

describe("another worker's lease", () => {
  test("cannot be settled, closed, given back or completed", async () => {
    await using mill = await file.open([plain]);
    const owner = await StoreWorker.register(mill);
    const thief = await StoreWorker.register(mill);
    const { id } = await mill.enqueue(plain, {});
    const claim = await owner.claim(1);
    expect(await thief.close(claim)).toBe(false);
    expect(await thief.giveBack(claim)).toBe(0);
    expect(await thief.complete(claim, id)).toBe(false);
    await thief.settle(claim, { [id]: { next: "dead" } });
    expect(await places(mill.db)).toEqual({ [id]: "lease" });
    expect(await owner.close(claim)).toBe(true);
    expect(await mill.job(id)).toMatchObject({ status: "completed" });
  });
});

describe("results sent twice, as after an answer that was lost", () => {
  test.each<[string, End]>([
    ["success", succeeded],
    ["retry", { next: "retry", delayMs: 3_600_000 }],
    ["retry at once", { next: "retry", delayMs: 0 }],
    ["dead letter", { next: "dead" }],
    ["snooze", { next: "again", delayMs: 60_000 }],
  ])("are one %s", async (_, end) => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const [id = "", open = ""] = await mill.enqueueMany(plain, [1, 2]);
    const claim = await worker.claim(2);
    const state = async (): Promise<unknown> => [await places(mill.db), await rowCounts(mill.db), await mill.job(id)];
    // the lease lives on with another job, and then does not
    await worker.settle(claim, { [id]: end });
    const after = await state();
    expect(await worker.settle(claim, { [id]: end })).toEqual([]);
    expect(await state()).toEqual(after);
    await worker.settle(claim, { [open]: end });
    const afterAll = await state();
    expect(await worker.settle(claim, { [id]: end, [open]: end })).toEqual([]);
    expect(await state()).toEqual(afterAll);
  });

  test("of a whole batch are one batch", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const ids = await mill.enqueueMany(plain, [1, 2, 3]);
    const claim = await worker.claim(3);
    expect(await worker.close(claim)).toBe(true);
    expect(await worker.close(claim)).toBe(false);
    // and then, as a worker does that never heard the answer, job by job
    expect(await worker.settle(claim, Object.fromEntries(ids.map((id) => [id, succeeded])))).toEqual([]);
    expect(await mill.stats("default")).toMatchObject([{ completed: 3, total: 3 }]);
    expect(await rowCounts(mill.db)).toMatchObject({ settled: 1, attempts: 0 });
  });
});

describe.runIf(backend === "postgres")("two claims at once", () => {
  test("share the jobs out: each is in one lease", async () => {
    await using mill = await file.open([plain]);
    await mill.enqueueMany(plain, Array.from({ length: 300 }));
    const workers = await Promise.all(Array.from({ length: 4 }, () => StoreWorker.register(mill)));
    const claims = await Promise.all(workers.flatMap((worker) => [worker.claim(50), worker.claim(50)]));
    const ids = claims.flatMap(({ jobs }) => jobs.map(({ id }) => id));
    expect(new Set(ids).size).toBe(ids.length);
    const left = await rowCounts(mill.db);
    expect((left["pending"] ?? 0) + ids.length).toBe(300);
    expect(Object.values(await places(mill.db)).filter((place) => place.includes("+") || place === "nowhere")).toEqual(
      [],
    );
  });
});
