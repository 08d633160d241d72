/** Jobs under a key: one at a time, one after a quiet while, one per stretch of time. */
import { describe, expect, test } from "vitest";
import { type EnqueueOptions, type Job, type Millrace, task } from "millrace";
import { sql } from "../../src/db/sql.ts";
import { cleanFailed } from "../../src/jobs/control-store.ts";
import { gate, rowCounts, useDatabase } from "../support/engine.ts";
import { StoreWorker, succeeded } from "../support/store-worker.ts";

const file = useDatabase();
const plain = task({ name: "plain", maxAttempts: 1, run: () => undefined });
const other = task({ name: "other", run: () => undefined });

const unique = (more: object = {}): EnqueueOptions => ({ unique: { key: "k", ...more } });
const debounce = (more: object = {}): EnqueueOptions => ({ debounce: { key: "k", wait: "1h", ...more } });
const throttle = (more: object = {}): EnqueueOptions => ({ throttle: { key: "k", per: "1h", ...more } });

async function keys(mill: Millrace): Promise<string[]> {
  const rows = await mill.db.query<{ job_id: string }>(sql`select job_id::text from millrace.unique_keys`);
  return rows.map(({ job_id: id }) => id);
}

/** As if the key had been taken so long ago. */
async function age(mill: Millrace, ms: number): Promise<void> {
  const by = sql`${ms}::float8 * interval '1 millisecond'`;
  await mill.db.query(sql`update millrace.unique_keys set since = since - ${by}, until = until - ${by}`);
}

const existing = async (mill: Millrace, id: string): Promise<Job> => (await mill.job(id)) as Job;

const leftInMs = async (mill: Millrace, id: string): Promise<number> => {
  const [row] = await mill.db.query<{ now: Date }>(sql`select now() as now`);
  return Number((await existing(mill, id)).runAt) - (row as { now: Date }).now.getTime();
};

describe.each([
  ["unique", unique()],
  ["debounce", debounce()],
  ["throttle", throttle()],
])("%s", (_, options) => {
  test("makes one job of fifty calls at once", async () => {
    await using mill = await file.open([plain]);
    const made = await Promise.all(Array.from({ length: 50 }, (_, n) => mill.enqueue(plain, n, options)));
    expect(new Set(made.map(({ id }) => id)).size).toBe(1);
    expect(made.filter(({ duplicate }) => !duplicate)).toHaveLength(1);
    expect(await rowCounts(mill.db)).toMatchObject({ jobs: 1, pending: 1 });
    expect(await keys(mill)).toEqual([made[0]?.id]);
  });

  test("makes one job of fifty calls through two processes", async () => {
    await using mill = await file.open([plain]);
    await using second = await file.open([plain], { schema: mill.db.schema });
    const made = await Promise.all(
      Array.from({ length: 50 }, (_, n) => (n % 2 === 0 ? mill : second).enqueue(plain, n, options)),
    );
    expect(new Set(made.map(({ id }) => id)).size).toBe(1);
    expect(await rowCounts(mill.db)).toMatchObject({ jobs: 1, pending: 1 });
  });

  test("has keys of its own for each task", async () => {
    await using mill = await file.open([plain, other]);
    const first = await mill.enqueue(plain, 1, options);
    expect(await mill.enqueue(other, 1, options)).toMatchObject({ duplicate: false });
    expect(await mill.enqueue(plain, 1, options)).toEqual({ id: first.id, duplicate: true });
  });

  test("holds in the caller's transaction, and leaves nothing of one that is rolled back", async () => {
    await using mill = await file.open([plain]);
    const before = await rowCounts(mill.db);
    const rollback = new Error("rolled back");
    await expect(
      mill.transaction(async (tx) => {
        const { id } = await mill.enqueue(plain, 1, { ...options, tx });
        expect(await mill.enqueue(plain, 2, { ...options, tx })).toEqual({ id, duplicate: true });
        throw rollback;
      }),
    ).rejects.toBe(rollback);
    expect(await rowCounts(mill.db)).toEqual(before);
    expect(await keys(mill)).toEqual([]);
    const { id } = await mill.transaction((tx) => mill.enqueue(plain, 1, { ...options, tx }));
    expect(await mill.enqueue(plain, 2, options)).toEqual({ id, duplicate: true });
  });

  test("gives the key on when its job is removed", async () => {
    await using mill = await file.open([plain]);
    const { id } = await mill.enqueue(plain, 1, options);
    await mill.remove(id);
    expect(await keys(mill)).toEqual([]);
    expect(await mill.enqueue(plain, 1, options)).toMatchObject({ duplicate: false });
  });

  test("gives the key on when its job is cleaned", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const { id } = await mill.enqueue(plain, 1, options);
    if (options.debounce) await mill.promote(id);
    await worker.settle(await worker.claim(1), { [id]: { next: "dead", code: "X", message: "x" } });
    await cleanFailed(mill.db, await mill.names.queues.id("default"), 0);
    expect(await keys(mill)).toEqual([]);
    expect(await mill.enqueue(plain, 1, options)).toMatchObject({ duplicate: false });
  });

  test("under a queue's rules lets in what they let in, and a denial leaves nothing", async () => {
    await using mill = await file.open([plain]);
    await mill.policies.set("default", { maxPayloadBytes: 20 });
    const large = "x".repeat(30);
    const before = await rowCounts(mill.db);
    await expect(mill.enqueue(plain, large, options)).rejects.toMatchObject({ code: "PAYLOAD_TOO_LARGE" });
    // Whoever catches the denial may commit what else they did.
    await mill.transaction(async (tx) => {
      await expect(mill.enqueue(plain, large, { ...options, tx })).rejects.toMatchObject({ code: "PAYLOAD_TOO_LARGE" });
    });
    expect(await rowCounts(mill.db)).toEqual(before);
    expect(await keys(mill)).toEqual([]);
    expect(await mill.policies.denials()).toHaveLength(2);
    const { id } = await mill.enqueue(plain, "small", options);
    expect(await mill.enqueue(plain, "short", options)).toEqual({ id, duplicate: true });
  });

  test("counts a job once towards a queue's jobs per minute", async () => {
    await using mill = await file.open([plain]);
    await mill.policies.set("default", { maxEnqueuePerMinute: 1 });
    const { id } = await mill.enqueue(plain, 1, options);
    for (let n = 0; n < 5; n += 1) expect(await mill.enqueue(plain, n, options)).toEqual({ id, duplicate: true });
  });
});

