/** What people do to jobs and queues: retry, promote, remove, clean; and that each refuses jobs of the wrong status. */
import { describe, expect, test, vi } from "vitest";
import { type JobStatus, type Millrace, task } from "millrace";
import { cancelJobs } from "../../src/jobs/cancel-store.ts";
import type { Database } from "../../src/db/database.ts";
import { cleanQueue } from "../../src/jobs/control-store.ts";
import { foldTallies } from "../../src/jobs/stats-store.ts";
import { sql } from "../../src/db/sql.ts";
import { backend } from "../support/database.ts";
import { foldAll, gate, places, rowCounts, tally, useDatabase } from "../support/engine.ts";
import { StoreWorker, succeeded } from "../support/store-worker.ts";

const file = useDatabase();
const plain = task({ name: "plain", run: () => undefined });

/** One job in each status there is a way to. */
async function oneOfEach(mill: Millrace): Promise<Record<Exclude<JobStatus, "blocked" | "cancelled">, string>> {
  const worker = await StoreWorker.register(mill);
  const ids = await mill.enqueueMany(plain, [1, 2, 3]);
  const [active, completed, failed] = ids as [string, string, string];
  const claim = await worker.claim(3);
  await worker.settle(claim, { [completed]: succeeded, [failed]: { next: "dead", code: "NO" } });
  const { id: waiting } = await mill.enqueue(plain, {}, { priority: -1 }); // behind what a second round will claim
  const { id: delayed } = await mill.enqueue(plain, {}, { delay: "1h" });
  return { waiting, delayed, active, completed, failed };
}

type Verb = "retry" | "promote" | "remove";
const works: Record<Verb, readonly JobStatus[]> = {
  retry: ["failed"],
  promote: ["delayed"],
  remove: ["waiting", "delayed", "completed", "failed"],
};

describe.each(Object.keys(works) as Verb[])("%s", (verb) => {
  test(`takes only a job that is ${works[verb].join(" or ")}; another is JOB_STATE, and untouched`, async () => {
    await using mill = await file.open([plain]);
    const each = await oneOfEach(mill);
    for (const [status, id] of Object.entries(each) as [JobStatus, string][]) {
      if (works[verb].includes(status)) continue;
      const before = [await mill.job(id), await rowCounts(mill.db), await places(mill.db)];
      await expect(mill[verb](id)).rejects.toMatchObject({
        code: "JOB_STATE",
        message: expect.stringContaining(`Job ${id} is ${status}; only a job that is `),
      });
      expect([await mill.job(id), await rowCounts(mill.db), await places(mill.db)]).toEqual(before);
    }
    for (const status of works[verb]) await mill[verb](each[status as keyof typeof each]);
  });

  test("of a job there is none of is JOB_NOT_FOUND", async () => {
    await using mill = await file.open([plain]);
    for (const id of ["018f0000-0000-7000-8000-000000000000", "nonsense", ""])
      await expect(mill[verb](id)).rejects.toMatchObject({ code: "JOB_NOT_FOUND" });
  });

  test("by many at once happens once", async () => {
    await using mill = await file.open([plain]);
    const id = (await oneOfEach(mill))[works[verb][0] as "failed" | "delayed" | "waiting"];
    const results = await Promise.allSettled(Array.from({ length: 5 }, () => mill[verb](id)));
    expect(results.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
    for (const result of results)
      if (result.status === "rejected")
        expect(["JOB_STATE", "JOB_NOT_FOUND"]).toContain((result.reason as { code: string }).code);
    expect(Object.values(await places(mill.db)).filter((place) => place === "nowhere" || place.includes("+"))).toEqual(
      [],
    );
  });
});

describe("retry", () => {
  test("runs the same job again, one attempt more, whatever its maximum, and wakes an idle worker", async () => {
    const attempts = tally<number>();
    const stubborn = task({
      name: "stubborn",
      maxAttempts: 1,
      run({ attempt }) {
        attempts.add(attempt);
        if (attempt < 3) throw new Error("not yet");
      },
    });
    await using mill = await file.open([stubborn]);
    const { id } = await mill.enqueue(stubborn, {});
    const worker = mill.work();
    for (const n of [1, 2]) {
      await attempts.reached(n);
      await vi.waitFor(async () => expect(await mill.job(id)).toMatchObject({ status: "failed", attempt: n }), {
        timeout: 20_000,
        interval: 5,
      });
      await mill.retry(id, { by: "ann" });
    }
    await attempts.reached(3);
    await worker.stop();
    expect(attempts.seen).toEqual([1, 2, 3]);
    expect(await mill.job(id)).toMatchObject({
      status: "completed",
      attempt: 3,
      maxAttempts: 1,
      deadLetterReason: null,
    });
    expect(
      await mill.db.query(sql`select action, by from millrace.operations where job_id = ${id}::uuid order by id`),
    ).toEqual([
      { action: "retry", by: "ann" },
      { action: "retry", by: "ann" },
    ]);
  });

  test("of a job at the highest attempt number there can be still works", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const { id } = await mill.enqueue(plain, {}, { maxAttempts: 32_767 });
    await mill.db.query(sql`update millrace.pending set attempt = 32767`);
    const claim = await worker.claim(1);
    await worker.settle(claim, { [id]: { next: "retry", delayMs: 0 } });
    expect(await mill.job(id)).toMatchObject({ status: "failed", attempt: 32_767 });
    await mill.retry(id);
    expect(await mill.job(id)).toMatchObject({ status: "waiting" });
  });
});

