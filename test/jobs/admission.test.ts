/** Queues that limit what may be enqueued: exact, all or none where jobs belong together, and every refusal on record. */
import { describe, expect, test } from "vitest";
import { type BulkFilter, type BulkOperation, type BulkOptions, type Millrace, task } from "millrace";
import { moveByRules } from "../../src/jobs/move.ts";
import { rowCounts, useDatabase, withinAMinute } from "../support/engine.ts";

const file = useDatabase();
const plain = task({ name: "plain", run: () => undefined });

describe("jobs per minute", () => {
  test("are exact with any number of callers at once; the rest is told when to come again, and recorded", async () => {
    await using mill = await file.open([plain]);
    await mill.policies.set("default", { maxEnqueuePerMinute: 20 });
    await withinAMinute(mill, async () => {
      const results = await Promise.allSettled(Array.from({ length: 50 }, (_, n) => mill.enqueue(plain, n)));
      const refused = results.filter((result) => result.status === "rejected").map(({ reason }) => reason as unknown);
      expect(refused).toHaveLength(30);
      expect(refused[0]).toMatchObject({ code: "ENQUEUE_RATE_EXCEEDED" });
      const { retryAfterMs } = refused[0] as { retryAfterMs: number };
      expect(retryAfterMs).toBeGreaterThan(0);
      expect(retryAfterMs).toBeLessThanOrEqual(60_000);
      expect(await rowCounts(mill.db)).toMatchObject({ jobs: 20, pending: 20 });
      const denials = await mill.policies.denials({ queue: "default" });
      expect(denials[0]).toMatchObject({
        queue: "default",
        decision: "DENIED",
        reason_code: "ENQUEUE_RATE_EXCEEDED",
        details_json: { max_per_minute: 20 },
      });
      const jobs = denials.reduce((sum, { details_json }) => sum + (details_json as { jobs: number }).jobs, 0);
      expect(jobs).toBe(30);
    });
  });

  test("take many jobs at once all or none, and count only what was let in", async () => {
    await using mill = await file.open([plain]);
    await mill.policies.set("default", { maxEnqueuePerMinute: 5 });
    await withinAMinute(mill, async () => {
      await expect(mill.enqueueMany(plain, [1, 2, 3, 4, 5, 6])).rejects.toMatchObject({
        code: "ENQUEUE_RATE_EXCEEDED",
      });
      expect(await rowCounts(mill.db)).toMatchObject({ jobs: 0, pending: 0 });
      await mill.enqueueMany(plain, [1, 2, 3, 4, 5]);
      await expect(mill.enqueue(plain, 6)).rejects.toMatchObject({ code: "ENQUEUE_RATE_EXCEEDED" });
      await expect(mill.enqueue(plain, 6, { delay: "1m" })).rejects.toMatchObject({ code: "ENQUEUE_RATE_EXCEEDED" });
      await mill.enqueue(plain, 6, { queue: "other" });
    });
  });

  test("hold in the caller's transaction, and are free again when it rolls back", async () => {
    await using mill = await file.open([plain]);
    await mill.policies.set("default", { maxEnqueuePerMinute: 1 });
    await withinAMinute(mill, async () => {
      const rollback = new Error("rolled back");
      await expect(
        mill.transaction(async (tx) => {
          await mill.enqueue(plain, 1, { tx });
          throw rollback;
        }),
      ).rejects.toBe(rollback);
      await mill.transaction(async (tx) => void (await mill.enqueue(plain, 1, { tx })));
      await expect(mill.transaction(async (tx) => void (await mill.enqueue(plain, 2, { tx })))).rejects.toMatchObject({
        code: "ENQUEUE_RATE_EXCEEDED",
      });
      expect(await rowCounts(mill.db)).toMatchObject({ jobs: 1, pending: 1 });
    });
  });

  test("hold under idempotency keys", async () => {
    await using mill = await file.open([plain]);
    await mill.policies.set("default", { maxEnqueuePerMinute: 2 });
    await withinAMinute(mill, async () => {
      const { id } = await mill.enqueue(plain, 1, { idempotencyKey: "one" });
      expect(await mill.enqueue(plain, 1, { idempotencyKey: "one" })).toEqual({ id, duplicate: true });
      await expect(mill.enqueue(plain, 2, { idempotencyKey: "two" })).rejects.toMatchObject({
        code: "ENQUEUE_RATE_EXCEEDED",
      });
      expect(await rowCounts(mill.db)).toMatchObject({ jobs: 1, idempotency_keys: 1 });
    });
  });

  test("by configuration hold for every queue, and a policy has the last word", async () => {
    await using mill = await file.open([plain], { maxEnqueuePerMinute: 1 });
    await mill.policies.set("roomy", { maxEnqueuePerMinute: 3 });
    await withinAMinute(mill, async () => {
      for (const queue of ["a", "b"]) {
        await mill.enqueue(plain, 1, { queue });
        await expect(mill.enqueue(plain, 2, { queue })).rejects.toMatchObject({ code: "ENQUEUE_RATE_EXCEEDED" });
      }
      await mill.enqueueMany(plain, [1, 2, 3], { queue: "roomy" });
      await expect(mill.enqueue(plain, 4, { queue: "roomy" })).rejects.toMatchObject({ code: "ENQUEUE_RATE_EXCEEDED" });
    });
  });
});

