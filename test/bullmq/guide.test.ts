/** docs/guides/from-bullmq.md: its examples, executed, and its list of what is there, compared. */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { defineApp, millrace, task } from "millrace";
import { type Processor, createQueueManager } from "millrace/bullmq";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { type TestDatabase, testDatabase } from "../support/database.ts";
import { gate } from "../support/engine.ts";
import { queueManager } from "./queues/queue.config.ts";

const folder = await mkdtemp(join(tmpdir(), "millrace-guide-"));
let database: TestDatabase;

beforeAll(async () => {
  database = await testDatabase();
  vi.stubEnv("MILLRACE_DATA_DIR", folder);
  vi.stubEnv("DATABASE_URL", database.backend === "postgres" ? database.url : undefined);
  await queueManager.getAllStats(); // making an embedded database takes its time: here, where there is more of it
});
afterAll(async () => {
  await database[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

test("added, run, operated", async () => {
  const analysed = gate<string>();
  const analyse = (sceneId: string): void => {
    analysed.open(sceneId);
    throw new Error("the model is overloaded");
  };
  const log = vi.spyOn(console, "log").mockImplementation(() => undefined);

  interface Scene {
    sceneId: string;
  }

  const queue = queueManager.getQueue<Scene>("ai-analysis");
  await queue.add("analyse-scene", { sceneId: "123" }, { attempts: 5, backoff: { type: "exponential", delay: 1000 } });

  queueManager.registerWorker<Scene>("ai-analysis", async (job) => analyse(job.data.sceneId), { concurrency: 3 });

  expect(await analysed.opened).toBe("123");

  await queueManager.pauseQueue("ai-analysis");
  await queueManager.resumeQueue("ai-analysis");
  await queueManager.cleanQueue("ai-analysis", 24 * 3600 * 1000);

  for (const job of await queue.getFailed()) {
    console.log(job.name, job.failedReason, job.stacktrace);
    await job.retry();
  }

  console.log(await queueManager.getAllStats());
  await queueManager.close();

  expect(log).toHaveBeenLastCalledWith(
    expect.arrayContaining([expect.objectContaining({ name: "ai-analysis", failed: 0, total: 1 })]),
  );
  log.mockRestore();
});

test("what a processor says of its job", async () => {
  await using queueManager = createQueueManager();
  const job = await queueManager.getQueue("export").add("rows", {}, { jobId: "export-7" });
  queueManager.registerWorker("export", async (job) => {
    await job.log("reads the rows");
    await job.updateProgress(50);
  });
  await vi.waitFor(async () => expect(await job.getState()).toBe("completed"), { timeout: 20_000 });

  const { logs, count } = await queueManager.getQueue("export").getJobLogs("export-7");

  expect({ logs, count }).toEqual({ logs: ["reads the rows"], count: 1 });
});

test("one queue moved to a task, the other one not yet", async () => {
  const [sent, analysed] = [gate(), gate()];
  const sendReceipt = task({ name: "send-receipt", queue: "receipts", run: () => sent.open() });
  const analyseScene: Processor = () => analysed.open();

  const mill = await millrace(defineApp({ tasks: [sendReceipt] }));
  const queueManager = createQueueManager({ mill });

  mill.work({ queues: ["receipts"] });
  queueManager.registerWorker("ai-analysis", analyseScene);

  await mill.enqueue(sendReceipt, {});
  await queueManager.getQueue("ai-analysis").add("analyse-scene", {});
  await Promise.all([sent.opened, analysed.opened]);
  await queueManager.close();
  expect(await mill.stats("receipts")).toMatchObject([{ total: 1 }]);
  await mill.close();
});

test("every example of the guide stands here or in the module that it shows", async () => {
  const page = await readFile("docs/guides/from-bullmq.md", "utf8");
  const config = await readFile("test/bullmq/queues/queue.config.ts", "utf8");
  const here = await readFile(import.meta.filename, "utf8");
  const [module = "", ...examples] = [...page.matchAll(/^```ts\n(.*?)^```$/gms)].map(([, code = ""]) => code);

  for (const line of module.trim().split("\n")) expect(config).toContain(line);
  expect(examples).toHaveLength(5);
  for (const example of examples) expect(unindented(here)).toContain(unindented(example));
});

test("every member the guide lists is there, and none is left out", async () => {
  const page = await readFile("docs/guides/from-bullmq.md", "utf8");
  const listed = (object: string): string[] => {
    const row = page.split("\n").find((line) => line.startsWith(`| ${object} |`)) ?? "";
    const names = [...row.matchAll(/`([^`]+)`/g)].map(([, name = ""]) => name);
    const counts = ["Waiting", "Active", "Delayed", "Completed", "Failed"].map((state) => `get${state}Count`);
    return names.flatMap((name) => (name === "get…Count" ? counts : [name])).toSorted();
  };
  await using manager = createQueueManager();
  const queue = manager.getQueue("ai-analysis");
  const job = await queue.add("analyse-scene", {});
  const worker = manager.registerWorker("export", () => undefined);

  expect(members(manager)).toEqual(listed("manager"));
  expect(members(queue)).toEqual(listed("queue"));
  expect(members(job)).toEqual(listed("job"));
  expect(members(worker)).toEqual(listed("worker"));
});

/** Names of fields and methods. */
function members(object: object): string[] {
  const methods = Object.getOwnPropertyNames(Object.getPrototypeOf(object)).filter((name) => name !== "constructor");
  return [...Object.keys(object), ...methods].toSorted();
}

function unindented(code: string): string {
  return code.replaceAll(/^ +/gm, "");
}