describe("promote", () => {
  test("makes a delayed job run now, whoever is idle, once", async () => {
    const ran = tally<unknown>();
    const note = task({ name: "note", run: ({ input }) => ran.add(input) });
    await using mill = await file.open([note]);
    const worker = mill.work();
    await worker.ready();
    const { id } = await mill.enqueue(note, "far", { delay: "30d" });
    await mill.promote(id, { by: "ann" });
    await ran.reached(1);
    await worker.stop();
    expect(await mill.job(id)).toMatchObject({ status: "completed", attempt: 1 });
    expect(await mill.db.query(sql`select action, by from millrace.operations`)).toEqual([
      { action: "promote", by: "ann" },
    ]);
  });

  test("of a job that waits for its retry keeps its attempt", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const { id } = await mill.enqueue(plain, {});
    const claim = await worker.claim(1);
    await worker.settle(claim, { [id]: { next: "retry", delayMs: 3_600_000 } });
    await mill.promote(id);
    expect(await mill.job(id)).toMatchObject({ status: "waiting", attempt: 2 });
    expect((await worker.claim(1)).jobs).toMatchObject([{ id, attempt: 2 }]);
  });

  test("finds a job whatever moved it last, however quickly one move followed another", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const { id } = await mill.enqueue(plain, {}, { delay: "1h" });
    for (let n = 0; n < 30; n += 1) {
      await mill.promote(id);
      const claim = await worker.claim(1);
      await worker.settle(claim, { [id]: { next: "again", delayMs: 3_600_000 + n } });
      expect(await mill.job(id)).toMatchObject({ status: "delayed" });
    }
    await mill.remove(id);
    expect(await rowCounts(mill.db)).toMatchObject({ jobs: 0, pending: 0, attempts: 0, operations: 0 });
  });
});

