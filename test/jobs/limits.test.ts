/** Queues with limits and concurrency keys: exact with any number of workers, fair between keys, and nothing leaks. */
import { describe, expect, test } from "vitest";
import { type Millrace, task } from "millrace";
import { sql } from "../../src/db/sql.ts";
import { freshSchema, gate, tally, useDatabase } from "../support/engine.ts";
import { StoreWorker, reapNow, succeeded } from "../support/store-worker.ts";

const file = useDatabase();
const plain = task({ name: "plain", run: () => undefined });

/** A task that counts how many of it run at once, in all and per key. */
function counting(pauseMs: number) {
  const running = new Map<string, number>();
  const most = new Map<string, number>();
  const ran = tally<string>();
  const change = (key: string, by: number): void => {
    const now = (running.get(key) ?? 0) + by;
    running.set(key, now);
    most.set(key, Math.max(most.get(key) ?? 0, now));
  };
  const definition = task({
    name: "counting",
    async run({ input }) {
      const key = String(input);
      change(key, 1);
      change("all", 1);
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
      change(key, -1);
      change("all", -1);
      ran.add(key);
    },
  });
  return { definition, most, ran };
}

async function keyed(mill: Millrace, key: string, count: number): Promise<string[]> {
  return mill.enqueueMany(
    "counting",
    Array.from({ length: count }, () => key),
    { concurrencyKey: key },
  );
}

describe("concurrency of a queue", () => {
  test("is reached and never exceeded, however many workers there are", async () => {
    const { definition, most, ran } = counting(5);
    const schema = freshSchema();
    const mills = await Promise.all([1, 2, 3].map(() => file.open([definition], { schema })));
    const [mill] = mills as [Millrace];
    await mill.policies.set("default", { concurrency: 3 });
    await mill.enqueueMany(
      definition,
      Array.from({ length: 60 }, () => "job"),
    );
    for (const each of mills) each.work({ concurrency: 10 });
    await ran.reached(60);
    expect(most.get("all")).toBe(3);
    await Promise.all(mills.map((each) => each.close()));
  });

  test("holds for what a claim of several takes, and a finished job makes room at once", async () => {
    await using mill = await file.open([plain]);
    await mill.policies.set("default", { concurrency: 2 });
    await mill.enqueueMany(plain, [1, 2, 3, 4]);
    const worker = await StoreWorker.register(mill);
    const claims = await worker.claimWithCare(10);
    expect(claims).toHaveLength(2);
    expect(await worker.claimWithCare(10)).toEqual([]);
    const [first] = claims;
    if (first === undefined) return expect.unreachable();
    await worker.settle(first, { [first.jobs[0]?.id ?? ""]: succeeded });
    expect(await worker.claimWithCare(10)).toHaveLength(1);
  });

  test("counts jobs that were claimed before there was a limit", async () => {
    await using mill = await file.open([plain]);
    await mill.enqueueMany(plain, [1, 2, 3, 4]);
    const worker = await StoreWorker.register(mill);
    const before = await worker.claim(3);
    await mill.policies.set("default", { concurrency: 3 });
    expect(await worker.claimWithCare(10)).toEqual([]);
    await worker.close(before);
    expect(await worker.claimWithCare(10)).toHaveLength(1);
  });

  test("gives the slots of a dead worker back with its leases: nothing can leak", async () => {
    await using mill = await file.open([plain]);
    await mill.policies.set("default", { concurrency: 2, keyConcurrency: 1 });
    await mill.enqueueMany(plain, [1, 2], { concurrencyKey: "k" });
    await mill.enqueueMany(plain, [3, 4]);
    const doomed = await StoreWorker.register(mill);
    expect(await doomed.claimWithCare(10)).toHaveLength(2);
    await doomed.die();
    const worker = await StoreWorker.register(mill);
    expect(await worker.claimWithCare(10)).toEqual([]);
    await reapNow(mill);
    expect(await worker.claimWithCare(10)).toHaveLength(2);
  });

  test("of a plain claim gets nothing: limits cannot be walked around", async () => {
    await using mill = await file.open([plain]);
    await mill.policies.set("default", { concurrency: 1 });
    await mill.enqueueMany(plain, [1, 2, 3]);
    const worker = await StoreWorker.register(mill);
    expect((await worker.claim(10)).jobs).toEqual([]);
  });

  test("0 lets nothing start; raised, it goes on at once, and so it does without a policy", async () => {
    const { definition, ran } = counting(0);
    await using mill = await file.open([definition]);
    await mill.policies.set("default", { concurrency: 0 });
    const worker = mill.work({ concurrency: 5 });
    await worker.ready();
    await mill.enqueueMany(definition, ["a", "b"]);
    const other = gate();
    const elsewhere = task({ name: "elsewhere", queue: "other", run: () => other.open() });
    await using second = await file.open([elsewhere], { schema: mill.db.schema });
    second.work();
    await second.enqueue(elsewhere, {});
    await other.opened;
    expect(ran.seen).toEqual([]);
    await mill.policies.set("default", { concurrency: 1 });
    await ran.reached(2);
    await mill.policies.set("default", { concurrency: 0 });
    await mill.enqueue(definition, "c");
    await mill.policies.remove("default");
    await ran.reached(3);
  });
});

