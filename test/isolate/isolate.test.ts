/** Tasks in threads and processes of their own: the same context and the same errors, and an end that is theirs alone. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { join } from "node:path";
import { describe, expect, test, vi } from "vitest";
import { z } from "zod";
import { type IsolateOptions, type Job, type Millrace, task } from "millrace";
import { sql } from "../../src/db/sql.ts";
import { useDatabase } from "../support/engine.ts";
import { recorder } from "../http/caller.ts";
import type { Act } from "./handlers/acts.ts";

// Threads and processes start in a second or several, on a machine that may be busy.
vi.setConfig({ testTimeout: 60_000 });
const patience = { timeout: 40_000, interval: 10 };

const file = useDatabase();
const handler = (name: string): URL => new URL(`./handlers/${name}.ts`, import.meta.url);

const kinds = ["thread", "process"] as const;

async function open(isolate: IsolateOptions, timeout?: "300ms") {
  const log = recorder();
  const act = task({
    name: "act",
    input: z.custom<Act>(),
    isolate,
    backoff: { delay: "1h" },
    run: handler("acts"),
    ...(timeout && { timeout }),
  });
  const mill = await file.open([act], { log });
  const line = (message: string | RegExp) =>
    vi.waitFor(() => {
      const found = log.lines.find((one) =>
        typeof message === "string" ? one.message === message : message.test(one.message),
      );
      if (found === undefined) throw new Error(`Nobody said ${message}.`);
      return found;
    }, patience);
  return { act, mill, log, line };
}

/** The job, once its attempt has ended. */
async function ended(mill: Millrace, id: string, attempt = 1): Promise<Job> {
  const rows = sql`select count(*)::int as n from millrace.attempts where job_id = ${id}::uuid and attempt >= ${attempt}`;
  return vi.waitFor(async () => {
    const [row] = await mill.db.query<{ n: number }>(rows);
    const job = (await mill.job(id)) as Job;
    if (job.status !== "completed") expect(row?.n).toBeGreaterThan(0);
    return job;
  }, patience);
}

