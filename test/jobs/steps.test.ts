/** Durable steps: done once, whatever happens in between. */
import { describe, expect, test, vi } from "vitest";
import { NonRetryableError, task } from "millrace";
import { sql } from "../../src/db/sql.ts";
import { useDatabase } from "../support/engine.ts";

const file = useDatabase();

describe("a step", () => {
  test("that is done is not done again when the run fails later", async () => {
    const did: string[] = [];
    const order = task({
      name: "order",
      backoff: { delay: "1ms" },
      async run({ step, attempt }) {
        const paid = await step.run("pay", () => {
          did.push("pay");
          return { receipt: 7, at: new Date(0) };
        });
        await step.run("ship", () => {
          did.push(`ship ${attempt}`);
          if (attempt < 3) throw new Error("no truck");
        });
        return paid;
      },
    });
    await using mill = await file.open([order]);
    const job = await mill.enqueue(order, null);
    mill.work();
    expect(await mill.waitUntilFinished(job)).toEqual({ receipt: 7, at: "1970-01-01T00:00:00.000Z" });
    expect(did).toEqual(["pay", "ship 1", "ship 2", "ship 3"]);
  });

  test("gives back JSON the first time as well as later", async () => {
    const dates = task({
      name: "dates",
      run: ({ step }) => step.run("now", () => ({ at: new Date(0), no: undefined })),
    });
    await using mill = await file.open([dates]);
    mill.work();
    expect(await mill.waitUntilFinished(await mill.enqueue(dates, null))).toEqual({ at: "1970-01-01T00:00:00.000Z" });
  });

  test("that gave null gives null later, and an event without a payload is no timeout", async () => {
    const seen: unknown[] = [];
    const nulls = task({
      name: "nulls",
      async run({ step }) {
        seen.push(await step.run("null", () => null), await step.run("nothing", () => undefined));
        return step.waitForEvent("go", { event: "bare" });
      },
    });
    await using mill = await file.open([nulls]);
    const job = await mill.enqueue(nulls, null);
    mill.work();
    await expect.poll(async () => (await mill.job(job.id))?.status, { timeout: 10_000 }).toBe("delayed");
    await mill.emit("bare");
    expect(await mill.waitUntilFinished(job)).toBeNull();
    expect(seen).toEqual([null, undefined, null, undefined]);
  });

  test("sleeps without a worker, and goes on where it was", async () => {
    const did: number[] = [];
    const slow = task({
      name: "slow",
      async run({ step, attempt }) {
        await step.run("before", () => void did.push(1));
        await step.sleep("nap", "200ms");
        await step.run("after", () => void did.push(2));
        return attempt;
      },
    });
    await using mill = await file.open([slow]);
    const job = await mill.enqueue(slow, null);
    mill.work({ concurrency: 1 });
    expect(await mill.waitUntilFinished(job)).toBe(1); // no attempt was used up
    expect(did).toEqual([1, 2]);
    const { attempts } = await mill.timeline(job.id);
    expect(attempts).toMatchObject([{ status: "snoozed", errorCode: "STEP_SLEEPS" }, { status: "succeeded" }]);
  });

  test("waits for an event that comes later, and takes one that came before", async () => {
    const approval = task({
      name: "approval",
      async run({ step }) {
        const late = await step.waitForEvent("late", { event: "late" });
        const early = await step.waitForEvent("early", { event: "early" });
        const never = await step.waitForEvent("never", { event: "never", timeout: "50ms" });
        return [late, early, never === undefined];
      },
    });
    await using mill = await file.open([approval]);
    expect(await mill.emit("early", { n: 1 })).toEqual({ duplicate: false, woken: 0 });
    expect(await mill.emit("early", { n: 2 })).toEqual({ duplicate: true, woken: 0 });
    const job = await mill.enqueue(approval, null);
    mill.work();
    await expect.poll(async () => (await mill.job(job.id))?.status, { timeout: 10_000 }).toBe("delayed");
    expect(await mill.emit("late", "yes")).toEqual({ duplicate: false, woken: 1 });
    expect(await mill.waitUntilFinished(job)).toEqual(["yes", { n: 1 }, true]);
  });

  test("that many runs wait for wakes them all, whether they were just falling asleep or not", async () => {
    const many = task({ name: "many", run: ({ step }) => step.waitForEvent("go", { event: "go", timeout: "1h" }) });
    await using mill = await file.open([many]);
    const ids = await mill.enqueueMany(
      many,
      Array.from({ length: 100 }, () => null),
    );
    mill.work({ concurrency: 20 });
    await expect
      .poll(async () => (await mill.stats("default"))[0]?.delayed ?? 0, { timeout: 10_000 })
      .toBeGreaterThan(10);
    await mill.emit("go", 1);
    await Promise.all(ids.map((id) => mill.waitUntilFinished(id, { within: "20s" })));
  });

  test("in a transaction is kept with what it wrote, or not at all", async () => {
    let fails = true;
    const pay = task({
      name: "pay",
      backoff: { delay: "1ms" },
      async run({ step }) {
        await step.transaction("book", (tx) => tx.query("insert into bookings values (1)", []));
        if (fails) {
          fails = false;
          throw new Error("afterwards");
        }
      },
    });
    await using mill = await file.open([pay]);
    await mill.transaction((tx) => tx.query("create table if not exists bookings (n int)", []));
    const job = await mill.enqueue(pay, null);
    mill.work();
    await mill.waitUntilFinished(job);
    const count = await mill.transaction(
      async (tx) => (await tx.query("select count(*)::int as n from bookings", [])).rows,
    );
    expect(count).toEqual([{ n: 1 }]);
    await mill.transaction((tx) => tx.query("drop table bookings", []));
  });

  test("under way beside one that sleeps is finished first", async () => {
    const did: string[] = [];
    const both = task({
      name: "both",
      async run({ id, step }) {
        await Promise.all([
          step.sleep("nap", "20ms"),
          step.run("work", async () => {
            await vi.waitFor(async () => expect(await mill.steps(id)).toMatchObject([{ name: "nap" }]), {
              timeout: 20_000,
              interval: 10,
            }); // it sleeps by now
            did.push("work");
          }),
        ]);
      },
    });
    await using mill = await file.open([both]);
    const job = await mill.enqueue(both, null);
    mill.work();
    await mill.waitUntilFinished(job);
    expect(did).toEqual(["work"]);
  });

  test("that is caught does not keep the run from sleeping", async () => {
    const rounds: number[] = [];
    const stubborn = task({
      name: "stubborn",
      async run({ step }) {
        await step.sleep("nap", "30ms").catch(() => rounds.push(0));
        await step.run("after", () => void rounds.push(1)).catch(() => rounds.push(2));
      },
    });
    await using mill = await file.open([stubborn]);
    const job = await mill.enqueue(stubborn, null);
    mill.work();
    await mill.waitUntilFinished(job);
    expect(rounds).toEqual([0, 2, 1]);
  });
});