describe("large inputs", () => {
  test("are refused by the queue that takes less, alone, and recorded with both sizes", async () => {
    await using mill = await file.open([plain]);
    await mill.policies.set("small", { maxPayloadBytes: 10 });
    const large = "x".repeat(20);
    const [refused, taken] = await Promise.allSettled([
      mill.enqueue(plain, large, { queue: "small" }),
      mill.enqueue(plain, "ok", { queue: "small" }),
    ]);
    expect(refused).toMatchObject({ status: "rejected", reason: { code: "PAYLOAD_TOO_LARGE" } });
    expect(taken.status).toBe("fulfilled");
    await mill.enqueue(plain, large);
    await expect(mill.enqueueMany(plain, ["ok", large], { queue: "small" })).rejects.toMatchObject({
      code: "PAYLOAD_TOO_LARGE",
    });
    expect(await rowCounts(mill.db)).toMatchObject({ jobs: 2 });
    expect(await mill.policies.denials()).toMatchObject([
      { queue: "small", reason_code: "PAYLOAD_TOO_LARGE", details_json: { payload_bytes: 22, max_payload_bytes: 10 } },
      { queue: "small", reason_code: "PAYLOAD_TOO_LARGE", details_json: { payload_bytes: 22, max_payload_bytes: 10 } },
    ]);
  });

  test("beyond the limit of all queues are on record as well", async () => {
    await using mill = await file.open([plain], { maxPayloadBytes: 10 });
    await expect(mill.enqueue(plain, "x".repeat(20), { queue: "any" })).rejects.toMatchObject({
      code: "PAYLOAD_TOO_LARGE",
    });
    expect(await mill.policies.denials({ queue: "any" })).toMatchObject([
      { reason_code: "PAYLOAD_TOO_LARGE", details_json: { payload_bytes: 22, max_payload_bytes: 10 } },
    ]);
  });

  test("refused by the thousand are recorded by the second", async () => {
    await using mill = await file.open([plain], { maxPayloadBytes: 10, now: () => 1_000 });
    const tries = Array.from({ length: 100 }, () => mill.enqueue(plain, "x".repeat(20)));
    await Promise.allSettled(tries);
    expect(await mill.policies.denials()).toHaveLength(20);
  });
});