describe("a rate", () => {
  test("is never exceeded in any window of its length, with two workers, and work goes on by itself", async () => {
    const { definition, ran } = counting(0);
    const schema = freshSchema();
    await using mill = await file.open([definition], { schema });
    await using second = await file.open([definition], { schema });
    await mill.policies.set("default", { rate: { max: 5, per: 200 } });
    await mill.enqueueMany(
      definition,
      Array.from({ length: 23 }, () => "job"),
    );
    mill.work({ concurrency: 10 });
    second.work({ concurrency: 10 });
    await ran.reached(23);
    const [busiest] = await mill.db.query<{ n: number }>(sql`
      with starts as (select s.claimed_at as at from millrace.settled s cross join unnest(s.job_ids) union all select l.claimed_at from millrace.leases l)
      select max((select count(*) from starts o where o.at >= starts.at and o.at < starts.at + interval '200 milliseconds'))::int as n from starts`);
    expect(busiest?.n).toBe(5);
  });

  test("of a key holds for that key alone", async () => {
    await using mill = await file.open([plain]);
    await mill.policies.set("default", { keyRate: { max: 2, per: "1h" } });
    for (const key of ["a", "b"]) await mill.enqueueMany(plain, [1, 2, 3], { concurrencyKey: key });
    const worker = await StoreWorker.register(mill);
    const claims = await worker.claimWithCare(10);
    const keys = await mill.db.query<{ key: string; n: number }>(
      sql`select key, count(*)::int as n from millrace.leases group by key order by key`,
    );
    expect(claims).toHaveLength(4);
    expect(keys).toEqual([
      { key: "a", n: 2 },
      { key: "b", n: 2 },
    ]);
    for (const claim of claims) await worker.settle(claim, { [claim.jobs[0]?.id ?? ""]: succeeded });
    expect(await worker.claimWithCare(10)).toEqual([]);
  });

  test("keeps its window small, whatever goes through it", async () => {
    await using mill = await file.open([plain]);
    await mill.policies.set("default", { rate: { max: 10_000, per: "1h" } });
    await mill.enqueueMany(
      plain,
      Array.from({ length: 60 }, () => 1),
    );
    const worker = await StoreWorker.register(mill);
    for (let n = 0; n < 60; n += 1) await worker.claimWithCare(1);
    const [window] = await mill.db.query<{ entries: number; uses: number }>(
      sql`select cardinality(at) as entries, (select sum(u)::int from unnest(n) u) as uses from millrace.rate_windows`,
    );
    expect(window?.uses).toBe(60);
    expect(window?.entries).toBeLessThan(5);
  });
});

