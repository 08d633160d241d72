import { once } from "node:events";
import { task } from "millrace";
import {
  type Job,
  type QueueManager,
  type QueueManagerOptions,
  UnrecoverableError,
  createQueueManager,
} from "millrace/bullmq";
import { describe, expect, test } from "vitest";
import { freshSchema, gate, tally, useDatabase } from "../support/engine.ts";

const file = useDatabase();

/** A manager in a schema of its own, or in the `schema` of another one. */
function open(options: QueueManagerOptions = {}): QueueManager {
  return createQueueManager({ schema: freshSchema(), poolSize: 5, ...file.door, ...options });
}

/** Runs `count` jobs of the queue, and settles them. Returns their names in the order of their start. */
async function work(
  manager: QueueManager,
  queue: string,
  count: number,
  processor: (job: Job) => unknown = () => undefined,
): Promise<string[]> {
  const names: string[] = [];
  const ended = tally<string>();
  const worker = manager.registerWorker(
    queue,
    async (job) => {
      names.push(job.name);
      try {
        await processor(job);
      } finally {
        ended.add(job.id);
      }
    },
    { concurrency: 1 },
  );
  await ended.reached(count);
  await worker.close();
  return names;
}

const failing = (message: string) => (): void => {
  throw new Error(message);
};

