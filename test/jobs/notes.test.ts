/** What tasks say while they run: how far they are, and lines of their logs, kept with the job. */
import { describe, expect, test, vi } from "vitest";
import { type JobContext, type Millrace, NonRetryableError, type TaskOptions, task } from "millrace";
import { sql } from "../../src/db/sql.ts";
import { lineText, longestLine } from "../../src/jobs/log-line.ts";
import { gate, useDatabase } from "../support/engine.ts";
import { recorder } from "../http/caller.ts";

const file = useDatabase();
const patience = { timeout: 20_000, interval: 10 };

type Run = (context: JobContext<never>) => unknown;

const talker = (run: Run, options: Partial<TaskOptions<undefined, unknown>> = {}) =>
  task({ name: "talker", backoff: { delay: "1ms" }, ...options, run: run as never });

const settled = (mill: Millrace, id: string) =>
  vi.waitFor(async () => {
    const job = await mill.job(id);
    if (job?.finishedAt === null || job === undefined) throw new Error("It has not ended.");
    return job;
  }, patience);

/** Lines as short as they can be told: a count for those that are not there. */
const told = async (mill: Millrace, id: string) =>
  (await mill.logs(id)).map(({ message, missed }) => missed ?? message);

describe("progress", () => {
  test("is written while the job runs, the newest wins, and explain and timeline tell it", async () => {
    const [half, end] = [gate(), gate()];
    const slow = talker(async ({ progress }) => {
      progress(1);
      progress(42);
      await half.opened;
      progress({ rowsDone: 7, of: 9 });
      await end.opened;
    });
    await using mill = await file.open([slow]);
    mill.work();
    const { id } = await mill.enqueue(slow, null);
    await vi.waitFor(async () => expect((await mill.job(id))?.progress).toBe(42), patience);
    expect((await mill.job(id))?.progressAt).toBeInstanceOf(Date);
    expect((await mill.explain(id)).summary).toMatch(/ It said 42 % at \S+/);
    half.open();
    await vi.waitFor(async () => expect((await mill.job(id))?.progress).toEqual({ rowsDone: 7, of: 9 }), patience);
    expect((await mill.explain(id)).facts).toMatchObject({ progress: { rowsDone: 7, of: 9 } });
    end.open();
    await settled(mill, id);
    expect((await mill.timeline(id)).story).toContainEqual({
      kind: "Progress",
      at: expect.any(Date),
      attempt: 1,
      progress: { rowsDone: 7, of: 9 },
      summary: 'Progress of attempt 1: {"of":9,"rowsDone":7}.',
    });
    expect((await mill.jobs()).jobs[0]).toMatchObject({ progress: { rowsDone: 7, of: 9 } });
  });

  const wrong: [string, unknown][] = [
    ["a number below 0", -1],
    ["a number above 100", 100.1],
    ["no number", Number.NaN],
    ["a text", "half"],
    ["an array", [1]],
    ["nothing", null],
    ["what is no JSON", { n: 1n }],
    ["more than 4 KB", { text: "é".repeat(2_100) }],
  ];
  test.for(wrong)("that is %s is refused with a code", async ([, value]) => {
    const bad = talker(({ progress }) => progress(value as never));
    await using mill = await file.open([bad]);
    mill.work();
    const { id } = await mill.enqueue(bad, null);
    expect(await settled(mill, id)).toMatchObject({
      lastErrorCode: "PROGRESS_INVALID",
      deadLetterReason: "NON_RETRYABLE",
      progress: null,
    });
  });

  test("of a job that just ends is there when the job has ended", async () => {
    const quick = talker(({ progress }) => progress(100));
    await using mill = await file.open([quick]);
    const ids = await mill.enqueueMany(
      quick,
      Array.from({ length: 300 }, () => null),
    );
    mill.work();
    await Promise.all(
      ids.map(async (id) => {
        await mill.waitUntilFinished(id, { within: "20s" });
        expect((await mill.job(id))?.progress).toBe(100);
      }),
    );
  });
});

