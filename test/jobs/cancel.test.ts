/** Cancelling jobs, wherever they are; and that each is in exactly one place afterwards, whoever else was at it. */
import { describe, expect, test, vi } from "vitest";
import { type EnqueueOptions, type JobContext, type Millrace, task } from "millrace";
import { silent } from "../../src/core/log.ts";
import { cancelJobs, finishRequests, markIgnored, requestsFor } from "../../src/jobs/cancel-store.ts";
import { Cancels } from "../../src/jobs/cancels.ts";
import { Lease } from "../../src/jobs/ledger.ts";
import { Runner } from "../../src/jobs/runner.ts";
import { type Host, RunningJob } from "../../src/jobs/running.ts";
import type { Settler } from "../../src/jobs/settler.ts";
import { sql } from "../../src/db/sql.ts";
import { gate, places, rowCounts, tally, useDatabase } from "../support/engine.ts";
import { StoreWorker, reapNow, succeeded } from "../support/store-worker.ts";

const file = useDatabase();
const plain = task({ name: "plain", run: () => undefined });
const nobody = { by: null, reason: null };
const now = { within: 0 } as const;

/** Ends when its signal says so, in the way given. */
function obedient(end: (context: JobContext) => void) {
  const started = tally<JobContext>();
  const definition = task({
    name: "obedient",
    async run(context) {
      started.add(context);
      await new Promise((resolve) => context.signal.addEventListener("abort", resolve));
      end(context);
    },
  });
  return { definition, started };
}

const history = async ({ db }: Millrace, id: string): Promise<unknown[]> =>
  db.query(sql`
    select outcome, error_code as code, error_message as message, attempt::int, started_at is null as unstarted
    from millrace.attempts where job_id = ${id}::uuid order by id`);
const operations = async ({ db }: Millrace, id: string): Promise<unknown[]> =>
  db.query(sql`select action, by, reason from millrace.operations where job_id = ${id}::uuid order by id`);
const requests = async ({ db }: Millrace): Promise<number> => (await rowCounts(db))["cancel_requests"] as number;

/** A job that a worker holds. */
async function claimed(mill: Millrace, options: EnqueueOptions = {}) {
  const worker = await StoreWorker.register(mill);
  const { id } = await mill.enqueue(plain, {}, options);
  return { worker, id, claim: await worker.claim(1) };
}

/** Retries a dead letter: it waits, and no earlier cancel ends it. */
async function retryAndStay(mill: Millrace, id: string): Promise<void> {
  await mill.retry(id);
  expect(await finishRequests(mill.db)).toBe(0);
  expect(await mill.job(id)).toMatchObject({ status: "waiting" });
}

describe("a job that waits", () => {
  test.each(["waiting", "delayed", "blocked"])("and is %s is cancelled at once, with who and why", async (status) => {
    await using mill = await file.open([plain]);
    const { id } = await mill.enqueue(plain, {}, status === "delayed" ? { delay: "1h", priority: 5 } : {});
    if (status === "blocked") {
      await mill.db.query(sql`update millrace.jobs set run_at = 'infinity'`);
      await mill.db.query(sql`update millrace.pending set run_at = 'infinity'`);
    }
    expect(await mill.job(id)).toMatchObject({ status });
    expect(await mill.cancel(id, { by: "ann", reason: "wrong customer" })).toEqual({
      status: "cancelled",
      ignored: false,
    });
    expect(await mill.job(id)).toMatchObject({
      status: "cancelled",
      attempt: 1,
      lastErrorCode: "CANCELLED",
      lastErrorMessage: "Cancelled by ann: wrong customer",
      deadLetterReason: null,
      startedAt: null,
      finishedAt: expect.any(Date),
    });
    expect(await places(mill.db)).toEqual({ [id]: "cancelled" });
    expect(await operations(mill, id)).toEqual([{ action: "cancel", by: "ann", reason: "wrong customer" }]);
    expect((await mill.jobs({ status: "cancelled" })).jobs).toMatchObject([{ id }]);
  });

  test("for its retry is cancelled where its retry put it, and never runs", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const { id } = await mill.enqueue(plain, {}, { priority: 3 });
    await worker.settle(await worker.claim(1), { [id]: { next: "retry", delayMs: 3_600_000, code: "AGAIN" } });
    expect(await mill.cancel(id)).toEqual({ status: "cancelled", ignored: false });
    expect(await mill.job(id)).toMatchObject({ status: "cancelled", attempt: 2, lastErrorMessage: "Cancelled." });
    await mill.db.query(sql`update millrace.pending set run_at = now()`);
    expect((await worker.claim(1)).jobs).toEqual([]);
  });
});