describe("unique", () => {
  test("holds until the job has ended, however it ends", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const first = await mill.enqueue(plain, 1, { ...unique(), delay: "1h" });
    const again = () => mill.enqueue(plain, 2, unique());
    expect(await again()).toEqual({ id: first.id, duplicate: true }); // delayed
    await mill.promote(first.id);
    expect(await again()).toEqual({ id: first.id, duplicate: true }); // waiting
    const claim = await worker.claim(1);
    expect(await again()).toEqual({ id: first.id, duplicate: true }); // active
    await worker.close(claim);
    const second = await again(); // completed
    expect(second.duplicate).toBe(false);
    await worker.settle(await worker.claim(1), { [second.id]: { next: "dead", code: "X", message: "x" } });
    const third = await again(); // failed
    expect(third.duplicate).toBe(false);
    await mill.cancel(third.id);
    expect(await again()).toMatchObject({ duplicate: false }); // cancelled
    expect((await existing(mill, first.id)).input).toBe(1); // nobody's input was changed
  });

  test("holds in other statuses where it is told to", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const waiting = unique({ while: ["waiting"] });
    const first = await mill.enqueue(plain, 1, waiting);
    expect(await mill.enqueue(plain, 1, waiting)).toEqual({ id: first.id, duplicate: true });
    const claim = await worker.claim(1);
    const second = await mill.enqueue(plain, 1, waiting); // may wait while the other runs
    expect(second.duplicate).toBe(false);
    await worker.close(claim);
    const ever = unique({ while: ["waiting", "active", "completed"] });
    await worker.close(await worker.claim(1));
    expect(await mill.enqueue(plain, 1, ever)).toEqual({ id: second.id, duplicate: true });
  });

  test("holds within its time only", async () => {
    await using mill = await file.open([plain]);
    const { id } = await mill.enqueue(plain, 1, unique({ within: "1m" }));
    await age(mill, 50_000);
    expect(await mill.enqueue(plain, 1, unique({ within: "1m" }))).toEqual({ id, duplicate: true });
    await age(mill, 11_000);
    const second = await mill.enqueue(plain, 1, unique({ within: "1m" }));
    expect(second.duplicate).toBe(false);
    expect(await keys(mill)).toEqual([second.id]);
    expect(await rowCounts(mill.db)).toMatchObject({ jobs: 2, pending: 2 });
  });

  test("lets one caller wait for another's transaction, and have the key if that rolls back", async () => {
    await using mill = await file.open([plain]);
    if (mill.db.kind === "embedded") return; // one connection: transactions take turns anyway
    const [begun, end] = [gate(), gate()];
    const rollback = new Error("rolled back");
    const first = mill.transaction(async (tx) => {
      await mill.enqueue(plain, 1, { ...unique(), tx });
      begun.open();
      await end.opened;
      throw rollback;
    });
    await begun.opened;
    const second = mill.enqueue(plain, 2, unique());
    end.open();
    await expect(first).rejects.toBe(rollback);
    expect(await second).toMatchObject({ duplicate: false });
    expect(await rowCounts(mill.db)).toMatchObject({ jobs: 1 });
  });

  test("lets the real worker run one job of many calls at a time", async () => {
    let running = 0;
    let most = 0;
    let over = false;
    let ran = 0;
    let finish = (): void => undefined;
    const slow = task({
      name: "slow",
      async run() {
        most = Math.max(most, (running += 1));
        if (!over) await new Promise<void>((resolve) => (finish = resolve));
        running -= 1;
        ran += 1;
      },
    });
    await using mill = await file.open([slow]);
    mill.work({ concurrency: 10 });
    const ids = new Set<string>();
    for (let round = 0; round < 10; round += 1) {
      const made = await Promise.all(Array.from({ length: 10 }, () => mill.enqueue(slow, null, unique())));
      for (const { id } of made) ids.add(id);
      finish(); // the calls of the next round meet a job that is ending
    }
    over = true;
    finish();
    await Promise.all([...ids].map((id) => mill.waitUntilFinished(id)));
    expect(ran).toBe(ids.size);
    expect(most).toBe(1);
  });
});

