/** What the doctor says about schedules, and what to do about each. */
import { type Millrace, schedule, task } from "millrace";
import { describe, expect, test } from "vitest";
import { readScheduleStates } from "../../src/metrics/snapshot-store.ts";
import { checkSchedules } from "../../src/cli/schedule-checks.ts";
import { sql } from "../../src/db/sql.ts";
import { useDatabase } from "../support/engine.ts";
import { StoreWorker } from "../support/store-worker.ts";

const file = useDatabase();
const work = task({ name: "work", run: () => undefined });
const one = schedule({ name: "one", task: work, every: "1h", runGrace: "10m" });

/** With a live worker that has the task. */
async function setUp(...schedules: (typeof one)[]): Promise<Millrace> {
  const mill = await file.open([work], {}, schedules);
  await StoreWorker.register(mill);
  return mill;
}

/** `status: message` of each finding, and what to do. */
async function told(mill: Millrace, working = true): Promise<(string | undefined)[][]> {
  const findings = await checkSchedules(mill.db, working);
  return findings.map(({ check, status, message, action }) => [`${check} ${status}: ${message}`, action]);
}

describe("the doctor", () => {
  test("counts schedules with which nothing is wrong, and those that rest", async () => {
    await using mill = await setUp();
    expect(await told(mill)).toEqual([["schedules ok: No schedules.", undefined]]);
    for (const name of ["a", "b", "c"]) await mill.schedules.create({ name, task: "work", every: "1h" });
    expect(await told(mill)).toEqual([["schedules ok: 3 schedules.", undefined]]);
    await mill.schedules.pause("a");
    await mill.db.query(
      sql`update millrace.schedules set retired_at = now(), next_at = null, due_at = null where name = 'b'`,
    );
    expect(await told(mill)).toEqual([["schedules ok: 3 schedules, 1 paused, 1 retired.", undefined]]);
  });

  test("says which cannot be fired, why, and how to correct it", async () => {
    await using mill = await setUp(one);
    await mill.db.query(sql`update millrace.schedules set spec = spec || '{"everyMs": null, "cron": "odd"}'`);
    await mill.schedules.fire({ at: (await mill.schedules.get("one")).nextAt as Date });
    await mill.db.query(sql`update millrace.schedules set placed_at = now()`);
    expect(await told(mill)).toEqual([
      [
        'schedules warn: Schedule "one" cannot be fired: This version cannot tell when "odd" in zone UTC comes next.',
        "Correct it: `millrace schedules update one`.",
      ],
    ]);
    await mill.schedules.update("one", { every: "2h" });
    expect(await told(mill)).toEqual([["schedules ok: 1 schedule.", undefined]]);
  });

  test("says which are due and not fired, the longest first", async () => {
    await using mill = await setUp(one, schedule({ name: "two", task: work, every: "1h" }));
    await mill.db.query(sql`update millrace.schedules set due_at = now() - interval '15 seconds'`);
    expect(await told(mill)).toEqual([["schedules ok: 2 schedules.", undefined]]);
    await mill.db.query(sql`
      update millrace.schedules set due_at = now() - case name when 'one' then interval '45 seconds' else interval '5 minutes' end`);
    const action = "Start `millrace up` or `millrace worker`, one at least without MILLRACE_SCHEDULER=off.";
    expect(await told(mill)).toEqual([
      [expect.stringMatching(/Schedule "two" is due since 5 min and nobody fires it\.$/), action],
      [expect.stringMatching(/Schedule "one" is due since 4[5-9] s and nobody fires it\.$/), action],
    ]);
    const late = async (): Promise<number> => (await readScheduleStates(mill.db)).late;
    expect(await late()).toBe(1);
    await mill.registry.stopScheduling();
    expect(await told(mill)).toEqual([["schedules ok: 2 schedules.", undefined]]);
    expect(await late()).toBe(0);
  });

  test("says which a clock that was ahead has put off", async () => {
    await using mill = await setUp(one);
    await mill.schedules.fire({ at: new Date(Date.now() + 2 * 86_400_000) });
    expect(await told(mill)).toEqual([
      [
        expect.stringMatching(
          /^schedules warn: Schedule "one" was placed by a clock that was 48 h ahead of the database's now, and waits/,
        ),
        "A running scheduler sets it back within 15 s: start one. If one runs, look why that clock jumps (NTP).",
      ],
    ]);
    await mill.schedules.setBack();
    expect(await told(mill)).toEqual([["schedules ok: 1 schedule.", undefined]]);
  });

  test("says which enqueue a task that no live worker has, if any works at all", async () => {
    await using mill = await file.open([work]);
    await using worker = mill.work({ scheduler: false });
    await worker.ready();
    await mill.schedules.create({ name: "served", task: "work", every: "1h" });
    await mill.schedules.create({ name: "lonely", task: "nobody-has-it", queue: "far", every: "1h" });
    expect(await told(mill)).toEqual([
      [
        'schedules warn: Schedule "lonely" enqueues task "nobody-has-it" in queue "far", which no live worker serves.',
        "Deploy a worker whose app has this task, correct the schedule, or pause it.",
      ],
    ]);
    expect(await told(mill, false)).toEqual([["schedules ok: 2 schedules.", undefined]]);
    await mill.schedules.pause("lonely");
    expect(await told(mill)).toEqual([["schedules ok: 2 schedules, 1 paused.", undefined]]);
  });

  test("says which have a run that does not end", async () => {
    await using mill = await setUp(one);
    const { jobId } = await mill.schedules.runNow("one");
    expect(await told(mill)).toEqual([["schedules ok: 1 schedule.", undefined]]);
    await mill.db.query(sql`update millrace.schedule_runs set fired_at = fired_at - interval '11 minutes'`);
    expect(await told(mill)).toEqual([
      [
        expect.stringMatching(
          new RegExp(`Schedule "one" has a run that began 11 min ago and has not ended: job ${jobId}\\.$`),
        ),
        `\`millrace explain ${jobId}\` says why.`,
      ],
    ]);
  });

  test("names five of each fault, not all", async () => {
    await using mill = await setUp();
    for (let n = 0; n < 8; n += 1) await mill.schedules.create({ name: `s${n}`, task: "work", every: "1h" });
    await mill.db.query(sql`update millrace.schedules set due_at = now() - interval '1 hour'`);
    expect(await told(mill)).toHaveLength(5);
  });
});
