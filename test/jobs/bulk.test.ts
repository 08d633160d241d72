/** One action on many jobs: exactly those that match, counted exactly, whoever dies in the middle of it. */
import { describe, expect, test } from "vitest";
import { type AnyTask, type Millrace, defineApp, task } from "millrace";
import type { BulkFilter, BulkOptions } from "../../src/app/bulk.ts";
import type { Database } from "../../src/db/database.ts";
import { sql } from "../../src/db/sql.ts";
import type { BulkOperation } from "../../src/jobs/bulk-store.ts";
import { archive } from "../../src/jobs/maintenance-store.ts";
import type { BulkAction } from "../../src/jobs/bulk-walk-store.ts";
import { runBulk } from "../../src/jobs/bulk.ts";
import { silent } from "../../src/core/log.ts";
import { foldAll, gate, places, rowCounts, tally, useDatabase, withinAMinute } from "../support/engine.ts";
import { type End, StoreWorker, reapNow, succeeded } from "../support/store-worker.ts";

const file = useDatabase();
const plain = task({ name: "plain", run: () => undefined });
const other = task({ name: "other", run: () => undefined });
const nowhere = "018f0000-0000-7000-8000-000000000000";
const fast = { perSecond: 100_000 } as const;

/** Carries an operation out in this process, without a worker. `db` stands between it and the database. */
async function carryOut(mill: Millrace, id: string, db: Database = mill.db): Promise<void> {
  const snooze = (): never => {
    throw new Error("its turn is over");
  };
  const job = { id, signal: new AbortController().signal, log: silent, snooze };
  const { admission, channel } = mill;
  await runBulk({ db, channel, admission, now: Date.now }, job);
}

async function bulk(
  mill: Millrace,
  action: BulkAction,
  filter: BulkFilter,
  options: Omit<BulkOptions, "dryRun"> = {},
): Promise<BulkOperation> {
  const { id } = await mill.bulk(action, filter, { ...fast, ...options });
  await carryOut(mill, id);
  return mill.bulkOperation(id);
}

/** So many jobs, each ended in its way. */
async function ended(
  mill: Millrace,
  of: AnyTask,
  ends: readonly End[],
  options: { queue?: string; tags?: string[] } = {},
): Promise<string[]> {
  const worker = await StoreWorker.register(mill);
  const ids = await mill.enqueueMany(of as typeof plain, Array.from({ length: ends.length }), options);
  const claim = await worker.claim(ends.length, options.queue ?? "default");
  await worker.settle(claim, Object.fromEntries(ids.map((id, i) => [id, ends[i] as End])));
  return ids;
}

const dead = (code = "NO"): End => ({ next: "dead", code });
const many = <Item>(n: number, item: Item): Item[] => Array.from({ length: n }, () => item);

/** How many jobs of the app, without the operations' own, are where. */
async function census(mill: Millrace): Promise<Record<string, number>> {
  const own = new Set((await mill.bulkOperations()).map(({ id }) => id));
  const counts: Record<string, number> = {};
  for (const [id, place] of Object.entries(await places(mill.db)))
    if (!own.has(id)) counts[place] = (counts[place] ?? 0) + 1;
  return counts;
}

