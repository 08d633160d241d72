export type { Crash } from "./testing/each-crash.ts";
export type { ExpectedJob } from "./testing/expectations.ts";
export { CrashError, type CrashPoint } from "./testing/fuse.ts";
export type { JobRun } from "./testing/job-run.ts";
export { type LogLine, type RunTaskOptions, type TaskAttempt, attemptTask, runTask } from "./testing/run-task.ts";
export { type TestMillrace, type TestOptions, testMillrace } from "./testing/test-millrace.ts";
