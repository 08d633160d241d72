import { setTimeout as pause } from "node:timers/promises";
import { defineApp, task } from "millrace";
import { testMillrace } from "millrace/testing";
import { expect, test } from "vitest";

test("a polite task pauses for an hour between two calls", async () => {
  const calls: string[] = [];
  const polite = task({
    name: "polite",
    timeout: "2h",
    run: async () => {
      calls.push(new Date().toISOString());
      const paused = pause(3_600_000);
      await mill.advance("1h"); // or the test does, before it awaits runUntilIdle
      await paused;
      calls.push(new Date().toISOString());
    },
  });
  await using mill = await testMillrace(defineApp({ tasks: [polite] }), { now: new Date("2027-03-01T08:00:00Z") });
  await mill.enqueue(polite, null);

  await mill.runUntilIdle();

  expect(calls).toEqual(["2027-03-01T08:00:00.000Z", "2027-03-01T09:00:00.000Z"]);
});
