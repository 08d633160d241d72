// ship.test.ts
import { defineApp, task } from "millrace";
import { runTask, testMillrace } from "millrace/testing";
import { expect, test } from "vitest";
import { z } from "zod";

const ship = task({
  name: "ship",
  input: z.object({ order: z.string() }),
  run: async ({ input, step }) => {
    const receipt = await step.run("charge", () => `receipt of ${input.order}`);
    await step.sleep("time to change one's mind", "1h");
    const shelf = await step.waitForEvent("picked", { event: `${input.order}.picked`, timeout: "14d" });
    return shelf === undefined ? "nobody picked it" : { receipt, shelf };
  },
});
const app = defineApp({ tasks: [ship] });

test("an order is charged at once and goes out when it is picked", async () => {
  await using mill = await testMillrace(app);
  const { id } = await mill.enqueue(ship, { order: "order-1" });
  await mill.advance("1h"); // it sleeps, then it waits
  expect(await mill.steps(id)).toMatchObject([{ name: "charge" }, { kind: "sleep" }, { event: "order-1.picked" }]);

  await mill.emit("order-1.picked", 7);
  await mill.runUntilIdle();
  expect(await mill.result(id)).toEqual({ receipt: "receipt of order-1", shelf: 7 });
});

test("one that nobody picks ends after two weeks", async () => {
  await using mill = await testMillrace(app);
  const { id } = await mill.enqueue(ship, { order: "order-2" });
  const runs = await mill.advance("15d");
  expect(runs.map(({ outcome }) => outcome)).toEqual(["snoozed", "snoozed", "succeeded"]);
  expect(await mill.result(id)).toBe("nobody picked it");
});

test("by itself, the task is told which events have come", async () => {
  const events = { "order-3.picked": 9 };
  expect(await runTask(ship, { order: "order-3" }, { events })).toMatchObject({ shelf: 9 });
  expect(await runTask(ship, { order: "order-4" }, { events })).toBe("nobody picked it");
});
