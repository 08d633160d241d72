export { NonRetryableError as UnrecoverableError } from "../core/errors.ts";
export type { BackoffOptions, DefaultJobOptions, JobsOptions } from "./job-options.ts";
export type { Job, JobProgress, JobState } from "./job.ts";
export { type QueueManager, type QueueManagerOptions, type Stats, createQueueManager } from "./queue-manager.ts";
export type { BulkJob, CountedState, JobCounts, JobLogs, Queue } from "./queue.ts";
export type { Processor, Worker, WorkerOptions } from "./worker.ts";
