/** Schedules as the API shows them: in snake_case, under our names and under those of runbook 001. */
import { z } from "zod";
import type { ScheduleInfo } from "../schedules/info.ts";
import { type ScheduleRun, runStatuses } from "../schedules/runs-store.ts";
import { snakeCased } from "./snake-case.ts";

const count = z.int().min(0);
const time = z.iso.datetime();
const who = z.string().nullable();
const status = z.enum(runStatuses);
const outcome = z
  .enum(["completed", "failed", "cancelled", "removed"])
  .nullable()
  .describe("What became of its job; null while that has not ended.");
const overlap = z.enum(["allow", "skip", "queue"]);
const lastRun = z.object({ at: time, status, outcome, job_id: z.uuid().nullable() }).nullable();
const nextAt = time.nullable().describe("Null while it is paused or retired, and when its pattern never comes again.");
const trouble = z.string().nullable().describe("Why it cannot be fired.");

export const scheduleAnswer = z
  .object({
    id: z.int(),
    name: z.string(),
    source: z.enum(["code", "operator", "built_in"]),
    task: z.string(),
    queue: z.string(),
    cron: z.string().nullable(),
    every_ms: z.number().nullable(),
    zone: z.string(),
    input: z.unknown(),
    priority: z.int().nullable(),
    max_attempts: z.int(),
    timeout_ms: z.number().nullable(),
    backoff: z
      .object({ type: z.enum(["exponential", "fixed"]), delay_ms: z.number(), max_ms: z.number(), jitter: z.number() })
      .nullable(),
    tags: z.array(z.string()).nullable(),
    concurrency_key: z.string().nullable(),
    overlap,
    concurrency: z.int(),
    catch_up: z.enum(["none", "last", "all"]),
    jitter_ms: z.number(),
    start_grace_ms: z.number(),
    run_grace_ms: z.number().nullable(),
    edited: z.array(z.string()).describe("Fields that an operator changed; what the code says of them does not count."),
    next_at: nextAt,
    last_at: time.nullable(),
    paused: z.object({ at: time, by: who, reason: z.string().nullable() }).nullable(),
    stopped: z
      .object({ at: time, by: who })
      .nullable()
      .describe("Since when no schedule fires: the system is drained, or about to be."),
    retired_at: time.nullable(),
    trouble,
    active: count,
    queued: count,
    overdue: count,
    last_run: lastRun,
    created_at: time,
    created_by: who,
    updated_at: time,
    updated_by: who,
  })
  .meta({ id: "Schedule" });

export const runAnswer = z
  .object({
    id: z.string(),
    schedule: z.string(),
    status,
    cause: z.enum(["tick", "manual"]),
    tick_at: time,
    tick_until: time.nullable().describe("The last of several ticks."),
    count: z.int().min(1).describe("How many ticks."),
    at_least: z.boolean().describe("There were more than could be counted."),
    job_id: z.uuid().nullable(),
    code: z.string().nullable().describe("Why it was denied."),
    decided_at: time,
    fired_at: time.nullable(),
    ended_at: time.nullable(),
    outcome,
    late_ms: z.number().nullable(),
    took_ms: z.number().nullable(),
    overdue: z.boolean(),
    by: who,
    reason: z.string().nullable(),
  })
  .meta({ id: "ScheduleRun" });

export const schedulerJobAnswer = z
  .object({
    config_id: z.int(),
    job_id: z.string().describe("The name of the schedule."),
    name: z.string(),
    task: z.string(),
    queue: z.string(),
    cron: z.string().nullable(),
    every_ms: z.number().nullable(),
    zone: z.string(),
    enabled: z.boolean(),
    paused: z.boolean(),
    paused_at: time.nullable(),
    paused_by: who,
    paused_reason: z.string().nullable(),
    retired_at: time.nullable(),
    next_run: nextAt,
    last_run: lastRun,
    priority: z.int(),
    overlap,
    concurrency_limit: z.int(),
    active: count,
    queued: count,
    overdue: count,
    trouble,
    parameters: z.unknown(),
    created_at: time,
    updated_at: time,
  })
  .meta({ id: "SchedulerJob" });

export function scheduleView({ input, ...info }: ScheduleInfo) {
  // What somebody else made is left as it is spelt.
  return { ...snakeCased(info), input };
}

export function runView(run: ScheduleRun) {
  return snakeCased(run);
}

/** An entry of `GET /scheduler/jobs`. */
export function schedulerJobView(info: ScheduleInfo) {
  const paused = info.paused !== null;
  return {
    config_id: info.id,
    job_id: info.name,
    name: info.name,
    task: info.task,
    queue: info.queue,
    cron: info.cron,
    every_ms: info.everyMs,
    zone: info.zone,
    enabled: !paused && info.retiredAt === null,
    paused,
    paused_at: info.paused?.at ?? null,
    paused_by: info.paused?.by ?? null,
    paused_reason: info.paused?.reason ?? null,
    retired_at: info.retiredAt,
    next_run: info.nextAt,
    last_run: info.lastRun && snakeCased(info.lastRun),
    priority: info.priority ?? 0,
    overlap: info.overlap,
    concurrency_limit: info.concurrency,
    active: info.active,
    queued: info.queued,
    overdue: info.overdue,
    trouble: info.trouble,
    parameters: info.input,
    created_at: info.createdAt,
    updated_at: info.updatedAt,
  };
}
