/**
 * Worker processes are killed at random while a queue without limits, and one with all of them, are worked off, and while jobs that wait
 * and jobs that run are cancelled. Limits hold at every moment, and every job ends once, as completed or as cancelled.
 *
 * MILLRACE_TEST_CRASH_SECONDS and MILLRACE_TEST_SEED make it longer, or repeat one.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { MillraceError } from "millrace";
import { expect, test } from "vitest";
import { chance } from "./fixtures/chance.ts";
import type { Child } from "./support/children.ts";
import { Observer } from "./support/ledger-proof.ts";
import { LimitsWatch, mostStarts } from "./support/limits-proof.ts";
import { Scene } from "./support/scene.ts";
import { until } from "./support/until.ts";

const seconds = Number(process.env["MILLRACE_TEST_CRASH_SECONDS"] ?? 25);
const seed = Number(process.env["MILLRACE_TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
const limits = { concurrency: 5, keyConcurrency: 1, rate: { max: 25, per: 500 } } as const;
const keys = ["a", "b", "c", undefined];
const workerCount = 4;
const leaseMs = 1_000;

test(
  `limits hold and every job ends once while workers die and jobs are cancelled (seed ${seed})`,
  async () => {
    await using scene = await Scene.set();
    const { mill, observer, crew } = scene;
    await using watcher = await Observer.on(scene.url);
    await using hunter = await Observer.on(scene.url);
    const random = chance(seed);
    await mill.policies.set("limited", limits);
    const watch = new LimitsWatch(watcher, "limited", limits);

    const work = { concurrency: 10, lease: leaseMs, reapEvery: 250 } as const;
    const start = (): Promise<Child> => scene.worker({ work, options: { poolSize: 4 } });
    const workers = await Promise.all(Array.from({ length: workerCount }, start));
    let over = false;
    using _ = { [Symbol.dispose]: () => (over = true) }; // also when something below fails

    const ids: string[] = [];
    const producing = (async () => {
      while (!over) {
        const limited = random() < 0.5;
        const task = random() < 0.4 ? "brief" : random() < 0.7 ? "patient" : random() < 0.5 ? "second-try" : "instant";
        const inputs = Array.from({ length: 1 + Math.floor(random() * 12) }, () => ({
          ms: Math.round(random() ** 2 * (limited ? 200 : 2_000)),
        }));
        const concurrencyKey = limited ? keys[Math.floor(random() * keys.length)] : undefined;
        const options = {
          ...(limited && { queue: "limited" }),
          ...(concurrencyKey !== undefined && { concurrencyKey }),
        };
        ids.push(...(await mill.enqueueMany(task, inputs, options)));
        await sleep(random() * 250);
      }
    })();

    /** What each cancel was answered; the last word on a job is its own. */
    const answers = { cancelled: [] as string[], completed: [] as string[], other: 0, late: 0 };
    const cancelling = (async () => {
      while (!over) {
        await sleep(random() * 120);
        const [running] = await hunter.rows<{ id: string }>(
          "select job_ids[1]::text as id from millrace.leases order by random() limit 1",
        );
        const id = random() < 0.5 && running ? running.id : ids[Math.floor((1 - random() ** 2) * ids.length)];
        if (id === undefined) continue;
        try {
          const { status } = await mill.cancel(id, { within: random() < 0.5 ? 0 : "300ms" });
          if (status === "cancelled" || status === "completed") answers[status].push(id);
          else answers.other += 1; // it had not ended yet, or goes on
        } catch (error) {
          if (!(error instanceof MillraceError && error.code === "JOB_STATE")) throw error;
          answers.late += 1;
        }
      }
    })();

    const busiest = (): Promise<number> =>
      observer.number(`
        select w.pid from millrace.leases l join millrace.workers w on w.id = l.worker where w.stopped_at is null
        group by 1 order by sum(cardinality(l.job_ids) - cardinality(l.done)) desc limit 1`);
    const twice: unknown[] = [];
    let kills = 0;
    const killing = (async () => {
      const ends = performance.now() + seconds * 1_000;
      while (performance.now() < ends || answers.cancelled.length < 30 || kills < 10) {
        await sleep(200 + random() * 800);
        // Mostly whoever holds most: an idle worker is no loss.
        const pid = random() < 0.8 ? await busiest() : 0;
        const held = workers.findIndex((child) => child.pid === pid);
        const victim = held < 0 ? Math.floor(random() * workers.length) : held;
        await workers[victim]?.kill();
        kills += 1;
        twice.push(...(await observer.heldTwice()), ...(await observer.misplaced()));
        workers[victim] = await start();
      }
      over = true;
    })();
    await Promise.all([killing, producing, cancelling]);
    await until("every job has ended", async () => (await observer.unfinished()) === 0, {
      within: 120_000,
      every: 100,
    });
    await watch.stop();
    const requests = (): Promise<number> => observer.number("select count(*) from millrace.cancel_requests");
    await until("every cancel is answered", async () => (await requests()) === 0, { within: 30_000, every: 100 });
    const survivors = crew.living;
    await observer.untilMissed(survivors.map(({ pid }) => pid));
    const stopped = await Promise.all(survivors.map((child) => child.stop()));
    const { cancelled, completed, ...rest } = answers;
    const ended = await observer.rows<{ outcome: string; n: number }>(
      "select outcome, count(*)::int as n from millrace.attempts where not late group by 1 order by 1",
    );
    console.log(
      JSON.stringify({
        seed,
        kills,
        jobs: ids.length,
        most: watch.most,
        cancels: { ...rest, cancelled: cancelled.length, completed: completed.length },
        ended,
      }),
    );

    expect(watch.exceeded).toEqual([]);
    expect(watch.most).toBe(limits.concurrency);
    expect(await mostStarts(observer, "limited", limits.rate.per)).toBeLessThanOrEqual(limits.rate.max);

    // Every job is there, and in one place, which is an end.
    expect(twice).toEqual([]);
    expect(await observer.misplaced()).toEqual([]);
    expect(await observer.succeededTwice()).toEqual([]);
    expect(await observer.rows("select * from millrace.dead_letters")).toEqual([]);
    expect(await observer.number("select count(*) from millrace.jobs")).toBe(ids.length);
    const gone = await observer.rows<{ id: string }>(
      "select job_id::text as id from millrace.attempts where outcome = 'cancelled' and not late",
    );
    expect((await observer.completed()) + gone.length).toBe(ids.length);
    // Who was told that it is cancelled, or that it was too late, was told the truth.
    const isGone = new Set(gone.map(({ id }) => id));
    expect(cancelled.filter((id) => !isGone.has(id))).toEqual([]);
    expect(completed.filter((id) => isGone.has(id))).toEqual([]);
    expect(gone.length).toBeGreaterThanOrEqual(new Set(cancelled).size);

    // Nothing is left behind.
    expect(await observer.number("select count(*) from millrace.leases")).toBe(0);
    expect(await observer.inconsistentWorkers()).toEqual([]);
    expect(await observer.attemptsOverLimit()).toEqual([]);
    expect(stopped.map(({ hung }) => hung)).toEqual(survivors.map(() => 0));
    expect(crew.unhandled).toEqual([]);
  },
  (seconds * 2 + 240) * 1_000,
);
