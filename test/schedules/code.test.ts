/** Schedules that code defines: made, changed and retired with it, without taking back what operators said. */
import { type Millrace, type Schedule, type ScheduleFields, defineApp, schedule, task } from "millrace";
import { describe, expect, test, vi } from "vitest";
import { z } from "zod";
import { sql } from "../../src/db/sql.ts";
import { Presence } from "../../src/schedules/presence.ts";
import { useDatabase } from "../support/engine.ts";

type Presenter = ConstructorParameters<typeof Presence>[0];

const file = useDatabase();
const work = task({ name: "work", queue: "own", maxAttempts: 4, priority: 3, run: () => undefined });

const daily = (name: string, fields: ScheduleFields = {}): Schedule =>
  schedule({ name, task: work, ...(fields.every === undefined ? { cron: "0 8 * * *" } : {}), ...fields });

/** Another process of an app with these schedules starts. */
async function start(schema: string, ...schedules: Schedule[]): Promise<void> {
  await (await file.open([work], { schema }, schedules)).close();
}

/** No process of any version says any more that it lives. */
async function allGone(db: { query: (statement: ReturnType<typeof sql>) => Promise<unknown> }): Promise<void> {
  await db.query(sql`update millrace.schedule_versions set beat_at = beat_at - interval '2 minutes'`);
}

describe("a schedule in code", () => {
  test.each([
    ["years", "0 0 0 1 1 * 2021", /not 7 fields/],
    ["a moment", "2030-01-01T00:00:00Z", /not 1 field/],
    ["a day that no year has", "0 0 30 2 *", /never comes/],
  ])("is refused where it is written when its pattern is %s", (_, cron, message) => {
    expect(() => schedule({ name: "one", task: work, cron })).toThrow(message);
  });

  test("is made when the app starts, with what its task says where it says nothing", async () => {
    await using mill = await file.open([work], {}, [daily("report"), daily("asleep", { every: "5m" })]);
    expect(await mill.schedules.get("report")).toMatchObject({
      source: "code",
      cron: "0 8 * * *",
      zone: "UTC",
      queue: "own",
      maxAttempts: 4,
      priority: 3,
      overlap: "skip",
      concurrency: 1,
      catchUp: "last",
      jitterMs: 0,
      startGraceMs: 60_000,
      runGraceMs: null,
      edited: [],
      paused: null,
    });
    expect((await mill.schedules.get("report")).nextAt?.toISOString()).toMatch(/T08:00:00\.000Z$/);
  });

  test("may begin paused, and an operator's word about that stays", async () => {
    const asleep = schedule({ name: "asleep", task: work, every: "1m", paused: true });
    await using mill = await file.open([work], {}, [asleep]);
    expect(await mill.schedules.get("asleep")).toMatchObject({ nextAt: null, paused: { by: "its definition" } });
    await mill.schedules.resume("asleep");
    await start(mill.db.schema, asleep);
    expect((await mill.schedules.get("asleep")).paused).toBeNull();
  });

  test("whose input its task does not take is refused before anything is written", async () => {
    const strict = task({ name: "strict", input: z.object({ n: z.number() }), run: () => undefined });
    const wrong = schedule({ name: "wrong", task: strict as never, every: "1m", input: { n: "one" } as never });
    await using mill = await file.open();
    await expect(file.open([strict], { schema: mill.db.schema }, [daily("right"), wrong])).rejects.toMatchObject({
      code: "BAD_PAYLOAD",
    });
    expect(await mill.schedules.list()).toEqual([]);
  });

  test("changes with the code, and keeps its place when its times stay the same", async () => {
    await using mill = await file.open([work], {}, [daily("report", { every: "10m" })]);
    const before = await mill.schedules.get("report");
    await start(mill.db.schema, daily("report", { every: "10m", input: "new" }));
    expect(await mill.schedules.get("report")).toMatchObject({ input: "new", nextAt: before.nextAt });
    await start(mill.db.schema, daily("report", { every: "20m" }));
    const after = await mill.schedules.get("report");
    expect(after.everyMs).toBe(1_200_000);
    expect(after.nextAt).not.toEqual(before.nextAt);
  });

  test("keeps what an operator changed and paused, until it is reset", async () => {
    await using mill = await file.open([work], {}, [daily("report")]);
    await mill.schedules.update("report", { cron: "0 9 * * *", overlap: "queue" }, { by: "ada" });
    await mill.schedules.pause("report", { by: "ada", reason: "too loud" });
    await start(mill.db.schema, daily("report", { zone: "Europe/Berlin", concurrency: 5 }));
    expect(await mill.schedules.get("report")).toMatchObject({
      cron: "0 9 * * *",
      overlap: "queue",
      zone: "Europe/Berlin",
      concurrency: 5,
      edited: ["cron", "overlap"],
      paused: { by: "ada", reason: "too loud" },
      nextAt: null,
    });
    expect(await mill.schedules.reset("report", { by: "ada" })).toMatchObject({
      cron: "0 8 * * *",
      overlap: "skip",
      zone: "Europe/Berlin",
      edited: [],
      paused: { by: "ada" },
    });
  });

  test("that an operator made an interval stays one when the code changes its pattern", async () => {
    await using mill = await file.open([work], {}, [daily("report")]);
    await mill.schedules.update("report", { every: "5m" });
    await start(mill.db.schema, daily("report", { cron: "0 10 * * *" }));
    expect(await mill.schedules.get("report")).toMatchObject({ cron: null, everyMs: 300_000 });
    expect(await mill.schedules.update("report", { every: null })).toMatchObject({
      cron: "0 10 * * *",
      everyMs: null,
      edited: [],
    });
  });

  test("takes over the name of an operator's, whose say stays as a change", async () => {
    await using mill = await file.open([work]);
    await mill.schedules.create({ name: "report", task: "work", every: "1h", input: "theirs" });
    await start(mill.db.schema, daily("report", { input: "ours" }));
    expect(await mill.schedules.get("report")).toMatchObject({ source: "code", everyMs: 3_600_000, input: "theirs" });
    expect(await mill.schedules.reset("report")).toMatchObject({ cron: "0 8 * * *", input: "ours" });
  });

  test("cannot be deleted, for it would come back", async () => {
    await using mill = await file.open([work], {}, [daily("report")]);
    await expect(mill.schedules.delete("report")).rejects.toMatchObject({ code: "SCHEDULE_IN_CODE" });
  });
});

