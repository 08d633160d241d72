/**
 * What a transaction of any library must do with jobs. The test files beside this one run it with the real libraries, each with
 * a row of the user's that the library writes by its own means.
 */
import { type Enqueued, type ForeignTransaction, type Millrace, task } from "millrace";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { sql } from "../../src/db/sql.ts";
import { type TestDatabase, backend } from "../support/database.ts";
import { gate, useDatabase } from "../support/engine.ts";

/** A library, connected to the test's database. */
export interface Library {
  /** Runs `work` in one transaction; a throw rolls it back. `addOrder` writes a row of `orders`. */
  transaction(
    work: (tx: ForeignTransaction, addOrder: (id: string) => PromiseLike<unknown>) => Promise<void>,
  ): Promise<void>;
  close(): Promise<void>;
}

/** Where a library works; elsewhere the report says why it does not. */
export const onServer = { on: "postgres", because: "it connects to a server" } as const;
export const onPglite = { on: "pglite", because: "PGlite is the database itself" } as const;

export function contract<Backend extends TestDatabase["backend"]>(
  what: string,
  where: { readonly on: Backend; readonly because: string },
  connect: (database: Extract<TestDatabase, { backend: Backend }>) => Library | Promise<Library>,
): void {
  const here = where.on === backend;
  const reason = here ? "" : `, only on ${where.on}: ${where.because}`;
  describe.runIf(here)(`${what}${reason}`, () => {
    terms(connect as (database: TestDatabase) => Library | Promise<Library>);
  });
}

/** Strings that a driver might take for something else. */
const delicate = {
  quotes: `it's a "quote" and a \\ backslash, {braces,NULL} and $1`,
  when: "2026-01-02T03:04:05.678Z",
  json: '{"not":"an object"}',
  number: "007",
  list: [1, null, "ä✓🎉", { deep: [true] }],
};

