/** An app: the tasks a process knows. */
import { MillraceError } from "../core/errors.ts";
import { refuseUnknown } from "../core/options.ts";
import type { AnyTask } from "../jobs/task.ts";

export interface App {
  readonly tasks: readonly AnyTask[];
}

const known: ReadonlySet<string> = new Set(["tasks"]);

/** Collects tasks. Throws `TASK_DUPLICATE` when two have one name. */
export function defineApp(options: { tasks: readonly AnyTask[] }): App {
  refuseUnknown("defineApp", options, known);
  const names = new Set<string>();
  for (const task of options.tasks) {
    if (typeof task?.name !== "string" || typeof task.run !== "function") {
      throw new MillraceError("OPTION_INVALID", "defineApp: every entry of tasks must come from task({ name, run }).");
    }
    if (names.has(task.name))
      throw new MillraceError("TASK_DUPLICATE", `Two tasks of the app are named "${task.name}".`);
    names.add(task.name);
  }
  return Object.freeze({ tasks: Object.freeze([...options.tasks]) });
}

export function isApp(value: unknown): value is App {
  return typeof value === "object" && value !== null && Array.isArray((value as { tasks?: unknown }).tasks);
}
