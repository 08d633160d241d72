/** What readers see: one job, and lists that can be walked page by page. */
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Job, type JobStatus, type ListOptions, type Millrace, task } from "millrace";
import { archive } from "../../src/jobs/maintenance-store.ts";
import { jobStatuses } from "../../src/jobs/read-store.ts";
import { sql } from "../../src/db/sql.ts";
import { backend } from "../support/database.ts";
import { useDatabase } from "../support/engine.ts";
import { type End, StoreWorker, succeeded } from "../support/store-worker.ts";

const file = useDatabase();
const plain = task({ name: "plain", run: () => undefined });

/** Walks a list to its end. */
async function walk(mill: Millrace, options: ListOptions): Promise<Job[]> {
  const all: Job[] = [];
  for (let after: string | undefined; ;) {
    const page = await mill.jobs({ ...options, ...(after === undefined ? {} : { after }) });
    expect(page.jobs.length).toBeLessThanOrEqual(options.limit ?? 100);
    all.push(...page.jobs);
    if (page.next === null) return all;
    after = page.next;
  }
}

describe("one job", () => {
  let mill: Millrace;
  beforeAll(async () => {
    mill = await file.open([plain]);
  });
  afterAll(() => mill.close());

  test("that waits is told in full", async () => {
    const before = Date.now() - 60_000;
    const { id } = await mill.enqueue(
      plain,
      { a: 1 },
      { priority: 3, maxAttempts: 9, tags: ["x", "y"], queue: "reading" },
    );
    const job = await mill.job(id);
    expect(job).toEqual({
      id,
      queue: "reading",
      task: "plain",
      status: "waiting",
      input: { a: 1 },
      priority: 3,
      tags: ["x", "y"],
      createdAt: expect.any(Date),
      runAt: expect.any(Date),
      attempt: 1,
      maxAttempts: 9,
      startedAt: null,
      finishedAt: null,
      worker: null,
      lastErrorCode: null,
      lastErrorMessage: null,
      lastErrorStack: null,
      deadLetterReason: null,
      replayOf: null,
      progress: null,
      progressAt: null,
    });
    expect(job?.createdAt.getTime()).toBeGreaterThan(before);
    expect(job?.runAt).toEqual(job?.createdAt);
  });

  test("that there is none of is undefined, whatever the id looks like", async () => {
    expect(await mill.job("018f0000-0000-7000-8000-000000000000")).toBeUndefined();
    expect(await mill.job("not an id")).toBeUndefined();
    expect(await mill.job("")).toBeUndefined();
    expect(await mill.job("018f0000-0000-7000-8000-000000000000'; drop table jobs; --")).toBeUndefined();
  });

  test("is found by its id in capitals too", async () => {
    const { id } = await mill.enqueue(plain, {});
    expect((await mill.job(id.toUpperCase()))?.id).toBe(id);
  });

  test("goes through its statuses as it is claimed, settled, tried again and given up", async () => {
    const worker = await StoreWorker.register(mill, "reader");
    const { id } = await mill.enqueue(plain, {}, { queue: "stations", maxAttempts: 2 });
    const seen = async (): Promise<unknown> => {
      const job = await mill.job(id);
      return [job?.status, job?.attempt, job?.worker, job?.lastErrorCode, job?.deadLetterReason];
    };
    expect(await seen()).toEqual(["waiting", 1, null, null, null]);
    let claim = await worker.claim(1, "stations");
    expect(await seen()).toEqual(["active", 1, "reader", null, null]);
    await worker.settle(claim, { [id]: { next: "again", delayMs: 0 } });
    expect(await seen()).toEqual(["waiting", 1, "reader", null, null]);
    claim = await worker.claim(1, "stations");
    await worker.settle(claim, { [id]: { next: "retry", code: "FIRST", delayMs: 3_600_000 } });
    expect(await seen()).toEqual(["delayed", 2, "reader", "FIRST", null]);
    await mill.promote(id);
    expect(await seen()).toEqual(["waiting", 2, "reader", "FIRST", null]);
    claim = await worker.claim(1, "stations");
    expect(await seen()).toEqual(["active", 2, "reader", "FIRST", null]);
    await worker.settle(claim, { [id]: { next: "retry", code: "SECOND", delayMs: 0 } });
    expect(await seen()).toEqual(["failed", 2, "reader", "SECOND", "MAX_ATTEMPTS_EXCEEDED"]);
    await mill.retry(id);
    expect(await seen()).toEqual(["waiting", 3, "reader", "SECOND", null]);
    claim = await worker.claim(1, "stations");
    await worker.close(claim);
    expect(await seen()).toEqual(["completed", 3, "reader", "SECOND", null]);
  });

  test("knows when it was started and finished, to the millisecond the worker measured", async () => {
    const worker = await StoreWorker.register(mill);
    const { id } = await mill.enqueue(plain, {}, { queue: "timing" });
    const claim = await worker.claim(1, "timing");
    const claimed = (await mill.job(id))?.startedAt?.getTime() ?? 0;
    await worker.settle(claim, { [id]: succeeded });
    const job = await mill.job(id);
    expect([(job?.startedAt?.getTime() ?? 0) - claimed, (job?.finishedAt?.getTime() ?? 0) - claimed]).toEqual([1, 3]);
  });

  test("has its own times among those that were settled with it, and others whose ids lie between theirs", async () => {
    await using own = await file.open([plain]);
    const worker = await StoreWorker.register(own);
    const early: string[] = [];
    const late: string[] = [];
    for (let n = 0; n < 3; n += 1) {
      early.push((await own.enqueue(plain, n, { queue: "early" })).id);
      late.push((await own.enqueue(plain, n, { queue: "late" })).id);
    }
    const ends = (ids: readonly string[], from: number) =>
      Object.fromEntries(ids.map((id, n) => [id, { ...succeeded, startedMs: from + n }]));
    const begun = new Map<string, number>();
    for (const [queue, ids, from] of [
      ["early", early, 10],
      ["late", late, 20],
    ] as const) {
      const claim = await worker.claim(3, queue);
      begun.set(queue, (await own.job(ids[0] ?? ""))?.startedAt?.getTime() ?? 0);
      await worker.settle(claim, ends(ids, from));
    }
    const { jobs } = await own.jobs({ status: "completed" });
    const started = Object.fromEntries(
      jobs.map(({ id, queue, startedAt }) => [id, (startedAt?.getTime() ?? 0) - (begun.get(queue) ?? 0)]),
    );
    expect(started).toEqual(
      Object.fromEntries([...early.map((id, n) => [id, 10 + n]), ...late.map((id, n) => [id, 20 + n])]),
    );
  });
});

