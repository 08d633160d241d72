/** Four processes fire two hundred schedules each second while they are killed: each tick once, none left out. */
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { chance } from "./fixtures/chance.ts";
import type { Child } from "./support/children.ts";
import { Scene } from "./support/scene.ts";
import { until } from "./support/until.ts";

const seed = Number(process.env["MILLRACE_TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
const count = 200;

test(
  `every tick is fired exactly once while schedulers are killed (seed ${seed})`,
  async () => {
    await using scene = await Scene.set();
    const { mill, observer } = scene;
    const random = chance(seed);
    for (let n = 0; n < count; n += 1) {
      const when = n % 2 === 0 ? { every: "1s" as const } : { cron: "* * * * * *" };
      await mill.schedules.create({ name: `s${n}`, task: "instant", ...when, overlap: "allow", catchUp: "all" });
    }
    const start = (): Promise<Child> => scene.worker({ work: { concurrency: 20, lease: 1_000, reapEvery: 250 } });
    const schedulers = await Promise.all([start(), start(), start(), start()]);
    let kills = 0;
    const until12s = performance.now() + 12_000;
    while (performance.now() < until12s || kills <= 5) {
      await sleep(100 + random() * 400);
      const victim = Math.floor(random() * schedulers.length);
      await schedulers[victim]?.kill();
      kills += 1;
      schedulers[victim] = await start();
    }
    const behind = "select count(*) from millrace.schedules where due_at < now() - interval '2 seconds'";
    await until("they have caught up", async () => (await observer.number(behind)) === 0, { within: 60_000 });
    await Promise.all(schedulers.map((child) => child.kill()));

    expect(kills).toBeGreaterThan(5);
    // No tick between the first and the last of a schedule is left out, or there twice.
    const gaps = await observer.rows(`
      select schedule, tick_at, before from (
        select schedule, tick_at, lag(tick_at) over (partition by schedule order by tick_at) as before from millrace.schedule_runs
      ) r where before is not null and tick_at - before <> interval '1 second' limit 20`);
    expect(gaps).toEqual([]);
    expect(
      await observer.rows("select status, count from millrace.schedule_runs where status <> 'fired' or count <> 1"),
    ).toEqual([]);
    expect(await observer.number("select count(distinct schedule) from millrace.schedule_runs")).toBe(count);
    // Each run has its job, and there is no job without a run.
    const runs = await observer.number("select count(*) from millrace.schedule_runs");
    expect(runs).toBeGreaterThan(count * 8);
    expect(await observer.number("select count(*) from millrace.jobs")).toBe(runs);
    expect(
      await observer.number("select count(*) from millrace.schedule_runs r join millrace.jobs j on j.id = r.job_id"),
    ).toBe(runs);
    // The next tick of each is the one behind its last run.
    const astray = await observer.rows(`
      select s.name from millrace.schedules s
      where s.next_at <> (select max(tick_at) from millrace.schedule_runs r where r.schedule = s.id) + interval '1 second'`);
    expect(astray).toEqual([]);
    expect(scene.crew.unhandled).toEqual([]);
  },
  4 * 60_000,
);
