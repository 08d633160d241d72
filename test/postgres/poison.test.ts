/**
 * Jobs that kill the process that runs them, and a job that only seems to: it blocks its process for so long that it is taken for
 * dead. The killer is found and given up after a handful of deaths; nobody dies in its company.
 */
import { describe, expect, test } from "vitest";
import type { Child } from "./support/children.ts";
import { Scene } from "./support/scene.ts";
import { until } from "./support/until.ts";

const work = { concurrency: 20, lease: 1_000, reapEvery: 250 };

/** Keeps so many workers alive until `over`; returns how many died meanwhile. */
async function supervise(scene: Scene, count: number, over: () => Promise<boolean>, within = 60_000): Promise<number> {
  let deaths = 0;
  let ended = false;
  const slot = async (): Promise<void> => {
    while (!ended) {
      const child: Child = scene.crew.start("worker", { url: scene.url, work });
      await child.gone();
      if (!ended) deaths += 1;
    }
  };
  const slots = Array.from({ length: count }, slot);
  try {
    await until("it is over", over, { within, every: 50 });
  } finally {
    ended = true;
    await Promise.all(scene.crew.living.map((child) => child.kill()));
    await Promise.all(slots);
  }
  return deaths;
}

const deadLetters = ({ observer }: Scene): Promise<{ id: string; reason: string; attempt: number }[]> =>
  observer.rows("select job_id::text as id, reason, attempt::int from millrace.dead_letters order by 1");

/** Jobs other than these that a death was held against, or that ended otherwise than well. */
const innocentsHurt = ({ observer }: Scene, guilty: readonly string[]): Promise<unknown[]> =>
  observer.rows(
    `select job_id::text, outcome, attempt, alone from millrace.attempts
     where job_id <> all ($1::uuid[]) and (alone or attempt <> 1 or outcome <> 'lost')
     union all select job_id::text, reason, attempt, null from millrace.dead_letters where job_id <> all ($1::uuid[]) limit 20`,
    [guilty],
  );

async function expectInnocentsDone(scene: Scene, guilty: readonly string[], innocents: number): Promise<void> {
  const { observer } = scene;
  expect(await innocentsHurt(scene, guilty)).toEqual([]);
  expect(await observer.completed()).toBe(innocents);
  expect(await observer.succeededTwice()).toEqual([]);
  expect(await observer.misplaced()).toEqual([]);
  expect(await observer.attemptsOverLimit()).toEqual([]);
}

const finished = (scene: Scene) => async (): Promise<boolean> => (await scene.observer.unfinished()) === 0;

/** What the deaths left behind: how often the job was lost, and how often alone. */
async function losses({ observer }: Scene, id: string): Promise<{ all: number; alone: number }> {
  const [row] = await observer.rows<{ all: number; alone: number }>(
    `select count(*)::int as all, count(*) filter (where alone)::int as alone from millrace.attempts where job_id = $1 and outcome = 'lost'`,
    [id],
  );
  return row as { all: number; alone: number };
}

test("one poison job among 10 000 innocents ends as POISON after a handful of deaths; every innocent completes", async () => {
  await using scene = await Scene.set();
  await scene.enqueue("instant", 2_500);
  await scene.enqueue("brief", 2_500, (n) => n % 5);
  const [poison = ""] = await scene.enqueue("poison", 1);
  await scene.enqueue("brief", 2_500, (n) => n % 5);
  await scene.enqueue("instant", 2_500);

  const began = performance.now();
  const deaths = await supervise(scene, 2, finished(scene), 120_000);

  const lost = await losses(scene, poison);
  const company = await scene.observer.number(
    "select count(*) from millrace.attempts where not alone and job_id <> $1",
    [poison],
  );
  console.log(JSON.stringify({ deaths, lost, innocentsLost: company, ms: Math.round(performance.now() - began) }));
  expect(await deadLetters(scene)).toEqual([{ id: poison, reason: "POISON", attempt: 3 }]);
  expect(lost.alone).toBe(3);
  expect(deaths).toBeLessThanOrEqual(8);
  await expectInnocentsDone(scene, [poison], 10_000);
  expect(await scene.mill.job(poison)).toMatchObject({
    status: "failed",
    deadLetterReason: "POISON",
    lastErrorCode: "WORKER_LOST",
  });
}, 180_000);

