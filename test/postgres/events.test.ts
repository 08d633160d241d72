/** No event is lost because its transaction committed late: with a lower number, a younger id or none of the order at all. */
import pg from "pg";
import { describe, expect, test, vi } from "vitest";
import { type Millrace, type MillraceEvent, task } from "millrace";
import { insertPlain } from "../../src/jobs/enqueue-store.ts";
import { recorder } from "../http/caller.ts";
import { useDatabase } from "../support/engine.ts";

const file = useDatabase();
const patience = { timeout: 20_000, interval: 10 };
const ok = task({ name: "ok", queue: "mail", run: () => undefined });

async function client(): Promise<pg.Client & AsyncDisposable> {
  const own = file.database;
  if (own.backend !== "postgres") throw new Error("These tests need a server.");
  const made = new pg.Client({ connectionString: own.url });
  await made.connect();
  return Object.assign(made, { [Symbol.asyncDispose]: () => made.end() });
}

async function follow(mill: Millrace, options: Parameters<Millrace["events"]>[0] = {}) {
  const stream = mill.events(options);
  await stream.ready;
  const heard: MillraceEvent[] = [];
  void (async () => {
    for await (const event of stream) heard.push(event);
  })();
  return { stream, heard };
}

const names = (heard: readonly MillraceEvent[]) =>
  heard.flatMap((event) => (event.type === "job.changed" ? event.by : []));
const jobs = (heard: readonly MillraceEvent[]) =>
  heard.flatMap((event) => (event.type === "job.enqueued" ? event.jobId : []));
const seconds = (n: number) => new Promise((resolve) => setTimeout(resolve, n * 1_000));

/** Not in the audit: whoever appends there waits for those before. */
const note = (mill: Millrace, by: string) =>
  `insert into "${mill.db.schema}".operations (job_id, action, by) values (gen_random_uuid(), 'test', '${by}')`;

describe("a transaction that is held open for seconds", () => {
  test("is told when it commits, after later ones with higher numbers, and once; one rolled back never", async () => {
    await using mill = await file.open([ok]);
    await using held = await client();
    await using gone = await client();
    await using quick = await client();
    const { heard, stream } = await follow(mill, { type: "job.changed" });
    await held.query("begin");
    await held.query(note(mill, "held"));
    await gone.query("begin");
    await gone.query(note(mill, "gone"));
    for (let n = 1; n <= 8; n += 1) {
      await quick.query(note(mill, `quick ${n}`));
      await seconds(0.25);
    }
    await vi.waitFor(() => expect(names(heard)).toHaveLength(8), patience);
    const { place } = stream; // with the gaps in it
    await gone.query("rollback");
    await seconds(0.6);
    await held.query("commit");
    await vi.waitFor(() => expect(names(heard)).toContain("held"), patience);
    await quick.query(note(mill, "last"));
    await vi.waitFor(() => expect(names(heard)).toContain("last"), patience);
    expect(names(heard)).toEqual([...Array.from({ length: 8 }, (_, i) => `quick ${i + 1}`), "held", "last"]);

    await using other = await file.open([], { schema: mill.db.schema });
    const resumed = await follow(other, { type: "job.changed", after: place as string });
    await vi.waitFor(() => expect(names(resumed.heard)).toEqual(["held", "last"]), patience);
  });

  test("that was open before anybody listened is told too", async () => {
    await using mill = await file.open([ok]);
    await using held = await client();
    await using quick = await client();
    await held.query("begin");
    await held.query(note(mill, "held"));
    await quick.query(note(mill, "before"));
    const { heard } = await follow(mill, { type: "job.changed" });
    await quick.query(note(mill, "after"));
    await seconds(0.6);
    await held.query("commit");
    await vi.waitFor(() => expect(names(heard)).toEqual(["after", "held"]), patience);
  });

  test("tells the jobs it enqueued, be it in a savepoint, once", async () => {
    await using mill = await file.open([ok]);
    await using held = await client();
    await using other = await client();
    const { heard, stream } = await follow(mill, { type: "job.enqueued" });
    await other.query("begin");
    await other.query("select pg_current_xact_id()"); // everything since is no longer sure to be visible or not
    await held.query("begin");
    const early = await mill.enqueue(ok, null, { tx: held as never });
    await held.query("savepoint nested");
    const inner = await mill.enqueue(ok, null, { tx: held as never });
    await held.query("release savepoint nested");
    const quick: string[] = [];
    for (let n = 0; n < 12; n += 1) {
      quick.push((await mill.enqueue(ok, null)).id);
      await seconds(0.25);
    }
    await vi.waitFor(() => expect(jobs(heard)).toEqual(quick), patience);
    const { place } = stream;
    const late = await mill.enqueue(ok, null, { tx: held as never });
    await held.query("commit");
    await vi.waitFor(
      () => expect(new Set(jobs(heard))).toEqual(new Set([...quick, early.id, inner.id, late.id])),
      patience,
    );
    await other.query("rollback");
    const last = await mill.enqueue(ok, null);
    await vi.waitFor(() => expect(jobs(heard)).toContain(last.id), patience);
    expect(jobs(heard)).toHaveLength(16);
    const resumed = await follow(mill, { type: "job.enqueued", after: place as string });
    await vi.waitFor(
      () => expect(new Set(jobs(resumed.heard))).toEqual(new Set([early.id, inner.id, late.id, last.id])),
      patience,
    );
  });

  test("begun long before its job was enqueued, tells it when it commits", async () => {
    await using mill = await file.open([ok]);
    await using held = await client();
    await held.query("begin");
    await held.query("select 1");
    await seconds(3);
    const { heard } = await follow(mill, { type: "job.enqueued" });
    await seconds(0.6);
    const one = await mill.enqueue(ok, null, { tx: held as never });
    await held.query("commit");
    const two = await mill.enqueue(ok, null);
    await vi.waitFor(() => expect(new Set(jobs(heard))).toEqual(new Set([one.id, two.id])), patience);
  });
});

