/** Schedules in the hands of operators, and the loop that fires them. */
import { NonRetryableError, type ScheduleChanges, type ScheduleOptions, task } from "millrace";
import { describe, expect, test, vi } from "vitest";
import { sql } from "../../src/db/sql.ts";
import { sweepRuns } from "../../src/schedules/runs-store.ts";
import { tally, useDatabase } from "../support/engine.ts";

const file = useDatabase();
const work = task({ name: "work", queue: "own", run: () => undefined });
const minute = 60_000;

describe("an operator", () => {
  test("makes a schedule, changes it, and takes it away", async () => {
    await using mill = await file.open([work]);
    const made = await mill.schedules.create(
      { name: "report", task: "work", every: "1h", input: { a: 1 } },
      { by: "ada" },
    );
    expect(made).toMatchObject({ source: "operator", queue: "own", everyMs: 3_600_000, createdBy: "ada", edited: [] });
    const changed = await mill.schedules.update("report", { cron: "30 2 * * *", zone: "Europe/Berlin" }, { by: "bob" });
    expect(changed).toMatchObject({
      cron: "30 2 * * *",
      everyMs: null,
      zone: "Europe/Berlin",
      updatedBy: "bob",
      input: { a: 1 },
    });
    expect(await mill.schedules.update("report", { zone: null, input: null })).toMatchObject({
      zone: "UTC",
      input: null,
    });
    await mill.schedules.delete("report", { by: "ada" });
    expect(await mill.schedules.list()).toEqual([]);
    const audit = await mill.db.query<{ entry: string }>(
      sql`select action || ' ' || by as entry from millrace.audit where by is not null order by id`,
    );
    expect(audit.map(({ entry }) => entry)).toEqual([
      "schedule.created ada",
      "schedule.changed bob",
      "schedule.deleted ada",
    ]);
  });

  test.each<[string, Partial<ScheduleOptions>, string, RegExp]>([
    ["a pattern that cannot be read", { cron: "61 * * * *" }, "SCHEDULE_INVALID", /61/],
    ["a pattern that never comes", { cron: "0 0 30 2 *" }, "SCHEDULE_INVALID", /never comes/],
    [
      "a zone that does not exist",
      { cron: "@daily", zone: "Europe/Berln" },
      "SCHEDULE_INVALID",
      /Did you mean "Europe\/Berlin"/,
    ],
    ["an offset for a zone", { cron: "@daily", zone: "+02:00" }, "SCHEDULE_INVALID", /IANA/],
    ["a pattern and an interval", { cron: "@daily", every: "1h" }, "SCHEDULE_INVALID", /not both/],
    ["neither", {}, "SCHEDULE_INVALID", /cron or every/],
    ["an interval below a second", { every: "999ms" }, "SCHEDULE_INVALID", /every must be between 1000/],
    ["jitter as long as the interval", { every: "1m", jitter: "60s" }, "SCHEDULE_INVALID", /jitter/],
    ["jitter as long as the pattern's gaps", { cron: "*/5 * * * *", jitter: "5m" }, "SCHEDULE_INVALID", /after 5 min/],
    ["jitter longer than one of them", { cron: "0,50 8 * * MON", jitter: "1h" }, "SCHEDULE_INVALID", /after 50 min/],
    ["jitter across midnight", { cron: "0 0,23 * * *", jitter: "2h" }, "SCHEDULE_INVALID", /after 60 min/],
    ["a pattern with years", { cron: "0 0 0 1 1 * 2021" }, "SCHEDULE_INVALID", /five fields, or six .* not 7 fields/],
    ["a pattern of every year", { cron: "* * * * * * *" }, "SCHEDULE_INVALID", /not 7 fields/],
    ["a moment for a pattern", { cron: "2030-01-01T00:00:00Z" }, "SCHEDULE_INVALID", /five fields.* not 1 field\b/],
    ["a pattern of nothing", { cron: " " }, "SCHEDULE_INVALID", /five fields/],
    ["an unknown overlap", { every: "1m", overlap: "maybe" as never }, "SCHEDULE_INVALID", /allow, skip, queue/],
    ["an unknown field", { every: "1m", catchup: "all" } as never, "OPTION_UNKNOWN", /Did you mean "catchUp"/],
    ["a name with a space", { every: "1m", name: "no way" }, "SCHEDULE_INVALID", /schedule name/],
    ["an input that is too large", { every: "1m", input: "x".repeat(2_000) }, "PAYLOAD_TOO_LARGE", /2002 bytes/],
    ["a queue that cannot be named", { every: "1m", queue: "no way" }, "QUEUE_NAME_INVALID", /queue name/],
  ])("is refused %s, and nothing is written", async (_, options, code, message) => {
    await using mill = await file.open([work], { maxPayloadBytes: 1_000 });
    const made = mill.schedules.create({ name: "one", task: "work", ...options });
    await expect(made).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
    expect(await mill.schedules.list()).toEqual([]);
  });

  test.each<[string, ScheduleChanges, string]>([
    ["nothing", {}, "OPTION_INVALID"],
    ["a bad pattern", { cron: "never" }, "SCHEDULE_INVALID"],
    ["no time at all", { every: null }, "SCHEDULE_INVALID"],
  ])("cannot change a schedule to %s, and it stays as it was", async (_, changes, code) => {
    await using mill = await file.open([work]);
    const before = await mill.schedules.create({ name: "one", task: "work", every: "1m" });
    await expect(mill.schedules.update("one", changes)).rejects.toMatchObject({ code });
    expect(await mill.schedules.get("one")).toEqual(before);
  });

  test("hears that a name is taken, or unknown", async () => {
    await using mill = await file.open([work]);
    await mill.schedules.create({ name: "one", task: "work", every: "1m" });
    const again = mill.schedules.create({ name: "one", task: "work", every: "2m" });
    await expect(again).rejects.toMatchObject({ code: "SCHEDULE_EXISTS" });
    for (const order of ["get", "pause", "resume", "runNow", "runs", "preview", "reset", "delete"] as const)
      await expect(mill.schedules[order]("two")).rejects.toMatchObject({ code: "SCHEDULE_NOT_FOUND" });
    await expect(mill.schedules.reset("one")).rejects.toMatchObject({ code: "SCHEDULE_INVALID" });
  });

  test("pauses with a reason; the ticks of a pause are not made up for", async () => {
    await using mill = await file.open([work]);
    const { nextAt } = await mill.schedules.create({ name: "one", task: "work", every: "1m" });
    expect(await mill.schedules.pause("one", { by: "ada", reason: "deploy" })).toBe(true);
    expect(await mill.schedules.pause("one")).toBe(false);
    const at = new Date((nextAt?.getTime() ?? 0) + 5 * minute);
    expect(await mill.schedules.fire({ at })).toEqual({ schedules: 0, jobs: 0 });
    expect(await mill.schedules.get("one")).toMatchObject({ nextAt: null, paused: { by: "ada", reason: "deploy" } });
    expect(await mill.schedules.resume("one")).toBe(true);
    expect(await mill.schedules.resume("one")).toBe(false);
    expect(await mill.schedules.get("one")).toMatchObject({ paused: null, nextAt });
    expect(await mill.schedules.runs("one")).toEqual([]);
  });

  test("changes the times of a schedule, and no tick that was dealt with comes again", async () => {
    await using mill = await file.open([work]);
    const { nextAt } = await mill.schedules.create({ name: "one", task: "work", every: "1m", overlap: "allow" });
    const at = nextAt as Date;
    await mill.schedules.fire({ at });
    const changed = await mill.schedules.update("one", { every: "30s" });
    expect(changed.nextAt).toEqual(new Date(at.getTime() + minute / 2));
  });

  test("whose clock was a year ahead is not kept waiting for a year", async () => {
    await using mill = await file.open([work]);
    await mill.schedules.create({ name: "one", task: "work", every: "1m", overlap: "allow" });
    await mill.schedules.fire({ at: new Date(Date.now() + 365 * 86_400_000) });
    await mill.schedules.pause("one");
    await mill.schedules.resume("one");
    expect((await mill.schedules.get("one")).nextAt?.getTime()).toBeLessThan(Date.now() + 2 * minute);
  });

  test("sees when a schedule or a pattern comes next", async () => {
    await using mill = await file.open([work]);
    await mill.schedules.create({ name: "one", task: "work", every: "1h" });
    const { nextAt } = await mill.schedules.get("one");
    const ticks = await mill.schedules.preview("one", { count: 2 });
    expect(ticks.map(({ at }) => at)).toEqual([nextAt, new Date((nextAt?.getTime() ?? 0) + 60 * minute)]);
    expect(await mill.schedules.preview({ cron: "0 8 * * *", zone: "Asia/Tokyo" })).toHaveLength(10);
    await expect(mill.schedules.preview({ cron: "x" })).rejects.toMatchObject({ code: "SCHEDULE_INVALID" });
  });

  test("reads lists and histories page by page", async () => {
    await using mill = await file.open([work]);
    for (const name of ["a", "b", "c"])
      await mill.schedules.create({ name, task: "work", every: "1m", overlap: "allow" });
    expect((await mill.schedules.list({ limit: 2 })).map(({ name }) => name)).toEqual(["a", "b"]);
    expect((await mill.schedules.list({ limit: 2, after: "b" })).map(({ name }) => name)).toEqual(["c"]);
    for (let n = 0; n < 3; n += 1) await mill.schedules.runNow("a");
    const [newest, second] = await mill.schedules.runs("a", { limit: 2 });
    expect(await mill.schedules.runs("a", { before: second?.id ?? "" })).toHaveLength(1);
    expect(Number(newest?.id)).toBeGreaterThan(Number(second?.id));
    expect(await mill.schedules.runs("a", { status: "missed" })).toEqual([]);
  });
});

