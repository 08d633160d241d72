/** Several processes on one database: they start together, hand work over, heed each other's orders, and share. */
import { defineApp, millrace } from "millrace";
import { expect, test } from "vitest";
import { testDatabase } from "../support/database.ts";
import { measured } from "../support/engine.ts";
import { Crew } from "./support/children.ts";
import { Observer } from "./support/ledger-proof.ts";
import { Scene } from "./support/scene.ts";
import { until } from "./support/until.ts";

const finished = (scene: Scene) => async (): Promise<boolean> => (await scene.observer.unfinished()) === 0;

test("eight processes migrate one empty database at once, one of them killed on the way", async () => {
  await using database = await testDatabase();
  const { url } = database as { url: string };
  await using crew = new Crew();
  const children = Array.from({ length: 8 }, () =>
    crew.start("worker", { url, options: { migrate: true, poolSize: 2 } }),
  );
  await using observer = await Observer.on(url);
  const underWay = "select count(*) from pg_locks where locktype = 'advisory' and granted";
  await until("somebody migrates", async () => (await observer.number(underWay)) > 0, { every: 1 });
  const [victim, ...others] = children;
  await victim?.kill();
  await Promise.all(others.map((child) => child.hears("ready")));

  expect(
    await observer.rows("select version, count(*)::int as n from millrace.migrations group by 1 having count(*) > 1"),
  ).toEqual([]);
  expect(
    await observer.number("select count(*) from millrace.workers where stopped_at is null"),
  ).toBeGreaterThanOrEqual(7);
  expect(crew.unhandled).toEqual([]);
  await using mill = await millrace(defineApp({ tasks: [] }), { databaseUrl: url, migrate: false });
  await mill.enqueue("instant", null);
  await until("it is done", async () => (await observer.completed()) === 1);
});

test(
  "a pause from another process stops all workers within a second, and holds for those that start later",
  measured,
  async () => {
    await using scene = await Scene.set();
    const { mill, observer } = scene;
    const work = { concurrency: 10 };
    const workers = [await scene.worker({ work }), await scene.worker({ work })];
    await scene.enqueue("watched", 8_000, (n) => n % 20);
    await until("work is under way", async () => (await observer.completed()) > 300);

    expect(await mill.pause("default", { by: "the test", reason: "to see it stop" })).toBe(true);
    const pausedAt = Date.now();
    const leased = "select coalesce(sum(cardinality(job_ids) - cardinality(done)), 0) from millrace.leases";
    await until("nothing is held", async () => (await observer.number(leased)) === 0, { within: 2_000 });
    const stopped = await observer.completed();
    expect(stopped).toBeLessThan(8_000);

    // Through a restart, and for longer than any sweep or poll takes.
    await workers[1]?.stop();
    const late = await scene.worker({ work });
    await until("three seconds have passed", () => Date.now() - pausedAt > 3_000, { every: 200 });
    expect(late.all("began")).toEqual([]);
    expect(await observer.completed()).toBe(stopped);
    const starts = workers.flatMap((worker) => worker.all("began").map(({ at }) => at));
    expect(Math.max(...starts)).toBeLessThan(pausedAt + 1_000);
    expect(await observer.rows("select * from millrace.attempts")).toEqual([]);

    expect(await mill.resume("default")).toBe(true);
    expect(await until("work goes on", async () => (await observer.completed()) > stopped)).toBeLessThan(1_000);
    await until("everything is done", finished(scene));
    expect(await observer.completed()).toBe(8_000);
    expect(await observer.succeededTwice()).toEqual([]);
  },
);