describe("the log of a job", () => {
  test("has its lines in order, of all attempts, with their fields; debug is for the worker alone", async () => {
    const two = talker(({ log, attempt }) => {
      log.debug({}, "not this");
      log.info({ n: attempt, err: new TypeError("odd") }, "begins");
      log.warn({}, "goes on");
      if (attempt === 1) throw new Error("once more");
      log.error({}, "ends");
    });
    const log = recorder();
    await using mill = await file.open([two], { log });
    mill.work();
    const { id } = await mill.enqueue(two, null);
    await vi.waitFor(async () => expect((await mill.job(id))?.status).toBe("completed"), patience);
    const line = { at: expect.any(Date), fields: null, missed: null };
    const err = { name: "TypeError", message: "odd" };
    expect(await mill.logs(id)).toEqual([
      { ...line, n: 1, attempt: 1, level: "info", message: "begins", fields: { n: 1, err } },
      { ...line, n: 2, attempt: 1, level: "warn", message: "goes on" },
      { ...line, n: 3, attempt: 2, level: "info", message: "begins", fields: { n: 2, err } },
      { ...line, n: 4, attempt: 2, level: "warn", message: "goes on" },
      { ...line, n: 5, attempt: 2, level: "error", message: "ends" },
    ]);
    expect((await mill.logs(id, { after: 2, limit: 2 })).map(({ n }) => n)).toEqual([3, 4]);
    expect(log.lines.map(({ message }) => message)).toContain("not this");
    await mill.remove(id);
    expect(await mill.db.query(sql`select count(*)::int as n from millrace.job_logs`)).toEqual([{ n: 0 }]);
    await expect(mill.logs(id)).rejects.toMatchObject({ code: "JOB_NOT_FOUND" });
  });

  test("is bounded, over all attempts, and says how many lines are not there", async () => {
    const chatty = talker(
      async ({ log, attempt }) => {
        for (let i = 1; i <= 4; i += 1) log.info({}, `${attempt}.${i}`);
        if (attempt < 4) throw new Error("again");
      },
      { keepLogs: 6 },
    );
    await using mill = await file.open([chatty]);
    mill.work();
    const { id } = await mill.enqueue(chatty, null);
    await vi.waitFor(async () => expect((await mill.job(id))?.status).toBe("completed"), patience);
    expect(await told(mill, id)).toEqual(["1.1", "1.2", "1.3", "1.4", "2.1", "2.2", 10]);
    expect((await mill.logs(id)).at(-1)).toMatchObject({ n: 7, level: "warn", message: "10 lines were not kept." });
  });

  test("can be left out", async () => {
    const quiet = talker(({ log }) => log.info({}, "unheard"), { keepLogs: false });
    await using mill = await file.open([quiet]);
    mill.work();
    const { id } = await mill.enqueue(quiet, null);
    await vi.waitFor(async () => expect((await mill.job(id))?.status).toBe("completed"), patience);
    expect(await mill.logs(id)).toEqual([]);
    expect(() => task({ name: "a", keepLogs: 0, run: () => undefined })).toThrow("keepLogs must be a whole number");
  });

  test("is complete when its job has ended, however many there are", async () => {
    const many = talker(({ log, id, attempt }) => {
      log.info({}, `one of ${id}`);
      if (Number.parseInt(id.slice(-1), 16) % 4 === 0) throw new NonRetryableError("some fail");
      log.info({ attempt }, `two of ${id}`);
    });
    await using mill = await file.open([many]);
    const ids = await mill.enqueueMany(
      many,
      Array.from({ length: 1_000 }, () => null),
    );
    mill.work({ concurrency: 50 });
    await vi.waitFor(async () => {
      const [queue] = await mill.stats("default");
      expect((queue?.completed ?? 0) + (queue?.failed ?? 0)).toBe(1_000);
    }, patience);
    const rows = await mill.db.rows<[string, string[]]>(
      sql`select job_id::text, array_agg(message order by n) from millrace.job_logs group by job_id`,
    );
    const expected = ids.map((id) => [
      id,
      Number.parseInt(id.slice(-1), 16) % 4 === 0 ? [`one of ${id}`] : [`one of ${id}`, `two of ${id}`],
    ]);
    expect(Object.fromEntries(rows)).toEqual(Object.fromEntries(expected));
  });
});

