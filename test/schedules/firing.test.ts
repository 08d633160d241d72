/** Schedules fired step by step, at moments the test names: once each, whoever fires them. */
import { type Millrace, type Schedule, type ScheduleFields, schedule, task } from "millrace";
import { describe, expect, test } from "vitest";
import { sql } from "../../src/db/sql.ts";
import { useDatabase } from "../support/engine.ts";
import { StoreWorker } from "../support/store-worker.ts";

const file = useDatabase();
const work = task({ name: "work", run: () => undefined });
const minute = 60_000;

const every = (name: string, fields: ScheduleFields = {}): Schedule =>
  schedule({ name, task: work, every: "1m", overlap: "allow", ...fields });

/** The nth tick of a schedule from now on. */
async function tick(mill: Millrace, name: string, n = 1): Promise<Date> {
  const { nextAt } = await mill.schedules.get(name);
  return new Date((nextAt?.getTime() ?? Number.NaN) + (n - 1) * minute);
}

/** `status` of each run, oldest first, with `outcome` where it has ended. */
async function runs(mill: Millrace, name: string): Promise<string[]> {
  const all = await mill.schedules.runs(name, { limit: 500 });
  return all
    .toReversed()
    .map(({ status, outcome, count }) =>
      [status, ...(count > 1 ? [count] : []), ...(outcome ? [outcome] : [])].join(" "),
    );
}

async function endOldest(mill: Millrace, name: string, outcome: "completed" | "failed" = "completed"): Promise<void> {
  const open = (await mill.schedules.runs(name, { status: "fired" })).findLast(({ endedAt }) => endedAt === null);
  await mill.db.transaction((tx) =>
    mill.schedules.runsEnded(tx, [{ jobId: open?.jobId ?? "", outcome, at: new Date() }]),
  );
}

