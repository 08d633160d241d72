/** New jobs of old ones; and jobs that wait, put elsewhere in line. */
import { describe, expect, test } from "vitest";
import { type JobStatus, type Millrace, task } from "millrace";
import { z } from "zod";
import { sql } from "../../src/db/sql.ts";
import { places, rowCounts, tally, useDatabase, withinAMinute } from "../support/engine.ts";
import { StoreWorker, reapNow, succeeded } from "../support/store-worker.ts";

const file = useDatabase();
const plain = task({ name: "plain", run: () => undefined });
const mail = task({ name: "mail", input: z.object({ to: z.string() }), run: () => undefined });
const nowhere = "018f0000-0000-7000-8000-000000000000";

const operations = async ({ db }: Millrace, id: string): Promise<unknown[]> =>
  db.query(sql`select action, by, reason from millrace.operations where job_id = ${id}::uuid order by id`);
const stored = async ({ db }: Millrace, id: string): Promise<unknown> =>
  (
    await db.query(sql`
      select queue, task, priority, max_attempts, key, input, options, tags, replay_of::text from millrace.jobs where id = ${id}::uuid`)
  )[0];

async function oneOfEach(mill: Millrace): Promise<Record<JobStatus, string>> {
  const worker = await StoreWorker.register(mill);
  const [active = "", completed = "", failed = ""] = await mill.enqueueMany(plain, [1, 2, 3]);
  await worker.settle(await worker.claim(3), { [completed]: succeeded, [failed]: { next: "dead", code: "NO" } });
  const { id: waiting } = await mill.enqueue(plain, {}, { priority: -1 });
  const { id: delayed } = await mill.enqueue(plain, {}, { delay: "1h" });
  const { id: cancelled } = await mill.enqueue(plain, {});
  await mill.cancel(cancelled);
  const { id: blocked } = await mill.enqueue(plain, {}, { delay: "2h" });
  await mill.db.query(sql`update millrace.jobs set run_at = 'infinity' where id = ${blocked}::uuid`);
  await mill.db.query(sql`update millrace.pending set run_at = 'infinity' where job_id = ${blocked}::uuid`);
  return { waiting, delayed, blocked, active, completed, failed, cancelled };
}