describe("code that has changed", () => {
  const shapes: [string, string[], string][] = [
    [
      "another step in its place",
      ["first", "other"],
      'its step 2 was sleep "nap", and the code asks for step "other" in its place',
    ],
    ["a step less", ["first"], 'its step 2 was sleep "nap", and the code has ended without it'],
    ["no steps at all", [], 'its step 1 was step "first", and the code has ended without it'],
    [
      "a step before the others",
      ["new", "first"],
      'its step 1 was step "first", and the code asks for step "new" in its place',
    ],
  ];
  test.for(shapes)("%s: the run fails and says where, and nothing is done again", async ([, names, sentence]) => {
    const did: string[] = [];
    let isNew = false;
    const run = task({
      name: "run",
      async run({ step }) {
        if (isNew) for (const name of names) await step.run(name, () => void did.push(name));
        else {
          await step.run("first", () => void did.push("first"));
          await step.sleep("nap", "1h");
        }
      },
    });
    await using mill = await file.open([run]);
    const job = await mill.enqueue(run, null);
    mill.work();
    await expect.poll(async () => (await mill.job(job.id))?.status, { timeout: 10_000 }).toBe("delayed");
    isNew = true;
    await mill.promote(job.id);
    await expect(mill.waitUntilFinished(job)).rejects.toMatchObject({
      message: expect.stringContaining(`(STEP_CHANGED): This run was begun by other code: ${sentence}.`) as string,
    });
    expect(did).toEqual(["first"]);
    isNew = false; // the old code comes back
    await mill.retry(job.id);
    await expect.poll(async () => (await mill.job(job.id))?.status, { timeout: 10_000 }).toBe("delayed");
    expect(did).toEqual(["first"]);
  });
});

