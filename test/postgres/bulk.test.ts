/** A bulk operation, and a cancel, while the processes that carry them out are killed. */
import { expect, test } from "vitest";
import { sql } from "../../src/db/sql.ts";
import { Scene } from "./support/scene.ts";
import { until } from "./support/until.ts";

const work = { queues: ["maintenance"], lease: 500, reapEvery: 100 } as const;

test("a bulk operation whose workers are killed in the middle of it changes each job once, and its counts are exact", async () => {
  await using scene = await Scene.set();
  const { mill } = scene;
  const jobs = 20_000;
  await mill.enqueueMany("nobody-runs-this", Array.from({ length: jobs }));
  const { id } = await mill.bulk("replay", { task: "nobody-runs-this" }, { queue: "replays", perSecond: 10_000 });
  let changed = 0;
  for (const kills of [1, 2]) {
    const child = await scene.worker({ work });
    await until(`progress before kill ${kills}`, async () => (await mill.bulkOperation(id)).changed > changed);
    await child.kill();
    ({ changed } = await mill.bulkOperation(id));
    expect(changed).toBeLessThan(jobs);
  }
  const last = await scene.worker({ work });
  await until("the end", async () => (await mill.bulkOperation(id)).status === "completed", { within: 60_000 });
  await last.stop();
  expect(await mill.bulkOperation(id)).toMatchObject({ expected: jobs, lookedAt: jobs, changed: jobs });
  expect(
    await mill.db.query(
      sql`select count(*)::int as n, count(distinct replay_of)::int as of from millrace.jobs where replay_of is not null`,
    ),
  ).toEqual([{ n: jobs, of: jobs }]);
  expect(await mill.stats("replays")).toMatchObject([{ waiting: jobs }]);
});

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