describe.each(kinds)("a task in a %s", (kind) => {
  test("is given the context of its job, and what it logs is logged by the worker with the job's fields", async () => {
    const { act, mill, line } = await open({ in: kind });
    await using _ = mill;
    mill.work();
    const { id } = await mill.enqueue(act, { do: "tell" }, { maxAttempts: 7 });
    expect((await ended(mill, id)).status).toBe("completed");
    const { level, fields } = await line("here");
    expect(level).toBe("info");
    expect(fields).toMatchObject({
      job: id,
      id,
      task: "act",
      queue: "default",
      attempt: 1,
      maxAttempts: 7,
      input: { do: "tell" },
    });
    if (kind === "thread") expect(fields["threadId"]).toBeGreaterThan(0);
    else expect(fields["pid"]).not.toBe(process.pid);
  });

  test("fails, gives up, waits and snoozes as one in the worker does", async () => {
    const { act, mill } = await open({ in: kind, size: 1 });
    await using _ = mill;
    mill.work();
    const after = async (what: string): Promise<Job> => ended(mill, (await mill.enqueue(act, { do: what })).id);

    const failed = await after("fail");
    expect(failed).toMatchObject({
      status: "delayed",
      attempt: 2,
      lastErrorCode: "UNKNOWN",
      lastErrorMessage: "an ordinary error",
    });
    expect(failed.lastErrorStack).toMatch(/at .*acts\.ts:\d+/);
    expect(await after("failWithCode")).toMatchObject({ status: "delayed", lastErrorCode: "CARD_DECLINED" });
    expect(await after("giveUp")).toMatchObject({
      status: "failed",
      lastErrorCode: "GONE",
      deadLetterReason: "NON_RETRYABLE",
    });
    expect(await after("badPayload")).toMatchObject({ status: "failed", lastErrorCode: "BAD_PAYLOAD" });
    expect(await after("slowDown")).toMatchObject({ status: "delayed", attempt: 2, lastErrorCode: "RATE_LIMIT" });
    expect(await after("snooze")).toMatchObject({ status: "delayed", attempt: 1, lastErrorCode: null });
    expect(await after("complete")).toMatchObject({
      status: "failed",
      lastErrorMessage: expect.stringContaining("complete(tx) needs the worker's own thread"),
    });
  });

  test("that heeds its signal after a timeout ends as timed out, and its thread or process runs the next job", async () => {
    const { act, mill, log, line } = await open({ in: kind, size: 1 }, "300ms");
    await using _ = mill;
    mill.work();
    const { id } = await mill.enqueue(act, { do: "obey" });
    expect(await ended(mill, id)).toMatchObject({ status: "delayed", attempt: 2, lastErrorCode: "TIMEOUT" });
    expect((await line("aborted")).fields).toMatchObject({ reason: "TIMEOUT" });
    await ended(mill, (await mill.enqueue(act, { do: "tell" })).id);
    const place = ({ pid, threadId }: Record<string, unknown>) => ({ pid, threadId });
    expect(place((await line("here")).fields)).toEqual(place((await line("obeying")).fields));
    expect(log.lines.filter(({ level }) => level === "error")).toEqual([]);
  });

  test("that never looks up is killed after the grace and ends as timed out; the next job has a new one", async () => {
    const { act, mill, line } = await open({ in: kind, size: 1, grace: 200 }, "300ms");
    await using _ = mill;
    mill.work();
    const { id } = await mill.enqueue(act, { do: "loop" });
    await line("looping");
    const loopedAt = performance.now();
    expect(await ended(mill, id)).toMatchObject({ status: "delayed", attempt: 2, lastErrorCode: "TIMEOUT" });
    expect(performance.now() - loopedAt).toBeLessThan(15_000); // the loop itself has no end
    const [row] = await mill.db.query(sql`select outcome from millrace.attempts where job_id = ${id}::uuid`);
    expect(row).toEqual({ outcome: "timed_out" });
    expect((await ended(mill, (await mill.enqueue(act, { do: "tell" })).id)).status).toBe("completed");
  });

  test("that ends its thread or process fails alone, and is tried again", async () => {
    const { act, mill } = await open({ in: kind, size: 2 });
    await using _ = mill;
    mill.work({ concurrency: 8 });
    const beside = await mill.enqueueMany(
      act,
      Array.from({ length: 4 }, () => ({ do: "wait", ms: 300 })),
    );
    const crashing = {
      exit: /exited with code 3/,
      reject: /code 1; nobody caught: nobody awaits this/,
      throwLater: /nobody catches this/,
    };
    for (const [what, message] of Object.entries(crashing)) {
      const { id } = await mill.enqueue(act, { do: what });
      expect(await ended(mill, id)).toMatchObject({
        status: "delayed",
        attempt: 2,
        lastErrorCode: "ISOLATE_CRASHED",
        lastErrorMessage: expect.stringMatching(message),
      });
    }
    for (const id of beside) expect(await ended(mill, id)).toMatchObject({ status: "completed", attempt: 1 });
  });

  test("beyond its memory limit fails as such, and alone", async () => {
    const { act, mill } = await open({ in: kind, size: 2, memoryMb: 64 });
    await using _ = mill;
    mill.work();
    const beside = await mill.enqueue(act, { do: "wait", ms: 500 });
    const { id } = await mill.enqueue(act, { do: "hoard" });
    expect(await ended(mill, id)).toMatchObject({
      status: "delayed",
      lastErrorCode: "MEMORY_LIMIT",
      lastErrorMessage: expect.stringMatching(/its heap reached the limit of 64 MiB/),
    });
    expect(await ended(mill, beside.id)).toMatchObject({ status: "completed", attempt: 1 });
    expect((await ended(mill, (await mill.enqueue(act, { do: "tell" })).id)).status).toBe("completed");
  });

  test("shares a few of them among many jobs, whose time begins when they get one", async () => {
    const { act, mill, log } = await open({ in: kind, size: 2 }, "300ms");
    await using _ = mill;
    mill.work({ concurrency: 50 });
    const waiting = await mill.enqueueMany(
      act,
      Array.from({ length: 20 }, () => ({ do: "wait", ms: 50 })),
    );
    const ids = await mill.enqueueMany(
      act,
      Array.from({ length: 40 }, () => ({ do: "tell" })),
    );
    for (const id of [...waiting, ...ids])
      expect(await ended(mill, id)).toMatchObject({ status: "completed", attempt: 1 });
    const places = log.lines
      .filter(({ message }) => message === "here")
      .map(({ fields }) => `${fields["pid"]} ${fields["threadId"]}`);
    expect(places).toHaveLength(40);
    expect(new Set(places).size).toBeLessThanOrEqual(2);
  });

  test("is killed when its worker must stop, and goes back without an attempt used", async () => {
    const { act, mill, line } = await open({ in: kind, size: 1 });
    await using _ = mill;
    const worker = mill.work();
    const running = await mill.enqueue(act, { do: "loop" });
    await line("looping");
    const queued = await mill.enqueue(act, { do: "tell" });
    await vi.waitFor(async () => expect((await mill.job(queued.id))?.status).toBe("active"), patience);
    expect(await worker.stop({ within: 0 })).toEqual({ returned: 2, hung: 0 });
    for (const { id } of [running, queued])
      expect(await mill.job(id)).toMatchObject({ status: "waiting", attempt: 1, lastErrorCode: "WORKER_SHUTDOWN" });
    expect(await mill.db.query(sql`select ended from millrace.workers`)).toEqual([{ ended: "stopped" }]);
  });

  test("is waited for when its worker stops, and believed", async () => {
    const { act, mill, line } = await open({ in: kind, size: 1 });
    await using _ = mill;
    const worker = mill.work();
    await mill.enqueue(act, { do: "tell" });
    await line("here");
    const { id } = await mill.enqueue(act, { do: "wait", ms: 400 });
    await line("waiting"); // claimed is not enough: what waits for a thread goes back
    expect(await worker.stop()).toEqual({ returned: 0, hung: 0 });
    expect((await mill.job(id))?.status).toBe("completed");
  });

  test("may log what cannot be cloned, which becomes text", async () => {
    const { act, mill, line } = await open({ in: kind });
    await using _ = mill;
    mill.work();
    await ended(mill, (await mill.enqueue(act, { do: "logUncloneable" })).id);
    expect((await line("with a function")).fields).toMatchObject({ n: 2, fn: expect.stringContaining("Function") });
  });

  test("that returns what is no JSON is a dead letter, as one in the worker", async () => {
    const { act, mill } = await open({ in: kind });
    await using _ = mill;
    mill.work();
    const { id } = await mill.enqueue(act, { do: "uncloneable" });
    expect(await ended(mill, id)).toMatchObject({
      status: "failed",
      lastErrorCode: "RESULT_NOT_STORABLE",
      lastErrorMessage: "The result is a function, which JSON cannot hold.",
      deadLetterReason: "NON_RETRYABLE",
    });
  });

  test("whose input cannot be cloned is given up, with a sentence", async () => {
    const odd = task({
      name: "odd",
      input: z.object({}).transform(() => ({ fn: () => 1 })),
      isolate: kind,
      run: handler("acts"),
    });
    await using mill = await file.open([odd]);
    mill.work();
    const { id } = await mill.enqueue(odd, {});
    expect(await ended(mill, id)).toMatchObject({
      status: "failed",
      lastErrorCode: "NON_RETRYABLE",
      lastErrorMessage: expect.stringMatching(/^The input of task "odd" cannot be sent to a (thread|process)/),
    });
  });

  test("says why its module cannot be used", async () => {
    const bad = task({ name: "bad", isolate: kind, run: handler("no-default") });
    const broken = task({ name: "broken", isolate: kind, backoff: { delay: "1h" }, run: handler("broken") });
    await using mill = await file.open([bad, broken]);
    mill.work();
    expect(await ended(mill, (await mill.enqueue(bad, {})).id)).toMatchObject({
      status: "failed",
      lastErrorMessage: expect.stringMatching(/no-default\.ts cannot be used: its default export is not a function/),
    });
    expect(await ended(mill, (await mill.enqueue(broken, {})).id)).toMatchObject({
      status: "delayed",
      lastErrorCode: "NO_LICENCE",
      lastErrorMessage: expect.stringMatching(/broken\.ts cannot be used: the licence file is missing/),
    });
  });
});

