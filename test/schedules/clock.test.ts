/** A clock that jumps: ahead, back, and both. Each tick fires once, and nothing waits for a time that was never there. */
import { type Millrace, type Schedule, type ScheduleFields, defineApp, schedule, task } from "millrace";
import { testMillrace } from "millrace/testing";
import { describe, expect, test, vi } from "vitest";
import type { Executor } from "../../src/db/database.ts";
import { type Sql, sql } from "../../src/db/sql.ts";
import { anyAhead } from "../../src/schedules/clock-store.ts";
import { sweepRuns } from "../../src/schedules/runs-store.ts";
import { startClock } from "../../src/testing/clock-store.ts";
import { useDatabase } from "../support/engine.ts";

const file = useDatabase();
const work = task({ name: "work", run: () => undefined });
const minute = 60_000;
const year = 365 * 86_400_000;

const every = (name: string, fields: ScheduleFields = {}): Schedule =>
  schedule({ name, task: work, every: "1m", overlap: "allow", ...fields });

const nextOf = async (mill: Millrace, name: string): Promise<Date> => (await mill.schedules.get(name)).nextAt as Date;
const soon = (): number => Date.now() + minute;

/** As if all of that had been written while the clock was a year ahead. */
async function aYearAgo({ db }: Millrace, ...columns: ("next_at" | "due_at" | "placed_at")[]): Promise<void> {
  for (const column of columns)
    await db.script(`update millrace.schedules set ${column} = ${column} + interval '365 days'`);
}