describe("a tick", () => {
  test("enqueues the job it describes, which knows its schedule", async () => {
    await using mill = await file.open([work], {}, [
      every("report", { input: { n: 1 }, queue: "mail", priority: 7, maxAttempts: 3, tags: ["daily"], timeout: "5s" }),
    ]);
    const at = await tick(mill, "report");
    expect(await mill.schedules.fire({ at })).toEqual({ schedules: 1, jobs: 1 });
    const [job] = (await mill.jobs()).jobs;
    expect(job).toMatchObject({
      task: "work",
      queue: "mail",
      priority: 7,
      maxAttempts: 3,
      tags: ["daily"],
      input: { n: 1 },
    });
    const [run] = await mill.schedules.runs("report");
    expect(run).toMatchObject({ status: "fired", cause: "tick", tickAt: at, jobId: job?.id, lateMs: 0 });
    const [stored] = await mill.db.query<{ options: object }>(sql`select options from millrace.jobs`);
    expect(stored?.options).toEqual({
      timeout_ms: 5_000,
      watched: true,
      schedule: { name: "report", at: at.toISOString(), run: run?.id },
    });
  });

  test("of a drained system waits, and fires when it goes on", async () => {
    await using mill = await file.open([work], {}, [every("report")]);
    const at = await tick(mill, "report");
    await mill.drain();
    expect(await mill.schedules.fire({ at })).toEqual({ schedules: 0, jobs: 0 });
    await mill.undrain();
    expect(await mill.schedules.fire({ at })).toEqual({ schedules: 1, jobs: 1 });
  });

  test("waits while scheduling is stopped, as do runs behind others; what was missed follows catchUp", async () => {
    await using mill = await file.open([work], {}, [
      every("last", { catchUp: "last" }),
      every("none", { catchUp: "none", startGrace: "1s" }),
      every("line", { overlap: "queue" }),
    ]);
    const at = await tick(mill, "line");
    await mill.schedules.fire({ at });
    await mill.schedules.fire({ at: new Date(at.getTime() + minute) });
    expect(await runs(mill, "line")).toEqual(["fired", "queued"]);
    expect(await mill.registry.stopScheduling({ by: "ada" })).toBe(true);
    expect(await mill.registry.stopScheduling({ by: "bob" })).toBe(false);
    expect((await mill.schedules.get("last")).stopped).toEqual({ at: expect.any(Date), by: "ada" });
    const later = new Date(at.getTime() + 10 * minute);
    expect(await mill.schedules.fire({ at: later })).toEqual({ schedules: 0, jobs: 0 });
    await endOldest(mill, "line");
    expect(await runs(mill, "line")).toEqual(["fired completed", "queued"]);
    expect(await mill.registry.resumeScheduling()).toBe(true);
    expect((await mill.schedules.get("last")).stopped).toBeNull();
    await mill.schedules.check([(await mill.schedules.get("line")).id]);
    expect(await runs(mill, "line")).toEqual(["fired completed", "fired"]);
    await mill.schedules.fire({ at: later });
    expect((await runs(mill, "last")).slice(2)).toEqual(["missed 7", "fired", "fired"]);
    expect((await runs(mill, "none")).slice(2)).toEqual(["missed 8", "fired"]);
  });

  test("a run has ended when its job has, and a queued one begins then", async () => {
    await using mill = await file.open([work], {}, [every("report", { overlap: "queue" })]);
    const at = await tick(mill, "report");
    await mill.schedules.fire({ at });
    await mill.schedules.fire({ at: new Date(at.getTime() + minute) });
    expect(await runs(mill, "report")).toEqual(["fired", "queued"]);
    mill.work({ scheduler: false });
    await expect.poll(() => runs(mill, "report"), { timeout: 10_000 }).toEqual(["fired completed", "fired completed"]);
  });

  test("fires once, however many schedulers there are", async () => {
    const schedules = Array.from({ length: 40 }, (_, n) => every(`s${n}`));
    await using mill = await file.open([work], {}, schedules);
    await using other = await file.open([work], { schema: mill.db.schema }, schedules);
    for (let n = 1; n <= 3; n += 1) {
      const at = new Date(Date.now() + n * minute);
      const steps = [mill, other, mill, other].map(async (one) => {
        let jobs = 0;
        for (let idle = 0; idle < 3;) {
          const fired = await one.schedules.fire({ at, limit: 7 });
          jobs += fired.jobs;
          idle += fired.schedules === 0 ? 1 : 0;
        }
        return jobs;
      });
      expect((await Promise.all(steps)).reduce((sum, jobs) => sum + jobs, 0)).toBe(40);
    }
    const [doubled] = await mill.db.query<{ n: number }>(sql`
      select count(*)::int as n from (select from millrace.schedule_runs group by schedule, tick_at having count(*) > 1) d`);
    expect(doubled?.n).toBe(0);
    expect(await mill.stats("default")).toMatchObject([{ waiting: 120 }]);
  });

  test("does not fire twice when the clock jumps back", async () => {
    await using mill = await file.open([work], {}, [every("one")]);
    const at = await tick(mill, "one");
    await mill.schedules.fire({ at });
    expect(await mill.schedules.fire({ at: new Date(at.getTime() - 10 * minute) })).toEqual({ schedules: 0, jobs: 0 });
    expect(await mill.schedules.fire({ at })).toEqual({ schedules: 0, jobs: 0 });
    expect(await tick(mill, "one")).toEqual(new Date(at.getTime() + minute));
  });

  test("that has a row already is not fired again, even by a schedule put back in time", async () => {
    await using mill = await file.open([work], {}, [every("one")]);
    const at = await tick(mill, "one");
    await mill.schedules.fire({ at });
    await mill.db.query(sql`update millrace.schedules set next_at = ${at.toISOString()}, due_at = ${at.toISOString()}`);
    expect(await mill.schedules.fire({ at })).toEqual({ schedules: 1, jobs: 0 });
    expect(await runs(mill, "one")).toEqual(["fired"]);
  });

  test("comes later by its jitter, and the one after it does not drift", async () => {
    await using mill = await file.open([work], { random: () => 0.5 }, [every("one", { jitter: "20s" })]);
    const at = await tick(mill, "one");
    expect(await mill.schedules.fire({ at: new Date(at.getTime() + 9_999) })).toEqual({ schedules: 0, jobs: 0 });
    expect(await mill.schedules.fire({ at: new Date(at.getTime() + 10_000) })).toEqual({ schedules: 1, jobs: 1 });
    expect(await tick(mill, "one")).toEqual(new Date(at.getTime() + minute));
  });

  test("late by more than its grace is missed, and made up for once", async () => {
    await using mill = await file.open([work], {}, [
      every("one"),
      every("none", { catchUp: "none" }),
      every("all", { catchUp: "all" }),
    ]);
    const at = await tick(mill, "one", 10);
    // In time is what is no later than a minute: the last two.
    await mill.schedules.fire({ at: new Date(at.getTime() + 30_000) });
    expect(await runs(mill, "one")).toEqual(["missed 9", "fired"]);
    expect(await runs(mill, "none")).toEqual(["missed 9", "fired"]);
    expect(await runs(mill, "all")).toEqual(Array.from({ length: 10 }, () => "fired"));
  });

  test("of a schedule whose pattern this version cannot read is told, and holds up no other", async () => {
    await using mill = await file.open([work], {}, [every("good"), every("bad")]);
    await mill.db.query(sql`
      update millrace.schedules set spec = spec || '{"everyMs": null, "cron": "from the future", "zone": "UTC"}' where name = 'bad'`);
    const at = await tick(mill, "good");
    expect(await mill.schedules.fire({ at })).toEqual({ schedules: 2, jobs: 1 });
    const bad = await mill.schedules.get("bad");
    expect(bad.trouble).toMatch(/cannot tell when "from the future"/);
    expect(await runs(mill, "good")).toEqual(["fired"]);
  });

  test("that cannot be written is put off, and holds up no other", async () => {
    await using mill = await file.open([work], {}, [every("good"), every("bad")]);
    await mill.db.query(sql`
      update millrace.schedules set spec = spec || '{"priority": 99999}', due_at = due_at - interval '1 second' where name = 'bad'`);
    const at = await tick(mill, "good");
    await mill.schedules.fire({ at });
    await mill.schedules.fire({ at });
    expect((await mill.schedules.get("bad")).trouble).toMatch(/out of range/);
    expect(await runs(mill, "good")).toEqual(["fired"]);
    expect(await runs(mill, "bad")).toEqual([]);
  });
});