function terms(connect: (database: TestDatabase) => Library | Promise<Library>): void {
  const file = useDatabase();
  let library: Library;

  beforeAll(async () => {
    await using mill = await file.open();
    await mill.db.query(sql`create table public.orders (id text primary key)`);
    library = await connect(file.database);
  });
  afterAll(() => library.close());

  const orders = async (mill: Millrace): Promise<string[]> =>
    (await mill.db.query<{ id: string }>(sql`select id from public.orders order by id`)).map(({ id }) => id);

  test("a job enqueued in it runs once it commits, with its input untouched", async () => {
    const ran = gate<unknown>();
    const ship = task({ name: "ship", run: ({ input }) => ran.open(input) });
    await using mill = await file.open([ship]);

    await library.transaction(async (tx, addOrder) => {
      await addOrder("committed");
      await mill.enqueue(ship, delicate, { tx });
    });
    mill.work();

    expect(await ran.opened).toEqual(delicate);
    expect(await orders(mill)).toContain("committed");
  });

  test("its rollback leaves neither row nor job nor key", async () => {
    const ship = task({ name: "ship", run: () => undefined });
    await using mill = await file.open([ship]);

    const changedMind = library.transaction(async (tx, addOrder) => {
      await addOrder("rolled back");
      await mill.enqueue(ship, {}, { tx });
      await mill.enqueue(ship, {}, { tx, delay: "1h", idempotencyKey: "once" });
      await mill.enqueueMany(ship, [{}, {}], { tx });
      throw new Error("changed my mind");
    });

    await expect(changedMind).rejects.toThrow("changed my mind");
    expect(await orders(mill)).not.toContain("rolled back");
    expect(await mill.jobs()).toEqual({ jobs: [], next: null, looked: 0 });
    expect(await mill.enqueue(ship, {}, { idempotencyKey: "once" })).toMatchObject({ duplicate: false });
  });

  test("a job completed in it is done together with the row", async () => {
    const ended = gate();
    const ship = task({
      name: "ship",
      run: ({ complete }) =>
        library
          .transaction(async (tx, addOrder) => {
            await addOrder("shipped");
            await complete(tx);
          })
          .finally(() => ended.open()),
    });
    await using mill = await file.open([ship]);

    const { id } = await mill.enqueue(ship, {});
    const worker = mill.work();
    await ended.opened;
    await worker.stop();

    expect(await mill.job(id)).toMatchObject({ status: "completed", attempt: 1 });
    expect(await orders(mill)).toContain("shipped");
  });

  test("rolling a completion back leaves the job to be tried again", async () => {
    const ended = gate();
    const ship = task({
      name: "ship",
      backoff: { delay: "1ms" },
      run: async ({ attempt, complete }) => {
        await library.transaction(async (tx, addOrder) => {
          await addOrder(`attempt ${attempt}`);
          await complete(tx);
          if (attempt === 1) throw new Error("the database of a partner said no");
        });
        ended.open();
      },
    });
    await using mill = await file.open([ship]);

    const { id } = await mill.enqueue(ship, {});
    const worker = mill.work();
    await ended.opened;
    await worker.stop();

    expect(await mill.job(id)).toMatchObject({ status: "completed", attempt: 2 });
    const written = await orders(mill);
    expect(written).toContain("attempt 2");
    expect(written).not.toContain("attempt 1");
  });

  test("an idempotency key counts within it, and for others from its commit on", async () => {
    const ship = task({ name: "ship", run: () => undefined });
    await using mill = await file.open([ship]);
    const inside: Enqueued[] = [];
    const outside: Promise<Enqueued>[] = [];

    await library.transaction(async (tx) => {
      inside.push(await mill.enqueue(ship, { n: 1 }, { tx, idempotencyKey: "order-1" }));
      inside.push(await mill.enqueue(ship, { n: 2 }, { tx, idempotencyKey: "order-1" }));
      // Begun before the commit: it waits to see what becomes of the first.
      outside.push(mill.enqueue(ship, { n: 3 }, { idempotencyKey: "order-1" }));
    });

    const all = [...inside, ...(await Promise.all(outside))];
    expect(all.map(({ duplicate }) => duplicate)).toEqual([false, true, true]);
    expect(new Set(all.map(({ id }) => id)).size).toBe(1);
    const { jobs } = await mill.jobs();
    expect(jobs.map(({ input }) => input)).toEqual([{ n: 1 }]);
  });

  test("delay, tags, priority, attempts, backoff and timeout arrive", async () => {
    const ship = task({ name: "ship", run: () => undefined });
    await using mill = await file.open([ship]);

    await library.transaction(async (tx) => {
      await mill.enqueue(ship, null, {
        tx,
        delay: "1h",
        tags: ["order:7", 'a "quoted", {odd} tag'],
        priority: 5,
        maxAttempts: 2,
        backoff: { type: "fixed", delay: "3s" },
        timeout: "10s",
      });
    });

    const { jobs } = await mill.jobs({ tag: "order:7" });
    expect(jobs).toMatchObject([
      { status: "delayed", tags: ["order:7", 'a "quoted", {odd} tag'], priority: 5, maxAttempts: 2, input: null },
    ]);
    const [job] = jobs;
    expect(Number(job?.runAt) - Number(job?.createdAt)).toBe(3_600_000);
  });

  test("enqueueMany puts all of them in, in order, in as many statements as it takes", async () => {
    const ship = task({ name: "ship", run: () => undefined });
    await using mill = await file.open([ship]);
    const inputs = Array.from({ length: 1_100 }, (_, n) => ({ n }));
    const ids: string[] = [];

    await library.transaction(async (tx) => {
      ids.push(...(await mill.enqueueMany(ship, inputs, { tx, tags: ["many"] })));
    });

    expect(await mill.stats("default")).toMatchObject([{ waiting: 1_100, total: 1_100 }]);
    expect(await mill.job(ids[1_050] as string)).toMatchObject({ input: { n: 1_050 }, tags: ["many"] });
  });
}