describe("each action", () => {
  test("retry makes dead letters wait, those that match", async () => {
    await using mill = await file.open([plain, other]);
    const wanted = await ended(mill, plain, many(3, dead("TIMEOUT")));
    await ended(mill, plain, many(2, dead("OTHER")));
    await ended(mill, other, many(2, dead("TIMEOUT")));
    await ended(mill, plain, many(1, dead("TIMEOUT")), { queue: "elsewhere" });
    const filter = { errorCode: "TIMEOUT", task: "plain", queue: "default" };
    expect(await mill.bulk("retry", filter, { dryRun: true })).toEqual({
      action: "retry",
      expected: 3,
      moreThanExpected: false,
    });
    expect(await census(mill)).toEqual({ dead: 8 });
    expect(await bulk(mill, "retry", filter, { by: "ann", reason: "fixed" })).toMatchObject({
      status: "completed",
      expected: 3,
      lookedAt: 3,
      changed: 3,
      createdBy: "ann",
      filter: { ...filter, status: "failed" },
    });
    for (const id of wanted) expect(await mill.job(id)).toMatchObject({ status: "waiting", attempt: 2 });
    expect(await census(mill)).toEqual({ dead: 5, pending: 3 });
    expect(
      await mill.db.query(sql`select distinct action, by, reason from millrace.operations where action = 'retry'`),
    ).toEqual([{ action: "retry", by: "ann", reason: "fixed" }]);
  });

  test("cancel takes what waits, and of what runs only with status active or by id", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const [held = "", alsoHeld = ""] = await mill.enqueueMany(plain, [1, 2], { tags: ["x"] });
    await worker.claim(2);
    await mill.enqueueMany(plain, [1, 2, 3], { tags: ["x"] });
    await mill.enqueueMany(plain, [1, 2], { tags: ["x"], delay: "1h" });
    await mill.enqueueMany(plain, [1], { tags: ["y"] });
    expect(await bulk(mill, "cancel", { tag: "x" })).toMatchObject({ expected: 5, changed: 5 });
    expect(await census(mill)).toEqual({ cancelled: 5, lease: 2, pending: 1 });
    expect(await bulk(mill, "cancel", { status: "active", tag: "x" })).toMatchObject({ expected: 2, changed: 2 });
    expect(await mill.cancel(held, { within: 0 })).toEqual({ status: "cancelling", ignored: false });
    expect(await rowCounts(mill.db)).toMatchObject({ cancel_requests: 2 });
    expect(await bulk(mill, "cancel", { ids: [alsoHeld] })).toMatchObject({ lookedAt: 1, changed: 1 });
  });

  test("replay makes a new job of each, and none of those", async () => {
    await using mill = await file.open([plain]);
    const old = [...(await ended(mill, plain, many(3, dead()))), ...(await ended(mill, plain, many(2, succeeded)))];
    expect(await bulk(mill, "replay", { task: "plain" }, { queue: "again", priority: 4 })).toMatchObject({
      expected: 5,
      lookedAt: 5,
      changed: 5,
    });
    const { jobs } = await mill.jobs({ queue: "again" });
    expect(jobs.map(({ replayOf }) => replayOf).toSorted()).toEqual(old.toSorted());
    expect(jobs.every(({ priority, status }) => priority === 4 && status === "waiting")).toBe(true);
  });

  test("replay and remove find what was archived, by every filter, each once", async () => {
    await using mill = await file.open([plain]);
    const old = await ended(mill, plain, many(3, succeeded), { tags: ["x"] });
    expect(await archive(mill.db, -1)).toMatchObject({ jobs: 3 });
    const fresh = await ended(mill, plain, many(2, succeeded), { tags: ["x"] });
    const filters = [{ tag: "x" }, { tag: "x", status: "completed" }, { ids: [...old, ...fresh] }] as const;
    for (const [n, filter] of filters.entries()) {
      const counts = { expected: 5, lookedAt: 5, changed: 5 };
      expect(await bulk(mill, "replay", filter, { queue: `again-${n}` })).toMatchObject(counts);
      const { jobs } = await mill.jobs({ queue: `again-${n}` });
      expect(jobs.map(({ replayOf }) => replayOf).toSorted()).toEqual([...old, ...fresh].toSorted());
      await bulk(mill, "remove", { queue: `again-${n}` });
    }
    expect(await bulk(mill, "remove", { status: "completed" })).toMatchObject({ expected: 5, changed: 5 });
    expect(await census(mill)).toEqual({});
    expect(await mill.db.query(sql`select from millrace.jobs_archive`)).toEqual([]);
  });

  test("replay takes half of what a queue lets in per minute, leaves the rest to producers, and goes on in the next", async () => {
    await using mill = await file.open([plain]);
    await mill.policies.set("default", { maxEnqueuePerMinute: 7 });
    await withinAMinute(mill, async () => {
      const old = await ended(mill, plain, many(11, dead()), { queue: "old" });
      const { id } = await mill.bulk("replay", { queue: "old" }, { ...fast, queue: "default" });
      await expect(carryOut(mill, id)).rejects.toThrow("its turn is over");
      expect(await mill.bulkOperation(id)).toMatchObject({ status: "running", lookedAt: 4, changed: 4 });
      await expect(carryOut(mill, id)).rejects.toThrow("its turn is over");
      await mill.enqueueMany(plain, [1, 2, 3]);
      await expect(mill.enqueue(plain, 4)).rejects.toMatchObject({ code: "ENQUEUE_RATE_EXCEEDED" });
      const minutePasses = () => mill.db.query(sql`delete from millrace.enqueue_rate_counters`);
      await minutePasses();
      await expect(carryOut(mill, id)).rejects.toThrow("its turn is over");
      expect(await mill.bulkOperation(id)).toMatchObject({ lookedAt: 8, changed: 8 });
      await minutePasses();
      await carryOut(mill, id);
      expect(await mill.bulkOperation(id)).toMatchObject({ status: "completed", expected: 11, changed: 11 });
      const replays = await mill.db.query<{ of: string }>(
        sql`select replay_of::text as of from millrace.jobs where replay_of is not null`,
      );
      expect(replays.map(({ of }) => of).toSorted()).toEqual(old.toSorted());
    });
  });

  test("remove deletes jobs of any status but active, and leaves the counts right", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const [held = ""] = await mill.enqueueMany(plain, [1], { tags: ["x"] });
    await worker.claim(1);
    const kept = await ended(mill, plain, [...many(3, succeeded), dead()]);
    await ended(mill, plain, [...many(4, succeeded), ...many(2, dead())], { tags: ["x"] });
    await foldAll(mill);
    await ended(mill, plain, many(5, succeeded), { tags: ["x"] });
    await mill.enqueueMany(plain, [1, 2], { tags: ["x"] });
    const [{ id: cancelled }] = [await mill.enqueue(plain, {}, { tags: ["x"] })];
    await mill.cancel(cancelled);
    expect(await bulk(mill, "remove", { tag: "x" })).toMatchObject({ expected: 15, lookedAt: 15, changed: 14 });
    expect(await census(mill)).toEqual({ settled: 3, dead: 1, lease: 1 });
    expect(await mill.stats("default")).toMatchObject([{ completed: 3, failed: 1, active: 1, waiting: 0 }]);
    expect(await bulk(mill, "remove", { status: "completed" })).toMatchObject({ expected: 3, changed: 3 });
    expect(await mill.stats("default")).toMatchObject([{ completed: 0 }]);
    expect(await census(mill)).toEqual({ dead: 1, lease: 1 });
    expect(await mill.job(kept[3] as string)).toMatchObject({ status: "failed" });
    expect(await mill.job(held)).toMatchObject({ status: "active" });
  });

  test("remove of some jobs of one settled batch keeps the others, with their times", async () => {
    await using mill = await file.open([plain]);
    const ids = await ended(mill, plain, many(6, succeeded));
    const gone = [ids[1], ids[4], ids[5]] as string[];
    await bulk(mill, "remove", { ids: gone });
    expect(
      await mill.db.query(
        sql`select n, job_ids::text[] as ids, took_ms_sum::int as sum, cardinality(started_ms) as s, cardinality(took_ms) as t from millrace.settled`,
      ),
    ).toEqual([{ n: 3, ids: ids.filter((id) => !gone.includes(id)), sum: 6, s: 3, t: 3 }]);
  });

  test("reprioritise and move put jobs elsewhere in line, and each once", async () => {
    await using mill = await file.open([plain]);
    await mill.enqueueMany(plain, many(700, 1), { priority: 1 });
    await mill.enqueueMany(plain, many(5, 1), { priority: 9 });
    await mill.enqueueMany(plain, many(3, 1), { delay: "1h" });
    // those that are there already are no matter
    expect(await bulk(mill, "reprioritise", { queue: "default" }, { priority: 9 })).toMatchObject({
      expected: 703,
      lookedAt: 703,
      changed: 703,
    });
    expect(
      await mill.db.query(sql`select rank::int, count(*)::int as n from millrace.pending where line = 1 group by rank`),
    ).not.toContainEqual({ rank: -1, n: 700 });
    expect((await mill.jobs({ queue: "default", limit: 500 })).jobs.every(({ priority }) => priority === 9)).toBe(true);
    expect(await bulk(mill, "move", { status: "waiting", queue: "default" }, { queue: "zone" })).toMatchObject({
      expected: 705,
      lookedAt: 705,
      changed: 705,
    });
    expect(await mill.stats("zone")).toMatchObject([{ waiting: 705 }]);
    expect(await mill.stats("default")).toMatchObject([{ waiting: 0, delayed: 3 }]);
  });
});