describe("a queue with rules", () => {
  test("denies runs, which is written down with the code", async () => {
    await using mill = await file.open([work], {}, [
      every("small", { queue: "strict" }),
      every("large", { queue: "strict", input: "x".repeat(100) }),
      every("free"),
    ]);
    await mill.policies.set("strict", { maxPayloadBytes: 50, priority: 9 });
    expect(await mill.schedules.fire({ at: await tick(mill, "large") })).toEqual({ schedules: 3, jobs: 2 });
    expect(await runs(mill, "small")).toEqual(["fired"]);
    expect(await runs(mill, "free")).toEqual(["fired"]);
    expect(await mill.schedules.runs("large")).toMatchObject([
      { status: "denied", code: "PAYLOAD_TOO_LARGE", jobId: null, firedAt: null },
    ]);
    expect((await mill.jobs({ queue: "strict" })).jobs).toMatchObject([{ priority: 9 }]);
    expect(await mill.policies.denials()).toMatchObject([{ queue: "strict", reason_code: "PAYLOAD_TOO_LARGE" }]);
    await expect(mill.schedules.runNow("large")).rejects.toMatchObject({ code: "PAYLOAD_TOO_LARGE" });
    expect(await runs(mill, "large")).toEqual(["denied", "denied"]);
  });

  test("that are full let in as many as fit", async () => {
    await using mill = await file.open(
      [work],
      { maxEnqueuePerMinute: 2 },
      ["a", "b", "c"].map((name) => every(name)),
    );
    const { jobs } = await mill.schedules.fire({ at: await tick(mill, "a") });
    const all = (await Promise.all(["a", "b", "c"].map((name) => runs(mill, name)))).flat();
    expect(all.filter((status) => status === "fired")).toHaveLength(jobs);
    expect(all.filter((status) => status === "denied")).toHaveLength(3 - jobs);
    expect(jobs).toBeLessThan(3);
  });
});