test("a worker that lost the job writes nothing more, and says so", async () => {
  const [began, release] = [gate(), gate()];
  let runs = 0;
  const late = talker(async ({ log, progress }) => {
    runs += 1;
    if (runs === 2) {
      log.info({}, "second");
      return progress(2);
    }
    began.open();
    await release.opened;
    log.info({}, "first, too late");
    progress(1);
  });
  const log = recorder();
  await using mill = await file.open([late], { log });
  const { id } = await mill.enqueue(late, null);
  mill.work();
  await began.opened;
  await mill.db.query(sql`update millrace.workers set stopped_at = now(), ended = 'lost'`);
  await using second = await file.open([late], { schema: mill.db.schema });
  second.work({ reapEvery: "50ms" });
  await second.waitUntilFinished(id);
  release.open();
  await vi.waitFor(
    () =>
      expect(log.lines).toContainEqual(
        expect.objectContaining({
          message: "log lines and progress were not kept: the jobs are no longer this worker's",
          fields: { notes: 2, jobs: 1 },
        }),
      ),
    patience,
  );
  expect(await told(second, id)).toEqual(["second"]);
  expect((await second.job(id))?.progress).toBe(2);
});

describe("while the database does not take notes", () => {
  /** Lets statements that write notes fail until it is told otherwise. */
  function failing(mill: Millrace, code: string): { stop(): unknown; failed: number } {
    const state = { failed: 0, stop: () => spy.mockRestore() };
    const { rows } = mill.db;
    const spy = vi.spyOn(mill.db, "rows").mockImplementation((query) => {
      if (!query.strings.join("").includes("millrace.job_logs")) return rows.call(mill.db, query) as never;
      state.failed += 1;
      return Promise.reject(Object.assign(new Error("away"), { code }));
    });
    return state;
  }

  test("they wait, and come in order and once", async () => {
    const [began, release] = [gate(), gate()];
    const slow = talker(async ({ log, progress }) => {
      log.info({}, "one");
      progress(1);
      began.open();
      await release.opened;
      log.info({}, "two");
      progress(2);
    });
    await using mill = await file.open([slow]);
    const away = failing(mill, "ECONNRESET");
    mill.work();
    const { id } = await mill.enqueue(slow, null);
    await began.opened;
    await vi.waitFor(() => expect(away.failed).toBeGreaterThan(1), patience);
    expect(await told(mill, id)).toEqual([]);
    away.stop();
    await vi.waitFor(async () => expect(await told(mill, id)).toEqual(["one"]), patience);
    release.open();
    await mill.waitUntilFinished(id);
    expect(await told(mill, id)).toEqual(["one", "two"]);
    expect((await mill.job(id))?.progress).toBe(2);
  });

  test("no more than so many wait; the others are counted, in the job's log and in the worker's", async () => {
    const [began, release] = [gate(), gate()];
    const flood = talker(
      async ({ log }) => {
        for (let i = 1; i <= 6_000; i += 1) log.info({}, String(i));
        began.open();
        await release.opened;
        log.info({}, "after");
      },
      { keepLogs: 10_000 },
    );
    const log = recorder();
    await using mill = await file.open([flood], { log });
    const away = failing(mill, "ECONNRESET");
    mill.work();
    const { id } = await mill.enqueue(flood, null);
    await began.opened;
    await vi.waitFor(() => expect(away.failed).toBeGreaterThan(0), patience);
    away.stop();
    await vi.waitFor(async () => expect(await mill.logs(id, { after: 5_000 })).toHaveLength(1), patience);
    release.open();
    await mill.waitUntilFinished(id);
    expect((await mill.logs(id, { after: 4_999 })).map(({ message }) => message)).toEqual([
      "5000",
      "1000 lines were not kept.",
      "after",
    ]);
    expect(log.lines).toContainEqual(
      expect.objectContaining({
        message: "log lines of jobs were not kept: more than 5000 waited to be written",
        fields: { lines: 1_000 },
      }),
    );
  });

  test("and never will, they are dropped with a count, and the job ends as if nothing were", async () => {
    const plain = talker(({ log, progress }) => {
      log.info({}, "one");
      log.info({}, "two");
      progress(3);
    });
    const log = recorder();
    await using mill = await file.open([plain], { log });
    failing(mill, "42P01");
    mill.work();
    const { id } = await mill.enqueue(plain, null);
    expect(await settled(mill, id)).toMatchObject({ status: "completed", attempt: 1 });
    expect(log.lines).toContainEqual(
      expect.objectContaining({
        level: "warn",
        message: "log lines and progress of jobs were not kept",
        fields: expect.objectContaining({ notes: 3 }),
      }),
    );
  });
});