describe("a replay", () => {
  test("is a new job with all the old one was asked for, and says whose replay it is", async () => {
    await using mill = await file.open([plain]);
    const { id } = await mill.enqueue(
      plain,
      { n: 1 },
      {
        queue: "north",
        priority: 7,
        maxAttempts: 4,
        timeout: "3s",
        backoff: { type: "fixed", delay: "1s" },
        tags: ["red"],
        concurrencyKey: "tenant-1",
        idempotencyKey: "once",
      },
    );
    const fresh = await mill.replay(id, { by: "ann", reason: "lost in the post" });
    expect(fresh).toEqual({ id: expect.any(String), replayOf: id });
    const old = (await stored(mill, id)) as { options: object };
    const options = { ...old.options, by: "ann", reason: "lost in the post" };
    expect(await stored(mill, fresh.id)).toEqual({ ...old, options, replay_of: id });
    expect(await mill.job(fresh.id)).toMatchObject({ status: "waiting", attempt: 1, replayOf: id, queue: "north" });
    expect(await places(mill.db)).toEqual({ [id]: "pending", [fresh.id]: "pending" });
    expect(await operations(mill, id)).toEqual([{ action: "replay", by: "ann", reason: "lost in the post" }]);
  });

  test("can be made of a job of any status, which stays as it is", async () => {
    await using mill = await file.open([plain]);
    const each = await oneOfEach(mill);
    for (const id of Object.values(each)) {
      const before = await mill.job(id);
      const { id: fresh } = await mill.replay(id);
      expect(await mill.job(id)).toEqual(before);
      expect(await mill.job(fresh)).toMatchObject({ status: "waiting", replayOf: id });
    }
  });

  test("of a job that is only in the archive", async () => {
    await using mill = await file.open([plain]);
    const { id } = await mill.enqueue(plain, { kept: true }, { tags: ["old"] });
    await mill.db.query(sql`
      insert into millrace.jobs_archive (id, queue, task, priority, max_attempts, run_at, created_at, key, input, options, tags)
      select id, queue, task, priority, max_attempts, run_at, created_at, key, input, options, tags from millrace.jobs`);
    await mill.db.query(sql`delete from millrace.pending`);
    await mill.db.query(sql`delete from millrace.jobs`);
    const { id: fresh } = await mill.replay(id);
    expect(await mill.job(fresh)).toMatchObject({ input: { kept: true }, tags: ["old"], replayOf: id });
  });

  test("may have another queue, time, priority and input", async () => {
    await using mill = await file.open([mail]);
    const { id } = await mill.enqueue(mail, { to: "ada" });
    const fresh = await mill.replay(id, { queue: "elsewhere", delay: "1h", priority: 3, input: { to: "bob" } });
    expect(await mill.job(fresh.id)).toMatchObject({
      queue: "elsewhere",
      status: "delayed",
      priority: 3,
      input: { to: "bob" },
    });
    const later = await mill.replay(id, { runAt: "2031-01-31T08:00:00Z" });
    expect(await mill.job(later.id)).toMatchObject({ runAt: new Date("2031-01-31T08:00:00Z"), queue: "default" });
    const past = await mill.replay(id, { runAt: new Date(0) });
    expect(await mill.job(past.id)).toMatchObject({ status: "waiting" });
  });

  test("is refused an input that enqueue would refuse, and nothing is written", async () => {
    await using mill = await file.open([mail, plain], { maxPayloadBytes: 100 });
    const { id } = await mill.enqueue(mail, { to: "ada" });
    const before = await rowCounts(mill.db);
    const refusals: [object, string][] = [
      [{ input: { to: "x".repeat(200) } }, "PAYLOAD_TOO_LARGE"],
      [{ input: { to: 1 } }, "BAD_PAYLOAD"],
      [{ input: { to: "\0" } }, "INPUT_NOT_STORABLE"],
      [{ runAt: new Date(), delay: "1s" }, "OPTION_INVALID"],
      [{ priority: 1e9 }, "OPTION_INVALID"],
      [{ queue: "no spaces" }, "QUEUE_NAME_INVALID"],
      [{ inptu: {} }, "OPTION_UNKNOWN"],
    ];
    for (const [options, code] of refusals) await expect(mill.replay(id, options)).rejects.toMatchObject({ code });
    for (const unknown of [nowhere, "nonsense"])
      await expect(mill.replay(unknown)).rejects.toMatchObject({ code: "JOB_NOT_FOUND" });
    expect(await rowCounts(mill.db)).toEqual(before);
  });

  test("is counted among the jobs its queue takes per minute, and refused with the others; what is let in is not measured again", async () => {
    await using mill = await file.open([plain]);
    await mill.policies.set("default", { maxEnqueuePerMinute: 2, maxPayloadBytes: 10 });
    await withinAMinute(mill, async () => {
      const { id } = await mill.enqueue(plain, "x".repeat(100), { queue: "old" });
      await mill.replay(id, { queue: "default" });
      await mill.enqueue(plain, 1);
      const refused = await mill.replay(id, { queue: "default" }).catch((error: unknown) => error);
      expect(refused).toMatchObject({ code: "ENQUEUE_RATE_EXCEEDED", retryAfterMs: expect.any(Number) });
      const [denial] = await mill.policies.denials({ queue: "default" });
      expect(denial).toMatchObject({ reason_code: "ENQUEUE_RATE_EXCEEDED", details_json: { count_this_minute: 2 } });
      // where it goes counts, not where it was
      await mill.replay(id, { queue: "elsewhere" });
      await mill.policies.set("elsewhere", { maxPayloadBytes: 10 });
      await mill.replay(id, { queue: "elsewhere", input: "short" });
      await expect(mill.replay(id, { queue: "elsewhere", input: "not so short" })).rejects.toMatchObject({
        code: "PAYLOAD_TOO_LARGE",
      });
    });
  });

  test("wakes an idle worker", async () => {
    const runs = tally<unknown>();
    const count = task({ name: "count", run: ({ input }) => runs.add(input) });
    await using mill = await file.open([count]);
    const worker = mill.work();
    const { id } = await mill.enqueue(count, { n: 1 });
    await runs.reached(1);
    await mill.replay(id);
    expect(await runs.reached(2)).toEqual([{ n: 1 }, { n: 1 }]);
    await worker.stop();
  });
});