test("jobs of Millrace's own tasks are begun by nobody else", async () => {
  await using mill = await file.open([plain]);
  await ended(mill, plain, many(2, dead()));
  const { id } = await mill.bulk("retry", { queue: "default" });
  const reserved = expect.objectContaining({ code: "TASK_RESERVED" });
  await expect(mill.replay(id)).rejects.toEqual(reserved);
  await expect(mill.enqueue("millrace.bulk", {})).rejects.toEqual(reserved);
  await expect(mill.enqueueMany("millrace.maintenance", [1])).rejects.toEqual(reserved);
  await expect(mill.enqueueFlow({ jobs: { a: { task: "millrace.bulk" } } })).rejects.toEqual(reserved);
  expect(() => defineApp({ tasks: [task({ name: "millrace.mine", run: () => undefined })] })).toThrow(reserved);
  expect(await bulk(mill, "replay", { queue: "maintenance" })).toMatchObject({ changed: 0 });
  expect(await mill.stats("maintenance")).toMatchObject([{ waiting: 2 }]);
});

describe("what matches", () => {
  test("a filter without a condition is FILTER_TOO_WIDE, unless all is said; a condition of undefined is none", async () => {
    await using mill = await file.open([plain]);
    await mill.enqueueMany(plain, [1, 2]);
    const before = await rowCounts(mill.db);
    for (const filter of [{}, { queue: undefined } as never])
      await expect(mill.bulk("cancel", filter)).rejects.toMatchObject({ code: "FILTER_TOO_WIDE" });
    await expect(mill.bulk("cancel", {}, { dryRun: true })).rejects.toMatchObject({ code: "FILTER_TOO_WIDE" });
    expect(await rowCounts(mill.db)).toEqual(before);
    // its own job waits too, and is left alone
    expect(await bulk(mill, "cancel", {}, { all: true })).toMatchObject({ expected: 2, changed: 2 });
  });

  test("nor is a condition that can leave nothing out: an age of 0, or the one status that the action takes", async () => {
    await using mill = await file.open([plain]);
    await mill.enqueueMany(plain, [1, 2]);
    const before = await rowCounts(mill.db);
    for (const [action, filter] of [
      ["cancel", { olderThan: "0s" }],
      ["remove", { olderThan: 0 }],
      ["retry", { status: "failed" }],
      ["retry", { status: "failed", olderThan: "0ms" }],
    ] as const)
      await expect(mill.bulk(action, filter)).rejects.toMatchObject({ code: "FILTER_TOO_WIDE" });
    expect(await rowCounts(mill.db)).toEqual(before);
    for (const filter of [{ olderThan: "1ms" }, { status: "waiting" }, { olderThan: 0, task: "plain" }] as const)
      await mill.bulk("cancel", filter, { dryRun: true });
    await mill.bulk("retry", { status: "failed" }, { all: true, dryRun: true });
  });

  test("a queue or a task that there is none of is refused, with the name that is near", async () => {
    await using mill = await file.open([plain]);
    await mill.enqueue(plain, 1, { queue: "mail" });
    await expect(mill.bulk("cancel", { queue: "maill" })).rejects.toMatchObject({
      code: "QUEUE_NOT_FOUND",
      message: 'There is no queue "maill". Did you mean "mail"?',
    });
    await expect(mill.bulk("cancel", { task: "plane" }, { dryRun: true })).rejects.toMatchObject({
      code: "TASK_NOT_FOUND",
      message: 'There is no task "plane". Did you mean "plain"?',
    });
    expect(await mill.bulkOperations()).toEqual([]);
  });

  test("words that are not understood are refused before anything is counted", async () => {
    await using mill = await file.open([plain]);
    const before = await rowCounts(mill.db);
    const refusals: [string, object, object, string][] = [
      ["rety", { queue: "a" }, {}, "OPTION_INVALID"],
      ["retry", { qeue: "a" }, {}, "OPTION_UNKNOWN"],
      ["retry", { queue: "a" }, { priority: 1 }, "OPTION_UNKNOWN"],
      ["retry", { status: "waiting" }, {}, "OPTION_INVALID"],
      ["remove", { status: "active" }, {}, "OPTION_INVALID"],
      ["cancel", { errorCode: "X" }, {}, "OPTION_INVALID"],
      ["replay", { status: "waiting", reason: "POISON" }, {}, "OPTION_INVALID"],
      ["reprioritise", { queue: "a" }, {}, "OPTION_INVALID"],
      ["move", { queue: "a" }, {}, "OPTION_INVALID"],
      ["move", { queue: "a" }, { queue: "no spaces" }, "QUEUE_NAME_INVALID"],
      ["cancel", { queue: "a" }, { perSecond: 0 }, "OPTION_INVALID"],
      ["cancel", { ids: ["x"] }, {}, "OPTION_INVALID"],
      ["cancel", { ids: [] }, {}, "OPTION_INVALID"],
      ["cancel", { olderThan: "old" }, {}, "OPTION_INVALID"],
      ["cancel", { tag: "a\0" }, {}, "OPTION_INVALID"],
      ["cancel", { status: "gone" }, {}, "OPTION_INVALID"],
      ["replay", { queue: "a" }, { runAt: new Date(), delay: 1 }, "OPTION_INVALID"],
    ];
    for (const [action, filter, options, code] of refusals)
      await expect(mill.bulk(action as BulkAction, filter, options)).rejects.toMatchObject({
        code,
      });
    expect(await rowCounts(mill.db)).toEqual(before);
  });

  test("ids of another status are looked at and not changed; a status narrows ids", async () => {
    await using mill = await file.open([plain]);
    const [failed = ""] = await ended(mill, plain, [dead("X")]);
    const [completed = ""] = await ended(mill, plain, [succeeded]);
    const { id: waiting } = await mill.enqueue(plain, {});
    const { id: delayed } = await mill.enqueue(plain, {}, { delay: "1h" });
    const ids = [failed, completed, waiting, delayed, nowhere, failed];
    expect(await bulk(mill, "retry", { ids })).toMatchObject({ lookedAt: 4, changed: 1 });
    expect(await mill.job(failed)).toMatchObject({ status: "waiting" });
    expect(await mill.job(completed)).toMatchObject({ status: "completed" });
    for (const [status, n] of Object.entries({
      waiting: 2,
      delayed: 1,
      completed: 1,
      failed: 0,
      active: 0,
      cancelled: 0,
    }))
      expect(await mill.bulk("replay", { ids, status: status as "waiting" }, { dryRun: true })).toMatchObject({
        expected: n,
      });
  });

  test.each(["failed", "completed", "cancelled", "waiting"] as const)(
    "olderThan of %s jobs is the time since they ended, or came",
    async (status) => {
      await using mill = await file.open([plain]);
      const make = async (): Promise<void> => {
        if (status === "failed") await ended(mill, plain, [dead()]);
        if (status === "completed") await ended(mill, plain, [succeeded]);
        if (status === "waiting" || status === "cancelled") {
          const { id } = await mill.enqueue(plain, {}, { priority: -1 });
          if (status === "cancelled") await mill.cancel(id);
        }
      };
      await make();
      const old = sql`interval '2 hours'`;
      await mill.db.query(sql`update millrace.dead_letters set failed_at = failed_at - ${old}`);
      await mill.db.query(sql`update millrace.settled set finished_at = finished_at - ${old}`);
      await mill.db.query(sql`update millrace.attempts set finished_at = finished_at - ${old}`);
      if (status === "waiting") await mill.db.query(sql`update millrace.jobs set created_at = created_at - ${old}`);
      await make();
      const count = async (olderThan: string): Promise<unknown> =>
        mill.bulk("remove", { status, olderThan: olderThan as "1h" }, { dryRun: true });
      expect(await count("1h")).toMatchObject({ expected: 1 });
      expect(await count("3h")).toMatchObject({ expected: 0 });
      expect(await bulk(mill, "remove", { status, olderThan: "1h" })).toMatchObject({ changed: 1 });
      expect(Object.values(await census(mill))).toEqual([1]);
    },
  );

  test("few among many are found, however many rows or settled batches lie between them", async () => {
    await using mill = await file.open([plain]);
    const few = { tags: ["few"] };
    await mill.enqueueMany(plain, [1], few);
    await mill.enqueueMany(plain, many(6_000, 1));
    await mill.enqueueMany(plain, [1], few);
    expect(await bulk(mill, "replay", { tag: "few" }, { queue: "a" })).toMatchObject({ lookedAt: 2, changed: 2 });
    expect(await bulk(mill, "reprioritise", { tag: "few", queue: "default" }, { priority: 1 })).toMatchObject({
      lookedAt: 2,
      changed: 2,
    });
    // settled one by one, most of them in another queue
    await mill.db.query(sql`
      with taken as (delete from millrace.pending returning job_id, abs(line) as queue),
      numbered as (select job_id, queue, row_number() over (order by job_id) as n from taken)
      insert into millrace.settled (lease, queue, worker, claimed_at, n, took_ms_sum, ids, job_ids, started_ms, took_ms)
      select n, case when n in (1, 900) or n > 1500 then queue else -1 end, 1, now(), 1, 1, millrace.uuidrange(job_id, job_id, '[]'), array[job_id], '{1}', '{1}'
      from numbered order by n`);
    const [found] = await mill.db.query<{ n: number }>(sql`
      select count(*)::int as n from millrace.settled s join millrace.jobs j on j.id = s.job_ids[1] and j.queue = s.queue
      join millrace.queues q on q.id = s.queue where q.name = 'default'`);
    const { n } = found as { n: number };
    expect(await bulk(mill, "remove", { status: "completed", queue: "default" })).toMatchObject({
      expected: n,
      lookedAt: n,
      changed: n,
    });
    const sizes = await rowCounts(mill.db);
    expect(sizes["jobs"]).toBe(6_000 + 4 + 3 - n); // with the jobs of the three operations
  });

  test("of large settled batches, too", async () => {
    await using mill = await file.open([plain]);
    await ended(mill, plain, many(900, succeeded));
    await ended(mill, plain, many(700, succeeded));
    const bigger = await bulk(mill, "remove", { status: "completed" }, { perSecond: 1_000 });
    expect(bigger).toMatchObject({ expected: 1_600, lookedAt: 1_600, changed: 1_600 });
    expect(await mill.stats("default")).toMatchObject([{ completed: 0 }]);
  });

  test("jobs that come after it was begun are not touched", async () => {
    await using mill = await file.open([plain]);
    const [again = ""] = await ended(mill, plain, [dead()]);
    await mill.enqueueMany(plain, [1, 2], { tags: ["x"] });
    const retry = await mill.bulk("retry", { queue: "default" }, fast);
    const cancel = await mill.bulk("cancel", { tag: "x" }, fast);
    await mill.enqueueMany(plain, [3], { tags: ["x"] });
    await mill.retry(again);
    // it fails anew, later than the operation was begun
    const worker = await StoreWorker.register(mill);
    const claim = await worker.claim(10);
    await worker.settle(claim, { [again]: dead() });
    await worker.giveBack(claim);
    await carryOut(mill, retry.id);
    expect(await mill.bulkOperation(retry.id)).toMatchObject({ expected: 1, lookedAt: 0, changed: 0 });
    await carryOut(mill, cancel.id);
    expect(await mill.bulkOperation(cancel.id)).toMatchObject({ expected: 2, lookedAt: 2, changed: 2 });
    expect(await census(mill)).toEqual({ dead: 1, cancelled: 2, pending: 1 });
  });
});

