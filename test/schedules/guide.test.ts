/** docs/guides/schedules.md: its examples, executed. */
import { readFileSync } from "node:fs";
import { defineApp, schedule, task } from "millrace";
import { expect, test, vi } from "vitest";
import { useDatabase } from "../support/engine.ts";

const file = useDatabase();

test("defined in code, fired at a moment of the test's choosing, made and steered at run time", async () => {
  const beat = task({ name: "beat", run: () => undefined });
  const report = task({
    name: "report",
    async run({ input, schedule, log }) {
      log.info({ input, tick: schedule?.at }, `report for ${schedule?.name ?? "somebody who asked"}`);
    },
  });

  const nightlyReport = schedule({
    name: "nightly-report",
    task: report,
    cron: "30 2 * * *",
    zone: "Europe/Berlin",
    input: { format: "pdf" },
  });
  const heartbeat = schedule({ name: "heartbeat", task: beat, every: "30s", overlap: "allow" });

  const app = defineApp({ tasks: [report, beat], schedules: [nightlyReport, heartbeat] });

  const said: string[] = [];
  const log = { debug() {}, info: (_: object, text: string) => void said.push(text), warn() {}, error() {} };
  await using mill = await file.open(app.tasks, { log }, app.schedules);
  const { nextAt } = await mill.schedules.get("nightly-report");
  if (nextAt) await mill.schedules.fire({ at: nextAt });
  expect((await mill.schedules.runs("nightly-report"))[0]).toMatchObject({ status: "fired", tickAt: nextAt });
  await using _worker = mill.work({ scheduler: false });
  await vi.waitUntil(() => said.includes("report for nightly-report"), { timeout: 20_000 });

  const told = vi.spyOn(console, "log").mockImplementation(() => undefined);
  await mill.schedules.create({
    name: "tenant-42:sync",
    task: "sync",
    every: "15m",
    jitter: "1m",
    input: { tenant: 42 },
  });
  await mill.schedules.update("tenant-42:sync", { every: "5m" }, { by: "ada" });
  await mill.schedules.pause("tenant-42:sync", { by: "ada", reason: "their API is down" });
  await mill.schedules.runNow("tenant-42:sync", { by: "ada", reason: "after the fix" });
  await mill.schedules.resume("tenant-42:sync", { by: "ada" });

  for (const run of await mill.schedules.runs("tenant-42:sync"))
    console.log(run.tickAt, run.status, run.outcome, run.jobId);
  await mill.schedules.delete("tenant-42:sync");
  expect(told.mock.calls).toEqual([[expect.any(Date), "fired", null, expect.any(String)]]);
  told.mockRestore();
});

test("every example of the guide stands in this file", () => {
  const page = readFileSync("docs/guides/schedules.md", "utf8");
  const here = bare(readFileSync(import.meta.filename, "utf8"));
  const examples = [...page.matchAll(/^```ts\n(.*?)^```$/gms)].map(([, code = ""]) => code);
  expect(examples).toHaveLength(4);
  for (const example of examples) expect(here).toContain(bare(example));
});

/** Lines may be broken and indented otherwise. */
function bare(code: string): string {
  return code.replaceAll(/\s+/g, "").replaceAll(/,([}\])])/g, "$1");
}
