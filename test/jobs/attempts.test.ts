/** How an attempt can end, and what becomes of the job. */
import { describe, expect, test } from "vitest";
import { z } from "zod";
import {
  type AnyTask,
  type Job,
  type JobContext,
  type Log,
  type Millrace,
  NonRetryableError,
  RateLimitError,
  task,
} from "millrace";
import { sql } from "../../src/db/sql.ts";
import { gate, places, tally, useDatabase } from "../support/engine.ts";

const file = useDatabase();
const soon = { delay: 5, jitter: 0 };

interface AttemptRow {
  attempt: number;
  outcome: string;
  error_code: string | null;
  error_message: string | null;
  late: boolean;
}

const attemptsOf = async (mill: Millrace, id: string): Promise<AttemptRow[]> =>
  mill.db.query<AttemptRow>(
    sql`select attempt::int, outcome, error_code, error_message, late from millrace.attempts where job_id = ${id}::uuid order by id`,
  );

/** Runs one job of a task until `until`, stops the worker, and tells what became of the job. */
async function run(
  definition: AnyTask,
  until: Promise<unknown>,
  { input = {}, ...options }: { input?: unknown; log?: Log; random?: () => number } = {},
): Promise<{ job: Job; attempts: AttemptRow[]; place: string | undefined }> {
  await using mill = await file.open([definition], options);
  const { id } = await mill.enqueue(definition.name, input, {
    queue: definition.queue,
    maxAttempts: definition.maxAttempts,
  });
  const worker = mill.work();
  await until;
  await worker.stop();
  return { job: (await mill.job(id)) as Job, attempts: await attemptsOf(mill, id), place: (await places(mill.db))[id] };
}

describe("a task is told", () => {
  test("its input, and who and where it is", async () => {
    const seen = gate<Record<string, unknown>>();
    const look = task({
      name: "look",
      queue: "around",
      maxAttempts: 7,
      run: ({ input, id, task: name, queue, attempt, maxAttempts, signal }) =>
        seen.open({ input, id, name, queue, attempt, maxAttempts, aborted: signal.aborted }),
    });
    const { job } = await run(look, seen.opened, { input: { a: [1] } });
    expect(await seen.opened).toEqual({
      input: { a: [1] },
      id: job.id,
      name: "look",
      queue: "around",
      attempt: 1,
      maxAttempts: 7,
      aborted: false,
    });
    expect(job).toMatchObject({ status: "completed", attempt: 1 });
  });

  test("its input as its schema makes it, and only once parsed", async () => {
    const seen = gate<unknown[]>();
    const look = task({
      name: "look",
      input: z.object({ n: z.coerce.number(), size: z.string().default("m") }),
      run: (context) => seen.open([context.input, context.input === context.input]),
    });
    await run(look, seen.opened, { input: { n: "7" } });
    expect(await seen.opened).toEqual([{ n: 7, size: "m" }, true]);
  });

  test("its input after an asynchronous schema", async () => {
    const seen = gate<unknown>();
    const look = task({
      name: "look",
      input: z.number().transform(async (n) => n * 2),
      run: ({ input }) => seen.open(input),
    });
    await run(look, seen.opened, { input: 21 });
    expect(await seen.opened).toBe(42);
  });

  test("a log that knows the job", async () => {
    const lines = gate<[object, string]>();
    const log: Log = {
      debug() {},
      info: (fields, message) => message === "hello" && lines.open([fields, message]),
      warn() {},
      error() {},
    };
    const say = task({ name: "say", run: ({ log: own }) => own.info({ extra: 1 }, "hello") });
    const { job } = await run(say, lines.opened, { log });
    expect(await lines.opened).toEqual([{ job: job.id, task: "say", attempt: 1, extra: 1 }, "hello"]);
  });
});