describe("in the middle of it", () => {
  /** The database, whose transaction number `n` of the operation commits nothing and fails. */
  function failingAt(db: Database, n: number): Database {
    let count = 0;
    return {
      ...db,
      transaction: async (work) =>
        db.transaction(async (tx) => {
          const result = await work(tx);
          if ((count += 1) === n) throw new Error("the plug was pulled");
          return result;
        }),
    };
  }

  test.each([1, 2, 3])("a batch that fails, the one of number %i, is done again: the counts are exact", async (n) => {
    await using mill = await file.open([plain]);
    await mill.enqueueMany(plain, many(1_200, 1));
    const { id } = await mill.bulk("replay", { task: "plain" }, fast);
    await expect(carryOut(mill, id, failingAt(mill.db, n))).rejects.toThrow("the plug was pulled");
    expect(await mill.bulkOperation(id)).toMatchObject({ changed: (n - 1) * 500, lookedAt: (n - 1) * 500 });
    await carryOut(mill, id);
    expect(await mill.bulkOperation(id)).toMatchObject({
      status: "completed",
      expected: 1_200,
      lookedAt: 1_200,
      changed: 1_200,
    });
    expect(await census(mill)).toEqual({ pending: 2_400 });
  });

  test("two that both believe it is theirs take turns, and do it once", async () => {
    await using mill = await file.open([plain]);
    await mill.enqueueMany(plain, many(1_700, 1));
    const { id } = await mill.bulk("replay", { task: "plain" }, fast);
    await Promise.all([carryOut(mill, id), carryOut(mill, id), carryOut(mill, id)]);
    expect(await mill.bulkOperation(id)).toMatchObject({ lookedAt: 1_700, changed: 1_700, status: "completed" });
    expect(await census(mill)).toEqual({ pending: 3_400 });
    await carryOut(mill, id);
    expect(await census(mill)).toEqual({ pending: 3_400 });
  });

  test("its worker is lost: another goes on where it was", async () => {
    await using mill = await file.open([plain]);
    await ended(mill, plain, many(900, dead()));
    const { id } = await mill.bulk("retry", { queue: "default" }, fast);
    const lost = await StoreWorker.register(mill);
    expect((await lost.claim(1, "maintenance")).jobs).toMatchObject([{ id }]);
    await expect(carryOut(mill, id, failingAt(mill.db, 2))).rejects.toThrow("the plug was pulled");
    expect(await mill.bulkOperation(id)).toMatchObject({ status: "running", changed: 500 });
    await lost.die();
    await reapNow(mill);
    mill.work({ queues: ["maintenance"] });
    await expect.poll(async () => (await mill.job(id))?.status, { interval: 5, timeout: 20_000 }).toBe("completed");
    expect(await mill.bulkOperation(id)).toMatchObject({ status: "completed", lookedAt: 900, changed: 900 });
    expect(await census(mill)).toEqual({ pending: 900 });
  });

  test("it is told to stop: it ends behind its batch, and what was done stays done", async () => {
    await using mill = await file.open([plain]);
    await ended(mill, plain, many(900, dead()));
    const { id } = await mill.bulk("retry", { queue: "default" }, { ...fast, by: "ann" });
    const firstIsDone = gate();
    const goOn = gate();
    let count = 0;
    const slow: Database = {
      ...mill.db,
      async transaction(work) {
        if ((count += 1) === 2) {
          firstIsDone.open();
          await goOn.opened;
        }
        return mill.db.transaction(work);
      },
    };
    const carried = carryOut(mill, id, slow);
    await firstIsDone.opened;
    expect(await mill.stopBulk(id, { by: "bob" })).toMatchObject({ status: "running", stopAskedAt: expect.any(Date) });
    goOn.open();
    await carried;
    expect(await mill.bulkOperation(id)).toMatchObject({
      status: "stopped",
      changed: 500,
      finishedAt: expect.any(Date),
    });
    expect(await mill.stopBulk(id)).toMatchObject({ status: "stopped", stoppedBy: "bob" });
    const why = await mill.explain(id);
    expect(why).toMatchObject({
      because: "STOPPED",
      facts: { stoppedAt: expect.any(Date), stoppedBy: "bob", lookedAt: 500, changed: 500 },
    });
    expect(why.summary).toMatch(
      /^The bulk operation was stopped at .* by bob: it had looked at 500 jobs and changed 500\.$/,
    );
    expect(await census(mill)).toEqual({ pending: 500, dead: 400 });
    const subject = `bulk:${id}`;
    expect(
      await mill.db.query(sql`select action, by from millrace.audit where subject = ${subject} order by id`),
    ).toEqual([
      { action: "bulk.start", by: "ann" },
      { action: "bulk.stop", by: "bob" },
    ]);
  });

  test("it was not begun, and is stopped at once", async () => {
    await using mill = await file.open([plain]);
    await mill.enqueue(plain, {});
    const { id } = await mill.bulk("cancel", { queue: "default" }, fast);
    expect(await mill.stopBulk(id)).toMatchObject({ status: "stopped", changed: 0, finishedAt: expect.any(Date) });
    await carryOut(mill, id);
    expect(await census(mill)).toEqual({ pending: 1 });
  });

  test("its job comes to an end without it: it has failed, and says of what; or was stopped by a cancel", async () => {
    await using mill = await file.open([plain]);
    await mill.enqueue(plain, {});
    const worker = await StoreWorker.register(mill);
    const failed = await mill.bulk("cancel", { queue: "default" }, fast);
    await worker.settle(await worker.claim(1, "maintenance"), {
      [failed.id]: { next: "dead", code: "BROKEN", message: "no luck" },
    });
    expect(await mill.bulkOperation(failed.id)).toMatchObject({ status: "failed", error: "BROKEN: no luck" });
    await mill.retry(failed.id);
    expect(await mill.bulkOperation(failed.id)).toMatchObject({ status: "waiting", error: null });
    const cancelled = await mill.bulk("cancel", { queue: "default" }, fast);
    await mill.cancel(cancelled.id);
    expect(await mill.bulkOperation(cancelled.id)).toMatchObject({ status: "stopped", error: null });
    const removed = await mill.bulk("cancel", { queue: "default" }, fast);
    await mill.remove(removed.id);
    expect(await mill.bulkOperation(removed.id)).toMatchObject({ status: "failed", error: "Its job was removed." });
    expect((await mill.bulkOperations()).map(({ id }) => id)).toEqual([removed.id, cancelled.id, failed.id]);
    expect(await mill.bulkOperations({ limit: 1, after: removed.id })).toMatchObject([{ id: cancelled.id }]);
  });
});

