/**
 * Worker and producer processes are killed with SIGKILL at random for a minute and more, over twenty thousand jobs. Afterwards, and
 * all along, the tables must add up: every promised job exists, is in one place, and ended well exactly once.
 *
 * MILLRACE_TEST_CRASH_SECONDS, MILLRACE_TEST_CRASH_JOBS and MILLRACE_TEST_SEED make it longer, larger, or repeat one.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { defineApp, millrace } from "millrace";
import { expect, test } from "vitest";
import { testDatabase } from "../support/database.ts";
import { foldAll } from "../support/engine.ts";
import { chance } from "./fixtures/chance.ts";
import { faultTables } from "./fixtures/tasks.ts";
import { type Child, Crew } from "./support/children.ts";
import { Observer } from "./support/ledger-proof.ts";
import { until } from "./support/until.ts";

const fromEnvironment = (name: string, otherwise: number): number => Number(process.env[name] ?? otherwise);
const seconds = fromEnvironment("MILLRACE_TEST_CRASH_SECONDS", 60);
const jobs = fromEnvironment("MILLRACE_TEST_CRASH_JOBS", 20_000);
const seed = fromEnvironment("MILLRACE_TEST_SEED", Math.floor(Math.random() * 2 ** 31));

const workerCount = 4;
const producerCount = 3;
const leaseMs = 1_500;

test(
  `nothing is lost and nothing happens twice while processes are killed (seed ${seed})`,
  async () => {
    await using database = await testDatabase();
    if (database.backend !== "postgres") throw new Error("This test needs a server.");
    const { url } = database;
    await using mill = await millrace(defineApp({ tasks: [] }), { databaseUrl: url });
    await using observer = await Observer.on(url);
    await observer.client.query(faultTables);
    await using crew = new Crew();
    using folder = temporaryFolder();
    const random = chance(seed);

    // Each slot holds one process; whoever dies is replaced, until the killing is over.
    let over = false;
    using _ = { [Symbol.dispose]: () => (over = true) }; // also when something below fails
    const slots: { kind: "worker" | "producer"; child: Child | undefined }[] = [];
    const keep = async (kind: "worker" | "producer", start: () => Child): Promise<void> => {
      const slot: (typeof slots)[number] = { kind, child: undefined };
      slots.push(slot);
      while (!over) {
        slot.child = start();
        await slot.child.gone();
        slot.child = undefined;
      }
    };
    let started = 0;
    const kept = [
      ...Array.from({ length: workerCount }, () =>
        keep("worker", () =>
          crew.start("worker", {
            url,
            work: { concurrency: 20, lease: leaseMs, reapEvery: 250 },
            options: { poolSize: 4 },
          }),
        ),
      ),
      ...Array.from({ length: producerCount }, (_, n) =>
        keep("producer", () => {
          started += 1;
          const file = join(folder.path, `producer-${n}`);
          return crew.start("producer", {
            url,
            file,
            seed: seed + started,
            rate: (1.6 * jobs) / seconds / producerCount,
          });
        }),
      ),
    ];
    const promised = (sign: "+" | "-"): string[] => readNotes(folder.path, producerCount, sign);

    await using hunter = await Observer.on(url);
    const busiest = (): Promise<number> =>
      hunter.number(`
      select w.pid from millrace.leases l join millrace.workers w on w.id = l.worker where w.stopped_at is null
      group by 1 order by sum(cardinality(l.job_ids) - cardinality(l.done)) desc limit 1`);

    const kills = { worker: 0, producer: 0 };
    const began = performance.now();
    const twice: unknown[] = [];
    const watching = (async () => {
      for (let round = 1; !over; round += 1) {
        twice.push(...(await observer.heldTwice()));
        if (round % 10 === 0) twice.push(...(await observer.misplaced()));
        await sleep(300);
      }
    })();
    while (performance.now() - began < seconds * 1_000 || promised("+").length < jobs) {
      await sleep(random() * 1_000);
      const kind = random() < 0.85 ? "worker" : "producer";
      const victims = slots.filter((slot) => slot.kind === kind && slot.child !== undefined);
      let victim = victims[Math.floor(random() * victims.length)]?.child;
      // Every other time, whoever holds most: an idle worker is no loss.
      if (kind === "worker" && random() < 0.5) {
        const pid = await busiest();
        victim = victims.find(({ child }) => child?.pid === pid)?.child ?? victim;
      }
      if (victim === undefined) continue;
      kills[kind] += 1;
      await victim.kill();
    }
    const killedForMs = Math.round(performance.now() - began);
    console.log(JSON.stringify({ seed, kills, killedForMs, promised: promised("+").length }));
    over = true;
    await watching;

    // Producers go for good, one worker at least goes on, and what the last victims held comes back to it.
    for (const { kind, child } of slots) if (kind === "producer") await child?.kill();
    const last = await crew.worker({ url, work: { concurrency: 20, lease: leaseMs, reapEvery: 250 } });
    const drainedMs = await until("everything is done", async () => (await observer.unfinished()) === 0, {
      within: 120_000,
      every: 100,
    });
    const survivors = crew.living;
    // What the last victims held may have been done by others before they were missed.
    await observer.untilMissed(survivors.map(({ pid }) => pid));
    const stopped = await Promise.all(survivors.map((child) => child.stop()));
    await Promise.all(kept);

    const accepted = promised("+");
    const outcomes = await observer.rows<{ outcome: string; alone: boolean; late: boolean; n: number }>(
      "select outcome, alone, late, count(*)::int as n from millrace.attempts group by 1, 2, 3 order by 1, 2, 3",
    );
    const total = await observer.number("select count(*) from millrace.jobs");
    const attempts = outcomes.map(
      ({ outcome, alone, late, n }) => `${outcome}${alone ? " alone" : ""}${late ? " late" : ""}: ${n}`,
    );
    console.log(JSON.stringify({ drainedMs: Math.round(drainedMs), jobs: total, attempts }));

    // Promises are kept: what was acknowledged exists, what was rolled back does not, and a transaction is all or nothing.
    expect(accepted.length).toBeGreaterThanOrEqual(jobs);
    expect(new Set(accepted).size).toBe(accepted.length);
    const exist = (ids: string[]): Promise<number> =>
      observer.number("select count(*) from millrace.jobs where id = any ($1::uuid[])", [ids]);
    expect(await exist(accepted)).toBe(accepted.length);
    expect(await exist(promised("-"))).toBe(0);
    expect(
      await observer.number(
        "select count(*) from promises p where not exists (select from millrace.jobs j where j.id = p.job_id)",
      ),
    ).toBe(0);

    // Every job ended, once, well, in one place, and at no time did two leases hold it.
    expect(twice).toEqual([]);
    expect(await observer.misplaced()).toEqual([]);
    expect(await observer.succeededTwice()).toEqual([]);
    expect(await observer.rows("select * from millrace.dead_letters")).toEqual([]);
    expect(await observer.completed()).toBe(total);
    expect(await observer.attemptsOverLimit()).toEqual([]);

    // Effects are in the transaction that completed the job: one for each, never tried a second time.
    const effectJobs = await observer.number(
      "select count(*) from millrace.jobs j join millrace.tasks t on t.id = j.task where t.name = 'effect'",
    );
    expect(await observer.number("select count(*) from effects")).toBe(effectJobs);
    expect(await observer.rows("select * from doubles")).toEqual([]);

    // Only what is meant to fail failed; jobs that went down with a worker are noted, and workers that died are known as lost.
    expect(
      await observer.number(`
      select count(*) from millrace.attempts a join millrace.jobs j on j.id = a.job_id join millrace.tasks t on t.id = j.task
      where not a.late and (a.outcome in ('timed_out', 'cancelled') or a.outcome = 'failed' and t.name <> 'second-try'
                            or a.outcome = 'snoozed' and t.name <> 'snooze-once')`),
    ).toBe(0);
    expect(await observer.inconsistentWorkers()).toEqual([]);
    expect(await observer.number("select count(*) from millrace.workers where stopped_at is null")).toBe(0);
    expect(await observer.number("select count(*) from millrace.workers where ended = 'lost'")).toBeGreaterThan(
      kills.worker / 4, // on a busy machine many die before they have registered
    );
    expect(stopped.map(({ hung }) => hung)).toEqual(survivors.map(() => 0));
    expect(last.alive).toBe(false);
    expect(crew.unhandled).toEqual([]);

    const [queue] = await mill.stats("default");
    expect(queue).toMatchObject({ waiting: 0, delayed: 0, active: 0, failed: 0, completed: total });

    // What metrics count was folded all along, by workers that were killed in the middle of it: each job once.
    await foldAll(mill);
    const counted = (kind: string): Promise<number> =>
      observer.number("select coalesce(sum(n), 0) from millrace.totals where kind || ' ' || label = $1", [kind]);
    expect(await counted("enqueued ")).toBe(total);
    expect(await counted("attempt succeeded")).toBe(total);
    expect(await counted("attempt lost")).toBe(
      await observer.number("select count(*) from millrace.attempts where outcome = 'lost'"),
    );
    expect(await observer.number("select sum(n) from millrace.durations d, unnest(d.buckets) n")).toBe(total);
  },
  (seconds * 3 + 240) * 1_000,
);

function readNotes(folder: string, producers: number, sign: "+" | "-"): string[] {
  return Array.from({ length: producers }, (_, n) => readIfThere(join(folder, `producer-${n}`)))
    .flatMap((text) => text.split("\n"))
    .filter((line) => line.startsWith(sign))
    .flatMap((line) => line.split(" ").slice(1))
    .filter((id) => id.length === 36);
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return ""; // this producer has not begun yet
  }
}

function temporaryFolder(): Disposable & { readonly path: string } {
  const path = mkdtempSync(join(tmpdir(), "millrace-crash-"));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}
