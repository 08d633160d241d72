// report.test.ts
import { defineApp, schedule, task } from "millrace";
import { testMillrace } from "millrace/testing";
import { expect, test } from "vitest";

const report = task({ name: "report", run: ({ schedule }) => `of ${schedule?.at.toISOString()}` });
const app = defineApp({
  tasks: [report],
  schedules: [schedule({ name: "nightly", task: report, cron: "30 2 * * *", zone: "Europe/Berlin" })],
});

test("there is a report every night, also of the one that has no half past two", async () => {
  await using mill = await testMillrace(app, { now: new Date("2030-03-30T12:00:00Z") });
  const runs = await mill.advance("2d");
  expect(runs.map(({ result }) => result)).toEqual(["of 2030-03-31T01:00:00.000Z", "of 2030-04-01T00:30:00.000Z"]);
  expect(await mill.schedules.runs("nightly")).toMatchObject([{ status: "fired" }, { status: "fired" }]);
});
