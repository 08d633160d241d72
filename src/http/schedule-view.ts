/** Schedules as the API shows them: in snake_case, under our names and under those of runbook 001. */
import type { ScheduleInfo } from "../schedules/info.ts";
import type { ScheduleRun } from "../schedules/runs-store.ts";
import { snakeCased } from "./snake-case.ts";

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