test("two deploys with other steps, side by side: a run ends well or says that it changed, and no effect happens twice", async () => {
  const did: string[] = [];
  const shape = (middle: string) =>
    task({
      name: "rolling",
      maxAttempts: 1,
      async run({ id, step }) {
        for (const name of ["first", middle]) {
          await step.run(name, () => void did.push(`${id} ${name}`));
          await step.sleep(`after ${name}`, "5ms");
        }
        await step.waitForEvent("go", { event: "go" });
        await step.run("last", () => void did.push(`${id} last`));
      },
    });
  const jobs: string[] = [];
  const effects = (id: string): string[] =>
    did.filter((effect) => effect.startsWith(id)).map((effect) => effect.slice(id.length + 1));
  await using old = await file.open([shape("b")]);
  await using fresh = await file.open([shape("x")], { schema: old.db.schema });
  const enqueue = (): Promise<string[]> =>
    old.enqueueMany(
      "rolling",
      Array.from({ length: 20 }, (_, n) => n),
    );
  /** Until so many runs wait for the event, or were given up on their way there. */
  const until = async (count: number): Promise<void> => {
    await expect
      .poll(
        async () => {
          const [stats] = await old.stats("default");
          const steps = await Promise.all(jobs.map((id) => old.steps(id)));
          const waiting = steps.filter((kept) => kept.at(-1)?.kind === "event").length;
          return stats?.active === 0 && stats.waiting === 0 && waiting + stats.failed >= count;
        },
        { timeout: 20_000 },
      )
      .toBe(true);
  };

  const oldWorker = old.work({ concurrency: 4 });
  jobs.push(...(await enqueue()));
  await until(20);
  fresh.work({ concurrency: 4 });
  jobs.push(...(await enqueue()));
  await until(40);
  await oldWorker.stop();
  await old.emit("go", null);
  const ends = await Promise.allSettled(jobs.map((id) => old.waitUntilFinished(id)));

  expect(new Set(did).size).toBe(did.length);
  for (const [n, end] of ends.entries()) {
    const id = jobs[n] as string;
    if (end.status === "fulfilled") expect(effects(id)).toEqual(["first", "x", "last"]);
    else expect((end.reason as Error).message).toContain("STEP_CHANGED");
  }
  // These had a step that the new code does not ask for.
  expect(ends.slice(0, 20).map(({ status }) => status)).toEqual(Array.from({ length: 20 }, () => "rejected"));
});

describe("what is wrong with a step", () => {
  const wrong: [string, (step: never) => Promise<unknown>, string, string][] = [
    [
      "a result that is no JSON",
      (step: { run: (name: string, work: () => unknown) => Promise<unknown> }) => step.run("big", () => 1n),
      "STEP_NOT_STORABLE",
      'The result of step "big" is not JSON',
    ],
    [
      "a step in a step",
      (step: { run: (name: string, work: () => unknown) => Promise<unknown> }) =>
        step.run("outer", () => step.run("inner", () => 1)),
      "STEP_INVALID",
      'Step "inner" is inside step "outer"',
    ],
    [
      "no name",
      (step: { run: (name: string, work: () => unknown) => Promise<unknown> }) => step.run("", () => 1),
      "STEP_INVALID",
      "1 to 128 characters",
    ],
  ] as never;
  test.for(wrong)("%s ends the run with a code", async ([, work, code, sentence]) => {
    const bad = task({ name: "bad", run: ({ step }) => work(step as never) });
    await using mill = await file.open([bad]);
    const job = await mill.enqueue(bad, null);
    mill.work();
    await expect(mill.waitUntilFinished(job)).rejects.toMatchObject({
      code: "JOB_FAILED",
      message: expect.stringContaining(sentence) as string,
    });
    expect(await mill.job(job.id)).toMatchObject({ lastErrorCode: code, deadLetterReason: "NON_RETRYABLE" });
  });
});

