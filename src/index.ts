export { type App, defineApp } from "./app/app.ts";
export type { BulkFilter, BulkOptions, BulkPreview } from "./app/bulk.ts";
export {
  type ListOptions,
  type LogsOptions,
  Millrace,
  type MillraceOptions,
  type WorkOptions,
  millrace,
} from "./app/millrace.ts";
export type { CancelOptions, ChangeOptions, OrderOptions, ReplayOptions } from "./app/orders.ts";
export type { Duration } from "./core/duration.ts";
export { type ErrorCode, MillraceError, NonRetryableError, RateLimitError, errorCodes } from "./core/errors.ts";
export type { Log } from "./core/log.ts";
export type { Backoff } from "./core/retry.ts";
export type { ForeignTransaction } from "./db/database.ts";
export type { BulkOperation, BulkStatus } from "./jobs/bulk-store.ts";
export type { BulkAction } from "./jobs/bulk-walk-store.ts";
export type { Cancelled } from "./jobs/cancel.ts";
export type { IsolateOptions } from "./isolate/options.ts";
export type { JobContext } from "./jobs/context.ts";
export type { DeadLetterCount, DeadLetterGroup } from "./jobs/dead-letters-store.ts";
export type { Enqueued } from "./jobs/enqueue.ts";
export type { DebounceOptions, EnqueueOptions, ThrottleOptions, UniqueOptions } from "./jobs/enqueue-options.ts";
export type { Because, Explanation } from "./jobs/explain.ts";
export type { LogLine } from "./jobs/notes-store.ts";
export type { Registry } from "./jobs/registry.ts";
export type { HeldJob, WorkerInfo, WorkerState } from "./jobs/registry-store.ts";
export type { Job, JobStatus } from "./jobs/read-store.ts";
export type { QueueStats } from "./jobs/stats-store.ts";
export { type AnyTask, type InputOf, type OutputOf, type Task, type TaskOptions, task } from "./jobs/task.ts";
export type { Attempt, StoryEntry, Timeline } from "./jobs/timeline.ts";
export type { Stopped, Worker } from "./jobs/worker.ts";
