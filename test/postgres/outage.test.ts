/** The database goes away, in every way a network and a server know, while workers hold jobs. Nothing is lost, nothing counts twice. */
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { startPostgres } from "../support/postgres-server.ts";
import { chance } from "./fixtures/chance.ts";
import type { Child } from "./support/children.ts";
import { type Link, type Message, Proxy, texts } from "./support/proxy.ts";
import { Scene } from "./support/scene.ts";
import { until } from "./support/until.ts";

const minute = 60_000;

describe.concurrent("for long", () => {
  test(
    "a minute without database: workers keep what they hold, keep trying, and go on where they were",
    async () => {
      await using scene = await Scene.set();
      const proxy = scene.use(await Proxy.to(scene.url));
      const producer = await scene.open({ databaseUrl: proxy.url });
      const long = await scene.enqueue("watched", 20, (n) => 3_000 + 300 * n);
      await scene.enqueue("brief", 3_000, () => 5);
      await scene.enqueue("effect", 100, () => 5);
      const orders = { url: proxy.url, work: { concurrency: 30 } };
      const workers = [await scene.worker(orders), await scene.worker(orders)];
      await until("all long jobs run", () => began(workers, long) === long.length);
      await producer.enqueue("instant", null);

      await proxy.refuse();
      const back = performance.now() + minute;
      let refusals = 0;
      while (performance.now() < back) {
        const asked = performance.now();
        // A queue it knows, and one whose number it would have to ask for.
        const queue = refusals % 2 === 0 ? "default" : "unheard-of";
        await expect(producer.enqueue("instant", null, { queue })).rejects.toMatchObject({
          code: "DATABASE_UNREACHABLE",
        });
        expect(performance.now() - asked).toBeLessThan(4_000); // it does not wait for a connection
        refusals += 1;
        await scene.mill.enqueue("brief", { ms: 1 });
        await sleep(2_000);
      }
      expect(runs(workers, long)).toEqual(long.map(() => 1));
      const before = await scene.observer.completed();
      await proxy.accept();
      const silence = await until("work goes on", async () => (await scene.observer.completed()) > before);
      await done(scene);

      expect(silence).toBeLessThan(8_000); // pauses grow to 5 s
      expect(runs(workers, long)).toEqual(long.map(() => 1));
      await expectAllWell(scene);
      // Effects failed for want of their own connections; nobody was declared dead, no result came too late.
      expect((await attempts(scene)).filter(({ outcome }) => outcome !== "failed")).toEqual([]);
      expect(await scene.observer.number("select count(*) from millrace.workers where ended is not null")).toBe(0);
      for (const worker of workers) expect(worker.all("log").length).toBeLessThan(120);
      await producer.enqueue("instant", null);
      await workers[1]?.stop();
      await expectStartsAtOnce(scene, workers[0] as Child);
    },
    3 * minute,
  );

  test(
    "connections that die in silence: given up after a while, LISTEN included, and made anew",
    async () => {
      await using scene = await Scene.set();
      const proxy = scene.use(await Proxy.to(scene.url));
      const worker = await scene.worker({ url: proxy.url, work: { concurrency: 30 } });
      await scene.enqueue("brief", 4_000, () => 10);
      await until("work is under way", async () => (await scene.observer.completed()) > 300);

      proxy.freeze();
      await done(scene, 2 * minute);
      await expectAllWell(scene);
      const wires = new Set(proxy.links);
      await expectStartsAtOnce(scene, worker);
      expect([...proxy.links].filter((link) => !wires.has(link))).toEqual([]);
    },
    3 * minute,
  );

  test(
    "stopping without a database: the last words are tried for ten seconds, then the process may go",
    async () => {
      await using scene = await Scene.set();
      const proxy = scene.use(await Proxy.to(scene.url));
      const worker = await scene.worker({ url: proxy.url, work: { concurrency: 30, lease: "5s" } });
      const ids = await scene.enqueue("watched", 10, () => 500);
      await until("they run", () => began([worker], ids) === ids.length);

      await proxy.refuse();
      const { tookMs, hung } = await worker.stop(5_000);
      expect(tookMs).toBeLessThan(16_000);
      expect(hung).toBe(0);
      expect(runs([worker], ids)).toEqual(ids.map(() => 1));

      // Nobody knows that they are done, so they are done again: at least once, and once in history.
      const heir = await scene.worker({ work: { concurrency: 30, reapEvery: 250 } });
      await done(scene);
      expect(runs([heir], ids)).toEqual(ids.map(() => 1));
      expect(await scene.observer.succeededTwice()).toEqual([]);
      expect(scene.crew.unhandled).toEqual([]);
    },
    3 * minute,
  );
});