describe("remove", () => {
  test("takes the job and its history; nothing else", async () => {
    await using mill = await file.open([plain]);
    const each = await oneOfEach(mill);
    await mill.retry(each.failed);
    const keep = await mill.enqueue(plain, "keep");
    for (const id of [each.waiting, each.delayed, each.completed, each.failed]) await mill.remove(id);
    for (const id of [each.waiting, each.delayed, each.completed, each.failed])
      expect(await mill.job(id)).toBeUndefined();
    expect(await places(mill.db)).toEqual({ [each.active]: "lease", [keep.id]: "pending" });
    expect(await rowCounts(mill.db)).toMatchObject({
      jobs: 2,
      pending: 1,
      dead_letters: 0,
      attempts: 0,
      operations: 0,
    });
  });

  test("frees the job's idempotency key, for there is no job to give to the next caller", async () => {
    await using mill = await file.open([plain]);
    const first = await mill.enqueue(plain, 1, { idempotencyKey: "k" });
    await mill.enqueue(plain, 1, { idempotencyKey: "other" });
    await mill.remove(first.id);
    const second = await mill.enqueue(plain, 2, { idempotencyKey: "k" });
    expect(second.duplicate).toBe(false);
    expect(await mill.job(second.id)).toMatchObject({ input: 2 });
    expect(await mill.enqueue(plain, 3, { idempotencyKey: "other" })).toMatchObject({ duplicate: true });
  });

  test("of a job that is claimed at the same moment does one or the other", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    for (let n = 0; n < 20; n += 1) {
      const { id } = await mill.enqueue(plain, {});
      const [removed, claim] = await Promise.all([
        mill.remove(id).then(
          () => true,
          (error: { code: string }) => error.code,
        ),
        worker.claim(1),
      ]);
      if (removed === true) {
        expect(claim.jobs).toEqual([]);
        expect(await mill.job(id)).toBeUndefined();
      } else {
        expect(removed).toBe("JOB_STATE");
        expect(claim.jobs.map((job) => job.id)).toEqual([id]);
        await worker.close(claim);
      }
    }
  });

  test("of all jobs of one batch at once leaves none of them behind in history", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const ids = await mill.enqueueMany(plain, Array.from({ length: 12 }));
    await worker.close(await worker.claim(12));
    const [kept = "", ...removed] = ids;
    await foldAll(mill);
    await Promise.all(removed.map((id) => mill.remove(id)));
    expect(await mill.stats("default")).toMatchObject([{ completed: 1, total: 1 }]);
    expect(
      await mill.db.query(
        sql`select job_ids::text[] as ids, n, took_ms_sum::int as sum, cardinality(took_ms) as took from millrace.settled`,
      ),
    ).toEqual([{ ids: [kept], n: 1, sum: 1, took: 1 }]);
    await mill.remove(kept);
    expect(await mill.stats("default")).toMatchObject([{ completed: 0, total: 0 }]);
    expect(await mill.jobs({ status: "completed" })).toEqual({ jobs: [], next: null, looked: 0 });
    expect(await mill.clean("default", 0)).toEqual({ completed: 0, failed: 0, cancelled: 0 });
    expect(await rowCounts(mill.db)).toMatchObject({ settled: 0 });
  });

  test("takes a completed job out of the count of its queue", async () => {
    await using mill = await file.open([plain]);
    const each = await oneOfEach(mill);
    expect(await mill.stats("default")).toMatchObject([{ completed: 1 }]);
    await mill.remove(each.completed);
    expect(await mill.stats("default")).toMatchObject([{ completed: 0 }]);
    await mill.clean("default", 0);
    expect(await mill.stats("default")).toMatchObject([{ completed: 0, failed: 0 }]);
  });
});