describe("a task that catches", () => {
  class Declined extends Error {
    override readonly name = "Declined";
    readonly code = "CARD_DECLINED";
  }

  test("what a step threw, and goes on to another step, finds the same failure whenever it runs again", async () => {
    const did: string[] = [];
    const told: unknown[] = [];
    const saga = task({
      name: "saga",
      maxAttempts: 2,
      backoff: { delay: "1ms" },
      async run({ step, attempt }) {
        try {
          await step.run("charge", () => {
            did.push(`charge ${attempt}`);
            if (did.length === 1) throw new Declined("no money");
            return "receipt";
          });
          return "paid";
        } catch (error) {
          const { name, code, message } = error as Declined;
          told.push({ name, code, message, same: error instanceof Declined });
          await step.run("undo", () => void did.push(`undo ${attempt}`));
          await step.sleep("nap", "10ms");
          if (attempt === 1) throw new Error("crash");
          return "undone";
        }
      },
    });
    await using mill = await file.open([saga]);
    const job = await mill.enqueue(saga, null);
    mill.work();
    expect(await mill.waitUntilFinished(job)).toBe("undone");
    expect(did).toEqual(["charge 1", "undo 1"]);
    const declined = { name: "Declined", code: "CARD_DECLINED", message: "no money", same: false };
    expect(told).toEqual([declined, declined, declined]);
    expect(await mill.steps(job.id)).toMatchObject([
      { name: "charge", failure: { name: "Declined", code: "CARD_DECLINED", message: "no money" }, result: null },
      { name: "undo", failure: null },
      { name: "nap" },
    ]);
    const { story } = await mill.timeline(job.id);
    expect(story.map(({ summary }) => summary)).toContain(
      'Step 1, "charge": threw in attempt 1, and the run went on: no money.',
    );
  });

  test("what a step threw, and throws it on, does that step again in the next attempt", async () => {
    const did: number[] = [];
    const again = task({
      name: "again",
      backoff: { delay: "1ms" },
      async run({ step, attempt, log }) {
        try {
          return await step.run("fetch", () => {
            did.push(attempt);
            if (attempt === 1) throw new Declined("not yet");
            return attempt;
          });
        } catch (error) {
          log.info({}, "again later");
          throw error;
        }
      },
    });
    await using mill = await file.open([again]);
    const job = await mill.enqueue(again, null);
    mill.work();
    expect(await mill.waitUntilFinished(job)).toBe(2);
    expect(did).toEqual([1, 2]);
    const [failed] = await mill.db.query(sql`select error_code, error_message, error_stack from millrace.attempts`);
    expect(failed).toMatchObject({
      error_code: "CARD_DECLINED",
      error_message: "not yet",
      error_stack: expect.stringContaining("steps.test.ts") as string,
    });
  });

  test("failures of steps side by side keeps them before the next step, in their places", async () => {
    const did: string[] = [];
    const both = task({
      name: "both",
      async run({ step }) {
        const ends = await Promise.allSettled(
          ["a", "b", "c"].map((name) =>
            step.run(name, () => {
              did.push(name);
              if (name !== "b") throw new Error(`no ${name}`);
              return name;
            }),
          ),
        );
        await step.sleep("nap", "10ms");
        return ends.map((end) => (end.status === "fulfilled" ? end.value : (end.reason as Error).message));
      },
    });
    await using mill = await file.open([both]);
    const job = await mill.enqueue(both, null);
    mill.work();
    expect(await mill.waitUntilFinished(job)).toEqual(["no a", "b", "no c"]);
    expect(did).toEqual(["a", "b", "c"]);
  });

  test.for([
    ["that the code has changed", (isNew: boolean) => (isNew ? "other" : "one"), "STEP_CHANGED"],
    ["that a result cannot be stored", () => "unstorable", "STEP_NOT_STORABLE"],
  ] as const)("%s does nothing more, and is given up all the same", async ([, nameOf, code]) => {
    const did: string[] = [];
    let isNew = false;
    const run = task({
      name: "run",
      async run({ step }) {
        const name = nameOf(isNew);
        try {
          await step.run(name, () => {
            did.push(name);
            return name === "unstorable" ? 1n : 1;
          });
          await step.sleep("nap", "1h");
        } catch {
          await step.run("compensate", () => void did.push("compensate")).catch(() => undefined);
        }
        return "fine";
      },
    });
    await using mill = await file.open([run]);
    const job = await mill.enqueue(run, null);
    mill.work();
    if (code === "STEP_CHANGED") {
      await expect.poll(async () => (await mill.job(job.id))?.status, { timeout: 10_000 }).toBe("delayed");
      isNew = true;
      await mill.promote(job.id);
    }
    await expect(mill.waitUntilFinished(job)).rejects.toMatchObject({ code: "JOB_FAILED" });
    expect(await mill.job(job.id)).toMatchObject({ lastErrorCode: code, deadLetterReason: "NON_RETRYABLE" });
    expect(did).toEqual([code === "STEP_CHANGED" ? "one" : "unstorable"]);
  });

  test("that the worker stops takes no step more: the next worker goes on, and nothing is compensated", async () => {
    const did: string[] = [];
    let began!: () => void;
    const begun = new Promise<void>((resolve) => (began = resolve));
    const long = task({
      name: "long",
      async run({ step, signal }) {
        try {
          await step.run("wait", async () => {
            did.push("wait");
            if (did.length > 1) return;
            began();
            await new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason as Error)));
          });
          return "done";
        } catch {
          await step.run("compensate", () => void did.push("compensate"));
          return "compensated";
        }
      },
    });
    await using mill = await file.open([long]);
    const job = await mill.enqueue(long, null);
    const first = mill.work();
    await begun;
    await first.stop({ within: "10ms" });
    mill.work();
    expect(await mill.waitUntilFinished(job)).toBe("done");
    expect(did).toEqual(["wait", "wait"]);
  });

  test("that it was cancelled may still clean up in steps", async () => {
    const did: string[] = [];
    let began!: () => void;
    const begun = new Promise<void>((resolve) => (began = resolve));
    const long = task({
      name: "long",
      async run({ step, signal }) {
        try {
          await step.run("wait", async () => {
            began();
            await new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason as Error)));
          });
        } catch {
          await step.run("clean up", () => void did.push("clean up"));
        }
      },
    });
    await using mill = await file.open([long]);
    const job = await mill.enqueue(long, null);
    mill.work();
    await begun;
    await mill.cancel(job.id, { within: "10s" });
    expect((await mill.job(job.id))?.status).toBe("cancelled");
    expect(did).toEqual(["clean up"]);
  });
});

