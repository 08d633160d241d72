/** A job as the API shows it: in snake_case, under our names and under those of runbook 004. */
import type { Job } from "../jobs/read-store.ts";
import { adviceFor } from "../jobs/timeline.ts";

/** A job in a list: everything but its input. */
export function jobItem(job: Job) {
  return {
    id: job.id,
    queue: job.queue,
    task: job.task,
    job_type: job.task,
    status: job.status,
    run_at: job.runAt,
    priority: job.priority,
    attempt: job.attempt,
    max_attempts: job.maxAttempts,
    last_error_code: job.lastErrorCode,
    last_error_message: job.lastErrorMessage,
    dlq_reason_code: job.deadLetterReason,
    suggested_action: adviceFor(job),
    created_at: job.createdAt,
    updated_at: job.finishedAt ?? job.startedAt ?? job.createdAt,
    started_at: job.startedAt,
    finished_at: job.finishedAt,
    worker_id: job.worker,
    tags: job.tags,
    replay_of_job_id: job.replayOf,
    progress: job.progress,
    progress_at: job.progressAt,
  };
}

/** A job by itself. */
export function jobDetail(job: Job) {
  return { ...jobItem(job), input: job.input, payload_json: job.input, last_error_stack: job.lastErrorStack };
}

/** A page: `next`, or `next_cursor`, is the `after`, or `cursor`, of the page that follows; null on the last one. `looked`: at how many jobs. */
export function pageOf({ jobs, next, looked }: { jobs: readonly Job[]; next: string | null; looked: number }) {
  return { items: jobs.map(jobItem), next, next_cursor: next, looked };
}