describe("versions side by side", () => {
  const [old, fresh] = [daily("report", { input: "old" }), daily("report", { input: "new" })];

  test("do not take turns: the one that came last decides for as long as it lives", async () => {
    await using mill = await file.open([work], {}, [old]);
    await start(mill.db.schema, fresh);
    await start(mill.db.schema, old);
    expect(await mill.schedules.get("report")).toMatchObject({ input: "new" });
    const audit = await mill.db.query(sql`select from millrace.audit where action = 'schedule.defined'`);
    expect(audit).toHaveLength(1);
  });

  test("after the newer one is gone, the older one decides again", async () => {
    await using mill = await file.open([work], {}, [old]);
    await start(mill.db.schema, fresh);
    await allGone(mill.db);
    await mill.schedules.define(mill.definedSets(false));
    expect(await mill.schedules.get("report")).toMatchObject({ input: "old" });
  });

  test("a schedule that no living version defines is retired, and comes back with its code", async () => {
    await using mill = await file.open([work], {}, [old, daily("gone")]);
    await start(mill.db.schema, fresh);
    expect(await mill.schedules.get("gone")).toMatchObject({ retiredAt: null });
    await allGone(mill.db);
    await start(mill.db.schema, fresh);
    expect(await mill.schedules.get("gone")).toMatchObject({ retiredAt: expect.any(Date), nextAt: null });
    expect(await mill.schedules.get("report")).toMatchObject({ input: "new", retiredAt: null });
    expect(await mill.schedules.fire({ at: new Date(Date.now() + 86_400_000) })).toEqual({ schedules: 1, jobs: 1 });
    await start(mill.db.schema, old, daily("gone"));
    expect(await mill.schedules.get("gone")).toMatchObject({ retiredAt: null, nextAt: expect.any(Date) });
    await allGone(mill.db);
    await start(mill.db.schema, fresh);
    await mill.schedules.delete("gone");
    await expect(mill.schedules.get("gone")).rejects.toMatchObject({ code: "SCHEDULE_NOT_FOUND" });
  });

  test("an app without schedules takes nobody else's away by starting", async () => {
    await using mill = await file.open([work], {}, [old]);
    await allGone(mill.db);
    await start(mill.db.schema);
    expect(await mill.schedules.get("report")).toMatchObject({ retiredAt: null });
  });

  test("two apps define their own schedules in one database", async () => {
    await using mill = await file.open([work], {}, [daily("of-a")]);
    await start(mill.db.schema, daily("of-b"));
    await start(mill.db.schema, daily("of-a"));
    expect((await mill.schedules.list()).map(({ name, retiredAt }) => [name, retiredAt])).toEqual([
      ["of-a", null],
      ["of-b", null],
    ]);
  });

  test("many that start at once make each schedule once", async () => {
    await using mill = await file.open([work]);
    const schedules = Array.from({ length: 20 }, (_, n) => daily(`s${n}`));
    await Promise.all([1, 2, 3, 4].map(() => start(mill.db.schema, ...schedules)));
    expect(await mill.schedules.list()).toHaveLength(20);
  });
});

