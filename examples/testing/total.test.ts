// total.test.ts
import { defineApp, task } from "millrace";
import { runTask, testMillrace } from "millrace/testing";
import { expect, test } from "vitest";
import { z } from "zod";

const count = task({ name: "count", input: z.array(z.string()), run: ({ input }) => input.length });
const total = task({
  name: "total",
  run: async ({ dependencies }) => (await dependencies()).reduce((sum, { result }) => sum + Number(result), 0),
});
const app = defineApp({ tasks: [count, total] });

test("the total comes after the counts", async () => {
  await using mill = await testMillrace(app);
  const { jobs } = await mill.enqueueFlow({
    jobs: {
      mail: { task: count, input: ["a", "b"] },
      post: { task: count, input: ["c"] },
      total: { task: total, after: ["mail", "post"] },
    },
  });
  await mill.expectStatus(jobs.total, "blocked");
  await mill.runUntilIdle();
  expect(await mill.result(jobs.total)).toBe(3);
});

test("by itself, it is told what the others have left", async () => {
  const dependencies = [
    { name: "mail", id: "1", state: "completed", result: 2 },
    { name: "post", id: "2", state: "completed", result: 5 },
  ] as const;
  expect(await runTask(total, null, { dependencies })).toBe(7);
});
