/** What became of one attempt, for tests to look at. */
import type { RunningJob } from "../jobs/running.ts";
import type { JobStatus } from "../jobs/read-store.ts";
import type { Result, Verdict } from "../jobs/settle-store.ts";

export interface JobRun {
  readonly id: string;
  readonly task: string;
  readonly queue: string;
  /** From 1. */
  readonly attempt: number;
  /** Virtual time at its start. */
  readonly at: Date;
  readonly outcome: Result["outcome"];
  /** Of the job, after this attempt. */
  readonly status: Extract<JobStatus, "completed" | "waiting" | "delayed" | "failed" | "cancelled"> | "lost";
  /** What `run` returned. Undefined when it threw. */
  readonly result: unknown;
  /** What `run` threw. Undefined when it returned. */
  readonly error: unknown;
}

type Ended = { readonly value: unknown } | { readonly thrown: unknown };

/** No verdict: the job is done. */
export function runOf(job: RunningJob, result: Result, verdict: Verdict | undefined, ended: Ended): JobRun {
  const { id, task, queue, attempt, startedAt } = job;
  return {
    id,
    task,
    queue,
    attempt,
    at: new Date(startedAt),
    outcome: verdict === undefined ? "succeeded" : result.outcome,
    status: statusAfter(verdict, result.delayMs ?? 0),
    result: "value" in ended ? ended.value : undefined,
    error: "thrown" in ended && result.outcome !== "snoozed" ? ended.thrown : undefined,
  };
}

function statusAfter(verdict: Verdict | undefined, delayMs: number): JobRun["status"] {
  switch (verdict) {
    case undefined:
      return "completed";
    case "retry":
    case "again":
      return delayMs > 0 ? "delayed" : "waiting";
    case "cancelled":
      return "cancelled";
    case "late":
      return "lost";
    case "dead":
    case "exhausted":
      return "failed";
  }
}