describe("after a clock that was a year ahead has come back", () => {
  test("what it fired is set back to its next tick, which the log and the audit say", async () => {
    const warn = vi.fn<(facts: object, text: string) => void>();
    const log = { debug() {}, info() {}, warn, error() {} };
    await using mill = await file.open([work], { log }, [every("one"), every("two")]);
    const before = await nextOf(mill, "one");
    await mill.schedules.fire({ at: new Date(Date.now() + year) });
    expect((await nextOf(mill, "one")).getTime()).toBeGreaterThan(Date.now() + year - minute);
    expect(await mill.schedules.setBack()).toBe(2);
    expect((await nextOf(mill, "one")).getTime()).toBeLessThanOrEqual(soon());
    expect((await nextOf(mill, "one")).getTime()).toBeGreaterThanOrEqual(before.getTime());
    expect((await mill.schedules.get("one")).lastAt).toBeNull();
    expect(warn).toHaveBeenCalledExactlyOnceWith({ schedules: 2 }, expect.stringMatching(/has come back.*"one"/));
    const audit = await mill.db.query(
      sql`select subject, by from millrace.audit where action = 'schedule.set_back' order by id`,
    );
    expect(audit).toHaveLength(2);
    expect(audit).toContainEqual({ subject: "schedule:one", by: null });
    expect(await mill.schedules.setBack()).toBe(0);
  });

  test("a scheduler notices by itself, and the schedule goes on", async () => {
    await using mill = await file.open([work], {}, [every("one", { every: "1s" })]);
    await mill.schedules.fire({ at: new Date(Date.now() + year) });
    const fired = (await mill.schedules.runs("one", { status: "fired" })).length;
    await using _worker = mill.work();
    await vi.waitUntil(async () => (await mill.schedules.runs("one", { status: "fired" })).length > fired, {
      timeout: 20_000,
    });
    expect((await nextOf(mill, "one")).getTime()).toBeLessThanOrEqual(soon());
  });

  test("ticks it fired are not fired again when their time comes; the others are, once each", async () => {
    await using mill = await file.open([work], {}, [every("one")]);
    const start = (await nextOf(mill, "one")).getTime();
    const at = (n: number): Date => new Date(start + n * minute);
    // The clock is ten minutes ahead, for as long as three ticks.
    for (const n of [10, 11, 12]) await mill.schedules.fire({ at: at(n) });
    const ahead = (await mill.schedules.runs("one", { status: "fired" })).map(({ tickAt }) => tickAt.getTime());
    expect(ahead).toContain(at(12).getTime());
    expect(await mill.schedules.setBack()).toBe(1);
    expect(await nextOf(mill, "one")).toEqual(at(0));
    const jobs = [];
    for (let n = 0; n <= 14; n += 1) jobs.push((await mill.schedules.fire({ at: at(n) })).jobs);
    expect(jobs).toEqual(jobs.map((_, n) => (ahead.includes(at(n).getTime()) ? 0 : 1)));
    const runs = await mill.schedules.runs("one", { limit: 500 });
    expect(
      runs
        .map(({ status, tickAt }) => [status, tickAt])
        .toReversed()
        .toSorted(),
    ).toEqual(jobs.map((_, n) => ["fired", at(n)]).toSorted());
    expect((await mill.schedules.get("one")).trouble).toBeNull();
    expect(await nextOf(mill, "one")).toEqual(at(15));
  });

  test("what it made is set back too, though it never fired", async () => {
    await using mill = await file.open([work], {}, [every("one", { every: "1h" })]);
    await aYearAgo(mill, "next_at", "due_at", "placed_at");
    expect(await mill.schedules.setBack()).toBe(1);
    expect((await nextOf(mill, "one")).getTime()).toBeLessThanOrEqual(Date.now() + 60 * minute);
  });

  test("an edit that leaves its times alone does not hide it", async () => {
    await using mill = await file.open([work], {}, [every("one")]);
    await aYearAgo(mill, "next_at", "due_at", "placed_at");
    await mill.schedules.update("one", { input: 1 });
    expect(await mill.schedules.setBack()).toBe(1);
  });

  test("one that could not be fired then is tried at once, its tick not forgotten", async () => {
    await using mill = await file.open([work], {}, [every("one", { startGrace: "1h" })]);
    await mill.db.query(sql`
      update millrace.schedules set next_at = now() - interval '90 seconds', trouble = 'out of range', due_at = now() + interval '1 year',
             placed_at = now() + interval '1 year'`);
    expect(await mill.schedules.setBack()).toBe(1);
    expect((await mill.schedules.fire()).schedules).toBe(1);
    expect(await mill.schedules.runs("one", { status: "fired" })).toHaveLength(2);
    expect((await mill.schedules.get("one")).trouble).toBeNull();
  });

  test("one that cannot be read here says so, and holds up no other", async () => {
    await using mill = await file.open([work], {}, [every("good"), every("bad")]);
    await aYearAgo(mill, "next_at", "due_at", "placed_at");
    await mill.db.query(sql`
      update millrace.schedules set spec = spec || '{"everyMs": null, "cron": "from the future"}' where name = 'bad'`);
    expect(await mill.schedules.setBack()).toBe(2);
    expect((await nextOf(mill, "good")).getTime()).toBeLessThanOrEqual(soon());
    await mill.schedules.fire();
    expect((await mill.schedules.get("bad")).trouble).toMatch(/cannot tell when "from the future"/);
  });

  test("one that is paused stays so, and has its next tick when it goes on", async () => {
    await using mill = await file.open([work], {}, [every("one")]);
    await mill.schedules.fire({ at: new Date(Date.now() + year) });
    await mill.schedules.pause("one");
    await aYearAgo(mill, "placed_at");
    expect(await mill.schedules.setBack()).toBe(0);
    await mill.schedules.resume("one");
    expect((await nextOf(mill, "one")).getTime()).toBeLessThanOrEqual(soon());
  });

  test("rows of ticks to come outlast the history of a busy schedule", async () => {
    await using mill = await file.open([work], {}, [every("busy", { every: "1s" })]);
    await mill.db.query(sql`update millrace.schedules set last_at = next_at - interval '1 second'`);
    await mill.db.query(sql`
      insert into millrace.schedule_runs (schedule, tick_at, cause, status, ended_at)
      select s.id, now() + n * interval '1 second', 'tick', 'fired', now() from millrace.schedules s,
             (select 86400 + n as n from generate_series(1, 3) n union all select * from generate_series(-1010, -1)) ticks (n)`);
    expect(await sweepRuns(mill.db, 14.5 * 86_400_000)).toBe(10);
    const left = await mill.db.query<{ n: number }>(
      sql`select count(*)::int as n from millrace.schedule_runs where tick_at > now()`,
    );
    expect(left).toEqual([{ n: 3 }]);
  });
});

