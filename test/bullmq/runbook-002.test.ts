/**
 * Every TypeScript snippet of runbook 002 about queues, as an engineer pastes it, between `// §` and an empty line; around it, what
 * was the case before and what is the case then. The manager is the one that `queues/queue.config.ts` exports.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Job, type Processor } from "millrace/bullmq";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { type TestDatabase, testDatabase } from "../support/database.ts";
import { gate, tally } from "../support/engine.ts";
import { QueueName, queueManager } from "./queues/queue.config.ts";

const folder = await mkdtemp(join(tmpdir(), "millrace-runbook-"));
let database: TestDatabase;

// The environment of the engineer: a server by DATABASE_URL, or nothing but a folder.
beforeAll(async () => {
  database = await testDatabase();
  vi.stubEnv("MILLRACE_DATA_DIR", folder);
  vi.stubEnv("DATABASE_URL", database.backend === "postgres" ? database.url : undefined);
  await queueManager.getAllStats(); // making an embedded database takes its time: here, where there is more of it
});

afterEach(async () => {
  vi.restoreAllMocks();
  vi.useRealTimers();
  await queueManager.close();
  const queue = queueManager.getQueue(QueueName.AI_ANALYSIS);
  await queue.resume();
  for (const job of await queue.getWaiting()) await job.remove();
  await queue.clean(0);
});

afterAll(async () => {
  await queueManager.close();
  await database[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

const printed = (method: "log" | "warn" | "error") => vi.spyOn(console, method).mockImplementation(() => undefined);

/** Adds jobs and runs them with one worker until all have ended. */
async function ended(names: readonly string[], processor: (job: Job) => unknown): Promise<void> {
  const queue = queueManager.getQueue(QueueName.AI_ANALYSIS);
  await queue.addBulk(names.map((name) => ({ name, data: {}, opts: { attempts: 1 } })));
  await worked(names.length, processor);
}

async function worked(count: number, processor: (job: Job) => unknown): Promise<void> {
  const done = tally<string>();
  const worker = queueManager.registerWorker(QueueName.AI_ANALYSIS, async (job) => {
    try {
      await processor(job);
    } finally {
      done.add(job.id);
    }
  });
  await done.reached(count);
  await worker.close();
}

const overloaded = (): void => {
  throw new Error("the model is overloaded");
};

test("2.2 pause, 2.3 resume: nothing starts in between", async () => {
  const queue = queueManager.getQueue(QueueName.AI_ANALYSIS);

  // § 2.2
  await queueManager.pauseQueue(QueueName.AI_ANALYSIS);

  const ran = gate();
  const worker = queueManager.registerWorker(QueueName.AI_ANALYSIS, () => ran.open());
  await worker.waitUntilReady();
  await queue.add("analyse", {});
  expect(await queue.isPaused()).toBe(true);
  expect(await queueManager.getQueueStats(QueueName.AI_ANALYSIS)).toMatchObject({ waiting: 1, active: 0 });

  // § 2.3
  await queueManager.resumeQueue(QueueName.AI_ANALYSIS);

  await ran.opened;
  expect(await queue.isPaused()).toBe(false);
});

test("2.4 clean: failed jobs go, those of the last 24 hours stay", async () => {
  const queue = queueManager.getQueue(QueueName.AI_ANALYSIS);
  await ended(["analyse"], overloaded);

  // § 2.4
  // Clean with 24 hour grace period
  await queueManager.cleanQueue(QueueName.AI_ANALYSIS, 24 * 3600 * 1000);

  expect(await queue.getFailedCount()).toBe(1);
  await queueManager.cleanQueue(QueueName.AI_ANALYSIS, 0);
  expect(await queue.getFailedCount()).toBe(0);
});

test("2.5 retry: every failed job runs again", async () => {
  await ended(["first", "second"], overloaded);

  // § 2.5
  // Retry specific failed job
  const queue = queueManager.getQueue(QueueName.AI_ANALYSIS);
  const failedJobs = await queue.getFailed();

  for (const job of failedJobs) {
    await job.retry();
  }

  expect(await queue.getJobCounts()).toMatchObject({ failed: 0, waiting: 2 });
  await worked(2, () => undefined);
  expect(await queue.getJobCounts()).toMatchObject({ failed: 0, completed: 2 });
});

test("2.6 remove a stuck job, by the id it was given", async () => {
  await queueManager.getQueue(QueueName.AI_ANALYSIS).add("analyse", {}, { jobId: "job-id" });

  // § 2.6
  const queue = queueManager.getQueue(QueueName.AI_ANALYSIS);
  const stuckJob = await queue.getJob("job-id");

  if (stuckJob) {
    await stuckJob.remove();
  }

  expect(stuckJob).toBeDefined();
  expect(await queue.getJob("job-id")).toBeUndefined();
  expect(await queue.getWaitingCount()).toBe(0);
});