describe("the worker of the operations", () => {
  test("is every worker that serves their queue, whatever its app", async () => {
    await using mill = await file.open([]);
    await mill.enqueueMany("nobody-has-this", [1, 2, 3]);
    mill.work();
    const { id } = await mill.bulk("cancel", { task: "nobody-has-this" });
    await expect.poll(async () => (await mill.job(id))?.status, { interval: 5, timeout: 20_000 }).toBe("completed");
    expect(await mill.bulkOperation(id)).toMatchObject({ status: "completed", changed: 3 });
  });

  test("keeps to the pace, and obeys its signal in between", async () => {
    await using mill = await file.open([plain]);
    await mill.enqueueMany(plain, many(6, 1));
    const { id } = await mill.bulk("cancel", { task: "plain" }, { perSecond: 2 });
    const stop = new AbortController();
    const batches = tally<number>();
    const db: Database = {
      ...mill.db,
      async transaction(work) {
        const result = await mill.db.transaction(work);
        batches.add(1);
        return result;
      },
    };
    const carried = runBulk(
      { db, channel: mill.channel, admission: mill.admission, now: Date.now },
      {
        id,
        signal: stop.signal,
        log: silent,
        snooze: () => {
          throw new Error("its turn is over");
        },
      },
    );
    await batches.reached(2);
    stop.abort();
    await expect(carried).rejects.toThrow();
    expect(await mill.bulkOperation(id)).toMatchObject({ status: "running", changed: batches.seen.length });
    expect(batches.seen.length).toBeLessThan(6);
  });

  test("never cancels the job that carries it out", async () => {
    await using mill = await file.open([plain]);
    const { id } = await mill.bulk("cancel", { status: "active" }, fast);
    mill.work({ queues: ["maintenance"] });
    await expect.poll(async () => (await mill.job(id))?.status, { interval: 5, timeout: 20_000 }).toBe("completed");
    expect(await mill.bulkOperation(id)).toMatchObject({ status: "completed", lookedAt: 0 });
  });
});

