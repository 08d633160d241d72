/** `complete(tx)`: a job and the task's own writes commit together, exactly once, or not at all. */
import { describe, expect, test, vi } from "vitest";
import { type AnyTask, type JobContext, type Millrace, task } from "millrace";
import { sql } from "../../src/db/sql.ts";
import { backend } from "../support/database.ts";
import { gate, places, tally, useDatabase } from "../support/engine.ts";
import { StoreWorker, reapNow, succeeded } from "../support/store-worker.ts";

const file = useDatabase();
const plain = task({ name: "plain", run: () => undefined });
const soon = { delay: 5, jitter: 0 };

/** An engine with a table of the user's own beside its tables. */
async function withOrders(tasks: (mill: () => Millrace) => AnyTask): Promise<Millrace> {
  let opened: Millrace | undefined;
  const mill = await file.open([tasks(() => opened as Millrace)]);
  opened = mill;
  await mill.db.script("create table millrace.orders (id int, attempt int)");
  return mill;
}

const orders = async (mill: Millrace): Promise<unknown[]> =>
  mill.db.query(sql`select id, attempt from millrace.orders order by id, attempt`);

async function order(mill: Millrace, { input, attempt, complete }: JobContext, fail?: Error): Promise<void> {
  await mill.transaction(async (tx) => {
    await tx.query(`insert into "${mill.db.schema}".orders values ($1, $2)`, [input, attempt]);
    await complete(tx);
    if (fail) throw fail;
  });
}

describe("completing inside a transaction", () => {
  test("commits the job and the task's writes together, and the worker reports it no second time", async () => {
    const done = tally<unknown>();
    await using mill = await withOrders((own) =>
      task({
        name: "order",
        async run(context) {
          await order(own(), context as JobContext);
          done.add(context.input);
        },
      }),
    );
    const ids = await mill.enqueueMany("order", [1, 2, 3]);
    const worker = mill.work();
    await done.reached(3);
    await worker.stop();
    expect(await orders(mill)).toEqual([1, 2, 3].map((id) => ({ id, attempt: 1 })));
    for (const id of ids) expect(await mill.job(id)).toMatchObject({ status: "completed", attempt: 1 });
    expect(Object.values(await places(mill.db))).toEqual(["settled", "settled", "settled"]);
    expect(await mill.db.query(sql`select sum(n)::int as n from millrace.settled`)).toEqual([{ n: 3 }]);
    expect(await mill.db.query(sql`select count(*)::int as n from millrace.leases`)).toEqual([{ n: 0 }]);
    expect(await mill.db.query(sql`select count(*)::int as n from millrace.attempts`)).toEqual([{ n: 0 }]);
    expect(await mill.stats("default")).toMatchObject([{ completed: 3, active: 0 }]);
  });

  test("that rolls back leaves neither: the job runs again, and its writes are there once", async () => {
    const attempts = tally<number>();
    await using mill = await withOrders((own) =>
      task({
        name: "order",
        backoff: soon,
        async run(context) {
          attempts.add(context.attempt);
          await order(own(), context as JobContext, context.attempt === 1 ? new Error("changed my mind") : undefined);
        },
      }),
    );
    const { id } = await mill.enqueue("order", 7);
    const worker = mill.work();
    await attempts.reached(2);
    await worker.stop();
    expect(await orders(mill)).toEqual([{ id: 7, attempt: 2 }]);
    expect(await mill.job(id)).toMatchObject({ status: "completed", attempt: 2, lastErrorMessage: "changed my mind" });
    expect(await mill.db.query(sql`select count(*)::int as n from millrace.settled`)).toEqual([{ n: 1 }]);
  });

  test("that rolls back and is kept quiet by the task is no success either", async () => {
    const attempts = tally<number>();
    await using mill = await withOrders((own) =>
      task({
        name: "order",
        backoff: soon,
        maxAttempts: 5,
        async run(context) {
          attempts.add(context.attempt);
          await order(own(), context as JobContext, context.attempt === 1 ? new Error("x") : undefined).catch(
            () => undefined,
          );
        },
      }),
    );
    const { id } = await mill.enqueue("order", 7, { maxAttempts: 5 });
    const worker = mill.work();
    await attempts.reached(2);
    await worker.stop();
    expect(await orders(mill)).toEqual([{ id: 7, attempt: 2 }]);
    expect(await mill.job(id)).toMatchObject({ status: "completed", attempt: 2 });
    expect(await mill.db.query(sql`select outcome, attempt::int from millrace.attempts`)).toEqual([
      { outcome: "failed", attempt: 1 },
    ]);
  });

  test("counts although the task fails, times out or is snoozed afterwards: what is committed is done", async () => {
    const done = tally<unknown>();
    await using mill = await withOrders((own) =>
      task({
        name: "order",
        backoff: soon,
        timeout: 200,
        async run(context) {
          await order(own(), context as JobContext);
          done.add(context.input);
          if (context.input === 1) throw new Error("too late to fail");
          if (context.input === 2) context.snooze(1);
          if (context.input === 3 && !context.signal.aborted)
            await new Promise((resolve) => context.signal.addEventListener("abort", resolve));
        },
      }),
    );
    const ids = await mill.enqueueMany("order", [1, 2, 3]);
    const worker = mill.work();
    await done.reached(3);
    await worker.stop();
    expect(done.seen.toSorted()).toEqual([1, 2, 3]);
    for (const id of ids)
      expect(await mill.job(id)).toMatchObject({ status: "completed", attempt: 1, deadLetterReason: null });
    expect(await mill.stats("default")).toMatchObject([{ completed: 3, failed: 0, waiting: 0, delayed: 0 }]);
  });

  test("a second time is refused as JOB_STATE", async () => {
    const refused = gate<unknown>();
    await using mill = await withOrders((own) =>
      task({
        name: "order",
        async run(context) {
          await order(own(), context as JobContext);
          await order(own(), context as JobContext).catch(refused.open);
        },
      }),
    );
    await mill.enqueue("order", 1);
    const worker = mill.work();
    expect(await refused.opened).toMatchObject({
      code: "JOB_STATE",
      message: expect.stringContaining("completed already"),
    });
    await worker.stop();
    expect(await orders(mill)).toEqual([{ id: 1, attempt: 1 }]);
    expect(await mill.stats("default")).toMatchObject([{ completed: 1 }]);
  });

  test("of which the statement itself failed can be tried again in another", async () => {
    const done = gate();
    await using mill = await withOrders((own) =>
      task({
        name: "order",
        async run(context) {
          await own()
            .transaction(async (tx) => {
              await tx.query("select 1 / 0", []).catch(() => undefined);
              await context.complete(tx); // the transaction is aborted: this throws
            })
            .catch(() => undefined);
          await order(own(), context as JobContext);
          done.open();
        },
      }),
    );
    const { id } = await mill.enqueue("order", 1);
    const worker = mill.work();
    await done.opened;
    await worker.stop();
    expect(await mill.job(id)).toMatchObject({ status: "completed", attempt: 1 });
    expect(await orders(mill)).toEqual([{ id: 1, attempt: 1 }]);
  });

  test("when the lease is gone throws JOB_STATE, so that the transaction rolls back; the job's writes are there once", async () => {
    const running = gate();
    const leaseTaken = gate();
    const outcome = gate<unknown>();
    const attempts = tally<number>();
    await using mill = await withOrders((own) =>
      task({
        name: "order",
        async run(context) {
          attempts.add(context.attempt);
          if (attempts.seen.length === 1) {
            running.open();
            await leaseTaken.opened;
            await order(own(), context as JobContext).then(outcome.open, outcome.open);
          } else await order(own(), context as JobContext);
        },
      }),
    );
    const { id } = await mill.enqueue("order", 1);
    const first = mill.work({ lease: "1h", concurrency: 1 });
    await running.opened;
    await mill.db.query(sql`update millrace.workers set beat_at = now() - interval '2 hours'`);
    await reapNow(mill);
    const second = mill.work({ lease: "1h" });
    await vi.waitFor(async () => expect(await mill.job(id)).toMatchObject({ status: "completed" }), {
      timeout: 20_000,
      interval: 10,
    });
    leaseTaken.open();
    expect(await outcome.opened).toMatchObject({
      code: "JOB_STATE",
      message: expect.stringContaining("no longer this worker's; roll your transaction back"),
    });
    await Promise.all([first.stop(), second.stop()]);
    expect(await orders(mill)).toHaveLength(1);
    expect(await mill.db.query(sql`select count(*)::int as n from millrace.settled`)).toEqual([{ n: 1 }]);
    expect(await places(mill.db)).toEqual({ [id]: "settled" });
  });
});