describe("a job", () => {
  test("reaches its processor with what it was added with", async () => {
    await using manager = open();
    const queue = manager.getQueue<{ sceneId: string }>("ai-analysis");
    const added = await queue.add("analyse-scene", { sceneId: "123" }, { attempts: 5 });
    const seen = gate<{ job: Job<{ sceneId: string }>; token: string | undefined }>();

    const worker = manager.registerWorker<{ sceneId: string }>("ai-analysis", (job, token) =>
      seen.open({ job, token }),
    );

    const { job, token } = await seen.opened;
    expect(job).toMatchObject({
      id: added.id,
      name: "analyse-scene",
      queueName: "ai-analysis",
      data: { sceneId: "123" },
      opts: { attempts: 5 },
      attemptsMade: 0,
      timestamp: added.timestamp,
    });
    expect(token).toMatch(/^\d+$/);
    await worker.close();
    const stored = await queue.getJob(added.id);
    expect(stored).toMatchObject({ name: "analyse-scene", attemptsMade: 1, data: { sceneId: "123" } });
    expect(stored?.failedReason).toBeUndefined();
    expect(stored?.processedOn).toBeGreaterThanOrEqual(stored?.timestamp as number);
    expect(stored?.finishedOn).toBeGreaterThanOrEqual(stored?.processedOn as number);
    expect(await added.getState()).toBe("completed");
  });

  test("has three attempts and an exponential pause from two seconds, unless it or its manager says otherwise", async () => {
    await using manager = open();
    const queue = manager.getQueue("export");
    const usual = await queue.add("job", {});
    const own = await queue.add("job", {}, { attempts: 5, priority: 1, backoff: 100 });

    expect(usual.opts).toEqual({ attempts: 3, backoff: { type: "exponential", delay: 2000 } });
    expect(own.opts).toEqual({ attempts: 5, priority: 1, backoff: 100 });
    expect((await queue.getJob(own.id))?.opts).toEqual({ attempts: 5, priority: 1 });

    await using careful = open({ defaultJobOptions: { attempts: 1 } });
    const once = await careful.getQueue("export").add("job", {});
    expect((await careful.getQueue("export").getJob(once.id))?.opts.attempts).toBe(1);
  });

  test.for([
    { opts: {}, pauseMs: 2_000 },
    { opts: { backoff: 60_000 }, pauseMs: 60_000 },
    { opts: { backoff: { type: "exponential", delay: 5_000 } }, pauseMs: 5_000 },
  ] as const)("that fails with $opts is tried again after $pauseMs ms, without jitter", async ({ opts, pauseMs }) => {
    await using mill = await file.open();
    await using manager = createQueueManager({ mill });
    const queue = manager.getQueue("flaky");
    const { id } = await queue.add("job", {}, opts);

    await work(manager, "flaky", 1, failing("not yet"));

    const [delayed] = await queue.getDelayed();
    expect(delayed).toMatchObject({ id, attemptsMade: 1, failedReason: "not yet" });
    expect(delayed?.finishedOn).toBeUndefined();
    const stored = await mill.job(id);
    const pause = Number(stored?.runAt) - Number(stored?.startedAt);
    expect(pause).toBeGreaterThanOrEqual(pauseMs);
    expect(pause).toBeLessThan(pauseMs + 10_000);
  });

  test("that failed for good tells why and where, and succeeds when retried", async () => {
    await using manager = open();
    const queue = manager.getQueue("ai-analysis");
    const { id } = await queue.add("job", {}, { attempts: 1 });

    await work(manager, "ai-analysis", 1, failing("the model is overloaded"));

    const [failed] = await queue.getFailed();
    expect(failed).toMatchObject({ id, attemptsMade: 1, failedReason: "the model is overloaded" });
    expect(failed?.stacktrace).toEqual([expect.stringContaining("Error: the model is overloaded\n")]);
    expect(await failed?.getState()).toBe("failed");

    await failed?.retry();
    expect(await failed?.getState()).toBe("waiting");
    const made: number[] = [];
    await work(manager, "ai-analysis", 1, (job) => made.push(job.attemptsMade));

    expect(made).toEqual([1]);
    const completed = await queue.getJob(id);
    expect(completed).toMatchObject({ attemptsMade: 2, stacktrace: [] });
    expect(completed?.failedReason).toBeUndefined();
  });

  test("that throws an UnrecoverableError is not tried again", async () => {
    await using manager = open();
    const queue = manager.getQueue("ai-analysis");
    await queue.add("job", {}, { attempts: 3 });

    await work(manager, "ai-analysis", 1, () => {
      throw new UnrecoverableError("no such scene");
    });

    expect(await queue.getFailed()).toMatchObject([{ attemptsMade: 1, failedReason: "no such scene" }]);
  });

  test("can be removed unless it runs", async () => {
    await using manager = open();
    const queue = manager.getQueue("ai-analysis");
    const running = await queue.add("running", {});
    const started = gate();
    const finish = gate();
    const worker = manager.registerWorker("ai-analysis", () => {
      started.open();
      return finish.opened;
    });
    await started.opened;
    const waiting = await queue.add("waiting", {}, { delay: 60_000 });

    await waiting.remove();
    await expect(running.remove()).rejects.toMatchObject({ code: "JOB_STATE" });

    expect(await queue.getJob(waiting.id)).toBeUndefined();
    expect(await waiting.getState()).toBe("unknown");
    expect(await queue.getActive()).toMatchObject([{ id: running.id, attemptsMade: 0 }]);
    finish.open();
    await worker.close();
  });

  test("that is delayed waits, and is due once promoted", async () => {
    await using manager = open();
    const queue = manager.getQueue("notifications");
    const job = await queue.add("job", {}, { delay: 3_600_000 });

    expect(await job.getState()).toBe("delayed");
    expect(await queue.getJobCounts()).toMatchObject({ delayed: 1, waiting: 0 });
    await job.promote();
    expect(await job.getState()).toBe("waiting");
    await expect(job.promote()).rejects.toMatchObject({ code: "JOB_STATE" });
  });
});