test("a job whose id is older than its row, by a clock that is behind or a long wait, is told with the next look for such", async () => {
  await using mill = await file.open([ok]);
  const { heard } = await follow(mill, { type: "job.enqueued" });
  const first = await mill.enqueue(ok, null);
  const [queue, task] = [await mill.names.queues.id("mail"), await mill.names.tasks.id("ok")];
  const time = (Date.now() - 20_000).toString(16).padStart(12, "0");
  const id = `${time.slice(0, 8)}-${time.slice(8)}-7000-8000-000000000001`;
  await insertPlain(mill.db, mill.channel, [{ id, queue, task, priority: 0, maxAttempts: 1, input: "null" }]);
  await vi.waitFor(() => expect(jobs(heard)).toEqual([first.id]), patience);
  await vi.waitFor(() => expect(jobs(heard)).toEqual([first.id, id]), patience);
});

test("many writers at once: everything is told, and nothing twice", async () => {
  await using mill = await file.open([ok], { poolSize: 12 });
  const { heard } = await follow(mill, { type: ["job.enqueued", "job.completed"] });
  const worker = mill.work({ concurrency: 3 });
  const enqueued: string[] = [];
  const until = Date.now() + 4_000;
  await Promise.all(
    Array.from({ length: 8 }, async (_, n) => {
      while (Date.now() < until) {
        const rollBack = Math.floor(Math.random() * 3) === 0;
        const lasting = Math.random() * 400;
        if (n < 4) enqueued.push((await mill.enqueue(ok, null)).id);
        else
          await mill
            .transaction(async (tx) => {
              const { id } = await mill.enqueue(ok, null, { tx });
              await seconds(lasting / 1_000);
              if (rollBack) throw new Error("rolled back");
              return id;
            })
            .then((id) => enqueued.push(id))
            .catch(() => undefined);
        await seconds(Math.random() / 20);
      }
    }),
  );
  const of = (type: string) => heard.flatMap((event) => (event.type === type && "jobId" in event ? event.jobId : []));
  await vi.waitFor(() => {
    expect(of("job.enqueued").toSorted()).toEqual(enqueued.toSorted());
    expect(of("job.completed").toSorted()).toEqual(enqueued.toSorted());
  }, patience);
  await worker.stop();
});

test("a database that goes away for a moment loses nothing", async () => {
  const log = recorder();
  await using mill = await file.open([ok], { log });
  const { heard } = await follow(mill, { type: "job.changed" });
  await using quick = await client();
  const cut = `select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'millrace' and pid <> pg_backend_pid() and datname = current_database()`;
  for (let n = 1; n <= 20; n += 1) {
    await quick.query(note(mill, `${n}`));
    if (n % 4 === 0) await quick.query(cut);
    await seconds(0.1);
  }
  await vi.waitFor(() => expect(names(heard)).toEqual(Array.from({ length: 20 }, (_, i) => `${i + 1}`)), patience);
});
