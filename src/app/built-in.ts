/** Tasks that Millrace brings along: whoever serves their queue has them, whatever its app defines. */
import { runBulk } from "../jobs/bulk.ts";
import { type AnyTask, task } from "../jobs/task.ts";
import { type MaintenanceSettings, maintenance } from "./maintenance.ts";
import type { OrderDesk } from "./orders.ts";

/** Where they wait. Made by the first of their jobs. */
export const maintenanceQueue = "maintenance";
export const bulkTask = "millrace.bulk";
/** Each time the database is away in the middle of it uses one up. */
export const bulkAttempts = 100;

export function builtInTasks(
  desk: Pick<OrderDesk, "db" | "channel" | "admission" | "now">,
  settings: MaintenanceSettings,
): AnyTask[] {
  return [
    task({
      name: bulkTask,
      queue: maintenanceQueue,
      maxAttempts: bulkAttempts,
      backoff: { delay: "1s", max: "30s" },
      run: (job) => runBulk(desk, job),
    }),
    maintenance(desk.db, settings),
  ];
}
