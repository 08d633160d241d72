/**
 * Jobs for the commands that look at them or add some: straight from the database, or, while an `up` holds the embedded one or
 * --url says so, through its API. Both answer in the API's own words, so that --json prints the same either way.
 */
import type { Millrace } from "../app/millrace.ts";
import type { ListOptions } from "../app/options.ts";
import type { CancelOptions, ReplayOptions } from "../app/orders.ts";
import { durationMs } from "../core/duration.ts";
import { jobItem } from "../http/job-view.ts";
import type { Cancelled } from "../jobs/cancel.ts";
import type { EnqueueOptions } from "../jobs/enqueue.ts";
import { given } from "./arguments.ts";
import { ask } from "./ask-api.ts";
import { type DoorOptions, type Wire, openDoor } from "./door.ts";
import { type BulkDoor, bulkDirect, bulkOverHttp } from "./bulk-door.ts";

export type JobItem = Wire<ReturnType<typeof jobItem>>;

interface NewJob {
  readonly job_id: string;
  readonly id: string;
  /** An earlier job already has the idempotency key. */
  readonly duplicate: boolean;
}

interface CancelAnswer extends Cancelled {
  readonly job_id: string;
  readonly id: string;
}

interface ReplayAnswer {
  readonly new_job_id: string;
  readonly replay_of_job_id: string;
  readonly job_id: string;
}

export interface JobsDoor extends BulkDoor {
  list(options: ListOptions): Promise<{ items: JobItem[]; next: string | null }>;
  enqueue(task: string, input: unknown, options: Omit<EnqueueOptions, "tx" | "backoff">): Promise<NewJob>;
  /** Throws `JOB_NOT_FOUND`, `JOB_STATE`. */
  cancel(id: string, options: CancelOptions): Promise<CancelAnswer>;
  /** Throws `JOB_NOT_FOUND`. */
  replay(id: string, options: ReplayOptions): Promise<ReplayAnswer>;
  close(): Promise<void>;
}

/** Throws `DATABASE_*`, and `EMBEDDED_IN_USE` when the process that holds the data has no API. Never changes the schema. */
export function openJobs(options: DoorOptions): Promise<JobsDoor> {
  return openDoor(options, direct, overHttp);
}

function direct(mill: Millrace): JobsDoor {
  return {
    async list(options) {
      const { jobs, next } = await mill.jobs(options);
      return { items: jobs.map(jobItem), next };
    },
    async enqueue(name, input, options) {
      const task = mill.app.tasks.find((candidate) => candidate.name === name);
      const job = await (task ? mill.enqueue(task, input as never, options) : mill.enqueue(name, input, options));
      return { job_id: job.id, ...job };
    },
    async cancel(id, options) {
      return { job_id: id, id, ...(await mill.cancel(id, options)) };
    },
    async replay(id, options) {
      const fresh = await mill.replay(id, options);
      return { new_job_id: fresh.id, replay_of_job_id: id, job_id: fresh.id };
    },
    ...bulkDirect(mill),
    close: () => mill.close(),
  };
}

function overHttp(url: string): JobsDoor {
  return {
    async list(options) {
      const { errorCode, reason, status, ...rest } = options;
      const dead = errorCode !== undefined || reason !== undefined;
      const query = given({ ...rest, error_code: errorCode, reason, status: dead ? undefined : status });
      const path = `${dead ? "/dlq" : "/jobs"}?${new URLSearchParams(query as Record<string, string>).toString()}`;
      const { items, next } = await ask<{ items: JobItem[]; next: string | null }>(url, path);
      return { items, next };
    },
    enqueue: (task, input, options) => ask(url, "/jobs", { task, input, ...options }),
    cancel(id, { within, ...options }) {
      const extraMs = Math.min(within === undefined ? 0 : durationMs(within, "wait"), 60_000);
      return ask(url, `/jobs/${encodeURIComponent(id)}/cancel`, given({ ...options, wait: within }), "POST", extraMs);
    },
    replay: (id, options) => ask(url, `/jobs/${encodeURIComponent(id)}/replay`, options),
    ...bulkOverHttp(url),
    async close() {},
  };
}