test("2.7 metrics: one of each", async () => {
  await ended(["well", "badly"], (job) => job.name === "badly" && overloaded());
  await queueManager.getQueue(QueueName.AI_ANALYSIS).add("analyse", {});
  const log = printed("log");

  // § 2.7
  // Get detailed queue statistics
  const stats = await queueManager.getQueueStats(QueueName.AI_ANALYSIS);

  console.log(`
Waiting: ${stats.waiting}
Active: ${stats.active}
Completed: ${stats.completed}
Failed: ${stats.failed}
Total: ${stats.total}
`);

  expect(log).toHaveBeenCalledWith("\nWaiting: 1\nActive: 0\nCompleted: 1\nFailed: 1\nTotal: 3\n");
});

test("5.1 high queue length: seen, then worked off ten at a time", async () => {
  const jobs = Array.from({ length: 12 }, () => ({ name: "analyse", data: {} }));
  await queueManager.getQueue(QueueName.AI_ANALYSIS).addBulk(jobs);
  const log = printed("log");

  // § 5.1, diagnosis
  const stats = await queueManager.getQueueStats(QueueName.AI_ANALYSIS);
  console.log("Waiting jobs:", stats.waiting);
  console.log("Active jobs:", stats.active);

  expect(log.mock.calls).toEqual([
    ["Waiting jobs:", 12],
    ["Active jobs:", 0],
  ]);
  const started = tally<string>();
  const finish = gate();
  const processor: Processor = (job) => {
    started.add(job.id);
    return finish.opened;
  };

  // § 5.1, solution
  // Increase concurrency
  const worker = queueManager.registerWorker(
    QueueName.AI_ANALYSIS,
    processor,
    { concurrency: 10 }, // Increase from 3 to 10
  );

  await started.reached(10);
  expect(await queueManager.getQueueStats(QueueName.AI_ANALYSIS)).toMatchObject({ active: 10, waiting: 2 });
  finish.open();
  await started.reached(12);
  await worker.close();
  expect(await queueManager.getQueueStats(QueueName.AI_ANALYSIS)).toMatchObject({ completed: 12, total: 12 });
});

test("5.5 failed jobs: id, reason and stack of each", async () => {
  await ended(["analyse"], overloaded);
  const log = printed("log");

  // § 5.5
  const queue = queueManager.getQueue(QueueName.AI_ANALYSIS);
  const failedJobs = await queue.getFailed(0, 10);

  for (const job of failedJobs) {
    console.log("Job ID:", job.id);
    console.log("Failed reason:", job.failedReason);
    console.log("Stack trace:", job.stacktrace);
  }

  expect(log.mock.calls).toEqual([
    ["Job ID:", expect.stringMatching(/^[0-9a-f-]{36}$/)],
    ["Failed reason:", "the model is overloaded"],
    ["Stack trace:", [expect.stringContaining("runbook-002.test.ts")]],
  ]);
});

test("7.1 the monitor warns of more than 100 waiting jobs and of more than 5 % failures", async () => {
  await ended(
    Array.from({ length: 6 }, () => "analyse"),
    overloaded,
  );
  const jobs = Array.from({ length: 101 }, () => ({ name: "analyse", data: {} }));
  await queueManager.getQueue(QueueName.AI_ANALYSIS).addBulk(jobs);
  await queueManager.getQueue(QueueName.EXPORT).add("pdf", {});
  const [warned, failed] = [gate<string>(), gate<string>()];
  const warn = printed("warn").mockImplementation((text: string) => warned.open(text));
  const error = printed("error").mockImplementation((text: string) => failed.open(text));
  vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] });

  // § 7.1
  // Example: Monitor queue health
  // oxlint-disable-next-line typescript/no-misused-promises
  setInterval(async () => {
    const stats = await queueManager.getAllStats();

    for (const stat of stats) {
      if (stat.waiting > 100) {
        console.warn(`Queue ${stat.name} has ${stat.waiting} waiting jobs`);
        // Send alert
      }

      if (stat.failed / stat.total > 0.05) {
        console.error(`Queue ${stat.name} has high failure rate`);
        // Send alert
      }
    }
  }, 60000); // Every minute

  vi.advanceTimersByTime(60_000);
  expect(await warned.opened).toBe("Queue ai-analysis has 101 waiting jobs");
  expect(await failed.opened).toBe("Queue ai-analysis has high failure rate");
  expect([warn.mock.calls.length, error.mock.calls.length]).toEqual([1, 1]);
});