describe("a scheduler", () => {
  test("fires what comes due beside a worker, whose task knows the tick", async () => {
    const seen = tally<{ name: string; at: Date } | undefined>();
    const watch = task({ name: "watch", run: ({ schedule }) => seen.add(schedule) });
    await using mill = await file.open([watch]);
    await using _worker = mill.work();
    await mill.schedules.create({ name: "often", task: watch, every: "1s" });
    const [first, second] = await seen.reached(2);
    expect(first?.name).toBe("often");
    expect((second?.at.getTime() ?? 0) - (first?.at.getTime() ?? 0)).toBeGreaterThanOrEqual(1_000);
    await vi.waitUntil(async () => (await mill.jobs({ status: "completed" })).jobs.length >= 2, { timeout: 10_000 });
    const [run] = await mill.schedules.runs("often");
    const { story } = await mill.timeline(run?.jobId ?? "");
    expect(story[0]).toMatchObject({ kind: "Enqueued", schedule: { name: "often", at: run?.tickAt, runId: run?.id } });
    expect(story[0]?.summary).toMatch(/^Enqueued by schedule "often" for \S+, in queue "default" for task "watch"/);
  });

  test("is not part of a worker that is told so", async () => {
    await using mill = await file.open([work]);
    await mill.schedules.create({ name: "due", task: "work", every: "1s" });
    await mill.db.query(sql`update millrace.schedules set due_at = now() - interval '5 seconds'`);
    await using _worker = mill.work({ scheduler: false });
    // A scheduler would have fired before its worker took the first job.
    const { id } = await mill.enqueue(work, {});
    await vi.waitUntil(async () => (await mill.job(id))?.status === "completed", { timeout: 10_000 });
    expect(await mill.schedules.runs("due")).toEqual([]);
  });

  test("enqueues for a task that nobody knows: a worker that has it may come", async () => {
    await using mill = await file.open();
    await mill.schedules.create({ name: "lonely", task: "nobody-has-it", every: "1m" });
    const { nextAt } = await mill.schedules.get("lonely");
    expect(await mill.schedules.fire({ at: nextAt as Date })).toEqual({ schedules: 1, jobs: 1 });
    expect((await mill.jobs({ status: "waiting" })).jobs).toMatchObject([{ task: "nobody-has-it", queue: "default" }]);
  });
});