describe("a success", () => {
  test.each<[string, () => unknown]>([
    ["that returns nothing", () => undefined],
    ["that returns something", () => ({ mood: "dark" })],
    ["that resolves later", async () => new Promise((resolve) => setImmediate(resolve))],
    ["that gives a thenable", () => ({ then: (done: (value: unknown) => void) => done(1) })],
  ])("%s completes the job, and history has nothing else to tell", async (_, work) => {
    const ended = gate();
    const fine = task({
      name: "fine",
      run: () => {
        ended.open();
        return work();
      },
    });
    const { job, attempts, place } = await run(fine, ended.opened);
    expect(job).toMatchObject({ status: "completed", attempt: 1, lastErrorCode: null, deadLetterReason: null });
    expect(job.startedAt).toBeInstanceOf(Date);
    expect(job.finishedAt?.getTime()).toBeGreaterThanOrEqual(job.startedAt?.getTime() ?? Infinity);
    expect(attempts).toEqual([]);
    expect(place).toBe("settled");
  });

  test("told twice by a thenable is one success", async () => {
    const ended = tally<number>();
    const twice = task({
      name: "twice",
      run: ({ input }) => {
        ended.add(input as number);
        return {
          // oxlint-disable-next-line unicorn/no-thenable -- what this test is about
          then(done: () => void, failed: (error: Error) => void) {
            done();
            done();
            failed(new Error("and a failure on top"));
          },
        };
      },
    });
    await using mill = await file.open([twice]);
    const ids = await mill.enqueueMany(twice, [1, 2, 3, 4, 5]);
    const worker = mill.work({ concurrency: 2 });
    await ended.reached(5);
    await worker.stop();
    expect(await places(mill.db)).toEqual(Object.fromEntries(ids.map((id) => [id, "settled"])));
    expect(await mill.stats("default")).toMatchObject([{ completed: 5, failed: 0, active: 0 }]);
  });
});

