/** What everything about schedules shares: the database, the names, and how a definition becomes a row. */
import { MillraceError } from "../core/errors.ts";
import type { Executor } from "../db/database.ts";
import type { Names } from "../jobs/names.ts";
import { type AnyTask, validate } from "../jobs/task.ts";
import { type Said, type Spec, specOf } from "./definition.ts";
import { aheadMs } from "./clock-store.ts";
import type { FiringDesk } from "./firing.ts";
import type { ScheduleRow } from "./schedules-store.ts";
import { nextTick } from "./ticks.ts";

export interface ScheduleDesk extends FiringDesk {
  readonly names: Names;
  readonly tasks: readonly AnyTask[];
  readonly maxPayloadBytes: number;
}

/** The numbers of a definition's names. In the transaction: embedded, there is no other connection. */
export async function numbersOf(
  { names }: ScheduleDesk,
  tx: Executor,
  { task, queue }: Spec,
): Promise<{ task: number; queue: number }> {
  return { task: await names.tasks.idWithin(tx, task), queue: await names.queues.idWithin(tx, queue) };
}

/** Throws `BAD_PAYLOAD` when the task is known here and does not take the input. */
export async function checkInput(task: AnyTask | undefined, spec: Spec): Promise<void> {
  if (task?.schema !== undefined) await validate(task.name, task.schema, spec.input);
}

/** Up to when ticks were dealt with, unless a clock said so that was ahead: after it has come back, that is not believed. */
export function believed({ lastAt, now }: Pick<ScheduleRow, "lastAt" | "now">): Date | null {
  return lastAt !== null && lastAt.getTime() - now.getTime() < aheadMs ? lastAt : null;
}

/** When a definition ticks next, from now on, and when that fires. */
export function placeOf(
  { random }: ScheduleDesk,
  spec: Spec,
  { anchor, lastAt, now }: Pick<ScheduleRow, "anchor" | "lastAt" | "now">,
): { nextAt: Date | null; dueAt: Date | null; lastAt: Date | null } {
  const last = believed({ lastAt, now });
  const after = Math.max(now.getTime(), last?.getTime() ?? 0);
  const next = nextTick(spec, anchor.getTime(), after);
  if (next === null) return { nextAt: null, dueAt: null, lastAt: last };
  return { nextAt: new Date(next), dueAt: new Date(next + Math.floor(random() * spec.jitterMs)), lastAt: last };
}

/** Whether it comes at other times than before. */
export function isRetimed(a: Spec, b: Spec): boolean {
  return a.cron !== b.cron || a.everyMs !== b.everyMs || a.zone !== b.zone || a.jitterMs !== b.jitterMs;
}

/** What operators made different from the code. Cron and interval go together: one of them is null. */
export function editsOf(defined: Spec, spec: Spec): Partial<Spec> {
  const fields = (Object.keys(defined) as (keyof Spec)[]).filter(
    (field) => canonical(defined[field]) !== canonical(spec[field]),
  );
  if (fields.includes("cron") || fields.includes("everyMs")) fields.push("cron", "everyMs");
  return Object.fromEntries(fields.map((field) => [field, spec[field]]));
}

/** The code's definition with an operator's edits laid over it. Edits that no longer go with it wait. */
export function edited(defined: Spec, edits: Partial<Spec>): Spec {
  try {
    return specOf({ ...defined, ...edits } satisfies Said, undefined, "the schedule");
  } catch (error) {
    if (error instanceof MillraceError) return defined;
    throw error;
  }
}

/** JSON with its keys in order: equal texts are equal values. */
export function canonical(value: unknown): string {
  return JSON.stringify(value, (_, inner: unknown) =>
    typeof inner === "object" && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).toSorted(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
}
