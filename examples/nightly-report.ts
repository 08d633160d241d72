/**
 * A nightly report with catch-up: every night at half past two in Berlin. When nothing ran for three nights, one report makes up for all
 * of them, and what was missed is on record.
 *
 *     npx tsx examples/nightly-report.ts
 */
import { defineApp, millrace, schedule, task } from "millrace";

const report = task({
  name: "report",
  run: ({ schedule: by }) => ({ night: by?.at.toISOString().slice(0, 10) }),
});

const app = defineApp({
  tasks: [report],
  schedules: [
    schedule({
      name: "nightly-report",
      task: report,
      cron: "30 2 * * *",
      zone: "Europe/Berlin",
      catchUp: "last",
      runGrace: "1h", // `millrace doctor` tells of a run that takes longer
    }),
  ],
});

const mill = await millrace(app);
const worker = mill.work({ scheduler: false }); // this program fires them itself, to be in the future

const [, , third] = await mill.schedules.preview("nightly-report", { count: 3 });
const afterThreeNights = new Date((third?.at.getTime() ?? 0) + 3_600_000);
await mill.schedules.fire({ at: afterThreeNights });

const runs = await mill.schedules.runs("nightly-report");
for (const { status, count } of runs.toReversed()) console.log(`${count} ${status}`);
const made = runs.find(({ jobId }) => jobId !== null);
const { night } = await mill.waitUntilFinished<{ night: string }>(made?.jobId ?? "");
console.log(night === third?.at.toISOString().slice(0, 10) ? "The report is of the last night." : `Wrong: ${night}`);

await worker.stop();
await mill.close();