describe("looking for jobs", () => {
  const ids = ({ jobs }: { jobs: readonly Job[] }): string[] => jobs.map(({ id }) => id);
  let mill: Millrace;
  beforeAll(async () => {
    mill = await file.open([plain]);
  });
  afterAll(() => mill.close());

  test("by tag finds every job that has it, newest first, archived ones too", async () => {
    const made: string[] = [];
    for (let n = 0; n < 5; n += 1)
      made.unshift((await mill.enqueue(plain, n, { tags: ["mine", `n${n}`, "mine"], queue: "tagged" })).id);
    await mill.enqueueMany(plain, [1, 2, 3], { tags: ["other"] });
    expect((await walk(mill, { tag: "mine", limit: 2 })).map(({ id }) => id)).toEqual(made);
    expect(ids(await mill.jobs({ tag: "n3" }))).toEqual([made[1]]);

    const worker = await StoreWorker.register(mill);
    await worker.close(await worker.claim(100, "tagged"));
    expect((await archive(mill.db, 0)).jobs).toBe(5);
    expect((await walk(mill, { tag: "mine", limit: 2 })).map(({ id, status }) => [id, status])).toEqual(
      made.map((id) => [id, "completed"]),
    );
    await mill.replay(made[0] as string);
    expect((await mill.jobs({ tag: "mine" })).jobs).toHaveLength(6);
    await mill.remove(made[0] as string);
    expect((await mill.jobs({ tag: "mine" })).jobs).toHaveLength(5);
    const [left] = await mill.db.query<{ n: number }>(
      sql`select count(*)::int as n from millrace.job_tags where job_id = ${made[0] as string}::uuid`,
    );
    expect(left).toEqual({ n: 0 });
  });

  test("by input finds what contains it, or a text anywhere in it", async () => {
    const { id: a } = await mill.enqueue(plain, { user: { id: 7, name: "Ann O'Hara" }, list: [1, 2] }, { delay: "1h" });
    const { id: b } = await mill.enqueue(plain, { user: { id: 8, name: "BOB" } });
    expect(ids(await mill.jobs({ input: { user: { id: 7 } } }))).toEqual([a]);
    expect(ids(await mill.jobs({ input: { list: [2] } }))).toEqual([a]);
    expect(ids(await mill.jobs({ input: { user: {} }, status: "delayed" }))).toEqual([a]);
    expect(ids(await mill.jobs({ search: "bob" }))).toEqual([b]);
    expect(ids(await mill.jobs({ search: "o'hara" }))).toEqual([a]);
    expect(ids(await mill.jobs({ search: "%" }))).toEqual([]);
    expect(ids(await mill.jobs({ search: "nobody" }))).toEqual([]);
    await expect(mill.jobs({ search: "" })).rejects.toThrow(/1 to 1000 characters/);
    await expect(mill.jobs({ input: () => 1 })).rejects.toThrow(/JSON cannot hold/);
  });

  test("says how far it has looked, and goes on from there", async () => {
    await mill.enqueueMany(
      plain,
      Array.from({ length: 1_000 }, () => ({})),
      { delay: "1h" },
    );
    const { id } = await mill.enqueue(plain, { needle: true }, { delay: "2h", tags: ["of-needle"] });
    await mill.enqueueMany(
      plain,
      Array.from({ length: 600 }, () => ({})),
      { delay: "1h" },
    );
    const { jobs, looked, next } = await mill.jobs({ input: { needle: true }, limit: 1 });
    expect(ids({ jobs })).toEqual([id]);
    expect(looked).toBeGreaterThan(600);
    expect(looked).toBeLessThanOrEqual(20_000);
    expect(await mill.jobs({ input: { needle: true }, limit: 1, after: next as string })).toMatchObject({
      jobs: [],
      next: null,
    });
  });

  test("looks at no more jobs than the page holds, where nothing is filtered", async () => {
    await mill.enqueueMany(
      plain,
      Array.from({ length: 30 }, () => ({})),
    );
    for (const status of [undefined, "waiting"] as const)
      expect(await mill.jobs({ limit: 20, ...(status ? { status } : {}) })).toMatchObject({ looked: 20 });
  });

  test("takes jobs of a time, with the beginning and without the end", async () => {
    const { id } = await mill.enqueue(plain, {}, { tags: ["timed"] });
    const at = (await mill.job(id))?.createdAt.getTime() as number;
    const around = async (after: number, before: number, more: ListOptions = {}): Promise<boolean> => {
      const createdAfter = new Date(after).toISOString();
      return ids(await mill.jobs({ createdAfter, createdBefore: new Date(before), ...more })).includes(id);
    };
    for (const more of [{}, { tag: "timed" }, { status: "waiting" }] as const) {
      expect(await around(at, at + 1, more)).toBe(true);
      expect(await around(at + 1, at + 100, more)).toBe(false);
      expect(await around(at - 100, at, more)).toBe(false);
    }
    await expect(mill.jobs({ createdAfter: "yesterday" })).rejects.toThrow(/createdAfter must be/);
  });
});

