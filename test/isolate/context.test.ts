/** Tasks in threads and processes: progress, log, dependencies and steps are those of a task in the worker. */
import { describe, expect, test, vi } from "vitest";
import { z } from "zod";
import { type Millrace, task } from "millrace";
import { sql } from "../../src/db/sql.ts";
import { recorder } from "../http/caller.ts";
import { useDatabase } from "../support/engine.ts";
import type { Act } from "./handlers/acts.ts";

// Threads and processes start in a second or several, on a machine that may be busy.
vi.setConfig({ testTimeout: 60_000 });
const patience = { timeout: 40_000, interval: 10 };

const file = useDatabase();

async function open(kind: "thread" | "process", timeout: "1h" | "1s" = "1h") {
  const log = recorder();
  const act = task({
    name: "act",
    input: z.custom<Act>(),
    isolate: { in: kind, size: 1, grace: 200 },
    backoff: { delay: "1ms" },
    timeout,
    run: new URL("./handlers/acts.ts", import.meta.url),
  });
  const mill = await file.open([act], { log });
  return { act, mill, log };
}

const until = (mill: Millrace, id: string, status: string) =>
  vi.waitFor(async () => {
    const job = await mill.job(id);
    if (job?.status !== status) throw new Error(`It is ${job?.status}: ${job?.lastErrorMessage}`);
    return job;
  }, patience);

const said = async (mill: Millrace, id: string) => (await mill.logs(id)).map(({ message }) => message);