test("a worker told to stop gives back everything it holds, every time, and no attempt is used up", async () => {
  await using scene = await Scene.set();
  const work = { concurrency: 50, lease: 30_000, reapEvery: 250 };
  await scene.enqueue("brief", 15_000, (n) => n % 9);
  let returned = 0;
  for (let round = 0; round < 12; round += 1) {
    const worker = await scene.worker({ work });
    const before = await scene.observer.completed();
    await until("it is busy", async () => (await scene.observer.completed()) > before + 50);
    const stopped = await worker.stop();
    returned += stopped.returned;
    expect(stopped.hung).toBe(0);
    expect(await scene.observer.rows("select worker, job_ids from millrace.leases")).toEqual([]);
  }
  expect(returned).toBeGreaterThan(500);
  await scene.worker({ work });
  await until("everything is done", finished(scene));
  expect(await scene.observer.rows("select * from millrace.attempts")).toEqual([]);
  expect(await scene.observer.completed()).toBe(15_000);
  expect(await scene.observer.misplaced()).toEqual([]);
  expect(await scene.observer.inconsistentWorkers()).toEqual([]);
}, 90_000);

test("what a stopping worker interrupts starts at once on another that is idle", measured, async () => {
  await using scene = await Scene.set();
  const leaving = await scene.worker({ work: { concurrency: 10 } });
  const ids = await scene.enqueue("obedient", 10, () => 20_000);
  for (const id of ids) await leaving.hears("began", ({ job }) => job === id);
  const heir = await scene.worker({ work: { concurrency: 10 } });
  await until("the other is idle", async () => (await scene.observer.number(idle, [heir.pid])) === 1);

  const stopped = await leaving.stop(100);
  const at = Date.now();
  expect(stopped.hung).toBe(0);
  const starts: number[] = [];
  for (const id of ids) starts.push((await heir.hears("began", ({ job }) => job === id)).at);
  expect(Math.max(...starts) - at).toBeLessThan(300);
  expect(heir.all("began").map(({ attempt }) => attempt)).toEqual(ids.map(() => 1));
  const outcomes = await scene.observer.rows("select distinct outcome, error_code from millrace.attempts");
  expect(outcomes).toEqual([{ outcome: "snoozed", error_code: "WORKER_SHUTDOWN" }]);
});

test("a process suspended in the middle of two transactions: what was completed stays its own, what was not is fenced off", async () => {
  await using scene = await Scene.set();
  const work = { concurrency: 5, lease: 1_000, reapEvery: 250 };
  const sleeper = await scene.worker({ work });
  const open = (last: string): Promise<number> =>
    scene.observer.number(
      "select count(*) from pg_stat_activity where datname = current_database() and state = 'idle in transaction' and query ~ $1",
      [last],
    );
  // One by one, so that each has a lease of its own.
  const [unfinished = ""] = await scene.mill.enqueueMany("effect", [{ ms: 2_000 }]);
  await until("it has written", async () => (await open("insert into effects")) === 1);
  const [completed = ""] = await scene.mill.enqueueMany("effect", [{ ms: 0, openMs: 2_000 }]);
  await until("the other has completed, too", async () => (await open("for key share")) === 1);
  sleeper.signal("SIGSTOP");

  const heir = await scene.worker({ work });
  const waits =
    "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and query ~ 'insert into effects'";
  await until("the first runs again, and waits for the row", async () => (await scene.observer.number(waits)) === 1);
  const held =
    "select count(*) from millrace.leases where $1 = any (job_ids) and worker = (select id from millrace.workers where pid = $2)";
  expect(await scene.observer.number(held, [completed, sleeper.pid])).toBe(1);
  sleeper.signal("SIGCONT");
  await until("everything is done", finished(scene));
  await until("the result that came too late is noted", async () =>
    Boolean(await scene.observer.number("select count(*) from millrace.attempts where late")),
  );

  const effects = await scene.observer.rows("select job_id::text as id, pid from effects");
  expect(new Set(effects)).toEqual(
    new Set([
      { id: unfinished, pid: heir.pid },
      { id: completed, pid: sleeper.pid },
    ]),
  );
  expect(await scene.observer.rows("select * from doubles")).toEqual([]);
  expect(await scene.observer.succeededTwice()).toEqual([]);
  expect(await scene.observer.misplaced()).toEqual([]);
  expect(await scene.observer.completed()).toBe(2);
});

const idle = "select count(*) from millrace.workers where pid = $1 and idle and stopped_at is null";

