/** What tasks return: kept, refused, deleted with its job, and waited for. */
import { describe, expect, test, vi } from "vitest";
import { type Millrace, NonRetryableError, task } from "millrace";
import { sql } from "../../src/db/sql.ts";
import { cleanFailed } from "../../src/jobs/control-store.ts";
import { archive, prune } from "../../src/jobs/maintenance-store.ts";
import { gate, useDatabase } from "../support/engine.ts";

const file = useDatabase();
const echo = task({ name: "echo", maxAttempts: 1, run: ({ input }) => input });
const fails = task({
  name: "fails",
  run() {
    throw new NonRetryableError("no funds", { code: "NO_FUNDS" });
  },
});

async function resultRows(mill: Millrace): Promise<number> {
  const [row] = await mill.db.rows<[number]>(sql`select count(*)::int from millrace.results`);
  return row?.[0] ?? -1;
}

describe("a result", () => {
  test.each([
    ["a text", "done"],
    ["an object", { a: [1, { b: null }] }],
    ["zero", 0],
    ["false", false],
    ["null", null],
  ])("that is %s comes back as it was", async (_, value) => {
    await using mill = await file.open([echo]);
    mill.work();
    const job = await mill.enqueue(echo, value);
    expect(await mill.waitUntilFinished(job)).toEqual(value);
    expect(await mill.result(job.id)).toEqual(value);
    expect(await resultRows(mill)).toBe(1);
  });

  test("that is undefined stores nothing", async () => {
    const nothing = task({ name: "nothing", run: () => undefined });
    await using mill = await file.open([nothing]);
    mill.work();
    const job = await mill.enqueue(nothing, null);
    expect(await mill.waitUntilFinished(job)).toBeUndefined();
    expect(await mill.result(job.id)).toBeUndefined();
    expect(await resultRows(mill)).toBe(0);
  });

  test("of a whole batch is kept for each, and those without one stay plain", async () => {
    const some = task({ name: "some", run: ({ input }) => ((input as number) % 2 === 0 ? input : undefined) });
    await using mill = await file.open([some]);
    const ids = await mill.enqueueMany(
      some,
      Array.from({ length: 50 }, (_, n) => n),
    );
    mill.work();
    const results = await Promise.all(ids.map((id) => mill.waitUntilFinished(id)));
    expect(results).toEqual(ids.map((_, n) => (n % 2 === 0 ? n : undefined)));
    expect(await resultRows(mill)).toBe(25);
  });

  const unstorable: [string, () => unknown, string][] = [
    ["larger than a payload may be", () => "x".repeat(2_000), "The result is 2002 bytes of JSON; the limit is 1000."],
    ["no JSON", () => 1n, "The result is not JSON"],
    ["a function", () => () => 1, "The result is a function"],
    ["a text with NUL", () => "a\0", "NUL character"],
  ];
  test.for(unstorable)("that is %s makes a dead letter: what was done is not done again", async ([, run, sentence]) => {
    let ran = 0;
    const bad = task({
      name: "bad",
      run() {
        ran += 1;
        return run();
      },
    });
    await using mill = await file.open([bad], { maxPayloadBytes: 1_000 });
    mill.work();
    const job = await mill.enqueue(bad, null);
    await expect(mill.waitUntilFinished(job)).rejects.toMatchObject({
      code: "JOB_FAILED",
      message: expect.stringContaining("(RESULT_NOT_STORABLE): ") as string,
    });
    expect(await mill.job(job.id)).toMatchObject({
      status: "failed",
      lastErrorCode: "RESULT_NOT_STORABLE",
      lastErrorMessage: expect.stringContaining(sentence) as string,
      attempt: 1,
    });
    expect(ran).toBe(1);
    expect(await resultRows(mill)).toBe(0);
  });

  test("given to complete(tx, result) is kept when that commits", async () => {
    const pay = task({
      name: "pay",
      async run({ input, complete }) {
        await mill.transaction(async (tx) => complete(tx, { paid: input }));
        return "not this";
      },
    });
    await using mill: Millrace = await file.open([pay]);
    mill.work();
    const job = await mill.enqueue(pay, 7);
    expect(await mill.waitUntilFinished(job)).toEqual({ paid: 7 });
    expect(await mill.result(job.id)).toEqual({ paid: 7 });
  });

  test("given to complete(tx, result) is gone with a transaction that rolls back, and the job is tried again", async () => {
    const pay = task({
      name: "pay",
      backoff: { delay: "1ms" },
      async run({ attempt, complete }) {
        await mill.transaction(async (tx) => {
          await complete(tx, attempt);
          if (attempt === 1) throw new Error("rolled back");
        });
      },
    });
    await using mill: Millrace = await file.open([pay]);
    mill.work();
    const job = await mill.enqueue(pay, null);
    expect(await mill.waitUntilFinished(job)).toBe(2);
  });

  test("that complete(tx, result) cannot keep leaves the transaction alone, and the task decides", async () => {
    const pay = task({
      name: "pay",
      async run({ complete }) {
        await mill.transaction(async (tx) => {
          await expect(complete(tx, 1n)).rejects.toMatchObject({ code: "RESULT_NOT_STORABLE" });
          await complete(tx, "1");
        });
      },
    });
    await using mill: Millrace = await file.open([pay]);
    mill.work();
    expect(await mill.waitUntilFinished(await mill.enqueue(pay, null))).toBe("1");
  });

  test("of a job that is retried is the one of the run that went well", async () => {
    let good = false;
    const flaky = task({
      name: "flaky",
      maxAttempts: 1,
      run() {
        if (!good) throw new Error("not yet");
        return "well";
      },
    });
    await using mill = await file.open([flaky]);
    mill.work();
    const job = await mill.enqueue(flaky, null);
    await expect(mill.waitUntilFinished(job)).rejects.toMatchObject({ code: "JOB_FAILED" });
    expect(await mill.result(job.id)).toBeUndefined();
    good = true;
    await mill.retry(job.id);
    await expect.poll(() => mill.result(job.id), { timeout: 10_000 }).toBe("well");
  });

  test("goes with its job: removed, cleaned, pruned", async () => {
    await using mill = await file.open([echo]);
    const worker = mill.work();
    const ids: string[] = [];
    for (const n of [1, 2, 3]) {
      const job = await mill.enqueue(echo, n);
      await mill.waitUntilFinished(job);
      ids.push(job.id);
    }
    await worker.stop();
    expect(await resultRows(mill)).toBe(3);
    await mill.remove(ids[0] as string);
    expect(await mill.result(ids[0] as string)).toBeUndefined();
    await mill.db.query(sql`
      update millrace.settled set finished_at = now() - interval '1 hour' where ${ids[1] as string}::uuid = any (job_ids)`);
    await archive(mill.db, 60_000);
    expect(await mill.result(ids[1] as string)).toBe(2); // archived: still there
    expect(await mill.waitUntilFinished(ids[1] as string)).toBe(2);
    await prune(mill.db, 60_000);
    expect(await mill.result(ids[1] as string)).toBeUndefined();
    await mill.clean("default", 0);
    expect(await resultRows(mill)).toBe(0);
  });

  test("of a job that failed is not there to clean, and neither is anything else that hung on it", async () => {
    const stepped = task({
      name: "stepped",
      async run({ step }) {
        await step.run("one", () => 1);
        throw new NonRetryableError("no");
      },
    });
    await using mill = await file.open([stepped]);
    mill.work();
    const { jobs } = await mill.enqueueFlow({ jobs: { a: { task: stepped }, b: { task: stepped, after: ["a"] } } });
    await expect(mill.waitUntilFinished(jobs.b)).rejects.toMatchObject({ code: "JOB_FAILED" });
    await cleanFailed(mill.db, await mill.names.queues.id("default"), 0);
    for (const table of ["steps", "dependencies", "blocked", "endings", "results", "jobs"])
      expect([table, await countOf(mill, table)]).toEqual([table, 0]);
  });
});