test("history is in the view `job_runs` too, with why a run failed", async () => {
  const broken = task({
    name: "broken",
    run: ({ input }) => {
      if (input !== null) throw new NonRetryableError("no such source");
    },
  });
  await using mill = await file.open([broken]);
  for (const [name, fields] of [
    ["bad", { input: 1 }],
    ["good", {}],
  ] as const) {
    await mill.schedules.create({ name, task: "broken", every: "1h", ...fields });
    await mill.schedules.runNow(name, { reason: "by hand" });
  }
  await expect(mill.schedules.runNow("good")).rejects.toMatchObject({ code: "SCHEDULE_BUSY" });
  const read = (): Promise<object[]> =>
    mill.db.query(sql`
      select job_id, status, detail, duration_ms >= 0 as timed, correlation_id is not null as has_job, config_id > 0 as numbered
      from millrace.job_runs order by job_id`);
  const rest = { has_job: true, numbered: true };
  expect(await read()).toEqual([
    { job_id: "bad", status: "running", detail: "by hand", timed: null, ...rest },
    { job_id: "good", status: "running", detail: "by hand", timed: null, ...rest },
  ]);
  await using _worker = mill.work({ scheduler: false });
  await expect.poll(read, { timeout: 20_000 }).toEqual([
    { job_id: "bad", status: "error", detail: "no such source", timed: true, ...rest },
    { job_id: "good", status: "success", detail: "by hand", timed: true, ...rest },
  ]);
  await mill.db.query(sql`
    insert into millrace.schedule_runs (schedule, tick_at, cause, status, count) select id, now(), 'tick', 'missed', 7 from millrace.schedules where name = 'good'`);
  expect(await mill.db.query(sql`select count from millrace.job_runs where status = 'missed'`)).toEqual([{ count: 7 }]);
});