describe("clean", () => {
  const yearAgo = async (mill: Millrace): Promise<void> => {
    await mill.db.query(sql`update millrace.settled set finished_at = finished_at - interval '1 year'`);
    await mill.db.query(sql`update millrace.dead_letters set failed_at = failed_at - interval '1 year'`);
  };

  test("deletes what ended longer ago than the grace, and only that", async () => {
    await using mill = await file.open([plain]);
    const old = await oneOfEach(mill);
    await yearAgo(mill);
    const recent = await oneOfEach(mill);
    const { id: elsewhere } = await mill.enqueue(plain, {}, { queue: "elsewhere" });
    const worker = await StoreWorker.register(mill);
    await worker.close(await worker.claim(1, "elsewhere"));
    await mill.db.query(
      sql`update millrace.settled set finished_at = finished_at - interval '1 year' where queue <> (select id from millrace.queues where name = 'default')`,
    );

    expect(await mill.clean("default")).toEqual({ completed: 1, failed: 1, cancelled: 0 });
    expect(await places(mill.db)).toEqual({
      [old.waiting]: "pending",
      [old.delayed]: "pending",
      [old.active]: "lease",
      [recent.waiting]: "pending",
      [recent.delayed]: "pending",
      [recent.active]: "lease",
      [recent.completed]: "settled",
      [recent.failed]: "dead",
      [elsewhere]: "settled",
    });
    expect(
      await mill.db.query(sql`select count(*)::int as n from millrace.attempts where job_id = ${old.failed}::uuid`),
    ).toEqual([{ n: 0 }]);
    expect(await mill.clean("default")).toEqual({ completed: 0, failed: 0, cancelled: 0 });
    expect(await mill.clean("default", "1m")).toEqual({ completed: 0, failed: 0, cancelled: 0 });
  });

  test("deletes what was cancelled longer ago than the grace, with what is known of it, in as many batches as it takes", async () => {
    await using mill = await file.open([plain]);
    await mill.enqueueMany(plain, Array.from({ length: 2_500 }), { tags: ["gone"] });
    const { id: elsewhere } = await mill.enqueue(plain, {}, { queue: "elsewhere" });
    await mill.cancel(elsewhere);
    const ids = (
      await mill.db.query<{ id: string }>(sql`select id::text from millrace.jobs where tags is not null`)
    ).map(({ id }) => id);
    await cancelJobs(mill.db, mill.channel, ids, { by: "ada", reason: null }, false);
    await mill.db.query(sql`update millrace.attempts set finished_at = finished_at - interval '2 days'`);
    const { id: recent } = await mill.enqueue(plain, {}, { idempotencyKey: "k" });
    await mill.cancel(recent);
    expect(await mill.clean("default")).toEqual({ completed: 0, failed: 0, cancelled: 2_500 });
    expect(await places(mill.db)).toEqual({ [elsewhere]: "cancelled", [recent]: "cancelled" });
    expect(await rowCounts(mill.db)).toMatchObject({ attempts: 2, operations: 2, idempotency_keys: 1 });
    expect(await mill.clean("default", 0)).toEqual({ completed: 0, failed: 0, cancelled: 1 });
    expect(await rowCounts(mill.db)).toMatchObject({ jobs: 1, idempotency_keys: 0 });
  });

  test("with no grace deletes everything that has ended, in as many batches as it takes", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    await mill.enqueueMany(plain, Array.from({ length: 3_300 }));
    for (let n = 0; n < 8; n += 1) await worker.close(await worker.claim(300));
    const claim = await worker.claim(1_000);
    const ends = claim.jobs.map(({ id }, n) => [id, n % 2 ? succeeded : { next: "dead" as const }] as const);
    await worker.settle(claim, Object.fromEntries(ends));
    expect(await mill.stats("default")).toMatchObject([{ completed: 2_850, failed: 450, active: 0 }]);
    expect(await mill.clean("default", 0)).toEqual({ completed: 2_850, failed: 450, cancelled: 0 });
    expect(await rowCounts(mill.db)).toMatchObject({ jobs: 0, settled: 0, dead_letters: 0, attempts: 0 });
    expect(await mill.stats("default")).toMatchObject([{ completed: 0, failed: 0, total: 0 }]);
  });

  test("deletes about a thousand jobs per transaction, whatever became of them", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    await mill.enqueueMany(plain, Array.from({ length: 3_500 }));
    for (let n = 0; n < 5; n += 1) await worker.close(await worker.claim(300));
    for (let n = 0; n < 2; n += 1) {
      const claim = await worker.claim(1_000);
      await worker.settle(claim, Object.fromEntries(claim.jobs.map(({ id }) => [id, { next: "dead" as const }])));
    }
    const taken: number[] = [];
    const watched: Database = {
      ...mill.db,
      async query<Row>(text: Parameters<Database["query"]>[0]): Promise<Row[]> {
        const rows = await mill.db.query<Row>(text);
        const { jobs } = (rows[0] ?? {}) as { jobs?: number };
        if (jobs !== undefined) taken.push(jobs);
        return rows;
      },
    };
    const cleaned = await cleanQueue(watched, await mill.names.queues.id("default"), 0, { by: null, reason: null });
    expect(cleaned).toEqual({ completed: 1_500, failed: 2_000, cancelled: 0 });
    // What was settled together goes together: four times 300.
    expect(taken.filter((jobs) => jobs > 0)).toEqual([1_200, 300, 1_000, 1_000]);
  });

  test("frees the idempotency keys of what it deletes, and no others", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const done = await mill.enqueue(plain, {}, { idempotencyKey: "done" });
    await worker.close(await worker.claim(1));
    const waiting = await mill.enqueue(plain, {}, { idempotencyKey: "waiting" });
    await mill.clean("default", 0);
    const again = await mill.enqueue(plain, {}, { idempotencyKey: "done" });
    expect(again.duplicate).toBe(false);
    expect(again.id).not.toBe(done.id);
    expect(await mill.enqueue(plain, {}, { idempotencyKey: "waiting" })).toEqual({ id: waiting.id, duplicate: true });
  });

  test("leaves the counts right, whether they were folded before or not", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const finish = async (n: number): Promise<void> => {
      await mill.enqueueMany(plain, Array.from({ length: n }));
      await worker.close(await worker.claim(n));
    };
    await finish(5);
    await yearAgo(mill);
    await foldAll(mill);
    await finish(7);
    expect(await mill.stats("default")).toMatchObject([{ completed: 12 }]);
    expect(await mill.clean("default")).toEqual({ completed: 5, failed: 0, cancelled: 0 });
    expect(await mill.stats("default")).toMatchObject([{ completed: 7 }]);
    expect(await mill.clean("default", 0)).toEqual({ completed: 7, failed: 0, cancelled: 0 });
    expect(await mill.stats("default")).toMatchObject([{ completed: 0 }]);
  });

  test.runIf(backend === "postgres")("by two at once counts each job once", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    await mill.enqueueMany(plain, [1, 2, 3]);
    await worker.close(await worker.claim(3));
    await foldAll(mill);
    const queue = await mill.names.queues.id("default");
    const firstIsIn = gate();
    const secondWaits = gate();
    const first = mill.db.transaction(async (tx) => {
      const cleaned = await cleanQueue({ ...mill.db, ...tx }, queue, 0, { by: null, reason: null });
      firstIsIn.open();
      await secondWaits.opened;
      return cleaned;
    });
    await firstIsIn.opened;
    const second = mill.clean("default", 0);
    await vi.waitFor(
      async () =>
        expect(await mill.db.query(sql`select count(*)::int as n from pg_locks where not granted`)).not.toEqual([
          { n: 0 },
        ]),
      { timeout: 20_000, interval: 5 },
    );
    secondWaits.open();
    expect([await first, await second]).toEqual([
      { completed: 3, failed: 0, cancelled: 0 },
      { completed: 0, failed: 0, cancelled: 0 },
    ]);
    expect(await mill.stats("default")).toMatchObject([{ completed: 0 }]);
  });

  test.runIf(backend === "postgres")("while the counts are being folded leaves them right", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    await mill.enqueueMany(plain, [1, 2, 3]);
    await worker.close(await worker.claim(3));
    await foldTallies(mill.db, 0);
    const folded = gate();
    const cleaning = gate();
    const folding = mill.db.transaction(async (tx) => {
      await foldAll({ db: { ...mill.db, transaction: (work) => work(tx) } });
      folded.open();
      await cleaning.opened;
    });
    await folded.opened;
    const cleaned = mill.clean("default", 0);
    await Promise.race([
      cleaned,
      vi.waitFor(
        async () =>
          expect(await mill.db.query(sql`select count(*)::int as n from pg_locks where not granted`)).not.toEqual([
            { n: 0 },
          ]),
        { timeout: 20_000, interval: 5 },
      ),
    ]);
    cleaning.open();
    await Promise.all([folding, cleaned]);
    expect(await mill.stats("default")).toMatchObject([{ completed: 0 }]);
  });

  test("is refused a grace that is no duration", async () => {
    await using mill = await file.open([plain]);
    await mill.enqueue(plain, {});
    await expect(mill.clean("default", "old" as never)).rejects.toMatchObject({ code: "OPTION_INVALID" });
  });
});