describe("a jobId", () => {
  test("keeps a second job of the name out, and finds the first one", async () => {
    await using manager = open();
    const queue = manager.getQueue("export");
    const first = await queue.add("pdf", { n: 1 }, { jobId: "invoice-7", delay: 60_000 });
    const second = await queue.add("pdf", { n: 2 }, { jobId: "invoice-7" });
    const elsewhere = await manager.getQueue("notifications").add("pdf", { n: 3 }, { jobId: "invoice-7" });

    expect(second).toMatchObject({ id: first.id, data: { n: 1 } });
    expect(elsewhere.id).not.toBe(first.id);
    expect(await queue.getJob("invoice-7")).toMatchObject({ id: first.id, data: { n: 1 } });
    expect(await manager.getQueue("notifications").getJob("invoice-7")).toMatchObject({ data: { n: 3 } });
    expect(await queue.getJob("invoice-8")).toBeUndefined();
  });

  test("is free again once its job is removed, or cleaned away", async () => {
    await using manager = open();
    const queue = manager.getQueue("export");
    const first = await queue.add("pdf", { n: 1 }, { jobId: "invoice-7" });
    await first.remove();
    const second = await queue.add("pdf", { n: 2 }, { jobId: "invoice-7" });
    await work(manager, "export", 1);
    await queue.clean(0);

    const [third] = await queue.addBulk([{ name: "pdf", data: { n: 3 }, opts: { jobId: "invoice-7" } }]);

    expect(new Set([first.id, second.id, third?.id]).size).toBe(3);
    expect(await queue.getJob("invoice-7")).toMatchObject({ id: third?.id, data: { n: 3 } });
    expect(await queue.getWaiting()).toMatchObject([{ id: third?.id }]);
  });

  test("may look like one of ours", async () => {
    await using manager = open();
    const jobId = "01936d2c-7a00-7000-8000-000000000000";
    const job = await manager.getQueue("export").add("pdf", {}, { jobId });
    expect(await manager.getQueue("export").getJob(jobId)).toMatchObject({ id: job.id });
  });
});

describe("addBulk", () => {
  test("adds jobs of several names and options, in order", async () => {
    await using manager = open();
    const queue = manager.getQueue("export");

    const jobs = await queue.addBulk([
      { name: "pdf", data: { n: 1 } },
      { name: "pdf", data: { n: 2 } },
      { name: "docx", data: { n: 3 }, opts: { attempts: 1 } },
      { name: "docx", data: { n: 4 }, opts: { delay: 60_000 } },
    ]);

    expect(jobs.map(({ name, data }) => [name, data])).toEqual([
      ["pdf", { n: 1 }],
      ["pdf", { n: 2 }],
      ["docx", { n: 3 }],
      ["docx", { n: 4 }],
    ]);
    expect(await queue.getJob(jobs[2]?.id as string)).toMatchObject({
      name: "docx",
      data: { n: 3 },
      opts: { attempts: 1 },
    });
    expect(await queue.getJobCounts()).toMatchObject({ waiting: 3, delayed: 1 });
    expect(await queue.addBulk([])).toEqual([]);
  });

  test("adds none when one cannot be added", async () => {
    await using manager = open();
    const queue = manager.getQueue("export");
    const bulk = [
      { name: "pdf", data: "fine" },
      { name: "docx", data: "not text: \0" },
    ];
    await expect(queue.addBulk(bulk)).rejects.toMatchObject({ code: "INPUT_NOT_STORABLE" });
    await expect(queue.addBulk([{ name: "not a name", data: 1 }])).rejects.toMatchObject({ code: "TASK_NAME_INVALID" });
    expect(await queue.getJobCounts()).toMatchObject({ waiting: 0 });
  });
});

