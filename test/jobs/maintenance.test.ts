/** Archive and prune: successes leave the hot table, then history; dead letters and what still runs stay. */
import { describe, expect, test, vi } from "vitest";
import { type Millrace, task } from "millrace";
import { maintain, maintenanceSchedule } from "../../src/app/maintenance.ts";
import { Tokens } from "../../src/access/tokens.ts";
import { silent } from "../../src/core/log.ts";
import { archive, prune, pruneCancelled, snoozesKept, sweepUp, trimSnoozes } from "../../src/jobs/maintenance-store.ts";
import { sql } from "../../src/db/sql.ts";
import { rowCounts, useDatabase } from "../support/engine.ts";
import { StoreWorker } from "../support/store-worker.ts";

const file = useDatabase();
const plain = task({ name: "plain", run: () => undefined });
const dayMs = 86_400_000;

/** All that is over happened so many days ago. */
async function age(mill: Millrace, days: number): Promise<void> {
  await mill.db.query(sql`update millrace.settled set finished_at = finished_at - ${days}::int * interval '1 day'`);
  await mill.db.query(sql`update millrace.attempts set finished_at = finished_at - ${days}::int * interval '1 day'`);
}

async function completed(mill: Millrace, count: number): Promise<string[]> {
  const ids = await mill.enqueueMany(
    plain,
    Array.from({ length: count }, (_, n) => n),
  );
  const worker = await StoreWorker.register(mill);
  await worker.close(await worker.claim(count));
  return ids;
}

describe("archiving", () => {
  test("moves successes of that age, and them only", async () => {
    await using mill = await file.open([plain]);
    const old = await completed(mill, 5);
    await age(mill, 8);
    const young = await completed(mill, 3);
    const { id: waiting } = await mill.enqueue(plain, 1);
    expect(await archive(mill.db, 7 * dayMs)).toEqual({ jobs: 5, more: true });
    expect(await archive(mill.db, 7 * dayMs)).toEqual({ jobs: 0, more: false });
    const left = await mill.db.query<{ id: string }>(sql`select id::text from millrace.jobs`);
    expect(left.map(({ id }) => id).toSorted()).toEqual([...young, waiting].toSorted());
    const kept = await mill.db.query<{ id: string; input: number }>(
      sql`select id::text, input from millrace.jobs_archive order by id`,
    );
    expect(kept).toEqual(old.map((id, input) => ({ id, input })));
    expect(await mill.stats("default")).toMatchObject([{ completed: 8, waiting: 1 }]);
  });

  test("leaves a job that can be looked at, replayed and removed, and that lists leave out", async () => {
    await using mill = await file.open([plain]);
    const [id = "", other = ""] = await completed(mill, 2);
    await age(mill, 8);
    await archive(mill.db, 7 * dayMs);
    expect(await mill.job(id)).toMatchObject({ id, status: "completed" });
    expect((await mill.timeline(id)).attempts).toMatchObject([{ status: "succeeded" }]);
    const { id: fresh } = await mill.replay(id);
    expect(await mill.job(fresh)).toMatchObject({ status: "waiting", replayOf: id, input: 0 });
    expect((await mill.jobs({ status: "completed" })).jobs).toEqual([]);
    await mill.remove(id);
    expect(await mill.job(id)).toBeUndefined();
    expect(await mill.job(other)).toMatchObject({ status: "completed" });
    expect(await mill.stats("default")).toMatchObject([{ completed: 1 }]);
  });

  test("goes on in batches of about a thousand jobs", async () => {
    await using mill = await file.open([plain]);
    for (let n = 0; n < 5; n += 1) await completed(mill, 400);
    await age(mill, 8);
    const moved: number[] = [];
    for (let more = true; more;) {
      const step = await archive(mill.db, 7 * dayMs);
      moved.push(step.jobs);
      ({ more } = step);
    }
    expect(moved).toEqual([1_200, 800, 0]);
  });
});