test("a worker whose jobs ignore the end is not signed off: they are taken over when its process is gone", async () => {
  await using scene = await Scene.set();
  const work = { concurrency: 5, lease: 1_000, reapEvery: 250 };
  const stubborn = await scene.worker({ work });
  const ids = await scene.enqueue("watched", 2, () => 4_000); // longer than another process takes to start
  for (const id of ids) await stubborn.hears("began", ({ job }) => job === id);
  const heir = await scene.worker({ work });

  const { hung } = await stubborn.stop(100);
  expect(hung).toBe(2);
  await until("everything is done", finished(scene));
  expect(
    heir
      .all("ran")
      .map(({ job }) => job)
      .sort(),
  ).toEqual(ids.sort());
  expect(await scene.observer.rows("select distinct outcome, alone from millrace.attempts")).toEqual([
    { outcome: "lost", alone: false },
  ]);
  expect(await scene.observer.misplaced()).toEqual([]);
});

test(
  "a job of a transaction that stays open for five seconds is found soon after its commit, in the middle of a long backlog",
  measured,
  async () => {
    await using scene = await Scene.set();
    const worker = await scene.worker({ work: { concurrency: 10 } });
    await using writer = await Observer.on(scene.url);
    await writer.client.query("begin");
    const { id } = await scene.mill.enqueue("watched", {}, { tx: writer.client });
    const open = performance.now();

    // The backlog comes later and is being worked on all the time: the job lies behind the worker's mark.
    let delay: number | undefined;
    while (delay === undefined) {
      if ((await scene.observer.number("select count(*) from millrace.pending")) < 4_000)
        await scene.enqueue("brief", 4_000, () => 1);
      if (performance.now() - open < 5_000) continue;
      await writer.client.query("commit");
      const committed = Date.now();
      delay = (await worker.hears("began", ({ job }) => job === id)).at - committed;
    }
    const backlog = await scene.observer.number("select count(*) from millrace.pending");
    console.log(JSON.stringify({ foundAfterMs: delay, backlog }));
    expect(backlog).toBeGreaterThan(100);
    expect(delay).toBeLessThan(1_000);
    await until("everything is done", finished(scene));
    expect(await scene.observer.misplaced()).toEqual([]);
  },
);

test("two hundred thousand jobs pass through one worker, and its memory stays where it was", async () => {
  await using scene = await Scene.set();
  for (let n = 0; n < 20; n += 1) await scene.enqueue("instant", 10_000);
  const worker = await scene.worker({ work: { concurrency: 50 } });
  const sizes: number[] = [];
  for (let next = 20_000; next <= 200_000; next += 20_000) {
    await until(`${next} are done`, async () => (await scene.observer.completed()) >= next, { within: 60_000 });
    sizes.push(await worker.memory());
  }
  const megabytes = sizes.map((bytes) => Math.round(bytes / 2 ** 20));
  console.log(JSON.stringify({ megabytes }));
  expect(Math.max(...megabytes)).toBeLessThan(400);
  // Some is the heap's laziness; a leak of a hundred bytes a job would be 16 MB, of one job's whole record a hundred.
  expect((megabytes.at(-1) ?? 0) - (megabytes[2] ?? 0)).toBeLessThan(80);
}, 120_000);

test("two workers on one queue share the work", measured, async () => {
  await using scene = await Scene.set();
  const work = { concurrency: 10 };
  const workers = [await scene.worker({ work }), await scene.worker({ work })];
  await scene.enqueue("brief", 6_000, () => 4);
  await until("everything is done", finished(scene));
  const shares = await scene.observer.rows<{ pid: number; n: number }>(
    "select w.pid, sum(s.n)::int as n from millrace.settled s join millrace.workers w on w.id = s.worker group by 1",
  );
  expect(new Set(shares.map(({ pid }) => pid))).toEqual(new Set(workers.map(({ pid }) => pid)));
  for (const { n } of shares) expect(n).toBeGreaterThan(1_800);
  expect(await scene.observer.completed()).toBe(6_000);
  expect(await scene.observer.rows("select * from millrace.attempts")).toEqual([]);
});
