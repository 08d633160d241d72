/** Limits while workers are killed: never exceeded at any moment, and no slot is lost with the worker that held it. */
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { chance } from "./fixtures/chance.ts";
import type { Child } from "./support/children.ts";
import { LimitsWatch, mostStarts } from "./support/limits-proof.ts";
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

    const watch = new LimitsWatch(observer, "default", { concurrency: 6, keyConcurrency: 2 });
    let over = false;
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
    await watch.stop();

    expect(watch.exceeded).toEqual([]);
    expect(watch.most).toBe(6);
    expect(kills).toBe(12);
    const busiest = await mostStarts(observer, "default", 500);
    expect(busiest).toBeLessThanOrEqual(60);
    expect(await observer.number("select count(*) from millrace.leases")).toBe(0);
    expect(await observer.succeededTwice()).toEqual([]);
  },
  4 * 60_000,
);