describe("a queue", () => {
  test("runs jobs without a priority first, then 1 before 2", async () => {
    await using manager = open();
    const queue = manager.getQueue("ai-analysis");
    await queue.add("tenth", {}, { priority: 10 });
    await queue.add("second", {}, { priority: 2 });
    await queue.add("none", {});
    await queue.add("first", {}, { priority: 1 });
    await queue.add("zero", {}, { priority: 0 });

    const waiting = await queue.getWaiting();
    expect(waiting.map(({ name }) => name)).toEqual(["none", "zero", "first", "second", "tenth"]);
    expect(waiting.map(({ opts }) => opts.priority)).toEqual([0, 0, 1, 2, 10]);
    expect(await work(manager, "ai-analysis", 5)).toEqual(["none", "zero", "first", "second", "tenth"]);
  });

  test("that is paused starts nothing, also after a restart of its manager, until it is resumed", async () => {
    const schema = freshSchema();
    const before = open({ schema });
    await before.getQueue("ai-analysis").add("job", {});
    await before.pauseQueue("ai-analysis");
    await before.close();

    await using manager = open({ schema });
    const queue = manager.getQueue("ai-analysis");
    const ran = gate();
    const worker = manager.registerWorker("ai-analysis", () => ran.open());
    await worker.waitUntilReady();
    await queue.add("another-job", {});
    // A worker of the same kind that looked later has found and done its work: this one had its chance.
    await manager.getQueue("notifications").add("job", {});
    await work(manager, "notifications", 1);

    expect(await queue.isPaused()).toBe(true);
    expect(await queue.getJobCounts()).toMatchObject({ waiting: 2, active: 0, completed: 0 });
    await manager.resumeQueue("ai-analysis");
    expect(await queue.isPaused()).toBe(false);
    await ran.opened;
  });

  test("is cleaned of what ended before the grace, and of nothing else", async () => {
    await using manager = open();
    const queue = manager.getQueue("ai-analysis");
    await queue.add("well", {});
    await queue.add("badly", {}, { attempts: 1 });
    await work(manager, "ai-analysis", 2, (job) => job.name === "badly" && failing("no")());
    await queue.add("later", {}, { delay: 60_000 });

    expect(await manager.cleanQueue("ai-analysis")).toEqual({ completed: 0, failed: 0, cancelled: 0 });
    expect(await manager.getQueueStats("ai-analysis")).toMatchObject({ completed: 1, failed: 1, total: 3 });
    expect(await manager.cleanQueue("ai-analysis", 0)).toEqual({ completed: 1, failed: 1, cancelled: 0 });
    expect(await manager.getQueueStats("ai-analysis")).toMatchObject({ completed: 0, failed: 0, delayed: 1, total: 1 });
    // @ts-expect-error: BullMQ's limit and type
    await expect(queue.clean(0, 1000, "completed")).rejects.toMatchObject({ code: "OPTION_INVALID" });
  });

  test("lists its jobs from start to end, both included", async () => {
    await using manager = open();
    const queue = manager.getQueue("export");
    await queue.addBulk(Array.from({ length: 6 }, (_, n) => ({ name: `job-${n}`, data: n, opts: { attempts: 1 } })));
    const names = (jobs: Job[]): string[] => jobs.map(({ name }) => name);

    expect(names(await queue.getWaiting(0, 1))).toEqual(["job-0", "job-1"]);
    expect(names(await queue.getWaiting(2, 2))).toEqual(["job-2"]);
    expect(names(await queue.getWaiting(4))).toEqual(["job-4", "job-5"]);
    expect(names(await queue.getWaiting(-2))).toEqual(["job-4", "job-5"]);
    expect(names(await queue.getWaiting(3, -2))).toEqual(["job-3", "job-4"]);
    expect(names(await queue.getWaiting(4, 100))).toEqual(["job-4", "job-5"]);
    expect(names(await queue.getWaiting(6, 9))).toEqual([]);

    await work(manager, "export", 6, (job) => Number(job.data) % 2 === 0 || failing("odd")());
    expect(names(await queue.getFailed())).toEqual(["job-5", "job-3", "job-1"]);
    expect(names(await queue.getFailed(0, 1))).toEqual(["job-5", "job-3"]);
    expect(names(await queue.getCompleted()).toSorted()).toEqual(["job-0", "job-2", "job-4"]);
    expect([await queue.getFailedCount(), await queue.getCompletedCount(), await queue.getWaitingCount()]).toEqual([
      3, 3, 0,
    ]);
    expect([await queue.getActiveCount(), await queue.getDelayedCount()]).toEqual([0, 0]);
  });

  test("lists more jobs than one page holds", async () => {
    await using manager = open();
    const queue = manager.getQueue("export");
    await queue.addBulk(Array.from({ length: 1_203 }, (_, n) => ({ name: "job", data: n })));

    expect((await queue.getWaiting()).map(({ data }) => data)).toEqual(Array.from({ length: 1_203 }, (_, n) => n));
    expect((await queue.getWaiting(499, 501)).map(({ data }) => data)).toEqual([499, 500, 501]);
  });

  test("that never had a job is empty", async () => {
    await using manager = open();
    const queue = manager.getQueue("never-used");

    await manager.resumeQueue("never-used");
    expect(await manager.cleanQueue("never-used", 0)).toEqual({ completed: 0, failed: 0, cancelled: 0 });
    expect(await queue.isPaused()).toBe(false);
    expect(await queue.getFailed()).toEqual([]);
    expect(await queue.getJob("any")).toBeUndefined();
    const nothing = { waiting: 0, active: 0, completed: 0, failed: 0, delayed: 0 };
    expect(await queue.getJobCounts()).toEqual(nothing);
    expect(await manager.getQueueStats("never-used")).toEqual({ name: "never-used", ...nothing, total: 0 });
    expect(await manager.getAllStats()).toEqual([{ name: "never-used", ...nothing, total: 0 }]);
  });

  test("that is closed refuses, and its manager gives another one", async () => {
    await using manager = open();
    const queue = manager.getQueue("export");
    await queue.add("job", {});
    await manager.close();

    await expect(queue.getJobCounts()).rejects.toMatchObject({ code: "CLOSED" });
    expect(await manager.getQueue("export").getJobCounts()).toMatchObject({ waiting: 1 });
  });
});