describe("a process that is told to leave schedules alone", () => {
  /** Starts one, which stays. */
  const keeper = (schema: string, ...schedules: Schedule[]): Promise<Millrace> =>
    file.open([work], { schema, scheduler: false }, schedules);

  test("defines nothing", async () => {
    await using mill = await file.open([work], { scheduler: false }, [daily("report")]);
    expect(await mill.schedules.list()).toEqual([]);
  });

  test("keeps what its code defines from being retired, as long as it lives", async () => {
    await using mill = await file.open([work], {}, [daily("report"), daily("dropped")]);
    await allGone(mill.db);
    await using _old = await keeper(mill.db.schema, daily("report"), daily("dropped"));
    await start(mill.db.schema, daily("report"));
    expect(await mill.schedules.get("dropped")).toMatchObject({ retiredAt: null });
    await allGone(mill.db);
    await start(mill.db.schema, daily("report"));
    expect(await mill.schedules.get("dropped")).toMatchObject({ retiredAt: expect.any(Date) });
  });

  test("does not bring back, nor take back, what newer code said", async () => {
    await using mill = await file.open([work], {}, [daily("report", { input: "old" }), daily("dropped")]);
    await allGone(mill.db);
    const fresh = daily("report", { input: "new" });
    await start(mill.db.schema, fresh);
    await using _old = await keeper(mill.db.schema, daily("report", { input: "old" }), daily("dropped"));
    await start(mill.db.schema, fresh);
    expect(await mill.schedules.get("dropped")).toMatchObject({ retiredAt: expect.any(Date) });
    expect(await mill.schedules.get("report")).toMatchObject({ input: "new" });
  });

  test("does not stand in the way of one that defines, though it came later", async () => {
    await using mill = await file.open([work], {}, [daily("report", { input: "old" })]);
    await using _fresh = await keeper(mill.db.schema, daily("report", { input: "new" }));
    await mill.db.query(sql`update millrace.schedules set retired_at = now(), next_at = null, due_at = null`);
    await start(mill.db.schema, daily("report", { input: "old" }));
    expect(await mill.schedules.get("report")).toMatchObject({ input: "old", retiredAt: null });
  });

  test.each([true, false])("says that it lives while it works (told so only by its worker: %s)", async (scheduler) => {
    await using mill = await file.open([work], { scheduler }, [daily("report")]);
    await allGone(mill.db);
    await using _worker = mill.work({ scheduler: false });
    const alive = sql`select from millrace.schedule_versions where beat_at > now() - interval '1 minute'`;
    await vi.waitUntil(async () => (await mill.db.query(alive)).length === 1, { timeout: 20_000 });
  });

  test("brings its schedules back when only its worker was told so, and they were retired meanwhile", async () => {
    await using mill = await file.open([work], {}, [daily("report")]);
    await allGone(mill.db);
    await start(mill.db.schema, daily("other"));
    expect(await mill.schedules.get("report")).toMatchObject({ retiredAt: expect.any(Date) });
    await using _worker = mill.work({ scheduler: false });
    await vi.waitUntil(async () => (await mill.schedules.get("report")).retiredAt === null, { timeout: 20_000 });
  });
});