describe("a failure", () => {
  test("is tried again after the backoff, with the next attempt number, until it succeeds", async () => {
    const runs = tally<{ attempt: number; at: number }>();
    const flaky = task({
      name: "flaky",
      maxAttempts: 5,
      backoff: { delay: 80, jitter: 0, type: "fixed" },
      run: ({ attempt }) => {
        runs.add({ attempt, at: performance.now() });
        if (attempt < 3) throw Object.assign(new Error(`no ${attempt}`), { code: "NOT_YET" });
      },
    });
    const { job, attempts } = await run(flaky, runs.reached(3));
    expect(runs.seen.map(({ attempt }) => attempt)).toEqual([1, 2, 3]);
    const [a, b, c] = runs.seen.map(({ at }) => at) as [number, number, number];
    expect(Math.min(b - a, c - b)).toBeGreaterThanOrEqual(79);
    expect(job).toMatchObject({
      status: "completed",
      attempt: 3,
      lastErrorCode: "NOT_YET",
      lastErrorMessage: "no 2",
      deadLetterReason: null,
    });
    expect(attempts).toMatchObject([
      { attempt: 1, outcome: "failed", error_code: "NOT_YET", error_message: "no 1" },
      { attempt: 2, outcome: "failed", error_code: "NOT_YET", error_message: "no 2" },
    ]);
  });

  test("waits between attempts: delayed, due when the backoff says, with the chance given", async () => {
    const failed = gate();
    const failing = task({
      name: "failing",
      backoff: { delay: "1h", max: "2h", jitter: 0.5 },
      run() {
        failed.open();
        throw new Error("no");
      },
    });
    const { job, attempts, place } = await run(failing, failed.opened, { random: () => 0.25 });
    expect(job).toMatchObject({ status: "delayed", attempt: 2, lastErrorMessage: "no", finishedAt: null });
    expect(job.lastErrorStack).toContain("attempts.test.ts");
    const waitMs = Number(job.runAt) - (job.startedAt?.getTime() ?? 0);
    expect(Math.round(waitMs / 60_000)).toBe(45); // an hour, less half of its half
    expect(attempts).toHaveLength(1);
    expect(place).toBe("pending");
  });

  test("on the last attempt makes the job a dead letter: MAX_ATTEMPTS_EXCEEDED", async () => {
    const runs = tally<number>();
    const failing = task({
      name: "failing",
      maxAttempts: 3,
      backoff: soon,
      run({ attempt }) {
        runs.add(attempt);
        throw Object.assign(new Error("boom"), { code: "ECONNREFUSED" });
      },
    });
    const { job, attempts, place } = await run(failing, runs.reached(3));
    expect(runs.seen).toEqual([1, 2, 3]);
    expect(job).toMatchObject({
      status: "failed",
      attempt: 3,
      deadLetterReason: "MAX_ATTEMPTS_EXCEEDED",
      lastErrorCode: "DEPENDENCY_DOWN",
      lastErrorMessage: "boom",
    });
    expect(job.finishedAt).toBeInstanceOf(Date);
    expect(attempts.map(({ attempt, outcome }) => [attempt, outcome])).toEqual([
      [1, "failed"],
      [2, "failed"],
      [3, "failed"],
    ]);
    expect(place).toBe("dead");
  });

  test("that says so is not tried again: NON_RETRYABLE, with the task's own code", async () => {
    const failed = gate();
    const failing = task({
      name: "failing",
      run() {
        failed.open();
        throw new NonRetryableError("never", { code: "GONE" });
      },
    });
    const { job, attempts } = await run(failing, failed.opened);
    expect(job).toMatchObject({
      status: "failed",
      attempt: 1,
      deadLetterReason: "NON_RETRYABLE",
      lastErrorCode: "GONE",
    });
    expect(attempts).toMatchObject([{ attempt: 1, outcome: "failed", error_code: "GONE" }]);
  });

  test("of the schema at run time is BAD_PAYLOAD, and not tried again", async () => {
    const asked = gate();
    const strict = task({
      name: "strict",
      input: z.custom(() => {
        asked.open();
        return false;
      }, "is not what I want"),
      run: () => expect.unreachable(),
    });
    const { job } = await run(strict, asked.opened);
    expect(job).toMatchObject({
      status: "failed",
      deadLetterReason: "NON_RETRYABLE",
      lastErrorCode: "BAD_PAYLOAD",
      lastErrorMessage: 'The input does not match the schema of task "strict": is not what I want.',
    });
  });

  test("of an asynchronous schema is BAD_PAYLOAD as well", async () => {
    const asked = gate();
    const strict = task({
      name: "strict",
      input: z.unknown().refine(async () => {
        asked.open();
        return false;
      }, "no"),
      run: () => expect.unreachable(),
    });
    const { job } = await run(strict, asked.opened);
    expect(job).toMatchObject({ status: "failed", lastErrorCode: "BAD_PAYLOAD" });
  });

  test("by RateLimitError waits at least as long as the other side asked", async () => {
    const failed = gate();
    const limited = task({
      name: "limited",
      backoff: soon,
      run() {
        failed.open();
        throw new RateLimitError("slow down", { retryAfterMs: 7_200_000 });
      },
    });
    const { job } = await run(limited, failed.opened);
    expect(job).toMatchObject({ status: "delayed", attempt: 2, lastErrorCode: "RATE_LIMIT" });
    expect(Math.round((Number(job.runAt) - (job.startedAt?.getTime() ?? 0)) / 60_000)).toBe(120);
  });

  test("by RateLimitError does not shorten a longer backoff", async () => {
    const failed = gate();
    const limited = task({
      name: "limited",
      backoff: { delay: "3h", jitter: 0, max: "4h" },
      run() {
        failed.open();
        throw new RateLimitError("slow down", { retryAfterMs: 1_000 });
      },
    });
    const { job } = await run(limited, failed.opened);
    expect(Math.round((Number(job.runAt) - (job.startedAt?.getTime() ?? 0)) / 60_000)).toBe(180);
  });

  test.each<[string, unknown]>([
    ["an error whose message is an object", Object.assign(new Error("x"), { message: { deep: 1 } })],
    ["an error whose stack is a list", Object.assign(new Error("x"), { stack: [1, 2] })],
    ["nothing", undefined],
    ["null", null],
    ["a symbol", Symbol("odd")],
    ["an object without prototype", Object.create(null)],
    ["a NUL and half a surrogate pair", new Error("a\0b\ud83d")],
    ["a wait beyond the end of time", new RateLimitError("x", { retryAfterMs: 1e300 })],
    ["a wait that is no number", new RateLimitError("x", { retryAfterMs: Number.NaN })],
    ["a megabyte", new Error("x".repeat(1_000_000))],
  ])("that throws %s is an attempt like any other, and takes nobody with it", async (_, thrown) => {
    const runs = tally<unknown>();
    const odd = task({
      name: "odd",
      maxAttempts: 2,
      backoff: { delay: "1h" },
      run({ input }) {
        runs.add(input);
        if (input === "odd") throw thrown;
      },
    });
    await using mill = await file.open([odd]);
    const ids = await mill.enqueueMany(odd, ["fine", "odd", "fine too"]);
    const worker = mill.work();
    await runs.reached(3);
    await worker.stop();
    const jobs = await Promise.all(ids.map((id) => mill.job(id)));
    expect(jobs.map((job) => job?.status)).toEqual(["completed", "delayed", "completed"]);
    expect(await attemptsOf(mill, ids[1] ?? "")).toMatchObject([{ attempt: 1, outcome: "failed" }]);
  });

  test("among successes of one batch leaves each with its own outcome", async () => {
    const runs = tally<unknown>();
    const mixed = task({
      name: "mixed",
      maxAttempts: 1,
      run({ input }) {
        runs.add(input);
        if ((input as number) % 10 === 3) throw new Error("no");
      },
    });
    await using mill = await file.open([mixed]);
    const ids = await mill.enqueueMany(
      mixed,
      Array.from({ length: 200 }, (_, n) => n),
    );
    const worker = mill.work({ concurrency: 20 });
    await runs.reached(200);
    await worker.stop();
    expect(Object.values(await places(mill.db))).toEqual(ids.map((_, n) => (n % 10 === 3 ? "dead" : "settled")));
    expect(await mill.stats("default")).toMatchObject([{ completed: 180, failed: 20, active: 0, waiting: 0 }]);
  });
});