describe("dead letters", () => {
  test("are counted by what they have in common, the largest group first, and found by it", async () => {
    await using mill = await file.open([plain, other]);
    await ended(mill, plain, [...many(3, dead("TIMEOUT")), dead("NO")]);
    await ended(mill, other, [{ next: "dead", code: "NO" }], { queue: "q2" });
    const groups = async (...args: Parameters<Millrace["deadLetters"]>): Promise<unknown> =>
      (await mill.deadLetters(...args)).map(({ value, count }) => [value, count]);
    expect(await groups("error_code")).toEqual([
      ["TIMEOUT", 3],
      ["NO", 2],
    ]);
    expect(await groups("reason")).toEqual([["NON_RETRYABLE", 5]]);
    expect(await groups("task", { errorCode: "NO" })).toEqual([
      ["other", 1],
      ["plain", 1],
    ]);
    expect(await groups("queue", { reason: "NON_RETRYABLE", task: "other" })).toEqual([["q2", 1]]);
    expect(await groups("queue", { task: "unheard-of" })).toEqual([]);
    expect(await mill.deadLetters("reason")).toEqual([
      { value: "NON_RETRYABLE", count: 5, oldest: expect.any(Date), newest: expect.any(Date) },
    ]);
    expect((await mill.jobs({ status: "failed", errorCode: "NO" })).jobs).toHaveLength(2);
    expect((await mill.jobs({ status: "failed", reason: "POISON" })).jobs).toEqual([]);
    await expect(mill.jobs({ errorCode: "NO" })).rejects.toMatchObject({ code: "OPTION_INVALID" });
    await expect(mill.deadLetters("colour" as never)).rejects.toMatchObject({ code: "OPTION_INVALID" });
    await expect(mill.deadLetters("task", { code: "NO" } as never)).rejects.toMatchObject({ code: "OPTION_UNKNOWN" });
  });
});

test("an operation there is none of is BULK_NOT_FOUND", async () => {
  await using mill = await file.open([]);
  for (const id of [nowhere, "nonsense"]) {
    await expect(mill.bulkOperation(id)).rejects.toMatchObject({ code: "BULK_NOT_FOUND" });
    await expect(mill.stopBulk(id)).rejects.toMatchObject({ code: "BULK_NOT_FOUND" });
  }
  await expect(mill.bulkOperations({ after: "x" })).rejects.toMatchObject({ code: "OPTION_INVALID" });
});