describe("a job that runs", () => {
  test("has its signal aborted with CANCELLED; when it throws, it is cancelled: no retry, no dead letter", async () => {
    const { definition, started } = obedient(({ signal }) => signal.throwIfAborted());
    await using mill = await file.open([definition]);
    const { id } = await mill.enqueue(definition, {});
    mill.work();
    const [context] = await started.reached(1);
    expect(await mill.cancel(id, { by: "ann", reason: "too dear", within: "30s" })).toEqual({
      status: "cancelled",
      ignored: false,
    });
    expect(context?.signal.reason).toMatchObject({ code: "CANCELLED" });
    expect(await history(mill, id)).toEqual([
      { outcome: "cancelled", code: "CANCELLED", message: "Cancelled by ann: too dear", attempt: 1, unstarted: false },
    ]);
    expect(await operations(mill, id)).toEqual([{ action: "cancel", by: "ann", reason: "too dear" }]);
    expect(await mill.job(id)).toMatchObject({ status: "cancelled", deadLetterReason: null });
    expect(await requests(mill)).toBe(0);
    expect(started.seen).toHaveLength(1);
  });

  test("and looked at its signal is cancelled even when it then returns as if nothing were", async () => {
    const { definition, started } = obedient(() => undefined);
    await using mill = await file.open([definition]);
    const { id } = await mill.enqueue(definition, {});
    mill.work();
    await started.reached(1);
    expect(await mill.cancel(id, { within: "30s" })).toMatchObject({ status: "cancelled" });
  });

  test("and never looks at its signal has done its work when it returns: the cancel came too late", async () => {
    const started = gate();
    const end = gate();
    const deaf = task({
      name: "deaf",
      async run() {
        started.open();
        await end.opened;
      },
    });
    await using mill = await file.open([deaf]);
    const { id } = await mill.enqueue(deaf, {});
    mill.work();
    await started.opened;
    expect(await mill.cancel(id, now)).toEqual({ status: "cancelling", ignored: false });
    expect(await mill.cancel(id, now)).toEqual({ status: "cancelling", ignored: false });
    const cancelled = mill.cancel(id, { within: "30s" });
    end.open();
    expect(await cancelled).toEqual({ status: "completed", ignored: false });
    expect(await operations(mill, id)).toHaveLength(1);
    expect(await finishRequests(mill.db)).toBe(0);
    expect(await requests(mill)).toBe(0);
  });

  test("and throws without having looked at its signal is cancelled, not tried again", async () => {
    const started = gate();
    const end = gate();
    const deaf = task({
      name: "deaf",
      async run() {
        started.open();
        await end.opened;
        throw new Error("something else");
      },
    });
    await using mill = await file.open([deaf]);
    const { id } = await mill.enqueue(deaf, {});
    mill.work();
    await started.opened;
    await mill.cancel(id, now);
    // whatever arrives first, the NOTIFY or the end: the job is cancelled, if only when it waits for its retry
    end.open();
    expect(await mill.cancel(id, { within: "30s" }).catch(() => mill.job(id))).toMatchObject({ status: "cancelled" });
    expect(await places(mill.db)).toEqual({ [id]: "cancelled" });
  });

  test("and ignores the cancel is told so by the answer", async () => {
    await using mill = await file.open([plain]);
    const { id } = await claimed(mill);
    await mill.cancel(id, now);
    await markIgnored(mill.db, id);
    expect(await mill.cancel(id, now)).toEqual({ status: "cancelling", ignored: true });
  });

  test("and completed itself in a transaction that committed is completed", async () => {
    await using mill = await file.open([plain]);
    const { worker, id, claim } = await claimed(mill);
    await worker.complete(claim, id);
    await mill.cancel(id, now);
    await worker.settle(claim, { [id]: { next: "cancelled", code: "CANCELLED", completed: true } });
    expect(await places(mill.db)).toEqual({ [id]: "settled" });
  });
});