describe("the log tells", () => {
  interface Line {
    level: string;
    message: string;
    fields: Record<string, unknown>;
  }

  /** Lines about attempts, without those of the worker's own life. */
  function listen(): { log: Log; lines: Line[] } {
    const lines: Line[] = [];
    const note =
      (level: string) =>
      (fields: object, message: string): void => {
        if ("code" in fields) lines.push({ level, message, fields: fields as Record<string, unknown> });
      };
    return { log: { debug: note("debug"), info: note("info"), warn: note("warn"), error: note("error") }, lines };
  }

  const total = (lines: readonly Line[], code: string): number =>
    lines
      .filter(({ fields }) => fields["code"] === code)
      .reduce((sum, { fields }) => sum + Number(fields["attempts"]), 0);

  test("of every failure once, in far fewer lines than there are, and of successes and snoozes nothing", async () => {
    const { log, lines } = listen();
    const ran = tally<unknown>();
    const mixed = task({
      name: "mixed",
      maxAttempts: 2,
      backoff: { delay: "1h", jitter: 0 },
      run({ input, snooze }) {
        ran.add(input);
        if (input === "retry") throw Object.assign(new Error("later"), { code: "LATER" });
        if (input === "dead") throw new NonRetryableError("never", { code: "NEVER" });
        if (input === "snooze") snooze("1h");
      },
    });
    await using mill = await file.open([mixed], { log });
    await mill.enqueueMany(
      mixed,
      Array.from({ length: 400 }, (_, n) => ["retry", "dead", "snooze", "fine"][n % 4]),
    );
    const worker = mill.work({ concurrency: 100 });
    await ran.reached(400);
    await worker.stop();
    expect([total(lines, "LATER"), total(lines, "NEVER")]).toEqual([100, 100]);
    expect(lines.length).toBeLessThan(100);
    expect(new Set(lines.map(({ level, fields }) => `${level} ${String(fields["code"])}`))).toEqual(
      new Set(["info LATER", "warn NEVER"]),
    );
    expect(lines.find(({ fields }) => fields["code"] === "LATER")).toMatchObject({
      message: "attempts failed; they will be tried again",
      fields: { task: "mixed", attempt: 1, error: "later", retry_ms: 3_600_000 },
    });
    expect(lines.find(({ fields }) => fields["code"] === "NEVER")?.message).toBe(
      "jobs given up; they are dead letters now",
    );
  });
});