test("a wait whose event has another name in new code is a change of the run", async () => {
  let event = "a";
  const waits = task({ name: "waits", run: ({ step }) => step.waitForEvent("go", { event }) });
  await using mill = await file.open([waits]);
  const job = await mill.enqueue(waits, null);
  mill.work();
  await expect.poll(async () => (await mill.job(job.id))?.status, { timeout: 10_000 }).toBe("delayed");
  event = "b";
  await mill.promote(job.id);
  await expect(mill.waitUntilFinished(job)).rejects.toMatchObject({
    message: expect.stringContaining(
      'its step 1 was wait "go", and the code waits for event "b" instead of "a"',
    ) as string,
  });
});

test("a replay begins anew, with steps of its own", async () => {
  let did = 0;
  const once = task({ name: "once", run: ({ step }) => step.run("count", () => (did += 1)) });
  await using mill = await file.open([once]);
  const job = await mill.enqueue(once, null);
  mill.work();
  expect(await mill.waitUntilFinished(job)).toBe(1);
  const { id } = await mill.replay(job.id);
  expect(await mill.waitUntilFinished(id)).toBe(2);
});

test("a worker declared dead keeps no step", async () => {
  let release!: () => void;
  const held = new Promise<void>((resolve) => (release = resolve));
  let began!: () => void;
  const begun = new Promise<void>((resolve) => (began = resolve));
  const did: number[] = [];
  const late = task({
    name: "late",
    async run({ step, attempt }) {
      await step.run("slow", async () => {
        did.push(attempt);
        if (did.length > 1) return;
        began();
        await held;
      });
      if (attempt === 9) throw new NonRetryableError("never");
    },
  });
  await using mill = await file.open([late]);
  const job = await mill.enqueue(late, null);
  mill.work();
  await begun;
  await mill.db.query(sql`update millrace.workers set stopped_at = now(), ended = 'lost'`);
  await using second = await file.open([late], { schema: mill.db.schema });
  second.work({ reapEvery: "50ms" });
  await second.waitUntilFinished(job);
  release();
  expect(did).toHaveLength(2);
  const steps = await mill.db.query(sql`select count(*)::int as n from millrace.steps`);
  expect(steps).toEqual([{ n: 1 }]);
});
