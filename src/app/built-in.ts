/** Tasks that Millrace brings along: every worker that serves their queue has them, whatever its app defines. */
import { runBulk } from "../jobs/bulk.ts";
import { type AnyTask, task } from "../jobs/task.ts";
import { type MaintenanceSettings, maintenance } from "./maintenance.ts";
import type { OrderDesk } from "./orders.ts";

/** Where they wait. Made by the first of their jobs. */
export const maintenanceQueue = "maintenance";
export const bulkTask = "millrace.bulk";
/** Each time the database is away in the middle of it uses one up. */
export const bulkAttempts = 100;

/** Those that a worker of these queues (undefined: of every queue) has. */
export function builtInTasks(
  desk: Pick<OrderDesk, "db" | "channel" | "admission" | "now">,
  queues: readonly string[] | undefined,
  settings: MaintenanceSettings,
): AnyTask[] {
  if (queues !== undefined && !queues.includes(maintenanceQueue)) return [];
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