describe("pruning", () => {
  test("deletes archived jobs with everything known of them, and counts them no longer", async () => {
    await using mill = await file.open([plain]);
    const { id } = await mill.enqueue(plain, 1, { idempotencyKey: "once" });
    const worker = await StoreWorker.register(mill);
    await worker.settle(await worker.claim(1), { [id]: { next: "retry", delayMs: 0, code: "TIMEOUT" } });
    await worker.close(await worker.claim(1));
    await age(mill, 20);
    expect(await prune(mill.db, 14 * dayMs)).toMatchObject({ jobs: 0, more: false });
    await archive(mill.db, 7 * dayMs);
    expect(await prune(mill.db, 14 * dayMs)).toEqual({ jobs: 1, attempts: 1, policyDecisions: 0, more: true });
    expect(await rowCounts(mill.db)).toMatchObject({ jobs: 0, settled: 0, attempts: 0, idempotency_keys: 0 });
    expect(await mill.stats("default")).toMatchObject([{ completed: 0 }]);
    expect((await mill.enqueue(plain, 1, { idempotencyKey: "once" })).duplicate).toBe(false);
  });

  test("leaves dead letters and what runs alone", async () => {
    await using mill = await file.open([plain]);
    const [dead = "", running = ""] = await mill.enqueueMany(plain, [1, 2]);
    const worker = await StoreWorker.register(mill);
    await worker.settle(await worker.claim(1), { [dead]: { next: "dead", code: "NON_RETRYABLE" } });
    await worker.claim(1);
    await age(mill, 1_000);
    await archive(mill.db, 0);
    await prune(mill.db, 0);
    await pruneCancelled(mill.db, 0);
    expect((await mill.job(dead))?.status).toBe("failed");
    expect((await mill.job(running))?.status).toBe("active");
  });

  test("of cancelled jobs spares one that was tried again since", async () => {
    await using mill = await file.open([plain]);
    const [gone = "", again = ""] = await mill.enqueueMany(plain, [1, 2]);
    await mill.db.query(sql`delete from millrace.pending where job_id = ${gone}::uuid`);
    await mill.db.query(sql`
      insert into millrace.attempts (job_id, queue, attempt, outcome)
      select id, queue, 1, 'cancelled' from millrace.jobs`);
    await age(mill, 30);
    const worker = await StoreWorker.register(mill);
    await worker.settle(await worker.claim(1), { [again]: { next: "retry", delayMs: 60_000 } });
    expect(await pruneCancelled(mill.db, 14 * dayMs)).toMatchObject({ jobs: 1, attempts: 1 });
    expect(await mill.job(gone)).toBeUndefined();
    expect(await mill.job(again)).toBeDefined();
  });
});

describe("as a job", () => {
  const settings = { everyMs: 60_000, archiveAfterMs: 7 * dayMs, pruneAfterMs: 7 * dayMs, keepFailedMs: 180 * dayMs };
  const { signal } = new AbortController();

  test("does all of it, says so in the log, and finds nothing the second time", async () => {
    await using mill = await file.open([plain]);
    await completed(mill, 3);
    await age(mill, 30);
    const [dead = ""] = await mill.enqueueMany(plain, [1]);
    const worker = await StoreWorker.register(mill);
    await worker.settle(await worker.claim(1), { [dead]: { next: "dead", code: "NO" } });
    await completed(mill, 2);
    await age(mill, 8);
    const lines: string[] = [];
    const info = (_: object, message: string): void => void lines.push(message);
    expect(await maintain(mill.db, settings, { ...silent, info }, signal)).toEqual({
      archived: 5,
      pruned: 3,
      cleaned: 0,
    });
    expect(lines).toEqual([
      "[maintenance] archived 5 succeeded jobs",
      "[maintenance] deleted jobs=3 attempts=0 policy_decisions=0",
    ]);
    expect(await maintain(mill.db, settings, silent, signal)).toEqual({ archived: 0, pruned: 0, cleaned: 0 });
    await mill.db.query(sql`update millrace.dead_letters set failed_at = now() - interval '1 day'`);
    await mill.policies.set("default", { keepFailed: "1h", keepCompleted: "1h" });
    expect(await maintain(mill.db, settings, silent, signal)).toMatchObject({ cleaned: 3 });
    expect(await rowCounts(mill.db)).toMatchObject({ jobs: 0, settled: 0, attempts: 0, dead_letters: 0 });
  });

  test("is a schedule of Millrace's own, one run at a time, of whoever serves its queue", async () => {
    await using mill = await file.open([plain]);
    const own = maintenanceSchedule({ ...settings, everyMs: 60_000 });
    const sets = [{ source: "built_in", schedules: [own] }] as const;
    await Promise.all([mill.schedules.define(sets), mill.schedules.define(sets)]);
    expect(await mill.schedules.list()).toMatchObject([
      { name: "millrace.maintenance", source: "built_in", queue: "maintenance", everyMs: 60_000, overlap: "skip" },
    ]);
    const minutes = (count: number): Date => new Date(Date.now() + count * 60_000);
    await Promise.all([1, 2, 3].map(() => mill.schedules.fire({ at: minutes(1) })));
    await mill.schedules.fire({ at: minutes(2) });
    expect(await mill.stats("maintenance")).toMatchObject([{ waiting: 1 }]);
    await using _ran = mill.work({ scheduler: false });
    await vi.waitUntil(async () => (await mill.stats("maintenance"))[0]?.completed === 1, { timeout: 20_000 });
    await mill.schedules.fire({ at: minutes(3) });
    expect(await mill.schedules.runs("millrace.maintenance")).toMatchObject([
      { status: "fired", outcome: null },
      { status: "skipped" },
      { status: "fired", outcome: "completed" },
    ]);
  });
});