describe("overlap", () => {
  test("skip: nothing begins while as many run as may, and something does when one has ended", async () => {
    await using mill = await file.open([work], {}, [every("one", { overlap: "skip", concurrency: 2 })]);
    for (let n = 0; n < 3; n += 1) await mill.schedules.fire({ at: await tick(mill, "one") });
    expect(await runs(mill, "one")).toEqual(["fired", "fired", "skipped"]);
    await endOldest(mill, "one", "failed");
    await mill.schedules.fire({ at: await tick(mill, "one") });
    expect(await runs(mill, "one")).toEqual(["fired failed", "fired", "skipped", "fired"]);
  });

  test("skip: a run whose job ended in silence does not stop the schedule", async () => {
    await using mill = await file.open([work], {}, [every("one", { overlap: "skip" })]);
    const worker = await StoreWorker.register(mill);
    await mill.schedules.fire({ at: await tick(mill, "one") });
    const claimed = await worker.claim(1);
    await mill.schedules.fire({ at: await tick(mill, "one") });
    await worker.close(claimed);
    await mill.schedules.fire({ at: await tick(mill, "one") });
    const [last] = (await mill.jobs({ status: "waiting" })).jobs;
    await mill.cancel(last?.id ?? "");
    await mill.schedules.fire({ at: await tick(mill, "one") });
    const [waiting] = (await mill.jobs({ status: "waiting" })).jobs;
    await mill.remove(waiting?.id ?? "");
    await mill.schedules.fire({ at: await tick(mill, "one") });
    expect(await runs(mill, "one")).toEqual([
      "fired completed",
      "skipped",
      "fired cancelled",
      "fired removed",
      "fired",
    ]);
  });

  test("queue: runs begin one after the other, in order, as those before them end", async () => {
    await using mill = await file.open([work], {}, [every("one", { overlap: "queue" })]);
    const ticks = [];
    for (let n = 0; n < 3; n += 1) {
      ticks.push(await tick(mill, "one"));
      await mill.schedules.fire({ at: ticks[n] as Date });
    }
    expect(await runs(mill, "one")).toEqual(["fired", "queued", "queued"]);
    expect(await mill.stats("default")).toMatchObject([{ waiting: 1 }]);
    await endOldest(mill, "one");
    expect(await runs(mill, "one")).toEqual(["fired completed", "fired", "queued"]);
    const [second] = (await mill.schedules.runs("one")).filter(({ outcome, status }) => status === "fired" && !outcome);
    expect(second?.tickAt).toEqual(ticks[1]);
    await endOldest(mill, "one");
    await endOldest(mill, "one");
    expect(await runs(mill, "one")).toEqual(["fired completed", "fired completed", "fired completed"]);
    expect(await mill.stats("default")).toMatchObject([{ waiting: 3 }]);
  });

  test("skip: what is made up for runs one after the other, in order, and what comes meanwhile is skipped", async () => {
    await using mill = await file.open([work], {}, [every("one", { overlap: "skip", catchUp: "all" })]);
    const first = await tick(mill, "one");
    // The last is in time.
    await mill.schedules.fire({ at: new Date(first.getTime() + 3 * minute + 30_000) });
    expect(await runs(mill, "one")).toEqual(["fired", "queued", "queued", "skipped"]);
    await expect(mill.schedules.runNow("one")).rejects.toMatchObject({ code: "SCHEDULE_BUSY" });
    await endOldest(mill, "one");
    await mill.schedules.fire({ at: await tick(mill, "one") });
    expect(await runs(mill, "one")).toEqual(["fired completed", "fired", "queued", "skipped", "skipped"]);
    await endOldest(mill, "one");
    await endOldest(mill, "one");
    await mill.schedules.fire({ at: await tick(mill, "one") });
    const ended = ["fired completed", "fired completed", "fired completed"];
    expect(await runs(mill, "one")).toEqual([...ended, "skipped", "skipped", "fired"]);
    const made = (await mill.schedules.runs("one", { status: "fired" })).toReversed();
    expect(made.slice(0, 3).map(({ tickAt }) => (tickAt.getTime() - first.getTime()) / minute)).toEqual([0, 1, 2]);
  });

  test("queue: what its queue does not take leaves its place to the next", async () => {
    await using mill = await file.open([work], {}, [every("one", { overlap: "queue" })]);
    for (let n = 0; n < 3; n += 1) await mill.schedules.fire({ at: await tick(mill, "one") });
    await mill.policies.set("default", { maxPayloadBytes: 1 });
    await endOldest(mill, "one");
    expect(await runs(mill, "one")).toEqual(["fired completed", "denied", "denied"]);
  });

  test("queue: more concurrency begins what waits at once, and a pause keeps it", async () => {
    await using mill = await file.open([work], {}, [every("one", { overlap: "queue" })]);
    for (let n = 0; n < 4; n += 1) await mill.schedules.fire({ at: await tick(mill, "one") });
    await mill.schedules.update("one", { concurrency: 2 });
    expect(await runs(mill, "one")).toEqual(["fired", "fired", "queued", "queued"]);
    await mill.schedules.pause("one");
    await endOldest(mill, "one");
    await endOldest(mill, "one");
    expect(await runs(mill, "one")).toEqual(["fired completed", "fired completed", "queued", "queued"]);
    await mill.schedules.resume("one");
    expect(await runs(mill, "one")).toEqual(["fired completed", "fired completed", "fired", "fired"]);
  });

  test("is exact while runs are fired and end at the same time", async () => {
    const names = Array.from({ length: 10 }, (_, n) => `s${n}`);
    await using mill = await file.open(
      [work],
      {},
      names.map((name) => every(name, { overlap: "queue", concurrency: 2, startGrace: "1h" })),
    );
    const start = await tick(mill, "s0");
    const steps = Array.from({ length: 8 }, (_, n) => async () => {
      await mill.schedules.fire({ at: new Date(start.getTime() + n * minute) });
    });
    const endings = Array.from({ length: 12 }, () => async () => {
      const open = await mill.db.query<{ jobId: string }>(sql`
        select job_id::text as "jobId" from millrace.schedule_runs where status = 'fired' and ended_at is null order by random() limit 5`);
      const at = new Date();
      await mill.db.transaction((tx) =>
        mill.schedules.runsEnded(
          tx,
          open.map(({ jobId }) => ({ jobId, outcome: "completed", at })),
        ),
      );
      const [most] = await mill.db.query<{ n: number }>(sql`
        select coalesce(max(n), 0)::int as n from (
          select count(*) as n from millrace.schedule_runs where status = 'fired' and ended_at is null group by schedule) c`);
      expect(most?.n).toBeLessThanOrEqual(2);
    });
    await Promise.all([
      (async () => {
        for (const step of steps) await step();
      })(),
      (async () => {
        for (const end of endings) await end();
      })(),
    ]);
    // What was held by an ending is fired in the next round.
    await mill.schedules.fire({ at: new Date(start.getTime() + 7 * minute) });
    expect((await Promise.all(names.map((name) => runs(mill, name)))).flat()).toHaveLength(80);
  });
});