test("a process killed from outside fails its own job only", async () => {
  const { act, mill, line } = await open({ in: "process", size: 2 });
  await using _ = mill;
  mill.work();
  const beside = await mill.enqueue(act, { do: "wait", ms: 500 });
  const { id } = await mill.enqueue(act, { do: "loop" });
  process.kill((await line("looping")).fields["pid"] as number, "SIGKILL");
  expect(await ended(mill, id)).toMatchObject({
    status: "delayed",
    lastErrorCode: "ISOLATE_CRASHED",
    lastErrorMessage: "The process was killed by SIGKILL.",
  });
  expect(await ended(mill, beside.id)).toMatchObject({ status: "completed", attempt: 1 });
});

test("a busy process does not outlive a worker that is killed", async () => {
  const parent = spawn(
    process.execPath,
    ["--import", import.meta.resolve("tsx"), join(import.meta.dirname, "handlers/parent.ts")],
    {
      stdio: ["ignore", "pipe", "inherit"],
    },
  );
  const [text] = (await once(createInterface({ input: parent.stdout }), "line")) as [string];
  const { pid } = JSON.parse(text) as { pid: number };
  process.kill(pid, 0); // it is there
  parent.kill("SIGKILL");
  await vi.waitFor(() => expect(() => process.kill(pid, 0)).toThrow("ESRCH"), patience);
});

test("a module that is not there is refused when the worker starts", async () => {
  const gone = task({ name: "gone", isolate: "thread", run: new URL("./handlers/gone.ts", import.meta.url) });
  await using mill = await file.open([gone]);
  expect(() => mill.work()).toThrow(
    /task "gone": run names a module that does not exist: there is no file .*gone\.ts\./,
  );
});
