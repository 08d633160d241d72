/** The way in: what each option does, what is refused and leaves nothing behind, and what concurrent calls share. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { type EnqueueOptions, type Millrace, task } from "millrace";
import { insertPlain } from "../../src/jobs/enqueue-store.ts";
import { sql } from "../../src/db/sql.ts";
import { rowCounts, tally, useDatabase } from "../support/engine.ts";

const file = useDatabase();

const plain = task({ name: "plain", run: () => undefined });
const mail = task({
  name: "mail",
  queue: "post",
  input: z.object({ to: z.string(), copies: z.coerce.number().default(1) }),
  maxAttempts: 4,
  priority: 7,
  run: () => undefined,
});
const slowSchema = task({
  name: "slow-schema",
  input: z.object({ even: z.number().refine(async (n) => n % 2 === 0, "must be even") }),
  run: () => undefined,
});

let mill: Millrace;
beforeAll(async () => {
  mill = await file.open([plain, mail, slowSchema]);
});
afterAll(() => mill.close());

const jobRow = async (id: string): Promise<Record<string, unknown> | undefined> =>
  (
    await mill.db.query<Record<string, unknown>>(sql`
      select q.name as queue, t.name as task, j.priority::int, j.max_attempts::int, j.input, j.options, j.tags, p.attempt::int, p.rank::int,
             p.run_at = j.run_at as in_step, extract(epoch from j.run_at - j.created_at)::float8 as delay_s
      from millrace.jobs j join millrace.pending p on p.job_id = j.id join millrace.queues q on q.id = p.line and q.id = j.queue
      join millrace.tasks t on t.id = p.task and t.id = j.task where j.id = ${id}::uuid`)
  )[0];

describe("a job enqueued", () => {
  test("without options has those of its task, and waits from now on", async () => {
    const { id, duplicate } = await mill.enqueue(mail, { to: "a@b.c" });
    expect(duplicate).toBe(false);
    expect(await jobRow(id)).toEqual({
      queue: "post",
      task: "mail",
      priority: 7,
      rank: -7,
      max_attempts: 4,
      attempt: 1,
      // as it was passed: the schema's changes are made when it runs
      input: { to: "a@b.c" },
      options: null,
      tags: null,
      in_step: true,
      delay_s: 0,
    });
  });

  test("by name has the defaults, for the task may be defined elsewhere, and is not validated", async () => {
    const { id } = await mill.enqueue("mail", { anything: "goes" });
    expect(await jobRow(id)).toMatchObject({ queue: "default", task: "mail", priority: 0, max_attempts: 25 });
  });

  test.each<[string, EnqueueOptions, Record<string, unknown>]>([
    ["queue", { queue: "night.post" }, { queue: "night.post" }],
    ["priority", { priority: -3 }, { priority: -3, rank: 3 }],
    ["the highest priority", { priority: 32_767 }, { rank: -32_767 }],
    ["the lowest priority", { priority: -32_767 }, { rank: 32_767 }],
    ["maxAttempts", { maxAttempts: 1 }, { max_attempts: 1 }],
    ["delay", { delay: "90s" }, { delay_s: 90, in_step: true }],
    ["delay in milliseconds, fractions and all", { delay: 1_500.5 }, { delay_s: 1.5005 }],
    ["no delay at all", { delay: 0 }, { delay_s: 0 }],
    ["runAt in the past", { runAt: new Date(0) }, { delay_s: 0, in_step: true }],
    ["timeout", { timeout: "5s" }, { options: { timeout_ms: 5_000 } }],
    [
      "backoff",
      { backoff: { delay: "1s", jitter: 0 } },
      { options: { backoff: { type: "exponential", delayMs: 1_000, maxMs: 900_000, jitter: 0 } } },
    ],
    [
      "tags",
      { tags: ["red", 'a "quoted" one', "back\\slash", "żółw 🐎"] },
      { tags: ["red", 'a "quoted" one', "back\\slash", "żółw 🐎"] },
    ],
    ["no tags", { tags: [] }, { tags: [] }],
  ])("with %s has it", async (_, options, expected) => {
    const { id } = await mill.enqueue(plain, { n: 1 }, options);
    expect(await jobRow(id)).toMatchObject({ task: "plain", input: { n: 1 }, ...expected });
  });

  test.each(["2099-12-31T23:59:59.123Z", new Date("2099-12-31T23:59:59.123Z"), "2100-01-01T01:59:59.123+02:00"])(
    "with runAt %o is due then",
    async (runAt) => {
      const { id } = await mill.enqueue(plain, {}, { runAt });
      expect((await mill.job(id))?.runAt).toEqual(new Date("2099-12-31T23:59:59.123Z"));
    },
  );

  test.each(
    [null, 0, "", "text", [], [1, [2]], { a: { b: [] } }, "ünïcödé 🐎", '{"json":"text"}', "{1,2}", "\\", "\n\t"].map(
      (input) => [input],
    ),
  )("with the input %j has it, plain and special alike", async (input) => {
    const ids = [await mill.enqueue(plain, input), await mill.enqueue(plain, input, { tags: ["x"] })];
    for (const { id } of ids) expect((await mill.job(id))?.input).toEqual(input);
  });

  test("without an input has null", async () => {
    const ids = [await mill.enqueue(plain, undefined), await mill.enqueue(plain, undefined, { tags: ["x"] })];
    for (const { id } of ids) expect((await mill.job(id))?.input).toBeNull();
  });

  test("gets the time in its id from the clock given, and its due time from the database", async () => {
    await using other = await file.open([plain], { now: () => Date.UTC(2099, 0, 1) });
    const { id } = await other.enqueue(plain, {});
    expect(Number.parseInt(id.replace("-", "").slice(0, 12), 16)).toBeGreaterThanOrEqual(Date.UTC(2099, 0, 1));
    expect((await other.job(id))?.status).toBe("waiting");
  });
});

describe("what is refused leaves nothing behind", () => {
  const cyclic: unknown[] = [];
  cyclic.push(cyclic);
  test.each<[string, unknown, object, string]>([
    ["an unknown option", {}, { dealy: "1s" }, "OPTION_UNKNOWN"],
    ["a negative delay", {}, { delay: -1 }, "OPTION_INVALID"],
    ["a delay that is none", {}, { delay: "soon" }, "OPTION_INVALID"],
    ["a delay beyond ten years", {}, { delay: "4000d" }, "OPTION_INVALID"],
    ["delay and runAt together", {}, { delay: "1s", runAt: new Date() }, "OPTION_INVALID"],
    ["an invalid Date", {}, { runAt: new Date("never") }, "OPTION_INVALID"],
    ["a runAt that is no time", {}, { runAt: "tomorrow" }, "OPTION_INVALID"],
    ["a runAt before 1970", {}, { runAt: new Date(-1) }, "OPTION_INVALID"],
    ["a runAt after 9999", {}, { runAt: new Date(8.64e15) }, "OPTION_INVALID"],
    ["a runAt of null", {}, { runAt: null }, "OPTION_INVALID"],
    ["a priority too high", {}, { priority: 32_768 }, "OPTION_INVALID"],
    ["a priority too low", {}, { priority: -32_768 }, "OPTION_INVALID"],
    ["a priority that is not whole", {}, { priority: 0.5 }, "OPTION_INVALID"],
    ["a priority that is text", {}, { priority: "high" }, "OPTION_INVALID"],
    ["no attempts", {}, { maxAttempts: 0 }, "OPTION_INVALID"],
    ["too many attempts", {}, { maxAttempts: 32_768 }, "OPTION_INVALID"],
    ["a timeout that is none", {}, { timeout: "never" }, "OPTION_INVALID"],
    ["a backoff that is none", {}, { backoff: "2s" }, "OPTION_INVALID"],
    ["an unknown option of the backoff", {}, { backoff: { delai: 1 } }, "OPTION_UNKNOWN"],
    ["a queue name with a blank", {}, { queue: "a b" }, "QUEUE_NAME_INVALID"],
    ["an empty queue name", {}, { queue: "" }, "QUEUE_NAME_INVALID"],
    ["a queue name too long", {}, { queue: "x".repeat(129) }, "QUEUE_NAME_INVALID"],
    ["21 tags", {}, { tags: Array.from({ length: 21 }, (_, i) => `t${i}`) }, "OPTION_INVALID"],
    ["a tag that is no text", {}, { tags: [1] }, "OPTION_INVALID"],
    ["an empty tag", {}, { tags: [""] }, "OPTION_INVALID"],
    ["a tag too long", {}, { tags: ["x".repeat(101)] }, "OPTION_INVALID"],
    ["a tag with a NUL", {}, { tags: ["a\0"] }, "OPTION_INVALID"],
    ["a tag with half a surrogate pair", {}, { tags: ["\ud83d"] }, "OPTION_INVALID"],
    ["tags that are no list", {}, { tags: "red" }, "OPTION_INVALID"],
    ["an empty idempotency key", {}, { idempotencyKey: "" }, "OPTION_INVALID"],
    ["an idempotency key too long", {}, { idempotencyKey: "x".repeat(256) }, "OPTION_INVALID"],
    ["an idempotency key with a NUL", {}, { idempotencyKey: "a\0b" }, "OPTION_INVALID"],
    ["an idempotency key with half a surrogate pair", {}, { idempotencyKey: "\ud83d" }, "OPTION_INVALID"],
    ["an idempotency key that is a number", {}, { idempotencyKey: 7 }, "OPTION_INVALID"],
    [
      "an idempotency key kept for no time that is one",
      {},
      { idempotencyKey: "k", idempotencyKeep: "long" },
      "OPTION_INVALID",
    ],
    ["a bigint", 1n, {}, "INPUT_NOT_STORABLE"],
    ["a function", () => 1, {}, "INPUT_NOT_STORABLE"],
    ["a cycle", cyclic, {}, "INPUT_NOT_STORABLE"],
    ["a NUL in the input", { a: "\0" }, {}, "INPUT_NOT_STORABLE"],
    ["half a surrogate pair in the input", { a: "\ud800" }, {}, "INPUT_NOT_STORABLE"],
    ["an input of 256 KiB and one byte", "x".repeat(262_143), {}, "PAYLOAD_TOO_LARGE"],
  ])("%s", async (_, input, options, code) => {
    const before = await rowCounts(mill.db);
    // Names no job ever had: they must not be left behind either.
    const fresh = { queue: "never-seen-queue", ...options };
    await expect(mill.enqueue("never-seen-task", input, fresh)).rejects.toMatchObject({ name: "MillraceError", code });
    const { idempotencyKey, ...without } = fresh as EnqueueOptions;
    if (idempotencyKey === undefined)
      await expect(mill.enqueueMany("never-seen-task", [{}, input], without)).rejects.toMatchObject({ code });
    expect(await rowCounts(mill.db)).toEqual(before);
  });

  test("an input that does not match its task's schema: BAD_PAYLOAD says where and why", async () => {
    const before = await rowCounts(mill.db);
    await expect(mill.enqueue(mail, { to: 7 } as never)).rejects.toMatchObject({
      code: "BAD_PAYLOAD",
      message: expect.stringMatching(/^The input does not match the schema of task "mail": to: .*string/),
    });
    await expect(mill.enqueue(mail, null as never)).rejects.toMatchObject({ code: "BAD_PAYLOAD" });
    await expect(mill.enqueue(slowSchema, { even: 1 })).rejects.toMatchObject({
      code: "BAD_PAYLOAD",
      message: 'The input does not match the schema of task "slow-schema": even: must be even.',
    });
    await expect(mill.enqueueMany(slowSchema, [{ even: 2 }, { even: 3 }])).rejects.toMatchObject({
      code: "BAD_PAYLOAD",
    });
    expect(await rowCounts(mill.db)).toEqual(before);
    await mill.enqueue(slowSchema, { even: 2 });
  });

  test("a task name that is none", async () => {
    const before = await rowCounts(mill.db);
    for (const name of ["", "a b", "x".repeat(129), "é"])
      await expect(mill.enqueue(name, {})).rejects.toMatchObject({ code: "TASK_NAME_INVALID" });
    expect(await rowCounts(mill.db)).toEqual(before);
  });

  test("an idempotency key for many jobs", async () => {
    await expect(mill.enqueueMany(plain, [1, 2], { idempotencyKey: "k" })).rejects.toMatchObject({
      code: "OPTION_INVALID",
    });
  });

  test("an input beyond the limit of this Millrace, to the byte", async () => {
    await using small = await file.open([plain], { maxPayloadBytes: 10 });
    await small.enqueue(plain, "x".repeat(8));
    await small.enqueue(plain, "ééé12");
    await expect(small.enqueue(plain, "x".repeat(9))).rejects.toMatchObject({ code: "PAYLOAD_TOO_LARGE" });
    await expect(small.enqueue(plain, "ééé123")).rejects.toMatchObject({ code: "PAYLOAD_TOO_LARGE" });
    expect(await rowCounts(small.db)).toMatchObject({ jobs: 2, pending: 2 });
  });
});

describe("concurrent calls", () => {
  test("share inserts, and each gets its own job", async () => {
    await using own = await file.open([plain]);
    const inputs = Array.from({ length: 2_500 }, (_, n) => n);
    const ids = await Promise.all(inputs.map(async (n) => (await own.enqueue(plain, n)).id));
    const stored = await own.db.query<{ id: string; n: number }>(
      sql`select id::text, input::int as n from millrace.jobs order by id`,
    );
    expect(stored).toEqual(inputs.map((n) => ({ id: ids[n], n })));
    // Jobs of one insert have one time: far fewer inserts than calls.
    const [inserts] = await own.db.query<{ n: number }>(
      sql`select count(distinct created_at)::int as n from millrace.jobs`,
    );
    expect(inserts?.n).toBeLessThan(100);
    expect(await rowCounts(own.db)).toMatchObject({ jobs: 2_500, pending: 2_500 });
  });

  test("do not suffer from one that PostgreSQL refuses", async () => {
    await using own = await file.open([plain]);
    // Stands for whatever the server may refuse and the client cannot know.
    await own.db.script("alter table millrace.jobs add constraint no_nines check (input <> '9'::jsonb)");
    const results = await Promise.allSettled(Array.from({ length: 20 }, (_, n) => own.enqueue(plain, n)));
    expect(results.map(({ status }) => status)).toEqual(
      Array.from({ length: 20 }, (_, n) => (n === 9 ? "rejected" : "fulfilled")),
    );
    expect(results[9]).toMatchObject({ reason: { code: "23514" } });
    const stored = await own.db.query<{ n: number }>(sql`select input::int as n from millrace.jobs order by id`);
    expect(stored.map(({ n }) => n)).toEqual(Array.from({ length: 20 }, (_, n) => n).filter((n) => n !== 9));
    expect(await rowCounts(own.db)).toMatchObject({ jobs: 19, pending: 19 });
  });

  test("of which one is refused at the door leave the others alone", async () => {
    await using own = await file.open([plain, mail]);
    const results = await Promise.allSettled([
      own.enqueue(plain, 1),
      own.enqueue(mail, { to: 1 } as never),
      own.enqueue(plain, 1n),
      own.enqueue(plain, 2),
    ]);
    expect(results.map(({ status }) => status)).toEqual(["fulfilled", "rejected", "rejected", "fulfilled"]);
    expect(await rowCounts(own.db)).toMatchObject({ jobs: 2, pending: 2 });
  });

  test("go on after one insert failed as a whole", async () => {
    await using own = await file.open([plain]);
    await own.db.script("alter table millrace.pending rename to hidden");
    const results = await Promise.allSettled([own.enqueue(plain, 1), own.enqueue(plain, 2)]);
    expect(results.map(({ status }) => status)).toEqual(["rejected", "rejected"]);
    await own.db.script("alter table millrace.hidden rename to pending");
    await own.enqueue(plain, 3);
    expect(await rowCounts(own.db)).toMatchObject({ jobs: 1, pending: 1 });
  });
});

test("a job inserted a second time, as after an answer that was lost, is one job, wherever it is by then", async () => {
  await using own = await file.open([plain]);
  const [queue, taskId] = [await own.names.queues.id("default"), await own.names.tasks.id("plain")];
  const job = (id: string): Parameters<typeof insertPlain>[2][number] => ({
    id,
    queue,
    task: taskId,
    priority: 0,
    maxAttempts: 3,
    input: "1",
  });
  const batch = ["018f0000-0000-7000-8000-000000000001", "018f0000-0000-7000-8000-000000000002"].map(job);
  await insertPlain(own.db, "channel", batch);
  await insertPlain(own.db, "channel", batch);
  expect(await rowCounts(own.db)).toMatchObject({ jobs: 2, pending: 2 });
  // claimed meanwhile
  await own.db.query(sql`delete from millrace.pending`);
  await insertPlain(own.db, "channel", batch);
  expect(await rowCounts(own.db)).toMatchObject({ jobs: 2, pending: 0 });
});

describe("an idempotency key", () => {
  test("gives later calls the first one's job, whatever their input and options", async () => {
    const first = await mill.enqueue(plain, { n: 1 }, { idempotencyKey: "order-1" });
    const second = await mill.enqueue(plain, { n: 2 }, { idempotencyKey: "order-1", priority: 5, delay: "1h" });
    expect(first.duplicate).toBe(false);
    expect(second).toEqual({ id: first.id, duplicate: true });
    expect(await mill.job(first.id)).toMatchObject({ input: { n: 1 }, priority: 0, status: "waiting" });
  });

  test("counts per task", async () => {
    const [a, b] = [
      await mill.enqueue(plain, {}, { idempotencyKey: "both" }),
      await mill.enqueue("other", {}, { idempotencyKey: "both" }),
    ];
    expect([a.duplicate, b.duplicate]).toEqual([false, false]);
    expect(a.id).not.toBe(b.id);
  });

  test("used by many calls at once makes one job", async () => {
    await using own = await file.open([plain]);
    const calls = Array.from({ length: 20 }, (_, n) => own.enqueue(plain, n, { idempotencyKey: "rush" }));
    const results = await Promise.all(calls);
    expect(new Set(results.map(({ id }) => id)).size).toBe(1);
    expect(results.filter(({ duplicate }) => !duplicate)).toHaveLength(1);
    expect(await rowCounts(own.db)).toMatchObject({ jobs: 1, pending: 1, idempotency_keys: 1 });
  });

  test("is free again once it has expired, and kept for a day unless told otherwise", async () => {
    await using own = await file.open([plain]);
    const first = await own.enqueue(plain, 1, { idempotencyKey: "again", idempotencyKeep: "1h" });
    await own.enqueue(plain, 1, { idempotencyKey: "default" });
    const kept = sql`select key, extract(epoch from expires_at - now()) / 3600 as hours from millrace.idempotency_keys order by key`;
    const hours = await own.db.query<{ key: string; hours: string }>(kept);
    expect(hours.map(({ key, hours: h }) => [key, Math.round(Number(h))])).toEqual([
      ["again", 1],
      ["default", 24],
    ]);
    await own.db.query(
      sql`update millrace.idempotency_keys set expires_at = now() - interval '1 second' where key = 'again'`,
    );
    const second = await own.enqueue(plain, 2, { idempotencyKey: "again" });
    expect(second.duplicate).toBe(false);
    expect(second.id).not.toBe(first.id);
    expect(await own.enqueue(plain, 3, { idempotencyKey: "again" })).toEqual({ id: second.id, duplicate: true });
    expect(await rowCounts(own.db)).toMatchObject({ jobs: 3, pending: 3 });
  });

  test("in a transaction that rolls back is free again", async () => {
    const attempt = mill.transaction(async (tx) => {
      await mill.enqueue(plain, 1, { idempotencyKey: "rolled-back", tx });
      throw new Error("no");
    });
    await expect(attempt).rejects.toThrow("no");
    expect(await mill.enqueue(plain, 2, { idempotencyKey: "rolled-back" })).toMatchObject({ duplicate: false });
  });
});

describe("enqueueMany", () => {
  test("gives ids in the order of the inputs, over several statements", async () => {
    await using own = await file.open([plain]);
    const inputs = Array.from({ length: 2_345 }, (_, n) => n);
    const ids = await own.enqueueMany(plain, inputs);
    expect(ids).toEqual(ids.toSorted());
    const stored = await own.db.query<{ id: string; n: number }>(
      sql`select id::text, input::int as n from millrace.jobs order by id`,
    );
    expect(stored).toEqual(inputs.map((n) => ({ id: ids[n], n })));
    const inserts = await own.db.query<{ n: number }>(
      sql`select count(*)::int as n from millrace.jobs group by created_at order by 1`,
    );
    expect(inserts.map(({ n }) => n)).toEqual([345, 1_000, 1_000]);
  });

  test("cuts statements by size too: a large input does not travel with a thousand others", async () => {
    await using own = await file.open([plain], { maxPayloadBytes: 5_000_000 });
    const big = "x".repeat(3_000_000);
    await own.enqueueMany(plain, [big, big, big, big, "small"]);
    const inserts = await own.db.query<{ n: number }>(
      sql`select count(*)::int as n from millrace.jobs group by created_at order by created_at`,
    );
    expect(inserts.map(({ n }) => n)).toEqual([2, 3]);
  });

  test("with options gives each job all of them", async () => {
    const ids = await mill.enqueueMany(plain, [1, 2], { priority: 3, delay: "1h", tags: ["bulk"], maxAttempts: 2 });
    for (const id of ids)
      expect(await jobRow(id)).toMatchObject({ priority: 3, delay_s: 3_600, tags: ["bulk"], max_attempts: 2 });
  });

  test("of nothing is nothing", async () => {
    expect(await mill.enqueueMany(plain, [])).toEqual([]);
  });

  test("stores nothing when one input is refused", async () => {
    await using own = await file.open([mail]);
    const inputs = Array.from({ length: 1_500 }, (_, n) => ({ to: n === 1_499 ? (n as never) : "a" }));
    await expect(own.enqueueMany(mail, inputs)).rejects.toMatchObject({ code: "BAD_PAYLOAD" });
    expect(await rowCounts(own.db)).toMatchObject({ jobs: 0, pending: 0 });
  });
});

describe("in the caller's transaction", () => {
  const names: [string, EnqueueOptions][] = [
    ["plain", {}],
    ["special", { delay: "1h", tags: ["x"] }],
    ["keyed", { idempotencyKey: "tx" }],
  ];
  test.each(names)("a %s job commits with it, and is not seen before", async (name, options) => {
    await using own = await file.open([plain]);
    await own.db.script("create table millrace.orders (id int primary key)");
    const id = await own.transaction(async (tx) => {
      await tx.query(`insert into "${own.db.schema}".orders values (1)`, []);
      const job = await own.enqueue(plain, name, { ...options, tx });
      if (own.db.kind === "postgres") expect(await own.job(job.id)).toBeUndefined();
      return job.id;
    });
    expect(await own.job(id)).toMatchObject({ input: name });
    expect(await own.db.query(sql`select id from millrace.orders`)).toEqual([{ id: 1 }]);
  });

  test.each(names)("a %s job vanishes with it", async (name, options) => {
    await using own = await file.open([plain]);
    const before = await rowCounts(own.db);
    let id = "";
    const work = own.transaction(async (tx) => {
      ({ id } = await own.enqueue(plain, name, { ...options, tx }));
      throw new Error("changed my mind");
    });
    await expect(work).rejects.toThrow("changed my mind");
    expect(await own.job(id)).toBeUndefined();
    expect(await rowCounts(own.db)).toEqual(before);
  });

  test("many jobs commit or vanish together, also over several statements", async () => {
    await using own = await file.open([plain]);
    const inputs = Array.from({ length: 1_200 }, (_, n) => n);
    const work = own.transaction(async (tx) => {
      await own.enqueueMany(plain, inputs, { tx });
      throw new Error("no");
    });
    await expect(work).rejects.toThrow("no");
    expect(await rowCounts(own.db)).toMatchObject({ jobs: 0, pending: 0 });
    await own.transaction((tx) => own.enqueueMany(plain, inputs, { tx }));
    expect(await rowCounts(own.db)).toMatchObject({ jobs: 1_200, pending: 1_200 });
  });

  test("names never seen before can be used, rolled back, and used again", async () => {
    await using own = await file.open([]);
    const work = own.transaction(async (tx) => {
      await own.enqueue("brand-new", 1, { queue: "brand-new-queue", tx });
      throw new Error("no");
    });
    await expect(work).rejects.toThrow("no");
    await own.transaction((tx) => own.enqueue("brand-new", 2, { queue: "brand-new-queue", tx }));
    const { id } = await own.enqueue("brand-new", 3, { queue: "brand-new-queue" });
    expect(await own.job(id)).toMatchObject({ task: "brand-new", queue: "brand-new-queue", input: 3 });
    expect(await own.stats("brand-new-queue")).toMatchObject([{ waiting: 2 }]);
  });

  test("a job wakes an idle worker when the transaction commits", async () => {
    const ran = tally<unknown>();
    const note = task({ name: "note", run: ({ input }) => ran.add(input) });
    await using own = await file.open([note]);
    const worker = own.work();
    await worker.ready();
    await own.transaction(async (tx) => {
      await own.enqueue(note, "in tx", { tx });
      await tx.query("select 1", []);
    });
    expect(await ran.reached(1)).toEqual(["in tx"]);
  });

  test("an error of the user's own database comes out as it is", async () => {
    const work = mill.transaction(async (tx) => {
      await tx.query("select 1 / 0", []).catch(() => undefined);
      await mill.enqueue(plain, 1, { tx });
    });
    await expect(work).rejects.toMatchObject({ code: "25P02" });
  });
});