test("what limits, keys and workers leave behind goes by age", async () => {
  await using mill = await file.open([plain]);
  await mill.enqueue(plain, 1, { idempotencyKey: "old", idempotencyKeep: 1 });
  await completed(mill, 1);
  await mill.db.script(`
    update millrace.idempotency_keys set expires_at = now() - interval '1 second';
    update millrace.workers set stopped_at = now() - interval '300 days';
    insert into millrace.ingest_decisions (queue, at, decision, reason_code, details)
      select 'default', now() - n * interval '1 day', 'DENIED', 'X', '{}' from generate_series(0, 9) n;
    insert into millrace.policy_decisions (queue, job_id, at, decision, reason_code, details)
      select 1, gen_random_uuid(), now() - n * interval '1 day', 'THROTTLED', 'X', '{}' from generate_series(0, 9) n;
    insert into millrace.enqueue_rate_counters (queue, window_start, count) values (1, now() - interval '1 hour', 5), (1, now(), 5);
    insert into millrace.rate_windows (queue, kind, key, at, n, updated_at) values
      (1, 'rate', 'old', '{}', '{}', now() - interval '3 days'), (1, 'rate', 'new', '{}', '{}', now());
    insert into millrace.emitted_events (name, payload, at) values ('old', 'null', now() - interval '500 days'), ('new', 'null', now());
    insert into millrace.unique_keys (task, key, job_id, until) values (1, 'old', gen_random_uuid(), now() - interval '1 s'), (1, 'new', gen_random_uuid(), null);
    insert into millrace.audit (at, action, subject) values (now() - interval '500 days', 'a', 's'), (now(), 'b', 's');
  `);
  const ages = { decisionsMs: 7.5 * dayMs, auditMs: 400 * dayMs, eventsMs: 400 * dayMs, workersMs: 200 * dayMs };
  expect(await sweepUp(mill.db, ages)).toBe(2 + 2 + 1 + 1 + 1 + 1 + 1 + 1 + 1);
  expect(await sweepUp(mill.db, ages)).toBe(0);
});

