/** What a processor says of its job, progress and log, in BullMQ's words. */
import { task } from "millrace";
import { type Job, type Queue, createQueueManager } from "millrace/bullmq";
import { expect, test, vi } from "vitest";
import { gate, useDatabase } from "../support/engine.ts";

const file = useDatabase();
const patience = { timeout: 20_000, interval: 10 };

async function open() {
  const mill = await file.open();
  const manager = createQueueManager({ mill });
  return {
    mill,
    manager,
    queue: manager.getQueue("export"),
    async [Symbol.asyncDispose]() {
      await manager.close();
      await mill.close();
    },
  };
}

/** As it is when it has ended: a job that was read before says what it said then. */
const ended = (queue: Queue, id: string, state: string): Promise<Job> =>
  vi.waitFor(async () => {
    expect(await (await queue.getJob(id))?.getState()).toBe(state);
    return (await queue.getJob(id)) as Job;
  }, patience);

test("progress is 0, then what the processor said: for the processor, and for who reads the job while it runs", async () => {
  await using place = await open();
  const { manager, queue } = place;
  const added = await queue.add("rows", {});
  const [said, looked] = [gate<unknown[]>(), gate()];
  manager.registerWorker("export", async (job) => {
    const before = job.progress;
    await job.updateProgress(42);
    const then = job.progress;
    await job.updateProgress({ rowsDone: 7, of: 9 });
    said.open([before, then, job.progress]);
    await looked.opened;
  });

  expect(await said.opened).toEqual([0, 42, { rowsDone: 7, of: 9 }]);
  expect(added.progress).toBe(0);
  await vi.waitFor(async () => {
    expect((await queue.getActive())[0]?.progress).toEqual({ rowsDone: 7, of: 9 });
  }, patience);
  looked.open();
  expect((await ended(queue, added.id, "completed")).progress).toEqual({ rowsDone: 7, of: 9 });
});

test("a log has the rows of all attempts; start and end count from either side", async () => {
  await using place = await open();
  const { mill, manager, queue } = place;
  const { id } = await queue.add("rows", {}, { jobId: "r-1", attempts: 2, backoff: 1 });
  manager.registerWorker("export", async (job) => {
    await job.log(`begins attempt ${job.attemptsMade + 1}`);
    await job.log("reads");
    if (job.attemptsMade === 0) throw new Error("not yet");
    await job.log("writes");
  });
  await ended(queue, id, "completed");

  const all = ["begins attempt 1", "reads", "begins attempt 2", "reads", "writes"];
  expect(await queue.getJobLogs(id)).toEqual({ logs: all, count: 5 });
  expect(await queue.getJobLogs("r-1", 1, 2)).toEqual({ logs: all.slice(1, 3), count: 5 });
  expect(await queue.getJobLogs(id, -2)).toEqual({ logs: all.slice(-2), count: 5 });
  expect(await queue.getJobLogs(id, -99, -3)).toEqual({ logs: all.slice(0, 3), count: 5 });
  expect(await queue.getJobLogs(id, 0, 99)).toEqual({ logs: all, count: 5 });
  expect(await queue.getJobLogs(id, 0, 1, false)).toEqual({ logs: ["writes", "reads"], count: 5 });
  expect(await queue.getJobLogs(id, -1, -1, false)).toEqual({ logs: ["begins attempt 1"], count: 5 });
  expect(await queue.getJobLogs(id, 3, 2)).toEqual({ logs: [], count: 5 });
  expect(await queue.getJobLogs(id, 5)).toEqual({ logs: [], count: 5 });
  // A queue tells of its own jobs only.
  expect(await manager.getQueue("import").getJobLogs(id)).toEqual({ logs: [], count: 0 });
  expect(await queue.getJobLogs("nobody")).toEqual({ logs: [], count: 0 });
  await expect(queue.getJobLogs(id, Number.NaN)).rejects.toMatchObject({ code: "OPTION_INVALID" });
  expect(await mill.logs(id)).toHaveLength(5);
});

test("more rows are kept than a task keeps unless it says so", async () => {
  await using place = await open();
  const { manager, queue } = place;
  const { id } = await queue.add("rows", {});
  manager.registerWorker("export", async (job) => {
    for (let row = 1; row <= 1_200; row += 1) await job.log(`row ${row}`);
  });
  await ended(queue, id, "completed");

  const { logs, count } = await queue.getJobLogs(id);
  expect(count).toBe(1_200);
  expect(logs).toHaveLength(1_200);
  expect([logs[0], logs.at(-1)]).toEqual(["row 1", "row 1200"]);
});

test("what a task of Millrace said is there too, its fields behind the row", async () => {
  const rows = task({
    name: "rows",
    queue: "export",
    run({ log, progress }) {
      log.warn({ row: 7 }, "left out");
      progress(50);
    },
  });
  await using mill = await file.open([rows]);
  await using manager = createQueueManager({ mill });
  const queue = manager.getQueue("export");
  const { id } = await mill.enqueue(rows, null);
  mill.work();

  expect((await ended(queue, id, "completed")).progress).toBe(50);
  expect(await queue.getJobLogs(id)).toEqual({ logs: ['left out {"row":7}'], count: 1 });
});

test("a value that is no progress fails the processor, which keeps the one before", async () => {
  await using place = await open();
  const { manager, queue } = place;
  const { id } = await queue.add("rows", {}, { attempts: 1 });
  manager.registerWorker("export", async (job) => {
    await job.updateProgress(10);
    try {
      await job.updateProgress("half" as never);
    } finally {
      await job.log(`at ${JSON.stringify(job.progress)}`);
    }
  });

  const failed = await ended(queue, id, "failed");
  expect(failed.failedReason).toMatch(/^Progress is a number from 0 to 100 or an object/);
  expect(failed.progress).toBe(10);
  expect(await queue.getJobLogs(id)).toEqual({ logs: ["at 10"], count: 1 });
});

test("only the job that a processor was given can speak", async () => {
  await using place = await open();
  const { queue } = place;
  const added = await queue.add("rows", {});
  const read = (await queue.getJob(added.id)) as Job;

  for (const job of [added, read]) {
    await expect(job.updateProgress(1)).rejects.toMatchObject({ code: "JOB_STATE" });
    await expect(job.log("me too")).rejects.toMatchObject({ code: "JOB_STATE" });
    expect(job.progress).toBe(0);
  }
  expect(await queue.getJobLogs(added.id)).toEqual({ logs: [], count: 0 });
});