test(
  "connections cut every moment: answers are lost both ways, and yet every job runs once",
  async () => {
    await using scene = await Scene.set();
    const proxy = scene.use(await Proxy.to(scene.url));
    const seed = Math.floor(Math.random() * 2 ** 31);
    const random = chance(seed);
    const ids: string[] = [];
    // A lease that outlives the test: what a lost answer leaves behind must come back without anybody being declared dead.
    const orders = { url: proxy.url, effectsUrl: scene.url, work: { concurrency: 20, lease: 60_000, reapEvery: 250 } };
    const workers = [await scene.worker(orders), await scene.worker(orders)];
    for (let cuts = 0; cuts < 50; cuts += 1) {
      if ((await left(scene)) < 500) {
        ids.push(...(await scene.enqueue("watched", 200, (n) => n % 7)));
        await scene.enqueue("brief", 1_000, (n) => n % 20);
        await scene.enqueue("second-try", 100);
      }
      await sleep(20 + random() * 200);
      const links = [...proxy.links];
      if (random() < 0.3) proxy.cut();
      else links[Math.floor(random() * links.length)]?.cut();
    }
    await done(scene, minute);

    console.log(JSON.stringify({ seed, jobs: await scene.observer.completed(), attempts: await attempts(scene) }));
    await expectAllWell(scene);
    expect(runs(workers, ids)).toEqual(ids.map(() => 1));
    expect(await attempts(scene)).toEqual([{ outcome: "failed", late: false, n: ids.length / 2 }]);
  },
  3 * minute,
);

test(
  "a claim whose answer is lost: its jobs are given back soon, however busy the worker is",
  async () => {
    await using scene = await Scene.set();
    const proxy = scene.use(await Proxy.to(scene.url));
    for (let n = 0; n < 20; n += 1) await scene.enqueue("instant", 10_000);
    const lost = loseAnswers(proxy, "numbered");
    await scene.worker({ url: proxy.url, work: { concurrency: 20, lease: 2_000, reapEvery: 250 } });
    await until("it is busy", async () => (await scene.observer.completed()) > 5_000, { every: 5 });

    lost.wanted = 1;
    let oldestMs = 0;
    const age = "select coalesce(extract(epoch from now() - min(claimed_at)) * 1000, 0) from millrace.leases";
    const look = async (): Promise<boolean> => {
      oldestMs = Math.max(oldestMs, await scene.observer.number(age));
      return (await left(scene)) === 0;
    };
    const busyMs = await until("everything is done", look, { within: minute });
    console.log(JSON.stringify({ busyMs: Math.round(busyMs), oldestLeaseMs: Math.round(oldestMs) }));
    expect(lost.count).toBe(1);
    expect(oldestMs).toBeLessThan(2_000); // a beat comes every half second
    await expectAllWell(scene);
    expect(await attempts(scene)).toEqual([]);
  },
  2 * minute,
);

test("a suspect's claim whose answer is lost comes back too", async () => {
  await using scene = await Scene.set();
  const proxy = scene.use(await Proxy.to(scene.url));
  const ids = await scene.enqueue("watched", 20);
  await scene.observer.client.query("update millrace.pending set losses = 1");
  const lost = loseAnswers(proxy, "from suspect");
  lost.wanted = 2;
  const worker = await scene.worker({ url: proxy.url, work: { concurrency: 20, lease: 2_000, reapEvery: 250 } });
  await done(scene);
  expect(lost.count).toBe(2);
  expect(runs([worker], ids)).toEqual(ids.map(() => 1));
  await expectAllWell(scene);
  expect(await attempts(scene)).toEqual([]);
});

test("frozen for longer than its lease while another worker is not: fenced off, and useful again afterwards", async () => {
  await using scene = await Scene.set();
  const proxy = scene.use(await Proxy.to(scene.url));
  const work = { concurrency: 20, lease: 1_000, reapEvery: 250 };
  const slow = await scene.worker({ url: proxy.url, effectsUrl: scene.url, work });
  const ids = await scene.enqueue("watched", 2, () => 2_500);
  const effects = await scene.enqueue("effect", 2, () => 2_500);
  await until("all run", async () => began([slow], ids) === 2 && (await openTransactions(scene)) === 2);

  proxy.stallsNew = true;
  proxy.freeze();
  const quick = await scene.worker({ work });
  await done(scene);
  expect(runs([quick], ids)).toEqual(ids.map(() => 1));
  await until("the cut-off worker has ended them too", () => runs([slow], ids).every((n) => n === 1));
  proxy.thaw();

  // Its results are noted as late and change nothing; its effects were rolled back, for their lease was gone.
  await until("it has learnt of its death", async () => (await lateResults(scene)) === ids.length + effects.length);
  await expectAllWell(scene);
  expect(await scene.observer.rows("select distinct pid from effects")).toEqual([{ pid: quick.pid }]);
  expect(slow.all("log").some(({ level, message }) => level === "error" && message.includes("declared dead"))).toBe(
    true,
  );

  await quick.stop();
  await expectStartsAtOnce(scene, slow);
});