describe("a list", () => {
  const wanted = fc.record({
    status: fc.constantFrom(...jobStatuses),
    queue: fc.constantFrom("a", "b"),
    task: fc.constantFrom("x", "y"),
    priority: fc.integer({ min: -1, max: 1 }),
    tag: fc.constantFrom("red", "blue", undefined),
  });
  type Wanted = typeof wanted extends fc.Arbitrary<infer Value> ? Value : never;

  /** Puts jobs where they are wanted, by the ways that lead there. Returns each one's id with what it is. */
  async function arrange(mill: Millrace, jobs: readonly Wanted[]): Promise<(Wanted & { id: string })[]> {
    for (const table of ["jobs", "pending", "leases", "settled", "attempts", "dead_letters", "operations"])
      await mill.db.script(`delete from millrace.${table}`);
    const enqueue = async (job: Wanted): Promise<Wanted & { id: string }> => {
      const { id } = await mill.enqueue(
        job.task,
        {},
        {
          queue: job.queue,
          priority: job.priority,
          tags: job.tag === undefined ? [] : [job.tag],
          ...(job.status === "delayed" ? { delay: "1h" } : {}),
        },
      );
      return { ...job, id };
    };
    const runs = (job: Wanted): boolean => ["active", "completed", "failed"].includes(job.status);
    const ran = await Promise.all(jobs.filter(runs).map(enqueue));
    const worker = await StoreWorker.register(mill);
    for (const queue of ["a", "b"]) {
      const claim = await worker.claim(100, queue);
      const ends = claim.jobs.flatMap(({ id }): [string, End][] => {
        const status = ran.find((job) => job.id === id)?.status;
        return status === "completed"
          ? [[id, succeeded]]
          : status === "failed"
            ? [[id, { next: "dead", code: "NO" }]]
            : [];
      });
      // in two parts, so that there are batches of several sizes
      for (const part of [ends.slice(0, 2), ends.slice(2)])
        if (part.length > 0) await worker.settle(claim, Object.fromEntries(part));
    }
    const rest = await Promise.all(jobs.filter((job) => !runs(job)).map(enqueue));
    for (const { id, status } of rest) {
      if (status === "blocked") {
        await mill.db.query(sql`update millrace.jobs set run_at = 'infinity' where id = ${id}::uuid`);
        await mill.db.query(sql`update millrace.pending set run_at = 'infinity' where job_id = ${id}::uuid`);
      }
      if (status === "cancelled") {
        await mill.db.query(sql`
          with gone as (delete from millrace.pending where job_id = ${id}::uuid returning line as queue, job_id)
          insert into millrace.attempts (job_id, queue, attempt, outcome) select job_id, queue, 1, 'cancelled' from gone`);
      }
    }
    return [...ran, ...rest];
  }

  test("of any status, queue, task and tag has each of its jobs exactly once, however small the pages", async () => {
    await using mill = await file.open([]);
    const filters = fc.record(
      { queue: fc.constantFrom("a", "b"), task: fc.constantFrom("x", "y"), tag: fc.constantFrom("red", "blue") },
      { requiredKeys: [] },
    );
    await fc.assert(
      fc.asyncProperty(
        fc.array(wanted, { maxLength: 14 }),
        filters,
        fc.integer({ min: 1, max: 4 }),
        async (jobs, filter, limit) => {
          const there = await arrange(mill, jobs);
          const matching = there.filter(
            (job) =>
              (filter.queue ?? job.queue) === job.queue &&
              (filter.task ?? job.task) === job.task &&
              (filter.tag ?? job.tag) === job.tag,
          );
          for (const status of [undefined, ...jobStatuses]) {
            const listed = await walk(mill, { ...filter, limit, ...(status === undefined ? {} : { status }) });
            const expected = matching.filter((job) => status === undefined || job.status === status);
            expect(listed.map(({ id }) => id).toSorted()).toEqual(expected.map(({ id }) => id).toSorted());
            for (const job of listed) {
              const original = there.find(({ id }) => id === job.id);
              expect(job).toMatchObject({
                status: original?.status,
                queue: original?.queue,
                task: original?.task,
                priority: original?.priority,
              });
            }
          }
        },
      ),
      { numRuns: backend === "postgres" ? 25 : 10 },
    );
  });

  test("without a status is newest first; waiting jobs come in the order they will run; finished ones latest first", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const ids: string[] = [];
    for (let n = 0; n < 6; n += 1) ids.push((await mill.enqueue(plain, n, { priority: n % 2 })).id);
    const [a, b, c, d, e, f] = ids as [string, string, string, string, string, string];
    const order = async (status?: JobStatus): Promise<string[]> =>
      (await walk(mill, { limit: 2, ...(status ? { status } : {}) })).map(({ id }) => id);
    expect(await order()).toEqual([f, e, d, c, b, a]);
    expect(await order("waiting")).toEqual([b, d, f, a, c, e]);
    const claim = await worker.claim(4);
    expect(await order("active")).toEqual([a, b, d, f]);
    await worker.settle(claim, { [d]: succeeded });
    await worker.settle(claim, { [b]: succeeded, [f]: succeeded });
    expect(await order("completed")).toEqual([f, b, d]);
    await worker.settle(claim, { [a]: { next: "dead" } });
    const again = await worker.claim(2);
    await worker.settle(again, { [c]: { next: "dead" } });
    expect(await order("failed")).toEqual([c, a]);
  });

  test("finds jobs by a tag exactly, whatever is in it", async () => {
    await using mill = await file.open([plain]);
    const tags = ['a "b"', "a\\b", "{a,b}", "a,b", "żółw", "a"];
    const ids = new Map<string, string>();
    for (const tag of tags) ids.set(tag, (await mill.enqueue(plain, {}, { tags: [tag, "all"] })).id);
    for (const tag of tags) expect((await walk(mill, { tag })).map(({ id }) => id)).toEqual([ids.get(tag)]);
    expect(await walk(mill, { tag: "all", limit: 4 })).toHaveLength(6);
    expect(await walk(mill, { tag: "none" })).toEqual([]);
  });

  test("of a queue or task that never was is empty, and makes none", async () => {
    await using mill = await file.open([]);
    expect(await mill.jobs({ queue: "nowhere" })).toEqual({ jobs: [], next: null, looked: 0 });
    expect(await mill.jobs({ task: "nothing" })).toEqual({ jobs: [], next: null, looked: 0 });
    expect(await mill.stats()).toEqual([]);
  });

  test.runIf(backend === "postgres")(
    "of completed jobs goes on to its end past twenty thousand batches in which nothing matches",
    async () => {
      await using mill = await file.open([plain]);
      const { id } = await mill.enqueue(plain, {}, { tags: ["needle"] });
      const worker = await StoreWorker.register(mill);
      await worker.close(await worker.claim(1));
      // 45 000 later batches of one job each, none of which has the tag
      await mill.db.query(sql`
      with made as (
        insert into millrace.jobs (id, queue, task, max_attempts, run_at, input)
        select gen_random_uuid(), (select id from millrace.queues where name = 'default'), (select id from millrace.tasks where name = 'plain'), 1, now(), 'null'
        from generate_series(1, 45000) returning id, queue)
      insert into millrace.settled (lease, queue, worker, claimed_at, n, took_ms_sum, ids, job_ids, started_ms, took_ms)
      select 0, queue, 1, now(), 1, 0, millrace.uuidrange(id, id, '[]'), array[id], '{0}', '{0}' from made`);
      expect((await walk(mill, { status: "completed", tag: "needle", limit: 10 })).map((job) => job.id)).toEqual([id]);
    },
  );

  test.each<[string, object, string]>([
    ["an unknown option", { statuss: "waiting" }, "OPTION_UNKNOWN"],
    ["a status that is none", { status: "running" }, "OPTION_INVALID"],
    ["a limit of nothing", { limit: 0 }, "OPTION_INVALID"],
    ["a limit beyond 500", { limit: 501 }, "OPTION_INVALID"],
    ["a cursor that is none", { after: "x" }, "OPTION_INVALID"],
    ["an empty cursor", { after: "" }, "OPTION_INVALID"],
    ["a cursor of JSON that is no list", { after: Buffer.from("null").toString("base64url") }, "OPTION_INVALID"],
    [
      "a cursor with words where numbers belong",
      { status: "waiting", after: Buffer.from('["waiting","a","b","c","d"]').toString("base64url") },
      "OPTION_INVALID",
    ],
    [
      "a cursor with SQL in it",
      { after: Buffer.from(`["","'; drop table jobs"]`).toString("base64url") },
      "OPTION_INVALID",
    ],
    ["a tag with a NUL", { tag: "a\0" }, "OPTION_INVALID"],
    ["a reason with a NUL", { status: "failed", reason: "a\0" }, "OPTION_INVALID"],
    ["an error code with half a character", { status: "failed", errorCode: "\ud800" }, "OPTION_INVALID"],
    ["a tag that is no text", { tag: 7 }, "OPTION_INVALID"],
    ["a queue name that is none", { queue: "a\0" }, "QUEUE_NAME_INVALID"],
    ["a task name that is none", { task: "a\0" }, "TASK_NAME_INVALID"],
  ])("is refused %s", async (_, options, code) => {
    await using mill = await file.open([]);
    await expect(mill.jobs(options)).rejects.toMatchObject({ code });
  });

  test("is refused the cursor of another list", async () => {
    await using mill = await file.open([plain]);
    await mill.enqueueMany(plain, [1, 2, 3]);
    const { next } = await mill.jobs({ status: "waiting", limit: 1 });
    expect(next).not.toBeNull();
    for (const status of jobStatuses.filter((other) => other !== "waiting"))
      await expect(mill.jobs({ status, after: next ?? "" })).rejects.toMatchObject({ code: "OPTION_INVALID" });
    await expect(mill.jobs({ after: next ?? "" })).rejects.toMatchObject({ code: "OPTION_INVALID" });
    expect((await mill.jobs({ status: "waiting", after: next ?? "" })).jobs).toHaveLength(2);
  });
});