test("a worker says every 15 s that its code lives, whatever comes between, until it stops", async () => {
  vi.useFakeTimers();
  try {
    const keepAlive = vi.fn<Presenter["keepAlive"]>().mockRejectedValueOnce(new Error("gone")).mockResolvedValue();
    const warn = vi.fn<(facts: object, text: string) => void>();
    const log = { debug() {}, info() {}, warn, error() {} };
    const presence = new Presence({ keepAlive, define: vi.fn<Presenter["define"]>() }, [], false, log);
    presence.start();
    await vi.advanceTimersByTimeAsync(45_000);
    expect(keepAlive).toHaveBeenCalledTimes(4);
    expect(warn).toHaveBeenCalledTimes(1);
    await presence.stop();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(keepAlive).toHaveBeenCalledTimes(4);
  } finally {
    vi.useRealTimers();
  }
});

describe("after a silence of all", () => {
  const minute = 60_000;

  test.each([
    ["for the database was away", -2 * minute],
    ["for its clock has jumped back", 2 * minute],
  ])("%s, others get a minute to say that they live", async (_, apartMs) => {
    await using mill = await file.open([work], {}, [daily("of-a")]);
    await start(mill.db.schema, daily("of-b"));
    const sets = mill.definedSets(false);
    const before = await mill.schedules.define(sets);
    await mill.db.query(
      sql`update millrace.schedule_versions set beat_at = beat_at + ${apartMs}::float8 * interval '1 millisecond'`,
    );
    const patient = await mill.schedules.define(sets, { before: { ...before, atMs: before.atMs + apartMs } });
    expect(patient.patientUntilMs).toBe(patient.atMs + minute);
    expect(await mill.schedules.get("of-b")).toMatchObject({ retiredAt: null });
    const later = await mill.schedules.define(sets, { before: patient });
    expect(later.patientUntilMs).toBe(patient.patientUntilMs);
    expect(await mill.schedules.get("of-b")).toMatchObject({ retiredAt: null });
    // Nobody did.
    await mill.schedules.define(sets, { before: { ...later, patientUntilMs: later.atMs } });
    expect(await mill.schedules.get("of-b")).toMatchObject({ retiredAt: expect.any(Date) });
    expect(await mill.schedules.get("of-a")).toMatchObject({ retiredAt: null });
  });

  test("a version that a clock that was ahead saw first comes before those that come after it", async () => {
    await using mill = await file.open([work], {}, [daily("report", { input: "old" })]);
    await mill.db.query(sql`
      update millrace.schedule_versions set first_at = first_at + interval '1 year', beat_at = beat_at + interval '1 year'`);
    await mill.schedules.define(mill.definedSets(false));
    await start(mill.db.schema, daily("report", { input: "new" }));
    expect(await mill.schedules.get("report")).toMatchObject({ input: "new" });
  });
});

test("an app that defines a name twice is refused", () => {
  expect(() => defineApp({ tasks: [work], schedules: [daily("a"), daily("a")] })).toThrow(/Two schedules/);
  expect(() => defineApp({ tasks: [work], schedules: [work as never] })).toThrow(/must come from schedule/);
});