describe("between the commit and the worker's report", () => {
  test("a dead worker's completed job is not queued again", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const [done = "", open = ""] = await mill.enqueueMany(plain, [1, 2]);
    const claim = await worker.claim(2);
    expect(await worker.complete(claim, done)).toBe(true);
    await worker.die();
    expect(await reapNow(mill)).toMatchObject({ requeued: 1, buried: 0 });
    expect(await places(mill.db)).toEqual({ [done]: "settled", [open]: "pending" });
    // it was in company of a job that was done already, so it was alone
    expect(await mill.job(open)).toMatchObject({ attempt: 2 });
    expect(await worker.settle(claim, { [done]: { ...succeeded, completed: true } })).toEqual([]);
    expect(await mill.db.query(sql`select sum(n)::int as n from millrace.settled`)).toEqual([{ n: 1 }]);
  });

  test("a worker that stops does not give the completed job back", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const [done = "", open = ""] = await mill.enqueueMany(plain, [1, 2]);
    const claim = await worker.claim(2);
    await worker.complete(claim, done);
    await worker.giveBack(claim);
    expect((await places(mill.db))[open]).toBe("pending");
    await worker.settle(claim, { [done]: { ...succeeded, completed: true } });
    expect(await places(mill.db)).toEqual({ [done]: "settled", [open]: "pending" });
    expect(await mill.db.query(sql`select count(*)::int as n from millrace.leases`)).toEqual([{ n: 0 }]);
  });

  test.runIf(backend === "postgres")(
    "a reaper waits for a transaction that is completing a job, and then leaves the job alone",
    async () => {
      await using mill = await file.open([plain]);
      const worker = await StoreWorker.register(mill);
      const { id } = await mill.enqueue(plain, {});
      const claim = await worker.claim(1);
      await worker.die();
      const inTransaction = gate();
      const commit = gate();
      const completing = mill.db.transaction(async (tx) => {
        expect(await worker.completeIn(tx, claim, id)).toBe(true);
        inTransaction.open();
        await commit.opened;
      });
      await inTransaction.opened;
      expect(await reapNow(mill)).toMatchObject({ requeued: 0, buried: 0 });
      commit.open();
      await completing;
      expect(await reapNow(mill)).toMatchObject({ requeued: 0, buried: 0 });
      expect(await places(mill.db)).toEqual({ [id]: "settled" });
      expect(await mill.db.query(sql`select count(*)::int as n from millrace.leases`)).toEqual([{ n: 0 }]);
    },
  );
});