describe("the options of a job", () => {
  test("take the place of its task's: attempts, backoff and timeout", async () => {
    const runs = tally<number>();
    const failing = task({
      name: "failing",
      maxAttempts: 10,
      backoff: { delay: "1h" },
      timeout: "1h",
      async run({ attempt, signal }) {
        runs.add(attempt);
        await new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason as Error)));
      },
    });
    await using mill = await file.open([failing]);
    const { id } = await mill.enqueue(failing, {}, { maxAttempts: 2, backoff: soon, timeout: 20 });
    const worker = mill.work();
    await runs.reached(2);
    await worker.stop();
    expect(await mill.job(id)).toMatchObject({ status: "failed", attempt: 2, lastErrorCode: "TIMEOUT" });
    expect(await attemptsOf(mill, id)).toMatchObject([{ outcome: "timed_out" }, { outcome: "timed_out" }]);
  });
});

describe("a snooze", () => {
  test("repeats the attempt after its pause, and uses none up", async () => {
    const runs = tally<{ attempt: number; at: number }>();
    const sleepy = task({
      name: "sleepy",
      maxAttempts: 1,
      run({ attempt, snooze }) {
        runs.add({ attempt, at: performance.now() });
        if (runs.seen.length < 4) snooze(30);
      },
    });
    const { job, attempts } = await run(sleepy, runs.reached(4));
    expect(runs.seen.map(({ attempt }) => attempt)).toEqual([1, 1, 1, 1]);
    const at = runs.seen.map(({ at: time }) => time);
    expect(Math.min(...at.slice(1).map((time, i) => time - (at[i] ?? 0)))).toBeGreaterThanOrEqual(29);
    expect(job).toMatchObject({ status: "completed", attempt: 1 });
    expect(attempts.map(({ outcome }) => outcome)).toEqual(["snoozed", "snoozed", "snoozed"]);
  });

  test("for a day leaves the job delayed for a day", async () => {
    const ran = gate();
    const sleepy = task({
      name: "sleepy",
      async run({ snooze }) {
        ran.open();
        snooze("1d");
      },
    });
    const { job } = await run(sleepy, ran.opened);
    expect(job).toMatchObject({ status: "delayed", attempt: 1, deadLetterReason: null, lastErrorCode: null });
    expect(Math.round((Number(job.runAt) - (job.startedAt?.getTime() ?? 0)) / 60_000)).toBe(1_440);
  });

  test("for a pause that is none fails the attempt", async () => {
    const ran = gate();
    const sleepy = task({
      name: "sleepy",
      maxAttempts: 1,
      run({ snooze }) {
        ran.open();
        snooze("later" as never);
      },
    });
    const { job } = await run(sleepy, ran.opened);
    expect(job).toMatchObject({ status: "failed", lastErrorCode: "OPTION_INVALID" });
  });
});