describe("debounce", () => {
  test("puts the job off each time, and runs it with the newest input", async () => {
    await using mill = await file.open([plain]);
    const { id } = await mill.enqueue(plain, { n: 1 }, debounce({ wait: "10m" }));
    expect(await leftInMs(mill, id)).toBeGreaterThan(590_000);
    await mill.reschedule(id, "1m"); // as if nine minutes had gone by
    expect(await mill.enqueue(plain, { n: 2 }, debounce({ wait: "10m" }))).toEqual({ id, duplicate: true });
    expect(await leftInMs(mill, id)).toBeGreaterThan(590_000);
    expect(await existing(mill, id)).toMatchObject({ status: "delayed", input: { n: 2 } });
    await mill.promote(id);
    const worker = await StoreWorker.register(mill);
    const claim = await worker.claim(1);
    expect(JSON.parse(claim.jobs[0]?.row[3] ?? "")).toEqual({ n: 2 });
  });

  test("runs it after maxWait at the latest, however often it is called", async () => {
    await using mill = await file.open([plain]);
    const options = debounce({ wait: "10m", maxWait: "30m" });
    const { id } = await mill.enqueue(plain, 1, options);
    await age(mill, 25 * 60_000);
    await mill.enqueue(plain, 2, options);
    const left = await leftInMs(mill, id);
    expect(left).toBeGreaterThan(4 * 60_000);
    expect(left).toBeLessThanOrEqual(5 * 60_000);
    await age(mill, 10 * 60_000);
    expect(await mill.enqueue(plain, 3, options)).toEqual({ id, duplicate: true });
    expect(await existing(mill, id)).toMatchObject({ status: "waiting", input: 3 });
  });

  test("never waits longer than maxWait, not even the first time", async () => {
    await using mill = await file.open([plain]);
    const { id } = await mill.enqueue(plain, 1, debounce({ wait: "1h", maxWait: "1m" }));
    expect(await leftInMs(mill, id)).toBeLessThanOrEqual(60_000);
  });

  test("keeps the place in line of a job that is due, and gives it the new input", async () => {
    await using mill = await file.open([plain]);
    const { id } = await mill.enqueue(plain, 1, debounce({ wait: 0 }));
    const { runAt } = await existing(mill, id);
    await mill.enqueue(plain, 9);
    await mill.enqueue(plain, 2, debounce());
    expect(await existing(mill, id)).toMatchObject({ status: "waiting", input: 2, runAt });
    const worker = await StoreWorker.register(mill);
    expect((await worker.claim(1)).jobs[0]?.id).toBe(id);
  });

  test("makes another job once a worker has taken the first, and leaves that one's input alone", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const first = await mill.enqueue(plain, 1, debounce({ wait: 0 }));
    const claim = await worker.claim(1);
    const second = await mill.enqueue(plain, 2, debounce());
    expect(second.duplicate).toBe(false);
    expect(await existing(mill, first.id)).toMatchObject({ status: "active", input: 1 });
    // It failed and waits for its retry: it has begun, so it is not touched either.
    await worker.settle(claim, { [first.id]: { next: "again", delayMs: 60_000 } });
    expect(await mill.enqueue(plain, 3, debounce())).toEqual({ id: second.id, duplicate: true });
    expect(await existing(mill, first.id)).toMatchObject({ status: "delayed", input: 1 });
    expect(await existing(mill, second.id)).toMatchObject({ status: "delayed", input: 3 });
  });

  test("leaves a job alone that has begun and waits to go on", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const first = await mill.enqueue(plain, 1, debounce({ wait: 0 }));
    await worker.settle(await worker.claim(1), { [first.id]: { next: "again", delayMs: 60_000 } });
    const { runAt } = await existing(mill, first.id);
    expect(await mill.enqueue(plain, 2, debounce())).toMatchObject({ duplicate: false });
    expect(await existing(mill, first.id)).toMatchObject({ runAt, input: 1 });
  });

  test("loses no input when workers take jobs at the same moment", async () => {
    const seen: number[] = [];
    const note = task({ name: "note", run: ({ input }) => void seen.push(input as number) });
    await using mill = await file.open([note]);
    mill.work({ concurrency: 4 });
    const last: Promise<unknown>[] = [];
    for (let n = 1; n <= 150; n += 1) {
      const made = await mill.enqueue(note, n, debounce({ wait: n % 3 }));
      last.push(mill.waitUntilFinished(made));
      if (n % 10 === 0) await last.at(-1);
    }
    await Promise.all(last);
    expect(new Set(seen).size).toBe(seen.length);
    expect(seen).toContain(150);
  });

  test("put off a hundred times is one line of history", async () => {
    await using mill = await file.open([plain]);
    const { id } = await mill.enqueue(plain, 0, debounce());
    for (let n = 1; n <= 100; n += 1) await mill.enqueue(plain, n, debounce());
    expect(await rowCounts(mill.db)).toMatchObject({ jobs: 1, pending: 1, operations: 1 });
    expect(await existing(mill, id)).toMatchObject({ status: "delayed", input: 100 });
  });

  test("and a removal at the same time do not block each other", async () => {
    await using mill = await file.open([plain]);
    for (let round = 0; round < 20; round += 1) {
      const { id } = await mill.enqueue(plain, 0, debounce());
      const [again] = await Promise.all([mill.enqueue(plain, 1, debounce()), mill.remove(id)]);
      await mill.remove(again.id).catch((error: { code?: string }) => expect(error.code).toBe("JOB_NOT_FOUND"));
    }
    expect(await keys(mill)).toEqual([]);
  });

  test("within the caller's transaction gives the input to an earlier job, or not", async () => {
    await using mill = await file.open([plain]);
    const { id } = await mill.enqueue(plain, 1, debounce());
    const rollback = new Error("rolled back");
    await expect(
      mill.transaction(async (tx) => {
        expect(await mill.enqueue(plain, 2, { ...debounce(), tx })).toEqual({ id, duplicate: true });
        throw rollback;
      }),
    ).rejects.toBe(rollback);
    expect((await existing(mill, id)).input).toBe(1);
    await mill.transaction((tx) => mill.enqueue(plain, 3, { ...debounce(), tx }));
    expect((await existing(mill, id)).input).toBe(3);
  });

  test("does not carry an input past the queue's limit into an earlier job", async () => {
    await using mill = await file.open([plain]);
    await mill.policies.set("default", { maxPayloadBytes: 20 });
    const { id } = await mill.enqueue(plain, "small", debounce());
    await expect(mill.enqueue(plain, "x".repeat(30), debounce())).rejects.toMatchObject({ code: "PAYLOAD_TOO_LARGE" });
    expect((await existing(mill, id)).input).toBe("small");
    expect(await keys(mill)).toEqual([id]);
  });
});

