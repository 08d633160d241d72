/** Counters of jobs: each is counted once, whatever becomes of its history and of the workers. */
import { describe, expect, test } from "vitest";
import { type Millrace, NonRetryableError, task } from "millrace";
import { sql } from "../../src/db/sql.ts";
import { archive, prune, sweepUp } from "../../src/jobs/maintenance-store.ts";
import { foldTallies } from "../../src/jobs/stats-store.ts";
import { anyUncounted } from "../../src/jobs/totals-store.ts";
import { foldAll, tally, useDatabase } from "../support/engine.ts";
import { StoreWorker, reapNow } from "../support/store-worker.ts";

const file = useDatabase();
const plain = task({ name: "plain", run: () => undefined });

/** `kind label` → n, of all queues. */
async function totals({ db }: Millrace): Promise<Record<string, number>> {
  const rows = await db.query<{ name: string; n: number }>(
    sql`select trim(kind || ' ' || label) as name, sum(n)::int as n from millrace.totals group by 1 order by 1`,
  );
  return Object.fromEntries(rows.map(({ name, n }) => [name, n]));
}

async function durations({ db }: Millrace): Promise<unknown> {
  const rows = await db.query<{ tookMs: number; buckets: number[] }>(
    sql`select took_ms::int as "tookMs", buckets::int[] as buckets from millrace.durations order by queue`,
  );
  return rows;
}

/** Jobs of every outcome, done by a real worker but for the one that loses its worker. */
async function everyOutcome(): Promise<Millrace> {
  const ended = tally<string>();
  const well = task({ name: "well", run: () => ended.add("well") });
  const badly = task({
    name: "badly",
    run() {
      ended.add("badly");
      throw new NonRetryableError("no");
    },
  });
  const again = task({
    name: "again",
    maxAttempts: 2,
    backoff: { delay: 1, jitter: 0 },
    run({ input, attempt }) {
      ended.add("again");
      if (input === "never" || attempt === 1) throw new Error("not yet");
    },
  });
  const sleeps = task({
    name: "sleeps",
    run({ snooze }) {
      ended.add("sleeps");
      snooze("1h");
    },
  });
  const mill = await file.open([well, badly, again, sleeps]);
  const doomed = await StoreWorker.register(mill, "doomed");
  await mill.enqueueMany(well, [1, 2]);
  await doomed.claim(2);
  await doomed.die();
  await reapNow(mill); // two attempts are lost; both jobs wait again
  await mill.enqueueMany(well, [3, 4, 5]);
  await mill.enqueueMany(badly, [1, 2]);
  await mill.enqueueMany(again, ["once", "once", "never"]);
  await mill.enqueue(sleeps, null);
  await mill.cancel((await mill.enqueue(well, 9, { delay: "1h" })).id);
  await mill.enqueueFlow({
    jobs: { first: { task: badly, input: 3 }, second: { task: well, input: 10, after: ["first"] } },
  });
  const worker = mill.work();
  await ended.reached(5 + 3 + 6 + 1);
  await expect.poll(async () => (await mill.stats()).map(({ active, waiting }) => active + waiting)).toEqual([0]);
  await worker.stop();
  return mill;
}

const outcomes = {
  enqueued: 14,
  "attempt succeeded": 7,
  "attempt failed": 7,
  "attempt lost": 2,
  "attempt snoozed": 1,
  retry: 5, // two lost, three that failed the first time
  "dead NON_RETRYABLE": 3,
  "dead MAX_ATTEMPTS_EXCEEDED": 1,
  "dead DEPENDENCY_FAILED": 1,
  cancelled: 1,
};

