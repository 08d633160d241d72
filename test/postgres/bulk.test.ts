/** A bulk operation, and a cancel, while the processes that carry them out are killed. */
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { sql } from "../../src/db/sql.ts";
import { chance } from "./fixtures/chance.ts";
import type { Child } from "./support/children.ts";
import { Scene } from "./support/scene.ts";
import { until } from "./support/until.ts";

const seed = Number(process.env["MILLRACE_TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
const work = { queues: ["maintenance"], lease: 500, reapEvery: 100 } as const;

/** A process with the API and a worker, as `millrace up` is. */
async function server({ crew, url }: Scene, queue = "maintenance"): Promise<{ child: Child; api: string }> {
  // One that is bound elsewhere begins no operation itself: it would be killed with it.
  const child = crew.start("server", { url, work: { ...work, queues: [queue], maintenance: queue === "maintenance" } });
  return { child, api: (await child.hears("listening")).url };
}

/** Asks for a replay of the jobs of a task; undefined when there was no answer. */
async function askReplay(api: string, task: string): Promise<string | undefined> {
  const body = JSON.stringify({ action: "replay", filter: { task }, queue: "replays", per_second: 10_000 });
  const headers = { "Content-Type": "application/json" };
  const response = await fetch(`${api}/api/bulk`, { method: "POST", headers, body }).catch(() => undefined);
  if (response === undefined) return undefined;
  expect(response.status).toBe(202);
  return response.json().then(
    (answer) => (answer as { id: string }).id,
    () => undefined, // cut off in the middle
  );
}

test(`a bulk operation exists or does not when the process that accepts it is killed meanwhile (seed ${seed})`, async () => {
  await using scene = await Scene.set();
  const { mill, observer } = scene;
  const random = chance(seed);
  const rounds = Array.from({ length: 12 }, (_, n) => `round-${n}`);
  const accepted: string[] = [];
  let tookMs = 0;
  for (const task of rounds) {
    await mill.enqueueMany(task, Array.from({ length: 700 }));
    const { child, api } = await server(scene, "elsewhere");
    const askedAt = performance.now();
    const answer = askReplay(api, task);
    // The first one is killed behind its answer, and tells how long that takes; the others somewhere on the way.
    if (tookMs === 0) await answer.then(() => (tookMs = performance.now() - askedAt));
    else await sleep(random() * tookMs);
    await child.kill();
    const id = await answer;
    if (id !== undefined) accepted.push(id);
  }
  const last = await scene.worker({ work });
  const operations = () => mill.bulkOperations();
  await until("all end", async () => (await operations()).every(({ status }) => status === "completed"));
  await last.stop();
  const begun = await operations();
  console.log(JSON.stringify({ seed, rounds: rounds.length, accepted: accepted.length, begun: begun.length }));
  for (const one of begun) expect(one).toMatchObject({ expected: 700, lookedAt: 700, changed: 700 });
  const tasks = begun.map(({ filter }) => filter.task as string).toSorted();
  expect(new Set(tasks).size).toBe(tasks.length);
  expect(accepted.filter((id) => !begun.some((one) => one.id === id))).toEqual([]);
  expect(
    await observer.rows(`
      select t.name as task, count(*)::int as n, count(distinct j.replay_of)::int as of
      from millrace.jobs j join millrace.tasks t on t.id = j.task where j.replay_of is not null group by 1 order by 1`),
  ).toEqual(tasks.map((task) => ({ task, n: 700, of: 700 })));
}, 120_000);

test("a bulk operation whose server and workers are killed in the middle of it changes each job once, and its counts are exact", async () => {
  await using scene = await Scene.set();
  const { mill } = scene;
  const jobs = 30_000;
  await mill.enqueueMany("nobody-runs-this", Array.from({ length: jobs }));
  const first = await server(scene);
  const id = (await askReplay(first.api, "nobody-runs-this")) as string;
  let changed = 0;
  for (const kills of [1, 2, 3]) {
    const child = kills === 1 ? first.child : kills === 2 ? await scene.worker({ work }) : (await server(scene)).child;
    await until(`progress before kill ${kills}`, async () => (await mill.bulkOperation(id)).changed > changed);
    await child.kill();
    ({ changed } = await mill.bulkOperation(id));
    expect(changed).toBeLessThan(jobs);
  }
  // What kills its worker three times, alone, is not tried again by itself; an operation neither. Told to, it goes on.
  const last = await scene.worker({ work });
  await until("it is given up", async () => (await mill.bulkOperation(id)).status === "failed");
  expect(await mill.job(id)).toMatchObject({ status: "failed", deadLetterReason: "POISON" });
  expect(await mill.bulkOperation(id)).toMatchObject({ changed, error: expect.stringMatching(/^WORKER_LOST: /) });
  await mill.retry(id);
  await until("the end", async () => (await mill.bulkOperation(id)).status === "completed", { within: 60_000 });
  await last.stop();
  expect(await mill.bulkOperation(id)).toMatchObject({ expected: jobs, lookedAt: jobs, changed: jobs });
  expect(
    await mill.db.query(
      sql`select count(*)::int as n, count(distinct replay_of)::int as of from millrace.jobs where replay_of is not null`,
    ),
  ).toEqual([{ n: jobs, of: jobs }]);
  expect(await mill.stats("replays")).toMatchObject([{ waiting: jobs }]);
}, 180_000);

test("a running job is cancelled by another process; and one whose worker is killed, when it comes back", async () => {
  await using scene = await Scene.set();
  const { mill } = scene;
  const [id = "", orphan = ""] = await scene.enqueue("brief", 2, () => 3_600_000);
  const child = await scene.worker({ work: { lease: 500, reapEvery: 100 } });
  const active = async (): Promise<boolean> => (await mill.jobs({ status: "active" })).jobs.length === 2;
  await until("both run", active);
  // its task never looks at its signal
  expect(await mill.cancel(id, { within: 0 })).toEqual({ status: "cancelling", ignored: false });
  await until("it is marked", async () => (await mill.cancel(id, { within: 0 })).ignored);
  await child.hears("log", ({ message }) => message.startsWith("job.hung"));
  const cancelled = mill.cancel(orphan, { within: "30s" });
  await child.kill();
  const other = await scene.worker({ work: { lease: 500, reapEvery: 100, queues: ["elsewhere"] } });
  expect(await cancelled).toEqual({ status: "cancelled", ignored: false });
  await until("the other one too", async () => (await mill.job(id))?.status === "cancelled");
  await other.stop();
});