test("of workers, windows, counters and bulk operations too, a thousand go at a time; what is young or in use stays", async () => {
  await using mill = await file.open([plain]);
  await mill.db.script(`
    insert into millrace.workers (name, host, pid, version, concurrency, lease_ms, stopped_at)
      select 'w' || n, 'h', n, '1', 1, 1, now() - interval '300 days' from generate_series(1, 1502) n;
    insert into millrace.leases (id, queue, worker, job_ids, attempts)
      select 1, 1, min(id), array[gen_random_uuid()], array[1] from millrace.workers;
    insert into millrace.enqueue_rate_counters (queue, window_start, count)
      select n, now() - interval '1 hour', 1 from generate_series(1, 1501) n;
    insert into millrace.rate_windows (queue, kind, key, at, n, updated_at)
      select n, 'rate', '', '{}', '{}', now() - interval '3 days' from generate_series(1, 1501) n;
    insert into millrace.bulk_operations (id, action, filter, options, expected, per_second, status, finished_at)
      select gen_random_uuid(), 'retry', '{}', '{}', 0, 1, 'completed', now() - interval '500 days' from generate_series(1, 1501) n;
    insert into millrace.bulk_operations (id, action, filter, options, expected, per_second)
      values (gen_random_uuid(), 'retry', '{}', '{}', 0, 1);
  `);
  const ages = { decisionsMs: dayMs, auditMs: 400 * dayMs, eventsMs: dayMs, workersMs: 200 * dayMs };
  expect(await sweepUp(mill.db, ages)).toBe(4 * 1_000);
  expect(await sweepUp(mill.db, ages)).toBe(4 * 501);
  expect(await sweepUp(mill.db, ages)).toBe(0);
  expect(
    await mill.db.query(
      sql`select (select count(*)::int from millrace.workers) as workers, (select count(*)::int from millrace.bulk_operations) as bulk`,
    ),
  ).toEqual([{ workers: 1, bulk: 1 }]);
});

test("of a job that is put off again and again the newest thousand snoozes are kept, and all it went through otherwise", async () => {
  await using mill = await file.open([plain]);
  const { id } = await mill.enqueue(plain, {});
  const { id: other } = await mill.enqueue(plain, {});
  const ended = (job: string, outcome: string, count: number) =>
    mill.db.query(sql`
      insert into millrace.attempts (job_id, queue, attempt, outcome, finished_at, retry_at)
      select ${job}::uuid, 1, 1, ${outcome}::text, now() - interval '1 hour' + n * interval '1 second', now() + n * interval '1 second'
      from generate_series(1, ${count}::int) n`);
  await ended(id, "failed", 3);
  await ended(id, "snoozed", snoozesKept + 1_200);
  await ended(other, "snoozed", snoozesKept);
  const left = (job: string) =>
    mill.db.query(sql`
      select outcome, count(*)::int as n, max(retry_at) = (select max(retry_at) from millrace.attempts where job_id = ${job}::uuid) as newest
      from millrace.attempts where job_id = ${job}::uuid group by outcome order by outcome`);
  const before = await left(id);
  expect(before).toMatchObject([{ n: 3 }, { n: 2_200 }]);
  expect(await trimSnoozes(mill.db)).toBe(1_000);
  expect(await trimSnoozes(mill.db)).toBe(200);
  expect(await trimSnoozes(mill.db)).toBe(0);
  expect(await left(id)).toEqual([
    { outcome: "failed", n: 3, newest: false },
    { outcome: "snoozed", n: snoozesKept, newest: true },
  ]);
  expect(await left(other)).toMatchObject([{ n: snoozesKept }]);
});

test("tokens that were revoked or expired go with the audit of their time; those that count stay", async () => {
  await using mill = await file.open([plain]);
  const tokens = new Tokens(mill.db, []);
  const made = async (name: string, ended: object): Promise<void> => {
    const { id } = await tokens.create({ name, role: "viewer" });
    const { revoked = null, expires = null } = ended as { revoked?: number; expires?: number };
    await mill.db.query(sql`
      update millrace.api_tokens set revoked_at = now() - ${revoked}::int * interval '1 day', expires_at = now() - ${expires}::int * interval '1 day' where id = ${id}`);
  };
  await made("old", { revoked: 401 });
  await made("past", { expires: 401, revoked: 10 });
  await made("revoked lately", { revoked: 399 });
  await made("for ever", {});
  await made("to come", { expires: -30 });
  const settings = { everyMs: 60_000, archiveAfterMs: dayMs, pruneAfterMs: dayMs, keepFailedMs: dayMs };
  await maintain(mill.db, settings, silent, new AbortController().signal);
  const rows = await mill.db.query<{ name: string }>(sql`select name from millrace.api_tokens order by name`);
  expect(rows.map(({ name }) => name)).toEqual(["for ever", "revoked lately", "to come"]);
});
