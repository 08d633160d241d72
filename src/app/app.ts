/** An app: the tasks a process knows, and the schedules it defines. */
import { MillraceError } from "../core/errors.ts";
import { refuseUnknown } from "../core/options.ts";
import { type AnyTask, refuseOwnTask } from "../jobs/task.ts";
import type { Schedule } from "../schedules/definition.ts";

export interface App {
  readonly tasks: readonly AnyTask[];
  readonly schedules: readonly Schedule[];
}

const known: ReadonlySet<string> = new Set(["tasks", "schedules"]);

/** Collects tasks and schedules. Throws `TASK_DUPLICATE` when two tasks have one name, `SCHEDULE_DUPLICATE` when two schedules do. */
export function defineApp(options: { tasks: readonly AnyTask[]; schedules?: readonly Schedule[] }): App {
  refuseUnknown("defineApp", options, known);
  const { tasks, schedules = [] } = options;
  const names = new Set<string>();
  for (const task of tasks) {
    if (typeof task?.name !== "string" || typeof task.run !== "function") {
      throw new MillraceError("OPTION_INVALID", "defineApp: every entry of tasks must come from task({ name, run }).");
    }
    refuseOwnTask(task.name);
    if (names.has(task.name))
      throw new MillraceError("TASK_DUPLICATE", `Two tasks of the app are named "${task.name}".`);
    names.add(task.name);
  }
  const scheduled = new Set<string>();
  for (const { name, spec } of schedules) {
    if (typeof spec?.task !== "string")
      throw new MillraceError(
        "OPTION_INVALID",
        "defineApp: every entry of schedules must come from schedule({ name, task, cron }).",
      );
    if (scheduled.has(name))
      throw new MillraceError("SCHEDULE_DUPLICATE", `Two schedules of the app are named "${name}".`);
    scheduled.add(name);
  }
  return Object.freeze({ tasks: Object.freeze([...tasks]), schedules: Object.freeze([...schedules]) });
}

export function isApp(value: unknown): value is App {
  if (typeof value !== "object" || value === null) return false;
  const { tasks, schedules } = value as { tasks?: unknown; schedules?: unknown };
  return Array.isArray(tasks) && Array.isArray(schedules);
}