describe("totals", () => {
  test("are what happened to jobs of every outcome", async () => {
    await using mill = await everyOutcome();
    await foldAll(mill);
    expect(await totals(mill)).toEqual(outcomes);
    await foldAll(mill);
    expect(await totals(mill)).toEqual(outcomes);
    expect(await anyUncounted(mill.db)).toBe(false);
  });

  test.each([
    ["after they were counted", true],
    ["before anybody counted them", false],
  ])("stay when jobs are cleaned, archived, pruned and removed %s", async (_, folded) => {
    await using mill = await everyOutcome();
    const { jobs } = await mill.jobs({ status: "completed" });
    if (folded) await foldAll(mill);
    await mill.remove(jobs[0]?.id ?? "");
    while ((await archive(mill.db, 0)).more);
    while ((await prune(mill.db, 0)).more);
    await mill.clean("default", 0);
    expect((await mill.stats())[0]).toMatchObject({ completed: 0, failed: 0 });
    await foldAll(mill);
    expect(await totals(mill)).toEqual(outcomes);
    const [{ buckets = [] } = {}] = (await durations(mill)) as { buckets?: number[] }[];
    expect(buckets.reduce((sum, n) => sum + n, 0)).toBe(outcomes["attempt succeeded"]);
  });

  test("of a dead letter that is retried and fails again count it twice, and a late result not at all but as late", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const { id } = await mill.enqueue(plain, 1);
    await worker.settle(await worker.claim(1), { [id]: { next: "dead" } });
    await mill.retry(id); // before anybody counted
    const claim = await worker.claim(1);
    await worker.settle(claim, { [id]: { next: "dead" } });
    await worker.settle({ ...claim, lease: "12345" }, { [id]: { next: "dead" } });
    await foldAll(mill);
    expect(await totals(mill)).toEqual({ enqueued: 1, "attempt failed": 2, "dead NON_RETRYABLE": 2, late: 1 });
  });

  test("of durations fall into the buckets whose end they do not exceed", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    await mill.enqueueMany(plain, [1, 2, 3, 4, 5]);
    await worker.close(await worker.claim(5));
    await mill.db.query(
      sql`update millrace.settled set took_ms = '{0,100,101,1800000,1800001}', took_ms_sum = 3600202 where n = 5`,
    );
    await foldAll(mill);
    expect(await durations(mill)).toEqual([{ tookMs: 3_600_202, buckets: [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1] }]);
  });

  test("of what was not let in stand for all of it, though records are few and go by age", async () => {
    await using mill = await file.open([plain]);
    await mill.policies.set("default", { maxPayloadBytes: 10 });
    const large = "x".repeat(100);
    for (let n = 0; n < 3; n += 1) {
      await expect(mill.enqueue(plain, large)).rejects.toMatchObject({ code: "PAYLOAD_TOO_LARGE" });
    }
    await mill.db.query(
      sql`update millrace.ingest_decisions set details = details || '{"unrecorded_before": 7}' where id = (select max(id) from millrace.ingest_decisions)`,
    );
    await sweepUp(mill.db, { decisionsMs: 0, auditMs: 1e9, workersMs: 1e9, eventsMs: 1e9 });
    expect(await totals(mill)).toEqual({ "denied PAYLOAD_TOO_LARGE": 10 });
    await foldAll(mill);
    expect(await totals(mill)).toEqual({ "denied PAYLOAD_TOO_LARGE": 10 });
  });

  test("that lag behind are counted in rounds, each no more than it can do in a moment", async () => {
    await using mill = await file.open([plain]);
    await mill.db.query(sql`
      insert into millrace.settled (lease, queue, worker, claimed_at, finished_at, n, took_ms_sum, ids, job_ids, started_ms, took_ms)
      select n, (select id from millrace.queues where name = 'default'), 1, now(), now() - interval '1 hour' + n * interval '1 millisecond', 1, 1,
             'empty', array[gen_random_uuid()], '{0}', '{1}'
      from generate_series(1, 45000) n`);
    await mill.db.query(sql`update millrace.tally_mark set counted_until = now() - interval '2 hours'`);
    const seen: number[] = [];
    await foldTallies(mill.db, 0); // notes
    while (await foldTallies(mill.db, 0)) seen.push((await totals(mill))["attempt succeeded"] ?? 0);
    expect(seen).toEqual([19_999, 39_999, 45_000]);
  });
});