describe("a run now", () => {
  test("is one more, paused or not, with an input of its own if wanted", async () => {
    await using mill = await file.open([work], {}, [every("one", { input: 1, overlap: "skip" })]);
    await mill.schedules.pause("one", { by: "ada", reason: "sources are down" });
    const run = await mill.schedules.runNow("one", { by: "ada", reason: "after the fix", input: 2 });
    expect(run).toMatchObject({ status: "fired" });
    expect(await mill.job(run.jobId ?? "")).toMatchObject({ input: 2 });
    expect(await mill.schedules.runs("one")).toMatchObject([{ cause: "manual", by: "ada", reason: "after the fix" }]);
    await expect(mill.schedules.runNow("one")).rejects.toMatchObject({ code: "SCHEDULE_BUSY" });
    expect(await runs(mill, "one")).toEqual(["fired"]);
  });

  test("of a schedule that queues waits behind what runs", async () => {
    await using mill = await file.open([work], {}, [every("one", { overlap: "queue" })]);
    await mill.schedules.runNow("one");
    expect(await mill.schedules.runNow("one")).toMatchObject({ status: "queued", jobId: null });
    await endOldest(mill, "one");
    expect(await runs(mill, "one")).toEqual(["fired completed", "fired"]);
  });
});

test("a run that takes longer than its grace is overdue", async () => {
  await using mill = await file.open([work], {}, [every("one", { runGrace: "10m" })]);
  await mill.schedules.runNow("one");
  expect(await mill.schedules.get("one")).toMatchObject({ active: 1, overdue: 0 });
  await mill.db.query(sql`update millrace.schedule_runs set fired_at = fired_at - interval '11 minutes'`);
  expect(await mill.schedules.get("one")).toMatchObject({ active: 1, overdue: 1 });
  expect(await mill.schedules.runs("one")).toMatchObject([{ overdue: true }]);
  await endOldest(mill, "one");
  expect(await mill.schedules.get("one")).toMatchObject({ active: 0, overdue: 0, lastRun: { outcome: "completed" } });
});