test("a clock that was less than a minute ahead is waited for", async () => {
  await using mill = await file.open([work], {}, [every("one")]);
  await mill.schedules.fire({ at: await nextOf(mill, "one") });
  const next = await nextOf(mill, "one");
  expect(await mill.schedules.setBack()).toBe(0);
  expect(await nextOf(mill, "one")).toEqual(next);
});

test("a daily schedule made and fired by a clock that jumps goes on where it was", async () => {
  const start = Date.parse("2030-01-07T12:00:00Z");
  const app = defineApp({ tasks: [work], schedules: [] });
  await using mill = await testMillrace(app, { now: new Date(start) });
  const daily = { task: work, cron: "0 8 * * *", overlap: "allow" } as const;
  await mill.schedules.create({ name: "before", ...daily });
  // Two days ahead, past two ticks: one is missed, the other fired late.
  await startClock(mill.pglite, start + 2 * 86_400_000);
  await mill.schedules.create({ name: "meanwhile", ...daily });
  expect(await mill.schedules.fire()).toEqual({ schedules: 1, jobs: 1 });
  await startClock(mill.pglite, start + 60 * minute);
  expect(await mill.schedules.setBack()).toBe(2);
  for (const name of ["before", "meanwhile"])
    expect(await nextOf(mill, name)).toEqual(new Date("2030-01-08T08:00:00Z"));
  await startClock(mill.pglite, Date.parse("2030-01-08T08:00:00Z"));
  expect(await mill.schedules.fire()).toEqual({ schedules: 2, jobs: 2 });
  await startClock(mill.pglite, Date.parse("2030-01-09T08:00:00Z"));
  expect(await mill.schedules.fire()).toEqual({ schedules: 2, jobs: 1 });
  await startClock(mill.pglite, Date.parse("2030-01-10T08:00:00Z"));
  expect(await mill.schedules.fire()).toEqual({ schedules: 2, jobs: 2 });
  const days = (await mill.schedules.runs("before")).map(({ status, tickAt }) => `${status} ${tickAt.getUTCDate()}`);
  expect(days.toSorted()).toEqual(["fired 10", "fired 8", "fired 9"]);
});

test("a job that it fired and nobody took is due at once, and stands in no tick's way", async () => {
  const start = Date.parse("2030-01-07T12:00:00Z");
  const app = defineApp({ tasks: [work], schedules: [every("one", { overlap: "skip" })] });
  await using mill = await testMillrace(app, { now: new Date(start) });
  await mill.runUntilIdle();
  await startClock(mill.pglite, start + year);
  await mill.schedules.fire();
  await startClock(mill.pglite, start);
  const { jobs } = await mill.jobs({ status: "delayed" });
  expect(jobs).toHaveLength(1);
  await mill.schedules.setBack();
  const [run] = await mill.runUntilIdle();
  expect(run).toMatchObject({ id: jobs[0]?.id, status: "completed" });
  const { story } = await mill.timeline(jobs[0]?.id ?? "");
  expect(JSON.stringify(story)).toContain("the clock was ahead and has come back");
  await mill.advance("1m");
  expect((await mill.schedules.runs("one")).map(({ outcome }) => outcome)).toEqual(["completed", "completed"]);
});

test("whether there is any is one look into an index, however many schedules there are", async () => {
  await using mill = await file.open([work], {}, [every("one")]);
  await mill.db.query(sql`
    insert into millrace.schedules (name, source, spec, task, queue, next_at, due_at)
    select name || n, 'operator', spec, task, queue, next_at, due_at from millrace.schedules, generate_series(1, 5000) n`);
  const asked: Sql[] = [];
  const listening = { query: async (statement: Sql) => (asked.push(statement), []) } as unknown as Executor;
  await anyAhead(listening);
  const lines = await mill.db.query<{ "QUERY PLAN": string }>(sql`explain (analyze, timing off) ${asked[0]}`);
  const plan = lines.map((line) => line["QUERY PLAN"]).join("\n");
  expect(plan).toMatch(/Index (Only )?Scan using schedules_placed .*rows=0/);
  expect(plan).not.toMatch(/Seq Scan|Rows Removed/);
});
