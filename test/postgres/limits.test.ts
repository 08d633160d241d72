/** Limits while workers are killed: never exceeded at any moment, and no slot is lost with the worker that held it. */
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { chance } from "./fixtures/chance.ts";
import type { Child } from "./support/children.ts";
import { Scene } from "./support/scene.ts";
import { until } from "./support/until.ts";

const seed = Number(process.env["MILLRACE_TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 31));

test(
  `concurrency, keys and rate stay exact while workers die, and everything gets done (seed ${seed})`,
  async () => {
    await using scene = await Scene.set();
    const { mill, observer } = scene;
    const random = chance(seed);
    await mill.policies.set("default", { concurrency: 6, keyConcurrency: 2, rate: { max: 60, per: 500 } });
    const keys = ["a", "b", "c", "d", "e"];
    for (const concurrencyKey of keys)
      await mill.enqueueMany(
        "brief",
        Array.from({ length: 120 }, (_, n) => ({ ms: n % 30 })),
        { concurrencyKey },
      );
    const start = (): Promise<Child> => scene.worker({ work: { concurrency: 10, lease: 1_000, reapEvery: 250 } });
    const workers = await Promise.all([start(), start(), start()]);

    const exceeded: unknown[] = [];
    let most = 0;
    let over = false;
    const watching = (async () => {
      while (!over) {
        const rows = await observer.rows<{ key: string; n: number }>(
          "select key, count(*)::int as n from millrace.leases group by key",
        );
        const all = rows.reduce((sum, { n }) => sum + n, 0);
        most = Math.max(most, all);
        if (all > 6 || rows.some(({ n }) => n > 2)) exceeded.push(rows);
        await sleep(5);
      }
    })();
    let kills = 0;
    const killing = (async () => {
      while (!over && kills < 12) {
        await sleep(200 + random() * 500);
        const victim = Math.floor(random() * workers.length);
        await workers[victim]?.kill();
        kills += 1;
        workers[victim] = await start();
      }
    })();
    await killing;
    await until("everything is done", async () => (await observer.completed()) === 600, { within: 120_000 });
    over = true;
    await watching;

    expect(exceeded).toEqual([]);
    expect(most).toBe(6);
    expect(kills).toBe(12);
    const busiest = await observer.number(`
      with starts as (
        select claimed_at as at from millrace.settled cross join unnest(job_ids)
        union all select started_at from millrace.attempts where outcome = 'lost'
      )
      select max((select count(*) from starts o where o.at >= s.at and o.at < s.at + interval '500 milliseconds')) from starts s`);
    expect(busiest).toBeLessThanOrEqual(60);
    expect(await observer.number("select count(*) from millrace.leases")).toBe(0);
    expect(await observer.succeededTwice()).toEqual([]);
  },
  4 * 60_000,
);