describe("throttle", () => {
  test("answers with the first job for as long as it says, whatever became of that job", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const { id } = await mill.enqueue(plain, 1, throttle({ per: "1m" }));
    await worker.close(await worker.claim(1));
    expect(await mill.enqueue(plain, 2, throttle({ per: "1m" }))).toEqual({ id, duplicate: true });
    await age(mill, 61_000);
    const second = await mill.enqueue(plain, 3, throttle({ per: "1m" }));
    expect(second.duplicate).toBe(false);
    // Counted from the job that was made, not from the calls that were not.
    expect(await mill.enqueue(plain, 4, throttle({ per: "1m" }))).toEqual({ id: second.id, duplicate: true });
  });

  test("holds a job that was given up, too", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const { id } = await mill.enqueue(plain, 1, throttle());
    await worker.settle(await worker.claim(1), { [id]: { next: "dead", code: "X", message: "x" } });
    expect(await mill.enqueue(plain, 1, throttle())).toEqual({ id, duplicate: true });
  });
});

test("a key that another option took is the same key", async () => {
  await using mill = await file.open([plain]);
  const { id } = await mill.enqueue(plain, 1, throttle());
  expect(await mill.enqueue(plain, 2, unique())).toEqual({ id, duplicate: true });
});

test("a replay takes no key", async () => {
  await using mill = await file.open([plain]);
  const worker = await StoreWorker.register(mill);
  const { id } = await mill.enqueue(plain, 1, unique());
  await worker.settle(await worker.claim(1), { [id]: succeeded });
  await mill.replay(id);
  expect(await mill.enqueue(plain, 1, unique())).toMatchObject({ duplicate: false });
});