test("a poison that takes its time, with jobs that start and end beside it, is found as well", async () => {
  await using scene = await Scene.set();
  await scene.enqueue("brief", 200, (n) => n % 50);
  const [poison = ""] = await scene.mill.enqueueMany("poison", [{ ms: 300 }]);
  await scene.enqueue("brief", 1_000, (n) => n % 20);

  const deaths = await supervise(scene, 2, finished(scene));
  expect(await deadLetters(scene)).toEqual([{ id: poison, reason: "POISON", attempt: 3 }]);
  expect(deaths).toBeLessThanOrEqual(8);
  await expectInnocentsDone(scene, [poison], 1_200);
}, 90_000);

test("two poison jobs at once are told apart from each other and from the innocents", async () => {
  await using scene = await Scene.set();
  await scene.enqueue("brief", 200, (n) => n % 5);
  const poisons = await scene.enqueue("poison", 2);
  await scene.enqueue("brief", 800, (n) => n % 5);

  const deaths = await supervise(scene, 2, finished(scene));
  expect(await deadLetters(scene)).toEqual(poisons.sort().map((id) => ({ id, reason: "POISON", attempt: 3 })));
  expect(deaths).toBeLessThanOrEqual(14);
  await expectInnocentsDone(scene, poisons, 1_000);
}, 90_000);

test("a poison with one attempt is given up the first time it dies alone, as out of attempts", async () => {
  await using scene = await Scene.set();
  await scene.enqueue("brief", 50, (n) => n % 5);
  const [poison = ""] = await scene.mill.enqueueMany("poison", [{}], { maxAttempts: 1 });
  await scene.mill.enqueueMany(
    "brief",
    Array.from({ length: 200 }, () => ({ ms: 3 })),
    { maxAttempts: 1 },
  );

  const deaths = await supervise(scene, 2, finished(scene));
  expect(await deadLetters(scene)).toEqual([{ id: poison, reason: "MAX_ATTEMPTS_EXCEEDED", attempt: 1 }]);
  expect(await losses(scene, poison)).toMatchObject({ alone: 1 });
  expect(deaths).toBeLessThanOrEqual(4);
  await expectInnocentsDone(scene, [poison], 250);
}, 90_000);

describe("a job that blocks its process for longer than the lease", () => {
  const late = ({ observer }: Scene, id: string): Promise<number> =>
    observer.number("select count(*) from millrace.attempts where job_id = $1 and late and outcome = 'succeeded'", [
      id,
    ]);

  test("with nobody to take it away, just completes: no worker declares itself dead", async () => {
    await using scene = await Scene.set();
    const worker = await scene.worker({ work });
    const [id = ""] = await scene.enqueue("block", 1, () => 3_000);
    await until("it is done", finished(scene));
    expect(worker.all("ran").map(({ job }) => job)).toEqual([id]);
    expect(await scene.observer.rows("select * from millrace.attempts")).toEqual([]);
    expect(await scene.observer.number("select count(*) from millrace.workers where ended is null")).toBe(1);
  });

  test("is run again by another; the late result is noted, one success counts", async () => {
    await using scene = await Scene.set();
    const workers = [await scene.worker({ work }), await scene.worker({ work })];
    const [id = ""] = await scene.mill.enqueueMany("block", [{ ms: 3_000, attempts: 1 }]);
    await until("the late result is noted", async () => (await late(scene, id)) === 1);
    await until("it is done", finished(scene));

    expect(new Set(workers.flatMap((worker) => worker.all("ran").map(({ attempt }) => attempt)))).toEqual(
      new Set([1, 2]),
    );
    expect(await losses(scene, id)).toEqual({ all: 1, alone: 1 });
    expect(await scene.observer.completed()).toBe(1);
    expect(await deadLetters(scene)).toEqual([]);
    expect(scene.crew.unhandled).toEqual([]);
    // Both go on: the one that was taken for dead under a new number.
    await scene.enqueue("brief", 500, () => 5);
    await until("it is done", finished(scene));
    const numbers = "select count(distinct pid) from millrace.workers where stopped_at is null";
    expect(await scene.observer.number(numbers)).toBe(2);
  });

  test("and does so each time, ends as POISON with its late results on record, and never as a success", async () => {
    await using scene = await Scene.set();
    await scene.worker({ work });
    await scene.worker({ work });
    const [id = ""] = await scene.enqueue("block", 1, () => 2_500);
    await until("it is given up", async () => (await deadLetters(scene)).length > 0);
    await until("all late results are noted", async () => (await late(scene, id)) === 3);
    expect(await deadLetters(scene)).toEqual([{ id, reason: "POISON", attempt: 3 }]);
    expect(await scene.observer.completed()).toBe(0);
    expect(await scene.observer.misplaced()).toEqual([]);
    expect(scene.crew.unhandled).toEqual([]);
  });
});
