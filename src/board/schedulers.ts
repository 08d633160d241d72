/** Schedules as Bull Board's job schedulers: those whose jobs go into the queue. */
import type { AppJobScheduler, JobSchedulerRepeatOptions } from "@bull-board/api/typings/app";
import type { ScheduleInfo } from "../schedules/info.ts";
import type { ScheduleChanges } from "../schedules/schedules.ts";
import { MillraceError } from "../core/errors.ts";

type Scheduler = Omit<AppJobScheduler, "queueName">;

/** One that is paused, retired or cannot be fired has no next time. */
export function schedulerOf(schedule: ScheduleInfo): Scheduler {
  const { name, task, cron, everyMs, zone, nextAt, lastRun, input, priority, maxAttempts } = schedule;
  return {
    id: name,
    name: task,
    ...(cron === null ? {} : { pattern: cron, tz: zone }),
    ...(everyMs === null ? {} : { every: everyMs }),
    ...(nextAt === null ? {} : { next: nextAt.getTime() }),
    ...(lastRun === null ? {} : { lastRun: lastRun.at.getTime() }),
    ...(lastRun?.jobId ? { lastRunJobId: lastRun.jobId } : {}),
    template: {
      data: input,
      opts: { attempts: maxAttempts, ...(priority === null ? {} : { priority: 0 - priority }) },
    },
  };
}

/** Throws `SCHEDULE_INVALID` for what schedules do not have here. */
export function changesOf({ pattern, every, tz, limit, endDate }: JobSchedulerRepeatOptions): ScheduleChanges {
  if (limit !== undefined || endDate !== undefined)
    throw new MillraceError(
      "SCHEDULE_INVALID",
      "A schedule has neither a number of runs nor an end date; pause it or remove it when it has run enough.",
    );
  return {
    ...(pattern === undefined ? { every: every as number } : { cron: pattern }),
    ...(tz === undefined ? {} : { zone: tz }),
  };
}
