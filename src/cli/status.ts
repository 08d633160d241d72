/** `millrace status`: queues, workers and schedules at a glance; what runbooks look at first. */
import type { OpsQueues } from "../client/index.ts";
import { doorArguments, openApi } from "./api-door.ts";
import { command } from "./command.ts";
import { counted, paint, print, printJson, table } from "./print.ts";

export const status = command({
  meta: { name: "status", description: "Queues, workers and schedules at a glance" },
  args: doorArguments,
  async run({ args }) {
    const door = await openApi(args);
    try {
      const found = await door.ask<OpsQueues>("GET", "/api/ops/queues");
      if (args.json) return printJson(found);
      const { scheduled_jobs: scheduled } = found.scheduler;
      const what = [counted(found.workers.length, "worker"), counted(scheduled ?? 0, "schedule")].join(", ");
      print(
        `${paint("bold", found.status)}: ${what}${found.warnings.length === 0 ? "" : `; ${found.warnings.join(", ")}`}`,
      );
      if (found.error !== undefined) print(found.error);
      if (found.queues.length > 0) print(tableOf(found.queues));
    } finally {
      await door.close();
    }
  },
});

function tableOf(queues: OpsQueues["queues"]): string {
  return table(
    ["queue", "size", "deferred", "scheduled", "started", "failed"],
    queues.map((one) => [one.name, one.size, one.deferred, one.scheduled, one.started, one.failed]),
  );
}
