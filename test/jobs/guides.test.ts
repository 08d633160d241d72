/** docs/guides/{flows,limits,steps,uniqueness,fairness}.md: their programs, executed as they stand. */
import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { RateLimitError, defineApp, millrace, task } from "millrace";
import { type TestDatabase, testDatabase } from "../support/database.ts";

const folder = await mkdtemp(join(tmpdir(), "millrace-guides-"));
let database: TestDatabase;
const said = vi.spyOn(console, "log").mockImplementation(() => undefined);

beforeAll(async () => {
  database = await testDatabase();
  vi.stubEnv("MILLRACE_DATA_DIR", folder);
  vi.stubEnv("DATABASE_URL", database.backend === "postgres" ? database.url : undefined);
  // Making an embedded database takes its time: here, where there is more of it.
  await (await millrace(defineApp({ tasks: [] }))).close();
});
beforeEach(() => void said.mockClear());
afterAll(async () => {
  said.mockRestore();
  await database[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

const lines = (): unknown[][] => said.mock.calls;

test("flows", async () => {
  const load = task({ name: "load", run: ({ input }) => [3, 1, 2].map((n) => n * (input as number)) });
  const total = task({
    name: "total",
    async run({ dependencies }) {
      const parts = await dependencies();
      return parts.flatMap(({ result }) => result as number[]).reduce((sum, n) => sum + n, 0);
    },
  });

  const mill = await millrace(defineApp({ tasks: [load, total] }));
  mill.work();

  const { jobs } = await mill.enqueueFlow({
    jobs: {
      small: { task: load, input: 1 },
      large: { task: load, input: 100 },
      total: { task: total, after: ["small", "large"] },
    },
  });
  console.log(await mill.waitUntilFinished(jobs.total)); // 606

  const { callback } = await mill.enqueueBatch(load, [1, 2, 3, 4], { callback: { task: total } });
  console.log(await mill.waitUntilFinished(callback)); // 60
  await mill.close();

  expect(lines()).toEqual([[606], [60]]);
});

test("limits", async () => {
  let calls = 0;
  const ask = task({
    name: "ask",
    queue: "api",
    run() {
      calls += 1;
      if (calls === 3) throw new RateLimitError("Not now.", { retryAfterMs: 50 }); // what you throw on a 429
    },
  });
  const mill = await millrace(defineApp({ tasks: [ask] }));

  await mill.policies.set("api", { concurrency: 5, rate: { max: 10, per: "1s" } });
  const ids = await mill.enqueueMany(ask, [1, 2, 3, 4, 5, 6]);
  mill.work();
  await Promise.all(ids.map((id) => mill.waitUntilFinished(id)));
  console.log(calls); // 7: one came again, as late as it was told to
  await mill.close();

  expect(lines()).toEqual([[7]]);
});

test("steps", async () => {
  const charge = (order: number): string => `receipt ${order}`;

  const ship = task({
    name: "ship",
    async run({ input, step }) {
      const order = input as number;
      const receipt = await step.run("charge", () => charge(order));
      await step.sleep("time to change one's mind", "100ms");
      const picked = await step.waitForEvent("picked", { event: `order.${order}.picked`, timeout: "14d" });
      return { receipt, picked };
    },
  });

  const mill = await millrace(defineApp({ tasks: [ship] }));
  mill.work();

  const job = await mill.enqueue(ship, 42);
  await mill.emit("order.42.picked", { shelf: 7 });
  console.log(await mill.waitUntilFinished(job)); // { receipt: "receipt 42", picked: { shelf: 7 } }
  console.log((await mill.steps(job.id)).map(({ name, kind }) => `${kind} ${name}`));
  await mill.close();

  expect(lines()).toEqual([
    [{ receipt: "receipt 42", picked: { shelf: 7 } }],
    [["run charge", "sleep time to change one's mind", "event picked"]],
  ]);
});

test("uniqueness", async () => {
  const index = task({ name: "index", run: ({ input }) => input });
  const mill = await millrace(defineApp({ tasks: [index] }));

  // One at a time: until it has ended, others get the job that is there.
  const first = await mill.enqueue(index, { shop: 7 }, { unique: { key: "shop 7" } });
  const second = await mill.enqueue(index, { shop: 7 }, { unique: { key: "shop 7" } });
  console.log(second.duplicate, second.id === first.id); // true true

  // After a quiet while, with the newest input, and not later than a while after the first call.
  const debounce = { key: "shop 8", wait: "100ms", maxWait: "10s" } as const;
  await mill.enqueue(index, { shop: 8, change: 1 }, { debounce });
  const put = await mill.enqueue(index, { shop: 8, change: 2 }, { debounce });

  // At most one in a stretch of time.
  await mill.enqueue(index, { shop: 9 }, { throttle: { key: "shop 9", per: "1h" } });

  mill.work();
  console.log(await mill.waitUntilFinished(put)); // { shop: 8, change: 2 }
  await mill.close();

  expect(lines()).toEqual([[true, true], [{ shop: 8, change: 2 }]]);
});

test("fairness", async () => {
  const order: string[] = [];
  const send = task({ name: "send", queue: "mail", run: ({ input }) => void order.push(input as string) });
  const mill = await millrace(defineApp({ tasks: [send] }));

  await mill.enqueueMany(send, Array<string>(500).fill("large"), { concurrencyKey: "large" });
  const small = await mill.enqueueMany(send, Array<string>(5).fill("small"), { concurrencyKey: "small" });
  await mill.policies.set("mail", { keyConcurrency: 2 });

  const worker = mill.work({ concurrency: 4 });
  await Promise.all(small.map((id) => mill.waitUntilFinished(id)));
  console.log(order.lastIndexOf("small") < 50); // true: not behind the five hundred
  await worker.stop();
  await mill.close();

  expect(lines()).toEqual([[true]]);
});

test.each(["flows", "limits", "steps", "uniqueness", "fairness"])("the program of %s.md stands here", (name) => {
  const page = readFileSync(`docs/guides/${name}.md`, "utf8");
  const here = unindented(readFileSync(import.meta.filename, "utf8"));
  const programs = [...page.matchAll(/^```ts\nimport [^\n]* from "millrace";\n\n(.*?)^```$/gms)];
  expect(programs).toHaveLength(1);
  expect(page.match(/^```ts$/gm)).toHaveLength(1);
  expect(here).toContain(unindented(programs[0]?.[1] ?? "nothing"));
});

function unindented(code: string): string {
  return code.replaceAll(/^ +/gm, "");
}