describe("a worker", () => {
  test("runs as many jobs at once as it is told", async () => {
    await using manager = open();
    const queue = manager.getQueue("ai-analysis");
    await queue.addBulk([1, 2, 3].map((n) => ({ name: "job", data: n })));
    const started = tally<unknown>();
    const finish = gate();
    const worker = manager.registerWorker(
      "ai-analysis",
      (job) => {
        started.add(job.data);
        return finish.opened;
      },
      { concurrency: 2 },
    );

    expect(await started.reached(2)).toHaveLength(2);
    expect(await queue.getActiveCount()).toBe(2);
    expect(worker).toMatchObject({ name: "ai-analysis", concurrency: 2 });
    finish.open();
    await started.reached(3);
  });

  test("is the only one of its queue in a manager until it is closed", async () => {
    await using manager = open();
    const first = manager.registerWorker("ai-analysis", () => undefined);
    const warned = once(process, "warning");

    const second = manager.registerWorker("ai-analysis", () => undefined, { concurrency: 10 });

    expect(second).toBe(first);
    expect(await warned).toMatchObject([
      { code: "MILLRACE_SECOND_WORKER", message: expect.stringContaining("ai-analysis") },
    ]);
    await first.close();
    expect(manager.registerWorker("ai-analysis", () => undefined, { concurrency: 10 })).toMatchObject({
      concurrency: 10,
    });
  });

  test("that is closed by force aborts the signal of a processor that declares one, and gives the job back", async () => {
    await using manager = open();
    const queue = manager.getQueue("export");
    await queue.add("job", {});
    const started = gate();
    const worker = manager.registerWorker("export", async (_job, _token, signal) => {
      started.open();
      await once(signal as AbortSignal, "abort");
      throw signal?.reason;
    });
    await started.opened;

    await worker.close(true);

    expect(worker.isRunning()).toBe(false);
    expect(await queue.getWaiting()).toMatchObject([{ attemptsMade: 0 }]);
  });

  test("runs jobs that a task's own app enqueued, under the task's name", async () => {
    const report = task({ name: "report", queue: "export", run: () => undefined });
    await using mill = await file.open([report]);
    await using manager = createQueueManager({ mill });
    const { id } = await mill.enqueue(report, { month: 5 });

    expect(await work(manager, "export", 1)).toEqual(["report"]);

    await manager.close();
    expect(await mill.job(id)).toMatchObject({ status: "completed" });
  });

  test("keeps trying while the database is away, and can be closed meanwhile", async () => {
    const tried = gate<string>();
    const log = { debug() {}, info() {}, warn: (_: object, message: string) => tried.open(message), error() {} };
    await using manager = createQueueManager({ databaseUrl: "postgres://127.0.0.1:1/nothing", log });

    const worker = manager.registerWorker("export", () => undefined);

    expect(await tried.opened).toContain("trying again");
    await expect(manager.getQueue("export").add("job", {})).rejects.toMatchObject({ code: "DATABASE_UNREACHABLE" });
    await worker.close();
  });

  test("that can never start says so", async () => {
    await using manager = open({ schema: "not a name" });
    const worker = manager.registerWorker("export", () => undefined);
    await expect(worker.waitUntilReady()).rejects.toMatchObject({ code: "OPTION_INVALID" });
  });
});