describe("a cancel that its worker never answers", () => {
  test("of a job whose worker was lost is done when the job is taken back, before another worker can begin it", async () => {
    await using mill = await file.open([plain]);
    const { worker, id } = await claimed(mill);
    await worker.die();
    expect(await mill.cancel(id, { by: "ann", ...now })).toEqual({ status: "cancelling", ignored: false });
    expect(await finishRequests(mill.db)).toBe(0); // nobody has taken it back yet
    const { id: other } = await mill.enqueue(plain, {});
    await mill.db.query(sql`insert into millrace.cancel_requests (job_id) values (${other}::uuid)`);
    await reapNow(mill);
    expect(await mill.job(other)).toMatchObject({ status: "waiting" }); // not one that was taken back: the next round's
    expect(await finishRequests(mill.db)).toBe(1);
    expect(await mill.job(id)).toMatchObject({ status: "cancelled", lastErrorMessage: "Cancelled by ann." });
    expect(await operations(mill, id)).toHaveLength(1);
    expect(await requests(mill)).toBe(0);
  });

  test("is done by whoever waits for the answer, in the name of who asked first", async () => {
    await using mill = await file.open([plain]);
    const { worker, id, claim } = await claimed(mill);
    await mill.cancel(id, { by: "ann", ...now });
    const cancelled = mill.cancel(id, { by: "bob", within: "30s" });
    await worker.giveBack(claim);
    expect(await cancelled).toEqual({ status: "cancelled", ignored: false });
    expect(await mill.job(id)).toMatchObject({ lastErrorMessage: "Cancelled by ann." });
  });

  test("is forgotten when the job became a dead letter: an operator's retry is not cancelled", async () => {
    await using mill = await file.open([plain]);
    const { worker, id, claim } = await claimed(mill);
    await mill.cancel(id, now);
    await worker.settle(claim, { [id]: { next: "dead", code: "NO" } });
    expect(await requests(mill)).toBe(0);
    await retryAndStay(mill, id);
  });

  test("is forgotten by an operator's retry when the job was given up with its worker", async () => {
    await using mill = await file.open([plain]);
    const { worker, id } = await claimed(mill, { maxAttempts: 1 });
    await mill.cancel(id, now);
    await worker.die();
    await reapNow(mill);
    expect(await mill.job(id)).toMatchObject({ status: "failed", deadLetterReason: "MAX_ATTEMPTS_EXCEEDED" });
    expect(await requests(mill)).toBe(1);
    await retryAndStay(mill, id);
  });

  test("is forgotten when the job is removed", async () => {
    await using mill = await file.open([plain]);
    const { worker, id, claim } = await claimed(mill);
    await mill.cancel(id, now);
    await worker.close(claim);
    await mill.db.query(sql`delete from millrace.jobs`);
    expect(await finishRequests(mill.db)).toBe(0);
    expect(await requests(mill)).toBe(0);
  });

  test("of another process reaches the task within a second, its NOTIFY heard or lost", async () => {
    const started = tally<string>();
    const told = tally<{ id: string; at: number }>();
    const hold = task({
      name: "hold",
      run: ({ id, signal }) =>
        new Promise((_, reject) => {
          signal.addEventListener("abort", () => {
            told.add({ id, at: performance.now() });
            reject(signal.reason as Error);
          });
          started.add(id);
        }),
    });
    await using working = await file.open([hold]);
    await using asking = await file.open([hold], { schema: working.db.schema });
    working.work({ concurrency: 10 });
    const ids = await asking.enqueueMany(hold, [1, 2, 3, 4, 5, 6]);
    await started.reached(6);
    const askedAt = new Map<string, number>();
    for (const [n, id] of ids.entries()) {
      askedAt.set(id, performance.now());
      // Nobody listens there: as if the NOTIFY had been lost.
      if (n % 2 === 0) await cancelJobs(asking.db, "nobody_listens", [id], nobody, true);
      else expect(await asking.cancel(id, { within: 0 })).toMatchObject({ status: "cancelling" });
      await told.reached(n + 1);
    }
    const waits = told.seen.map(({ id, at }) => at - (askedAt.get(id) ?? 0));
    expect(Math.max(...waits)).toBeLessThan(1_000);
  }, 60_000);

  test("reaches the task all the same when the NOTIFY was missed", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const [running = "", buffered = "", other = ""] = await mill.enqueueMany(plain, [1, 2, 3]);
    const claim = await worker.claim(2);
    await cancelJobs(mill.db, "nobody_listens", [running, buffered, other], nobody, true);
    expect(await requestsFor(mill.db, worker.id)).toEqual([running, buffered].toSorted());
    expect(await places(mill.db)).toEqual({ [running]: "lease", [buffered]: "lease", [other]: "cancelled" });

    const runner = new Runner(1, silent, () => undefined);
    const lease = new Lease(claim.lease, 1, "default", 0, 2);
    const endless = task({ name: "endless", run: ({ signal }) => new Promise(() => signal) });
    const jobs = claim.jobs.map(({ row }) => new RunningJob(row, lease, endless, {} as Host));
    runner.add(jobs);
    runner.startNext();
    const cancelled: string[] = [];
    const settler = { cancelled: (taken: RunningJob[]) => void cancelled.push(...taken.map(({ id }) => id)) };
    const setting = { db: mill.db, log: silent, quiet: () => false, pump: () => undefined };
    const cancels = new Cancels({ ...setting, workerId: () => worker.id }, runner, settler as unknown as Settler);
    await cancels.chores[0]?.run();
    expect(jobs[0]?.signal.aborted).toBe(true);
    expect(cancelled).toEqual([jobs[1]?.id]);
    expect(runner.buffered).toBe(0);
    runner.close();
  });
});