test("an answer that was lost does not write a line twice", async () => {
  const [began, release] = [gate(), gate()];
  const slow = talker(
    async ({ log }) => {
      log.info({}, "one");
      for (let i = 0; i < 3; i += 1) log.info({}, "more");
      began.open();
      await release.opened;
    },
    { keepLogs: 2 },
  );
  await using mill = await file.open([slow]);
  const { rows } = mill.db;
  let lost = 0;
  const spy = vi.spyOn(mill.db, "rows").mockImplementation(async (query) => {
    const answer = await rows.call(mill.db, query);
    if (lost > 2 || !query.strings.join("").includes("millrace.job_logs")) return answer as never;
    lost += 1;
    throw Object.assign(new Error("lost"), { code: "ECONNRESET" });
  });
  mill.work();
  const { id } = await mill.enqueue(slow, null);
  await began.opened;
  await vi.waitFor(() => expect(lost).toBe(3), patience);
  release.open();
  await mill.waitUntilFinished(id);
  spy.mockRestore();
  expect(await told(mill, id)).toEqual(["one", "more", 2]);
});

describe("a line", () => {
  const odd: [string, unknown, unknown, object][] = [
    ["with NUL and halves of characters", { a: "\0", "\ud800": 1 }, "x\0\udc00", { message: "x\ufffd\ufffd" }],
    ["with a bigint and a function", { n: 1n, f: () => 1 }, "m", { fields: '{"n":"1"}' }],
    ["without fields", {}, "m", { fields: undefined }],
    [
      "with an error",
      { err: Object.assign(new Error("e"), { code: "X" }) },
      "m",
      { fields: '{"err":{"name":"Error","message":"e","code":"X"}}' },
    ],
    ["whose message is no text", {}, 7, { message: "7" }],
  ];
  test.for(odd)("%s can be stored", ([, fields, message, expected]) => {
    const line = lineText("info", fields, message);
    expect(line).toMatchObject(expected);
    expect(JSON.stringify(line)).not.toMatch(/u0000|ud[89a-f]/i);
  });

  test("that goes round in a circle says so", () => {
    const circle: Record<string, unknown> = {};
    circle["self"] = circle;
    expect(lineText("info", circle, "m").fields).toContain("not JSON");
  });

  test("is no longer than 2 000 characters, and its fields stay JSON", () => {
    const cases: [object, string][] = [
      [{}, "x".repeat(5_000)],
      [{ a: '"'.repeat(5_000) }, "short"],
      [{ a: "\\".repeat(5_000) }, "y".repeat(1_990)],
      [{ a: "\u0001".repeat(900) }, "short"],
    ];
    for (const [fields, message] of cases) {
      const line = lineText("info", fields, message);
      expect(line.message.length + (line.fields?.length ?? 0)).toBeLessThanOrEqual(longestLine);
      if (line.fields !== undefined) expect(JSON.parse(line.fields)).toHaveProperty("cut");
    }
  });
});