describe("putting a job elsewhere in line", () => {
  test("reschedule makes it due earlier or later, and it is found there", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const { id } = await mill.enqueue(plain, {});
    const at = new Date("2031-01-31T08:00:00.123Z");
    await mill.reschedule(id, at, { by: "ann" });
    expect(await mill.job(id)).toMatchObject({ status: "delayed", runAt: at });
    expect((await worker.claim(1)).jobs).toEqual([]);
    await mill.reschedule(id, "10m");
    expect((await mill.job(id))?.runAt?.getTime()).toBeLessThan(at.getTime());
    await mill.reschedule(id, "2031-01-31T08:00:00Z");
    expect(await mill.job(id)).toMatchObject({ runAt: new Date("2031-01-31T08:00:00Z") });
    await mill.reschedule(id, 0);
    expect(await mill.job(id)).toMatchObject({ status: "waiting" });
    expect(await operations(mill, id)).toMatchObject([{ action: "reschedule", by: "ann" }, {}, {}, {}]);
    const claim = await worker.claim(1);
    expect(claim.jobs).toMatchObject([{ id }]);
    // given back, it stands where it was put last
    await worker.giveBack(claim);
    expect(await mill.job(id)).toMatchObject({ status: "waiting" });
    await mill.remove(id);
    expect(await rowCounts(mill.db)).toMatchObject({ jobs: 0, pending: 0, operations: 0 });
  });

  test("reprioritise changes the order of work, keeps its time, and its suspicion", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const { id: first } = await mill.enqueue(plain, {});
    const { id: second } = await mill.enqueue(plain, {});
    const runAt = (await mill.job(second))?.runAt;
    await mill.reprioritise(second, 5, { by: "ann", reason: "the boss" });
    expect(await mill.job(second)).toMatchObject({ priority: 5, status: "waiting", runAt });
    expect(await operations(mill, second)).toEqual([{ action: "reprioritise", by: "ann", reason: "the boss" }]);
    expect((await worker.claim(2)).jobs.map(({ id }) => id)).toEqual([second, first]);
    await worker.die();
    await reapNow(mill);
    await mill.reprioritise(first, 9);
    expect(await mill.db.query(sql`select losses::int from millrace.pending where job_id = ${first}::uuid`)).toEqual([
      { losses: 1 },
    ]);
    await mill.reprioritise(first, 9);
    expect(await mill.job(first)).toMatchObject({ priority: 9, status: "waiting" });
  });

  test("move puts it into another queue, which is made if need be, with its concurrency key", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const { id: plainJob } = await mill.enqueue(plain, {}, { priority: 2 });
    const { id: keyed } = await mill.enqueue(plain, {}, { concurrencyKey: "tenant" });
    await mill.move(plainJob, "fresh");
    expect(await mill.job(plainJob)).toMatchObject({ queue: "fresh", status: "waiting", priority: 2 });
    expect((await worker.claim(5, "fresh")).jobs).toMatchObject([{ id: plainJob }]);
    await mill.move(keyed, "fresh");
    expect(await mill.job(keyed)).toMatchObject({ queue: "fresh", status: "waiting" });
    expect(await mill.db.query(sql`select keyed, careful from millrace.queues where name = 'fresh'`)).toEqual([
      { keyed: true, careful: true },
    ]);
    expect((await mill.stats("fresh"))[0]).toMatchObject({ waiting: 1, active: 1 });
  });

  test("change does several of these at once", async () => {
    await using mill = await file.open([plain]);
    const { id } = await mill.enqueue(plain, {});
    await mill.change(id, { queue: "other", priority: -4, delay: "1h", by: "ann" });
    expect(await mill.job(id)).toMatchObject({ queue: "other", priority: -4, status: "delayed" });
    expect(await operations(mill, id)).toEqual([{ action: "change", by: "ann", reason: null }]);
    await expect(mill.change(id, { by: "ann" })).rejects.toMatchObject({ code: "OPTION_INVALID" });
    await expect(mill.change(id, { delay: "1s", runAt: new Date() })).rejects.toMatchObject({ code: "OPTION_INVALID" });
    await expect(mill.change(id, { when: 1 } as never)).rejects.toMatchObject({ code: "OPTION_UNKNOWN" });
  });

  test("a worker in another queue is woken for what is moved there", async () => {
    const runs = tally<string>();
    const note = task({ name: "note", run: ({ id, queue }) => runs.add(`${id} ${queue}`) });
    await using mill = await file.open([note]);
    const worker = mill.work({ queues: ["here"] });
    await worker.ready();
    const { id } = await mill.enqueue(note, {}, { queue: "there" });
    await mill.move(id, "here");
    expect(await runs.reached(1)).toEqual([`${id} here`]);
    await worker.stop();
  });

  test.each(["blocked", "active", "completed", "failed", "cancelled"] as const)(
    "takes only jobs that wait or are delayed: one that is %s is JOB_STATE, and untouched",
    async (status) => {
      await using mill = await file.open([plain]);
      const id = (await oneOfEach(mill))[status];
      const before = [await mill.job(id), await rowCounts(mill.db), await places(mill.db)];
      for (const order of [
        () => mill.reschedule(id, "1h"),
        () => mill.reprioritise(id, 1),
        () => mill.move(id, "default"),
        () => mill.change(id, { priority: 1 }),
      ])
        await expect(order()).rejects.toMatchObject({
          code: "JOB_STATE",
          message: `Job ${id} is ${status}; only a job that is waiting or delayed can be changed.`,
        });
      expect([await mill.job(id), await rowCounts(mill.db), await places(mill.db)]).toEqual(before);
      await expect(mill.move(nowhere, "default")).rejects.toMatchObject({ code: "JOB_NOT_FOUND" });
    },
  );

  test("by many at once leaves the job in one place, where the last one put it", async () => {
    await using mill = await file.open([plain]);
    const { id } = await mill.enqueue(plain, {});
    const orders = Array.from({ length: 12 }, (_, n) =>
      n % 3 === 0
        ? mill.reprioritise(id, n)
        : n % 3 === 1
          ? mill.reschedule(id, `${n + 1}h`)
          : mill.move(id, `queue-${n}`),
    );
    expect((await Promise.allSettled(orders)).filter(({ status }) => status === "rejected")).toEqual([]);
    expect(await places(mill.db)).toEqual({ [id]: "pending" });
    expect(await mill.job(id)).toMatchObject({ status: "delayed" });
    await mill.cancel(id);
    expect(await places(mill.db)).toEqual({ [id]: "cancelled" });
  });
});