describe("a job that is moved", () => {
  const moved = async (mill: Millrace, filter: BulkFilter, options: BulkOptions): Promise<BulkOperation> => {
    const { id } = (await mill.bulk("move", filter, options)) as BulkOperation;
    await using worker = mill.work({ queues: ["maintenance"] });
    await mill.waitUntilFinished(id);
    await worker.stop();
    return mill.bulkOperation(id);
  };

  test("is measured by the queue it comes to, as if it were enqueued there; too large, it stays as it is", async () => {
    await using mill = await file.open([plain]);
    await mill.policies.set("small", { maxPayloadBytes: 20 });
    const { id: fits } = await mill.enqueue(plain, { a: [1, 2, 3, 4, 5, 6] }); // 20 bytes, and more with spaces
    const { id: large } = await mill.enqueue(plain, "x".repeat(20));
    await mill.move(fits, "small");
    await expect(mill.change(large, { queue: "small", priority: 5 })).rejects.toMatchObject({
      code: "PAYLOAD_TOO_LARGE",
    });
    expect(await mill.job(large)).toMatchObject({ queue: "default", priority: 0, status: "waiting" });
    expect(await mill.policies.denials({ queue: "small" })).toMatchObject([
      { reason_code: "PAYLOAD_TOO_LARGE", details_json: { payload_bytes: 22, max_payload_bytes: 20 } },
    ]);
    // It is in that queue: other orders are not about its size.
    await mill.policies.set("small", { maxPayloadBytes: 5 });
    await mill.change(fits, { queue: "small", priority: 5 });
    expect(await mill.job(fits)).toMatchObject({ queue: "small", priority: 5 });
  });

  test("counts among the jobs its new queue takes per minute, once it is there", async () => {
    await using mill = await file.open([plain]);
    await mill.policies.set("few", { maxEnqueuePerMinute: 2 });
    await withinAMinute(mill, async () => {
      const ids = await mill.enqueueMany(plain, [1, 2, 3]);
      await mill.move(ids[0] as string, "few");
      await mill.move(ids[0] as string, "few");
      await mill.move(ids[1] as string, "few");
      const refused = await mill.move(ids[2] as string, "few").catch((error: unknown) => error);
      expect(refused).toMatchObject({ code: "ENQUEUE_RATE_EXCEEDED", retryAfterMs: expect.any(Number) });
      await expect(mill.enqueue(plain, 4, { queue: "few" })).rejects.toMatchObject({ code: "ENQUEUE_RATE_EXCEEDED" });
      expect((await mill.policies.denials({ queue: "few" })).map((one) => one.reason_code)).toEqual([
        "ENQUEUE_RATE_EXCEEDED",
        "ENQUEUE_RATE_EXCEEDED",
      ]);
      await mill.cancel(ids[2] as string);
      await expect(mill.move(ids[2] as string, "few")).rejects.toMatchObject({ code: "JOB_STATE" });
    });
  });

  test("among many leaves behind what is too large, and that is on record", async () => {
    await using mill = await file.open([plain]);
    await mill.policies.set("small", { maxPayloadBytes: 10 });
    const ids = await mill.enqueueMany(plain, ["a", "x".repeat(100), "b"], { queue: "held" });
    expect(await moved(mill, { queue: "held" }, { queue: "small" })).toMatchObject({
      status: "completed",
      lookedAt: 3,
      changed: 2,
    });
    const queues = await Promise.all(ids.map(async (id) => (await mill.job(id))?.queue));
    expect(queues).toEqual(["small", "held", "small"]);
    expect(await mill.policies.denials({ queue: "small" })).toMatchObject([
      { reason_code: "PAYLOAD_TOO_LARGE", details_json: { payload_bytes: 102, jobs: 1 } },
    ]);
  });

  test("among many waits for the next minute when its queue is full, and leaves half of it to producers", async () => {
    await using mill = await file.open([plain]);
    await mill.policies.set("few", { maxEnqueuePerMinute: 4 });
    await withinAMinute(mill, async () => {
      const ids = await mill.enqueueMany(plain, [1, 2, 3]);
      const setting = { channel: mill.channel, admission: mill.admission };
      const queue = await mill.names.queues.id("few");
      const signature = { by: null, reason: null };
      const first = await mill.db.transaction((tx) => moveByRules(tx, setting, ids, "move", { queue }, signature, 0.5));
      expect(first).toMatchObject({ lookedAt: 2, full: { code: "ENQUEUE_RATE_EXCEEDED" } });
      expect([...first.ids].sort()).toEqual(ids.slice(0, 2));
    });
  });
});

test("a queue's priority is for jobs that were given none", async () => {
  await using mill = await file.open([plain]);
  await mill.policies.set("default", { priority: 7, maxPayloadBytes: 1_000 });
  const { id: without } = await mill.enqueue(plain, 1);
  const { id: own } = await mill.enqueue(plain, 1, { priority: 2 });
  expect((await mill.job(without))?.priority).toBe(7);
  expect((await mill.job(own))?.priority).toBe(2);
});