describe("concurrency keys", () => {
  test("run at most so many each, and together as many as there is room for", async () => {
    const { definition, most, ran } = counting(5);
    await using mill = await file.open([definition]);
    await mill.policies.set("default", { keyConcurrency: 2 });
    for (const key of ["a", "b", "c"]) await keyed(mill, key, 12);
    mill.work({ concurrency: 20 });
    await ran.reached(36);
    expect([most.get("a"), most.get("b"), most.get("c")]).toEqual([2, 2, 2]);
    expect(most.get("all")).toBeGreaterThan(3);
  });

  test("take turns: ten jobs of one do not wait for a thousand of another", async () => {
    const { definition, ran } = counting(0);
    await using mill = await file.open([definition]);
    await keyed(mill, "large", 1_000);
    await keyed(mill, "small", 10);
    mill.work({ concurrency: 2 });
    await ran.reached(100);
    expect(ran.seen.slice(0, 40).filter((key) => key === "small")).toHaveLength(10);
  });

  test("without a policy run like any other job, delayed and by priority", async () => {
    await using mill = await file.open([plain]);
    const options = { concurrencyKey: "k" };
    await mill.enqueue(plain, 1, { ...options, delay: "1h" });
    const { id: low } = await mill.enqueue(plain, 2, options);
    const { id: high } = await mill.enqueue(plain, 3, { ...options, priority: 5 });
    const worker = await StoreWorker.register(mill);
    expect((await worker.claimWithCare(10)).map(({ jobs }) => jobs[0]?.id)).toEqual([high, low]);
    expect(await mill.stats("default")).toMatchObject([{ active: 2, delayed: 1, waiting: 0 }]);
  });

  test("that are full cost nothing to those that are not, with jobs in between that have none", async () => {
    await using mill = await file.open([plain]);
    await mill.policies.set("default", { keyConcurrency: 1 });
    for (const key of ["a", "b"]) await mill.enqueueMany(plain, [1, 2], { concurrencyKey: key });
    await mill.enqueueMany(plain, [1, 2]);
    const worker = await StoreWorker.register(mill);
    expect(await worker.claimWithCare(10)).toHaveLength(4);
    await mill.enqueue(plain, 1, { concurrencyKey: "c" });
    expect(await worker.claimWithCare(10)).toHaveLength(1);
    expect(await worker.claimWithCare(10)).toEqual([]);
  });

  test("are served in turn one by one as well, from where the last claim stopped", async () => {
    await using mill = await file.open([plain]);
    for (const key of ["a", "b", "c"]) await mill.enqueueMany(plain, [1, 2], { concurrencyKey: key });
    const worker = await StoreWorker.register(mill);
    const order: string[] = [];
    for (let n = 0; n < 6; n += 1) {
      const [claim] = await worker.claimWithCare(1);
      const [row] = await mill.db.query<{ key: string }>(
        sql`select key from millrace.leases where id = ${claim?.lease ?? "0"}::bigint`,
      );
      order.push(row?.key ?? "");
    }
    expect(order).toEqual(["a", "b", "c", "a", "b", "c"]);
  });

  test("stay with a job that is retried, given back, promoted, and leave with one that is removed", async () => {
    await using mill = await file.open([plain]);
    const options = { concurrencyKey: "k" };
    const { id: failing } = await mill.enqueue(plain, 1, options);
    const worker = await StoreWorker.register(mill);
    const [claim] = await worker.claimWithCare(1);
    if (claim === undefined) return expect.unreachable();
    await worker.settle(claim, { [failing]: { next: "retry", delayMs: 0 } });
    const [again] = await worker.claimWithCare(1);
    if (again === undefined) return expect.unreachable();
    await worker.giveBack(again);
    const { id: later } = await mill.enqueue(plain, 2, { ...options, delay: "1h" });
    await mill.promote(later);
    expect(await mill.db.query(sql`select distinct key from millrace.pending`)).toEqual([{ key: "k" }]);
    expect((await mill.job(later))?.status).toBe("waiting");
    await mill.remove(later);
    expect(await mill.job(later)).toBeUndefined();
    expect((await mill.jobs({ status: "waiting" })).jobs.map(({ id }) => id)).toEqual([failing]);
  });
});

describe("storm control", () => {
  test("holds the queue's breath at maxInFlight, and writes down for which job", async () => {
    await using mill = await file.open([plain]);
    await mill.policies.set("default", { maxInFlight: 1, throttleDelay: "1h" });
    const ids = await mill.enqueueMany(plain, [1, 2, 3]);
    const worker = await StoreWorker.register(mill);
    const [claim] = await worker.claimWithCare(10);
    if (claim === undefined) return expect.unreachable();
    expect(await worker.claimWithCare(10)).toEqual([]);
    expect(await mill.policies.decisions("default")).toMatchObject([
      {
        decision: "THROTTLED",
        reason_code: "IN_FLIGHT_EXCEEDED",
        job_id: ids[1],
        details: { queue: "default", in_flight: 1, max_in_flight: 1, throttle_delay_ms: 3_600_000 },
      },
    ]);
    // Room or not, the breath is held; and asking again writes nothing more.
    await worker.settle(claim, { [claim.jobs[0]?.id ?? ""]: succeeded });
    expect(await worker.claimWithCare(10)).toEqual([]);
    expect(await mill.policies.decisions("default")).toHaveLength(1);
    await mill.policies.set("default", { throttleDelay: 1 });
    expect(await worker.claimWithCare(10)).toHaveLength(1);
  });

  test("counts attempts, retries too, and decides nothing when nothing is due", async () => {
    await using mill = await file.open([plain]);
    await mill.policies.set("default", { maxAttemptsPerMinute: 2 });
    const worker = await StoreWorker.register(mill);
    const { id } = await mill.enqueue(plain, 1);
    for (let n = 0; n < 2; n += 1) {
      const [claim] = await worker.claimWithCare(1);
      if (claim === undefined) return expect.unreachable();
      expect(await worker.claimWithCare(1)).toEqual([]);
      await worker.settle(claim, { [id]: { next: "retry", delayMs: 0 } });
    }
    expect(await mill.policies.decisions("default")).toEqual([]);
    expect(await worker.claimWithCare(1)).toEqual([]);
    expect(await mill.policies.decisions("default")).toMatchObject([
      {
        reason_code: "RETRY_RATE_EXCEEDED",
        job_id: id,
        details: { attempts_last_minute: 2, max_attempts_per_minute: 2 },
      },
    ]);
  });
});