test(
  "all sessions terminated, again and again: nothing is lost, nothing runs twice, LISTEN comes back",
  async () => {
    await using scene = await Scene.set();
    const ids = await scene.enqueue("watched", 300, (n) => n % 30);
    await scene.enqueue("brief", 3_000, (n) => n % 9);
    const work = { concurrency: 10, lease: 60_000, reapEvery: 250 };
    const workers = [await scene.worker({ work }), await scene.worker({ work })];
    let terminated = 0;
    for (let round = 0; round < 15; round += 1) {
      const before = await scene.observer.completed();
      terminated += await scene.observer.number(
        "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()",
      );
      await until("work goes on", async () => (await scene.observer.completed()) > before || (await left(scene)) === 0);
    }
    await done(scene);
    expect(terminated).toBeGreaterThan(30);
    await expectAllWell(scene);
    expect(runs(workers, ids)).toEqual(ids.map(() => 1));
    expect(await attempts(scene)).toEqual([]);

    await workers[1]?.stop();
    await expectStartsAtOnce(scene, workers[0] as Child);
  },
  2 * minute,
);

test("LISTEN is made again after a cut and after a refusal, and a job enqueued then starts by a call, not by polling", async () => {
  await using scene = await Scene.set();
  const proxy = scene.use(await Proxy.to(scene.url));
  const worker = await scene.worker({ url: proxy.url });
  await expectStartsAtOnce(scene, worker);
  for (const outage of [
    async () => proxy.cut(),
    async () =>
      proxy
        .refuse()
        .then(() => sleep(1_500))
        .then(() => proxy.accept()),
  ]) {
    await outage();
    let probes = 0;
    let calls = 0;
    proxy.onServerMessage = ({ type, body }) => {
      if (type !== "A") return;
      if (body.includes("probe")) probes += 1;
      else calls += 1;
    };
    await until("it listens again", async () => {
      await scene.observer.rows(`select pg_notify('${scene.mill.channel}', 'probe')`);
      return probes > 0;
    });
    calls = 0;
    await expectStartsAtOnce(scene, worker);
    expect(calls).toBeGreaterThanOrEqual(5);
  }
});

test("a COMMIT still under way when its connection breaks: the job waits for what comes of it, and its effect happens once", async () => {
  await using scene = await Scene.set();
  const proxy = scene.use(await Proxy.to(scene.url));
  const caught: Link[] = [];
  proxy.onClientMessage = (message, link) => {
    if (message.type !== "Q" || caught.length === 2 || !/^commit/i.test(texts(message, 1)[0] ?? "")) return;
    caught.push(link);
    link.freeze();
    link.client.resetAndDestroy();
  };
  const worker = await scene.worker({ effectsUrl: proxy.url, work: { concurrency: 2 } });
  const ids = await scene.enqueue("effect", 2);
  await until("both wait", () => worker.all("log").some(({ error }) => error?.includes("have not ended") ?? false));

  // One arrives after all, the other never does.
  const [arrives, vanishes] = caught;
  arrives?.thaw();
  vanishes?.server.resetAndDestroy();
  await done(scene);
  await expectAllWell(scene);
  const rows = await scene.observer.rows<{ attempt: number }>("select attempt from effects order by attempt");
  expect(rows).toEqual([{ attempt: 1 }, { attempt: 2 }]);
  expect(await attempts(scene)).toEqual([{ outcome: "failed", late: false, n: 1 }]);
  expect(await scene.observer.number("select count(distinct job_id) from effects")).toBe(ids.length);
});

test(
  "the server crashes and recovers, twice: what was acknowledged exists, and history counts every job once",
  async () => {
    await using server = await startPostgres();
    await using scene = await Scene.set(server.url);
    const promised: string[] = [];
    const work = { concurrency: 20, lease: 60_000, reapEvery: 250 };
    const workers = [await scene.worker({ work }), await scene.worker({ work })];

    for (let crash = 0; crash < 2; crash += 1) {
      promised.push(...(await scene.enqueue("brief", 1_500, (n) => n % 9)));
      promised.push(...(await scene.enqueue("effect", 200, (n) => n % 9)));
      const before = await scene.observer.completed();
      await until("work is under way", async () => (await scene.observer.completed()) > before + 100);
      // A backend killed like this may have spoilt shared memory: the server throws everybody out and replays its log.
      process.kill(await scene.observer.number("select pg_backend_pid()"), "SIGKILL");
      await until("it answers again", async () =>
        scene.observer.reconnect(server.url).then(
          () => true,
          () => false,
        ),
      );
    }
    await done(scene, minute);

    console.log(JSON.stringify({ crashed: 2, attempts: await attempts(scene) }));
    expect(
      await scene.observer.number("select count(*) from millrace.jobs where id = any ($1::uuid[])", [promised]),
    ).toBe(promised.length);
    await expectAllWell(scene);
    expect(await scene.observer.number("select count(*) from effects")).toBe(400);
    expect(workers.every((worker) => worker.alive)).toBe(true);
  },
  2 * minute,
);