test("history goes by age, and that of a busy schedule by number; what has not ended stays", async () => {
  await using mill = await file.open([work]);
  await mill.schedules.create({ name: "busy", task: "work", every: "1s" });
  await mill.schedules.create({ name: "old", task: "work", every: "1d" });
  await mill.db.query(sql`update millrace.schedules set last_at = next_at - interval '1 second' where name = 'busy'`);
  await mill.db.query(sql`
    insert into millrace.schedule_runs (schedule, tick_at, cause, status, ended_at)
    select s.id, now() - n * interval '1 second', 'tick', 'fired', case when n <> 1500 then now() end
    from millrace.schedules s, generate_series(1, 2500) n where s.name = 'busy'`);
  await mill.db.query(sql`
    insert into millrace.schedule_runs (schedule, tick_at, cause, status, decided_at)
    select s.id, now() - n * interval '1 day', 'tick', 'missed', now() - n * interval '1 day' from millrace.schedules s, generate_series(1, 30) n
    where s.name = 'old'`);
  let gone = 0;
  for (let step = 1; step > 0; gone += step) step = await sweepRuns(mill.db, 14.5 * 86_400_000);
  // The first of the series is the one inserted first: the newest thousand are those inserted last.
  const left = await mill.db.query<{ name: string; n: number }>(sql`
    select s.name, count(*)::int as n from millrace.schedule_runs r join millrace.schedules s on s.id = r.schedule group by s.name order by s.name`);
  expect(left).toEqual([
    { name: "busy", n: 1_001 },
    { name: "old", n: 14 },
  ]);
  expect(gone).toBe(1_499 + 16);
});