async function countOf(mill: Millrace, table: string): Promise<number> {
  const counts = await mill.transaction(
    async (tx) => (await tx.query(`select count(*)::int as n from "${mill.db.schema}".${table}`, [])).rows,
  );
  return (counts[0] as { n: number }).n;
}

/** What it is rejected with. */
function refusal(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => undefined,
    (error: unknown) => error,
  );
}

describe("waitUntilFinished", () => {
  test("throws how a job failed, and at which job", async () => {
    await using mill = await file.open([fails]);
    mill.work();
    const { id } = await mill.enqueue(fails, null);
    await expect(mill.waitUntilFinished(id)).rejects.toMatchObject({
      code: "JOB_FAILED",
      message: `Job ${id} was given up (NO_FUNDS): no funds`,
    });
  });

  test("throws when somebody cancels the job, with who and why", async () => {
    await using mill = await file.open([echo]);
    const { id } = await mill.enqueue(echo, null);
    const waiting = refusal(mill.waitUntilFinished(id));
    await mill.cancel(id, { by: "ada", reason: "no more" });
    expect(await waiting).toMatchObject({
      code: "JOB_CANCELLED",
      message: `Job ${id} was cancelled: Cancelled by ada: no more`,
    });
  });

  test("throws when there is no such job, or no more", async () => {
    await using mill = await file.open([echo]);
    const code = "JOB_NOT_FOUND";
    await expect(mill.waitUntilFinished("nonsense")).rejects.toMatchObject({ code });
    await expect(mill.waitUntilFinished("018f0000-0000-7000-8000-000000000000")).rejects.toMatchObject({ code });
    const { id } = await mill.enqueue(echo, null);
    const waiting = refusal(mill.waitUntilFinished(id));
    await mill.remove(id);
    expect(await waiting).toMatchObject({ code });
  });

  test("throws when its time is up, and the job goes on", async () => {
    await using mill = await file.open([echo]);
    const job = await mill.enqueue(echo, "late");
    await expect(mill.waitUntilFinished(job, { within: "40ms" })).rejects.toMatchObject({
      code: "WAIT_TIMEOUT",
      message: `Job ${job.id} has not ended within 40 ms; it goes on.`,
    });
    mill.work();
    expect(await mill.waitUntilFinished(job)).toBe("late");
  });

  test("throws when its Millrace is closed", async () => {
    const mill = await file.open([echo]);
    const job = await mill.enqueue(echo, null);
    const waiting = refusal(mill.waitUntilFinished(job));
    await mill.close();
    expect(await waiting).toMatchObject({ code: "CLOSED" });
    await expect(mill.waitUntilFinished(job)).rejects.toMatchObject({ code: "CLOSED" });
  });

  test("does not count a retry that is still to come as an end", async () => {
    const twice = task({
      name: "twice",
      backoff: { delay: "60ms", type: "fixed", jitter: 0 },
      run({ attempt }) {
        if (attempt === 1) throw new Error("once more");
        return attempt;
      },
    });
    await using mill = await file.open([twice]);
    mill.work();
    expect(await mill.waitUntilFinished(await mill.enqueue(twice, null))).toBe(2);
  });

  test("refuses an option it does not know and a time that is none", async () => {
    await using mill = await file.open([echo]);
    const { id } = await mill.enqueue(echo, null);
    await expect(mill.waitUntilFinished(id, { witihn: 1 } as never)).rejects.toMatchObject({ code: "OPTION_UNKNOWN" });
    await expect(mill.waitUntilFinished(id, { within: "soon" as never })).rejects.toMatchObject({
      code: "OPTION_INVALID",
    });
  });

  test("serves two thousand waiters at once, with few statements", async () => {
    const held = gate();
    const slow = task({
      name: "slow",
      async run({ input }) {
        await held.opened;
        return input;
      },
    });
    await using mill = await file.open([slow]);
    const inputs = Array.from({ length: 2_000 }, (_, n) => n);
    const ids = await mill.enqueueMany(slow, inputs);
    const asked = vi.spyOn(mill.db, "query");
    const waiting = Promise.all(ids.map((id) => mill.waitUntilFinished(id, { within: "25s" })));
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(asked.mock.calls.length).toBeLessThan(60);
    mill.work({ concurrency: 50 });
    held.open();
    expect(await waiting).toEqual(inputs);
  });

  test("of many on one job answers all of them", async () => {
    await using mill = await file.open([echo]);
    const job = await mill.enqueue(echo, "one");
    const waiting = Promise.all(Array.from({ length: 100 }, () => mill.waitUntilFinished(job)));
    mill.work();
    expect(new Set(await waiting)).toEqual(new Set(["one"]));
  });
});