describe("what is wrong", () => {
  const wrong: [string, object, string, string][] = [
    ["two of them", { ...unique(), ...throttle() }, "OPTION_INVALID", "Give one of unique, debounce, throttle"],
    ["one and an idempotency key", { ...unique(), idempotencyKey: "a" }, "OPTION_INVALID", "Give one of"],
    ["no object", { unique: "k" }, "OPTION_INVALID", "unique must be an object with a key"],
    ["null", { debounce: null }, "OPTION_INVALID", "debounce must be an object with a key"],
    ["no key", { unique: {} }, "OPTION_INVALID", "unique: key must be a text of 1 to 255 characters"],
    ["an empty key", { throttle: { key: "", per: "1s" } }, "OPTION_INVALID", "throttle: key must be"],
    ["a key with NUL", { debounce: { key: "a\0", wait: "1s" } }, "OPTION_INVALID", "debounce: key must be"],
    ["no wait", { debounce: { key: "k" } }, "OPTION_INVALID", "debounce: wait"],
    ["no stretch of time", { throttle: { key: "k" } }, "OPTION_INVALID", "throttle: per"],
    [
      "a status that is none",
      unique({ while: ["done"] }),
      "OPTION_INVALID",
      "unique: while must be a list of waiting,",
    ],
    ["an option it does not know", unique({ withn: "1s" }), "OPTION_UNKNOWN", 'Did you mean "within"?'],
    ["a delay with a debounce", { ...debounce(), delay: "1s" }, "OPTION_INVALID", "debounce says when the job runs"],
    ["a time with a debounce", { ...debounce(), runAt: new Date() }, "OPTION_INVALID", "debounce says when the job"],
  ];
  test.for(wrong)("%s is refused, and nothing is written", async ([, options, code, sentence]) => {
    await using mill = await file.open([plain]);
    const before = await rowCounts(mill.db);
    await expect(mill.enqueue("fresh", 1, options)).rejects.toMatchObject({
      code,
      message: expect.stringContaining(sentence) as string,
    });
    expect(await rowCounts(mill.db)).toEqual(before);
  });

  test.each(["unique", "debounce", "throttle"])("%s is about one job: not for many, not in a flow", async (name) => {
    await using mill = await file.open([plain]);
    const options = { [name]: { key: "k", wait: "1s", per: "1s" } };
    await expect(mill.enqueueMany(plain, [1], options)).rejects.toMatchObject({ code: "OPTION_INVALID" });
    await expect(mill.enqueueFlow({ jobs: { a: { task: plain, ...options } } })).rejects.toMatchObject({
      code: "OPTION_INVALID",
      message: `${name} is about one job; a job of a flow cannot have it.`,
    });
  });
});
