/** A job as the API shows it: in snake_case, under our names and under those of runbook 004. */
import { z } from "zod";
import { type Job, jobStatuses } from "../jobs/read-store.ts";
import { adviceFor } from "../jobs/timeline.ts";
import { attemptNumber, count, text, time, timeText } from "./wire.ts";

export const jobStatus = z.enum(jobStatuses).meta({ id: "JobStatus" });
export const progress = z
  .union([z.number().min(0).max(100), z.looseObject({})])
  .nullable()
  .describe("The newest that its task said: percent, or an object of the task's own.");

/** A job in a list: everything but its input. */
export const jobItemSchema = z
  .object({
    id: z.uuid(),
    queue: text,
    task: text,
    job_type: text.describe("The same as `task`."),
    status: jobStatus,
    run_at: time.nullable().describe("When it is or was due; null while it waits for other jobs."),
    priority: z.int().describe("Higher runs first."),
    attempt: attemptNumber.describe("The attempt it waits for, runs, or ended with; from 1."),
    max_attempts: attemptNumber,
    last_error_code: text.nullable(),
    last_error_message: text.nullable(),
    dlq_reason_code: text.nullable().describe("Why it was given up."),
    suggested_action: text.nullable(),
    created_at: time,
    updated_at: time,
    started_at: time.nullable(),
    finished_at: time.nullable(),
    worker_id: text.nullable().describe("The name of the worker that has or had it last."),
    tags: z.array(text),
    replay_of_job_id: z.uuid().nullable(),
    progress,
    progress_at: time.nullable(),
  })
  .meta({ id: "Job" });

export function jobItem(job: Job) {
  return {
    id: job.id,
    queue: job.queue,
    task: job.task,
    job_type: job.task,
    status: job.status,
    run_at: timeText(job.runAt),
    priority: job.priority,
    attempt: job.attempt,
    max_attempts: job.maxAttempts,
    last_error_code: job.lastErrorCode,
    last_error_message: job.lastErrorMessage,
    dlq_reason_code: job.deadLetterReason,
    suggested_action: adviceFor(job),
    created_at: timeText(job.createdAt),
    updated_at: timeText(job.finishedAt ?? job.startedAt ?? job.createdAt),
    started_at: timeText(job.startedAt),
    finished_at: timeText(job.finishedAt),
    worker_id: job.worker,
    tags: job.tags,
    replay_of_job_id: job.replayOf,
    progress: job.progress,
    progress_at: timeText(job.progressAt),
  };
}

/** How many jobs a job needs, by what became of them. */
export const dependencyCounts = { total: count, open: count, completed: count, failed: count };

/** A job by itself, with what became of it. */
export const jobDetailSchema = jobItemSchema
  .extend({
    input: z.unknown().describe("What it was enqueued with."),
    payload_json: z.unknown().describe("The same as `input`."),
    last_error_stack: text.nullable(),
    result: z.unknown().optional().describe("What its task returned; absent while that is nothing."),
    dependencies: z.object(dependencyCounts).optional().describe("Of a job that needs others."),
  })
  .meta({ id: "JobDetail" });

export function jobDetail(job: Job) {
  return { ...jobItem(job), input: job.input, payload_json: job.input, last_error_stack: job.lastErrorStack };
}

/** A page: `next`, or `next_cursor`, is the `after`, or `cursor`, of the page that follows; null on the last one. `looked`: at how many jobs. */
export const jobPageSchema = z
  .object({
    items: z.array(jobItemSchema),
    next: text.nullable().describe("The `after` of the page that follows; null on the last one."),
    next_cursor: text.nullable().describe("The same as `next`, for `cursor`."),
    looked: count.describe("At how many jobs it looked."),
  })
  .meta({ id: "JobPage" });

export function pageOf({ jobs, next, looked }: { jobs: readonly Job[]; next: string | null; looked: number }) {
  return { items: jobs.map(jobItem), next, next_cursor: next, looked };
}