describe("stats", () => {
  test("are the same from every manager, and of all queues", async () => {
    const schema = freshSchema();
    await using first = open({ schema });
    await using second = open({ schema });
    await first.getQueue("ai-analysis").add("job", {});
    await first.getQueue("ai-analysis").add("job", {}, { priority: 3 });
    await second.getQueue("export").add("job", {}, { delay: 60_000 });
    await second.getQueue("notifications").add("job", {});
    await work(first, "notifications", 1);

    const all = await second.getAllStats();

    // and Millrace's own, as in every process that works
    expect(all.filter(({ name }) => name !== "maintenance")).toEqual([
      { name: "ai-analysis", waiting: 2, active: 0, completed: 0, failed: 0, delayed: 0, total: 2 },
      { name: "export", waiting: 0, active: 0, completed: 0, failed: 0, delayed: 1, total: 1 },
      { name: "notifications", waiting: 0, active: 0, completed: 1, failed: 0, delayed: 0, total: 1 },
    ]);
    expect((await first.getAllStats()).map(({ name }) => name)).toEqual(all.map(({ name }) => name));
    expect(await first.getQueueStats("export")).toEqual(all[1]);
  });
});

describe("an option of BullMQ that means nothing here is refused with what to do instead", () => {
  test("a connection to Redis", () => {
    // @ts-expect-error: there is no such option
    expect(() => createQueueManager({ connection: { host: "localhost", port: 6379 } })).toThrow(/DATABASE_URL/);
  });

  test("a rate limit of a worker", async () => {
    await using manager = open();
    const limiter = { max: 10, duration: 1000 };
    // @ts-expect-error: there is no such option
    const limited = (): unknown => manager.registerWorker("export", () => undefined, { limiter });
    expect(limited).toThrow(/limiter.*lower the concurrency/);
  });

  test("removal of finished jobs, and what nobody knows", async () => {
    await using manager = open();
    const queue = manager.getQueue("export");
    // @ts-expect-error: there is no such option
    await expect(queue.add("job", {}, { removeOnComplete: true })).rejects.toThrow(/removeOnComplete.*cleanQueue/);
    // @ts-expect-error: there is no such option
    await expect(queue.add("job", {}, { dealy: 5 })).rejects.toThrow('Did you mean "delay"?');
    await expect(queue.add("job", {}, { priority: 2 ** 21 })).rejects.toThrow("priority must be a whole number");
    // @ts-expect-error: a kind of BullMQ Pro and of custom strategies
    await expect(queue.add("job", {}, { backoff: { type: "jitter", delay: 5 } })).rejects.toThrow("backoff must be");
    expect(await queue.getJobCounts()).toMatchObject({ waiting: 0 });
  });

  test("a jobId for all jobs, a bad default, and options beside a Millrace of your own", async () => {
    // @ts-expect-error: it would keep all but the first out
    expect(() => createQueueManager({ defaultJobOptions: { jobId: "one" } })).toThrow(/jobId/);
    expect(() => createQueueManager({ defaultJobOptions: { attempts: 0 } })).toThrow(/attempts/);
    await using mill = await file.open();
    expect(() => createQueueManager({ mill, poolSize: 3 })).toThrow("mill or its options");
  });
});