describe("a job that was claimed and not started", () => {
  test("is cancelled without a start, and its lease is settled", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const ids = await mill.enqueueMany(plain, [1, 2]);
    const [first = "", second = ""] = ids;
    const claim = await worker.claim(2);
    await mill.cancel(second, now);
    await worker.settle(claim, { [first]: succeeded, [second]: { next: "cancelled", startedMs: null } });
    expect(await history(mill, second)).toMatchObject([{ outcome: "cancelled", unstarted: true }]);
    expect(await places(mill.db)).toEqual({ [first]: "settled", [second]: "cancelled" });
    expect(await rowCounts(mill.db)).toMatchObject({ leases: 0, cancel_requests: 0, dead_letters: 0 });
  });
});

test("a job that has ended is JOB_STATE, one there is none of JOB_NOT_FOUND, and nothing is written", async () => {
  await using mill = await file.open([plain]);
  const worker = await StoreWorker.register(mill);
  const [completed = "", failed = ""] = await mill.enqueueMany(plain, [1, 2]);
  await worker.settle(await worker.claim(2), { [completed]: succeeded, [failed]: { next: "dead", code: "NO" } });
  const { id: cancelled } = await mill.enqueue(plain, {});
  await mill.cancel(cancelled);
  const before = [await rowCounts(mill.db), await places(mill.db)];
  for (const [status, id] of Object.entries({ completed, failed, cancelled }))
    await expect(mill.cancel(id)).rejects.toMatchObject({
      code: "JOB_STATE",
      message: `Job ${id} is ${status}; only a job that is waiting or delayed or blocked or active can be cancelled.`,
    });
  for (const id of ["018f0000-0000-7000-8000-000000000000", "nonsense"])
    await expect(mill.cancel(id)).rejects.toMatchObject({ code: "JOB_NOT_FOUND" });
  expect([await rowCounts(mill.db), await places(mill.db)]).toEqual(before);
});

test("options are read strictly", async () => {
  await using mill = await file.open([plain]);
  const { id } = await mill.enqueue(plain, {});
  await expect(mill.cancel(id, { wait: "1s" } as never)).rejects.toMatchObject({ code: "OPTION_UNKNOWN" });
  await expect(mill.cancel(id, { within: "soon" as never })).rejects.toMatchObject({ code: "OPTION_INVALID" });
  await expect(mill.cancel(id, { by: "a\0b" })).rejects.toMatchObject({ code: "OPTION_INVALID" });
  await expect(mill.cancel(id, { reason: "x".repeat(1_001) })).rejects.toMatchObject({ code: "OPTION_INVALID" });
  expect(await mill.job(id)).toMatchObject({ status: "waiting" });
});

test("jobs cancelled while workers claim and settle them end in exactly one place", async () => {
  const jobs = 400;
  const started = tally<string>();
  const quick = task({ name: "quick", run: ({ id }) => started.add(id) });
  const slow = task({
    name: "slow",
    async run({ signal }) {
      await new Promise((resolve) => setImmediate(resolve));
      signal.throwIfAborted();
    },
  });
  await using mill = await file.open([quick, slow]);
  const ids = (
    await Promise.all([
      mill.enqueueMany(quick, Array.from({ length: jobs / 2 })),
      mill.enqueueMany(slow, Array.from({ length: jobs / 2 })),
    ])
  ).flat();
  const workers = [mill.work({ concurrency: 5 }), mill.work({ concurrency: 5 })];
  const order = ids.toSorted((a, b) => (a.slice(-4) < b.slice(-4) ? -1 : 1));
  const results = await Promise.allSettled(order.map((id) => mill.cancel(id, { within: "30s" })));
  for (const [i, result] of results.entries()) {
    if (result.status === "rejected") expect(result.reason).toMatchObject({ code: "JOB_STATE" });
    else expect(await mill.job(order[i] as string)).toMatchObject({ status: result.value.status });
  }
  await vi.waitFor(async () => expect((await mill.stats())[0]).toMatchObject({ waiting: 0, active: 0 }), {
    timeout: 20_000,
    interval: 5,
  });
  await Promise.all(workers.map((worker) => worker.stop()));
  const all = Object.values(await places(mill.db));
  expect(all).toHaveLength(jobs);
  expect(all.filter((place) => place !== "settled" && place !== "cancelled")).toEqual([]);
});