// What the tests ask again and again ————————————————————————————————————————————————————————————————————————————————————————

/** Every job ended well, once; no process had an error that nobody handled. */
async function expectAllWell({ observer, crew }: Scene): Promise<void> {
  expect(await observer.misplaced()).toEqual([]);
  expect(await observer.succeededTwice()).toEqual([]);
  expect(await observer.completed()).toBe(await observer.number("select count(*) from millrace.jobs"));
  expect(await observer.rows("select * from doubles")).toEqual([]);
  expect(crew.unhandled).toEqual([]);
}

/** What became of attempts that did not just succeed. */
function attempts({ observer }: Scene): Promise<{ outcome: string; late: boolean; n: number }[]> {
  return observer.rows("select outcome, late, count(*)::int as n from millrace.attempts group by 1, 2 order by 1, 2");
}

function left({ observer }: Scene): Promise<number> {
  return observer.unfinished();
}

function done(scene: Scene, within = 30_000): Promise<number> {
  return until("everything is done", async () => (await left(scene)) === 0, { within });
}

function lateResults({ observer }: Scene): Promise<number> {
  return observer.number("select count(*) from millrace.attempts where late");
}

/** Transactions of tasks that have written and not ended. */
function openTransactions({ observer }: Scene): Promise<number> {
  return observer.number(
    "select count(*) from pg_stat_activity where datname = current_database() and state = 'idle in transaction'",
  );
}

/** How often each watched job ran to its end, over all these workers. */
function runs(workers: readonly Child[], ids: readonly string[]): number[] {
  const ran = new Map<string, number>();
  for (const worker of workers) for (const { job } of worker.all("ran")) ran.set(job, (ran.get(job) ?? 0) + 1);
  return ids.map((id) => ran.get(id) ?? 0);
}

function began(workers: readonly Child[], ids: readonly string[]): number {
  const jobs = new Set(workers.flatMap((worker) => worker.all("began").map(({ job }) => job)));
  return ids.filter((id) => jobs.has(id)).length;
}

/** Jobs enqueued while this worker, the only one, is idle. It has just looked: without a call it would take two seconds. */
async function expectStartsAtOnce({ mill, observer }: Scene, worker: Child): Promise<void> {
  const delays: number[] = [];
  for (let n = 0; n < 5; n += 1) {
    await until("the worker is known to be idle", async () =>
      Boolean(await observer.number("select count(*) from millrace.workers where idle and stopped_at is null")),
    );
    const before = Date.now();
    const { id } = await mill.enqueue("watched", {});
    const { at } = await worker.hears("began", ({ job }) => job === id);
    delays.push(at - before);
  }
  expect(delays.sort((a, b) => a - b)[2]).toBeLessThan(500);
}

/**
 * Has statements carried out whose text contains `mark`, keeps their answer to itself, and cuts the connection instead; only
 * answers that hold a job, and only as many as are wanted.
 */
function loseAnswers(proxy: Proxy, mark: string): { wanted: number; readonly count: number } {
  const lost = { wanted: 0, count: 0 };
  const known = new WeakMap<Link, Set<string>>();
  const asked = new WeakSet<Link>();
  const doomed = new WeakSet<Link>();
  proxy.onClientMessage = (message, link) => {
    if (message.type === "P") {
      const [name = "", text = ""] = texts(message, 2);
      if (!known.has(link)) known.set(link, new Set());
      if (text.includes(mark)) known.get(link)?.add(name);
      else known.get(link)?.delete(name);
    } else if (message.type === "B") {
      const [, name = ""] = texts(message, 2);
      if (known.get(link)?.has(name)) asked.add(link);
      else asked.delete(link);
    }
  };
  proxy.onServerMessage = (message, link) => {
    if (doomed.has(link)) {
      if (message.type === "Z") link.cut(); // committed
      return false;
    }
    if (message.type !== "D" || !asked.has(link) || lost.count >= lost.wanted || !holdsJob(message)) return true;
    lost.count += 1;
    doomed.add(link);
    return false;
  };
  return lost;
}

/** A job of a claim is a row whose first column is its number, from 1; a suspect is any row. */
function holdsJob(message: Message): boolean {
  const length = message.body.readInt32BE(2);
  return Number(message.body.toString("utf8", 6, 6 + length)) !== 0 && message.body.toString("utf8", 6, 7) !== "-";
}