describe.each(["thread", "process"] as const)("a task in a %s", (kind) => {
  test("says how far it is, keeps its log, and finds what the jobs before it returned", async () => {
    const { act, mill } = await open(kind);
    await using _ = mill;
    mill.work();
    const flow = await mill.enqueueFlow({
      jobs: {
        first: { task: act, input: { do: "report" } },
        second: { task: act, input: { do: "report" }, after: ["first"] },
      },
    });
    const { second } = flow.jobs;
    expect(await mill.waitUntilFinished(second, { within: "40s" })).toEqual([
      { name: "first", result: [], at: "1970-01-01T00:00:00.000Z" },
    ]);
    expect((await mill.job(second))?.progress).toEqual({ rowsDone: 3 });
    expect(await mill.logs(second)).toMatchObject([
      { n: 1, level: "info", message: "one", fields: { n: 1 } },
      { n: 2, level: "error", message: "two", fields: null },
    ]);
    const bad = await mill.enqueue(act, { do: "badProgress" });
    expect(await until(mill, bad.id, "failed")).toMatchObject({ lastErrorCode: "PROGRESS_INVALID" });
  });

  test("goes on step by step: runs, sleeps and waits for events as one in the worker does", async () => {
    const { act, mill } = await open(kind);
    await using _ = mill;
    mill.work();
    const job = await mill.enqueue(act, { do: "order" });
    await vi.waitFor(async () => {
      const { attempts } = await mill.timeline(job.id);
      expect(attempts.map(({ errorCode }) => errorCode)).toEqual(["STEP_SLEEPS", "STEP_WAITS"]);
    }, patience);
    expect((await mill.timeline(job.id)).attempts.at(-1)).toMatchObject({
      status: "snoozed",
      attempt: 1,
      errorMessage: 'Waits for event "approved" in step "approval".',
    });
    expect(await mill.emit("approved", { by: "ann" })).toEqual({ duplicate: false, woken: 1 });
    expect(await mill.waitUntilFinished(job, { within: "40s" })).toEqual({
      paid: { receipt: 7, at: "1970-01-01T00:00:00.000Z" },
      approval: { by: "ann" },
      never: true,
    });
    expect(await said(mill, job.id)).toEqual(["pays in attempt 1", "falls asleep"]);
  });

  test("sleeps even when it catches that, and ends what it has begun first", async () => {
    const { act, mill } = await open(kind);
    await using _ = mill;
    mill.work();
    const stubborn = await mill.enqueue(act, { do: "stubborn" });
    const unawaited = await mill.enqueue(act, { do: "unawaited" });
    await until(mill, stubborn.id, "completed");
    expect(await said(mill, stubborn.id)).toEqual(["caught", "after"]);
    await until(mill, unawaited.id, "completed");
    expect(await said(mill, unawaited.id)).toEqual(["done all the same"]);
  });

  test("whose code has changed is told so, whether it asks for another step or for none", async () => {
    const { act, mill } = await open(kind);
    await using _ = mill;
    mill.work();
    const job = await mill.enqueue(act, { do: "changed" });
    await until(mill, job.id, "delayed");
    await mill.db.query(
      sql`update millrace.jobs set input = '{"do": "changed", "name": "other"}' where id = ${job.id}::uuid`,
    );
    await mill.promote(job.id);
    expect(await until(mill, job.id, "failed")).toMatchObject({
      lastErrorCode: "STEP_CHANGED",
      lastErrorMessage: expect.stringContaining('the code asks for step "other" in its place'),
    });
    const forgiving = await mill.enqueue(act, { do: "forgiving" });
    await until(mill, forgiving.id, "delayed");
    await mill.db.query(
      sql`update millrace.jobs set input = '{"do": "forgiving", "name": "other"}' where id = ${forgiving.id}::uuid`,
    );
    await mill.promote(forgiving.id);
    expect(await until(mill, forgiving.id, "failed")).toMatchObject({ lastErrorCode: "STEP_CHANGED" });
    expect(await said(mill, forgiving.id)).toEqual([]);
    const forgetful = await mill.enqueue(act, { do: "forgetful" });
    expect(await until(mill, forgetful.id, "failed")).toMatchObject({
      lastErrorCode: "STEP_CHANGED",
      lastErrorMessage: expect.stringContaining("the code has ended without it"),
    });
  });

  test("that goes on after a step that threw finds the same failure in the next attempt", async () => {
    const { act, mill } = await open(kind);
    await using _ = mill;
    mill.work();
    const { id } = await mill.enqueue(act, { do: "forgiving", name: "fails" });
    await until(mill, id, "completed");
    expect(await said(mill, id)).toEqual(["compensates CARD_DECLINED"]);
    expect(await mill.steps(id)).toMatchObject([
      { name: "fails", failure: { name: "Error", code: "CARD_DECLINED", message: "no" } },
      { name: "compensate", failure: null },
      { name: "rest" },
    ]);
  });

  test("that is killed in the middle of a step keeps nothing of it, and does what was done before it no more", async () => {
    const { act, mill } = await open(kind, "1s");
    await using _ = mill;
    mill.work();
    const { id } = await mill.enqueue(act, { do: "busyStep" }, { maxAttempts: 2 });
    expect(await until(mill, id, "failed")).toMatchObject({ attempt: 2, lastErrorCode: "TIMEOUT" });
    const steps = await mill.db.query(
      sql`select name, result, attempt::int from millrace.steps where job_id = ${id}::uuid`,
    );
    expect(steps).toEqual([{ name: "before", result: 1, attempt: 1 }]);
    expect(await said(mill, id)).toEqual(["looping", "looping"]);
  });

  test("has no transactions, and is told what is wrong with a step", async () => {
    const { act, mill } = await open(kind);
    await using _ = mill;
    mill.work();
    const { id } = await mill.enqueue(act, { do: "transaction" });
    expect(await until(mill, id, "failed")).toMatchObject({
      lastErrorCode: "NON_RETRYABLE",
      lastErrorMessage:
        'step.transaction needs the worker\'s own thread, and task "act" runs isolated: run it without isolate, or use step.run.',
    });
    const wrong = await mill.enqueue(act, { do: "wrongStep" });
    expect(await until(mill, wrong.id, "failed")).toMatchObject({ lastErrorCode: "STEP_INVALID" });
  });
});

test("a step in a thread whose worker lost the job is not kept, and the thread is told", async () => {
  const { act, mill, log } = await open("thread");
  await using _ = mill;
  mill.work();
  const { id } = await mill.enqueue(act, { do: "lateStep" });
  await vi.waitFor(() => expect(log.lines.map(({ message }) => message)).toContain("in the step"), patience);
  await mill.db.query(sql`delete from millrace.leases`);
  const late = await vi.waitFor(() => {
    const found = log.lines.find(({ message }) => message === "not kept");
    if (found === undefined) throw new Error("Nobody said so.");
    return found;
  }, patience);
  expect(late.fields).toMatchObject({ code: "JOB_STATE", ours: true });
  expect(await mill.db.query(sql`select from millrace.steps where job_id = ${id}::uuid`)).toEqual([]);
});