describe("a timeout", () => {
  /** Two attempts, each of which ends as `work` does once its signal is aborted. */
  async function timedOut(
    work: (context: JobContext, aborted: Promise<void>) => unknown,
  ): Promise<{ job: Job; attempts: AttemptRow[]; reasons: readonly unknown[] }> {
    const reasons = tally<unknown>();
    const slow = task({
      name: "slow",
      timeout: 30,
      maxAttempts: 2,
      backoff: soon,
      async run(context) {
        const { signal } = context;
        const aborted = new Promise<void>((resolve) => {
          signal.addEventListener("abort", () => {
            reasons.add(signal.reason);
            resolve();
          });
        });
        return work(context, aborted);
      },
    });
    const { job, attempts } = await run(slow, reasons.reached(2));
    return { job, attempts, reasons: reasons.seen };
  }

  test("aborts the signal with the reason TIMEOUT; the attempt is timed_out and tried again", async () => {
    const { job, attempts, reasons } = await timedOut(async ({ signal }, aborted) => {
      await aborted;
      throw signal.reason;
    });
    expect(reasons).toMatchObject([{ code: "TIMEOUT" }, { code: "TIMEOUT" }]);
    expect(attempts).toMatchObject([
      {
        attempt: 1,
        outcome: "timed_out",
        error_code: "TIMEOUT",
        error_message: "The attempt took longer than its timeout of 30 ms.",
      },
      { attempt: 2, outcome: "timed_out" },
    ]);
    expect(job).toMatchObject({
      status: "failed",
      deadLetterReason: "MAX_ATTEMPTS_EXCEEDED",
      lastErrorCode: "TIMEOUT",
    });
  });

  test("counts although the task swallows the abort and returns as if all were well", async () => {
    const { job, attempts } = await timedOut(async (_, aborted) => aborted);
    expect(attempts).toMatchObject([{ outcome: "timed_out" }, { outcome: "timed_out" }]);
    expect(job.status).toBe("failed");
  });

  test("counts although the task then throws something that would not be tried again", async () => {
    const { attempts } = await timedOut(async (_, aborted) => {
      await aborted;
      throw new NonRetryableError("no");
    });
    expect(attempts).toMatchObject([{ outcome: "timed_out" }, { outcome: "timed_out" }]);
  });

  test("of none means none", async () => {
    const ended = gate();
    const slow = task({
      name: "slow",
      timeout: 0,
      async run({ signal }) {
        await new Promise((resolve) => setTimeout(resolve, 60));
        if (!signal.aborted) ended.open();
      },
    });
    const { job } = await run(slow, ended.opened);
    expect(job.status).toBe("completed");
  });
});

describe("a job of a task this worker does not have", () => {
  const hello = (ran: (name: unknown) => void): AnyTask => task({ name: "hello", run: ({ input }) => ran(input) });

  test("is left to one that has, while its own jobs behind it run", async () => {
    const ran = tally<unknown>();
    await using without = await file.open([hello(ran.add)]);
    const { id } = await without.enqueue("unheard-of", "theirs");
    await without.enqueue("hello", "ours");
    const worker = without.work();
    expect(await ran.reached(1)).toEqual(["ours"]);
    expect(await without.job(id)).toMatchObject({ status: "waiting", attempt: 1 });

    const elsewhere = tally<unknown>();
    const unheard = task({ name: "unheard-of", run: ({ input }) => elsewhere.add(input) });
    await using has = await file.open([unheard], { schema: without.db.schema });
    has.work();
    expect(await elsewhere.reached(1)).toEqual(["theirs"]);
    await worker.stop();
    expect(ran.seen).toEqual(["ours"]);
  });

  test("is failed as UNKNOWN_JOB_TYPE when the worker is told to", async () => {
    const ran = tally<unknown>();
    await using mill = await file.open([hello(ran.add)]);
    const { id } = await mill.enqueue("unheard-of", {});
    await mill.enqueue("hello", "ours");
    const worker = mill.work({ unknownTasks: "fail", concurrency: 1 });
    await ran.reached(1);
    await worker.stop();
    expect(await mill.job(id)).toMatchObject({
      status: "failed",
      deadLetterReason: "NON_RETRYABLE",
      lastErrorCode: "UNKNOWN_JOB_TYPE",
    });
  });

  test("is run by the one task that takes all others", async () => {
    const ran = tally<unknown>();
    const any = task({ name: "any", run: ({ input }) => ran.add(input) });
    await using mill = await file.open([]);
    await mill.enqueue("unheard-of", 1);
    await mill.enqueue("unheard-of-too", 2);
    mill.startWorker({ concurrency: 1 }, [], any);
    expect(await ran.reached(2)).toEqual([1, 2]);
  });
});
