/** Tasks that Millrace brings along: whoever serves their queue has them, whatever its app defines. */
import { bulkTaskName, runBulk } from "../jobs/bulk.ts";
import { type AnyTask, task } from "../jobs/task.ts";
import { type MaintenanceSettings, maintenance } from "./maintenance.ts";
import type { OrderDesk } from "./orders.ts";

/** Where they wait. Made by the first of their jobs. */
export const maintenanceQueue = "maintenance";
/** Each time the database is away in the middle of it uses one up. */
const bulkAttempts = 100;

type Desk = Pick<OrderDesk, "db" | "channel" | "admission" | "now">;

export function builtInTasks(desk: Desk, settings: MaintenanceSettings): AnyTask[] {
  return [bulkTask(desk), maintenance(desk.db, settings)];
}

export function bulkTask(desk: Desk): AnyTask {
  return task({
    name: bulkTaskName,
    queue: maintenanceQueue,
    maxAttempts: bulkAttempts,
    backoff: { delay: "1s", max: "30s" },
    run: (job) => runBulk(desk, job),
  });
}