test("a suspect of a queue with limits runs alone, and within the limits", async () => {
  const together: number[] = [];
  let running = 0;
  const ran = tally<unknown>();
  const note = task({
    name: "plain",
    async run({ input }) {
      running += 1;
      await new Promise((resolve) => setTimeout(resolve, 5));
      if (input === "suspect") together.push(running);
      running -= 1;
      ran.add(input);
    },
  });
  await using mill = await file.open([note]);
  await mill.policies.set("default", { concurrency: 4 });
  await mill.enqueueMany(note, ["suspect", "suspect"]);
  const doomed = await StoreWorker.register(mill);
  await doomed.claimWithCare(2);
  await doomed.die();
  await reapNow(mill);
  await mill.enqueueMany(
    note,
    Array.from({ length: 30 }, (_, n) => n),
  );
  mill.work({ concurrency: 4 });
  await ran.reached(32);
  expect(together).toEqual([1, 1]);
});

describe("a policy", () => {
  test("keeps what is not named, is written down with who changed it, and can be removed", async () => {
    await using mill = await file.open([plain]);
    await mill.policies.set("mail", { concurrency: 5, rate: { max: 10, per: "1s" } }, { by: "ada" });
    const policy = await mill.policies.set("mail", { concurrency: null, keepFailed: "7d" }, { by: "bob" });
    expect(policy).toMatchObject({
      queue: "mail",
      concurrency: null,
      rate: { max: 10, perMs: 1_000 },
      keepFailedMs: 7 * 86_400_000,
      throttleDelayMs: 500,
      updatedBy: "bob",
    });
    expect(await mill.policies.list()).toEqual([policy]);
    expect(await mill.policies.remove("mail", { by: "cy" })).toBe(true);
    expect(await mill.policies.remove("mail")).toBe(false);
    expect(await mill.policies.get("mail")).toBeUndefined();
    const audit = await mill.db.query<{ by: string; action: string }>(
      sql`select by, action from millrace.audit where subject = 'queue:mail' order by id`,
    );
    expect(audit).toEqual([
      { by: "ada", action: "policy.set" },
      { by: "bob", action: "policy.set" },
      { by: "cy", action: "policy.removed" },
    ]);
  });

  test.each<[string, object, string]>([
    ["an unknown setting", { concurency: 1 }, "OPTION_UNKNOWN"],
    ["nothing at all", {}, "OPTION_INVALID"],
    ["a limit below zero", { concurrency: -1 }, "OPTION_INVALID"],
    ["half a job", { keyConcurrency: 1.5 }, "OPTION_INVALID"],
    ["no job per key", { keyConcurrency: 0 }, "OPTION_INVALID"],
    ["a rate of nothing", { rate: { max: 0, per: "1s" } }, "OPTION_INVALID"],
    ["a rate without time", { rate: { max: 1 } }, "OPTION_INVALID"],
    ["a rate that is a number", { rate: 5 }, "OPTION_INVALID"],
    ["a delay beyond an hour", { throttleDelay: "2h" }, "OPTION_INVALID"],
    ["a priority beyond the range", { priority: 40_000 }, "OPTION_INVALID"],
  ])("with %s is refused and changes nothing", async (_, changes, code) => {
    await using mill = await file.open([plain]);
    await mill.policies.set("default", { concurrency: 7 });
    await expect(mill.policies.set("default", changes)).rejects.toMatchObject({ code });
    expect(await mill.policies.get("default")).toMatchObject({ concurrency: 7 });
  });

  test("of a queue that does not exist is QUEUE_NOT_FOUND", async () => {
    await using mill = await file.open([plain]);
    await expect(mill.policies.get("nowhere")).rejects.toMatchObject({ code: "QUEUE_NOT_FOUND" });
    await expect(mill.policies.remove("nowhere")).rejects.toMatchObject({ code: "QUEUE_NOT_FOUND" });
  });
});
