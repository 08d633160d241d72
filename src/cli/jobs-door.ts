/**
 * Jobs for the commands that look at them or add some: straight from the database, or, while an `up` holds the embedded one or
 * --url says so, through its API. Both answer in the API's own words, so that --json prints the same either way.
 */
import type { ArgsDef } from "citty";
import { defineApp } from "../app/app.ts";
import { readConfig } from "../app/config.ts";
import { type ListOptions, type Millrace, millrace } from "../app/millrace.ts";
import type { CancelOptions, ReplayOptions } from "../app/orders.ts";
import { MillraceError } from "../core/errors.ts";
import { durationMs } from "../core/duration.ts";
import { explanationView, timelineView } from "../http/answers-view.ts";
import { jobDetail, jobItem } from "../http/job-view.ts";
import type { Cancelled } from "../jobs/cancel.ts";
import type { EnqueueOptions } from "../jobs/enqueue.ts";
import { given } from "./arguments.ts";
import { ask } from "./ask-api.ts";
import { type BulkDoor, bulkDirect, bulkOverHttp } from "./bulk-door.ts";
import { everyCommand } from "./command.ts";
import { loadApp } from "./load-app.ts";
import { hasData } from "./open-database.ts";
import { announcedApi } from "./running-api.ts";

/** Times are Dates here and texts when they came over HTTP. */
export type Wire<Item> = Item extends Date
  ? Date | string
  : Item extends readonly (infer Each)[]
    ? readonly Wire<Each>[]
    : Item extends object
      ? { readonly [Key in keyof Item]: Wire<Item[Key]> }
      : Item;
export type JobItem = Wire<ReturnType<typeof jobItem>>;
export type JobDetail = Wire<ReturnType<typeof jobDetail>>;
export type JobTimeline = Wire<ReturnType<typeof timelineView>>;
export type JobExplanation = Wire<ReturnType<typeof explanationView>>;

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
  /** Throws `JOB_NOT_FOUND`. */
  find(id: string): Promise<JobDetail>;
  /** Throws `JOB_NOT_FOUND`. */
  timeline(id: string): Promise<JobTimeline>;
  /** Throws `JOB_NOT_FOUND`. */
  explain(id: string): Promise<JobExplanation>;
  enqueue(task: string, input: unknown, options: Omit<EnqueueOptions, "tx" | "backoff">): Promise<NewJob>;
  /** Throws `JOB_NOT_FOUND`, `JOB_STATE`. */
  cancel(id: string, options: CancelOptions): Promise<CancelAnswer>;
  /** Throws `JOB_NOT_FOUND`. */
  replay(id: string, options: ReplayOptions): Promise<ReplayAnswer>;
  close(): Promise<void>;
}

export const doorArguments = {
  url: {
    type: "string",
    valueHint: "url",
    description: "Ask the API of a running `millrace up` there, such as http://127.0.0.1:3003, instead of the database",
  },
  ...everyCommand,
} as const satisfies ArgsDef;

export interface DoorOptions {
  readonly url?: string | undefined;
  /** App module, for its tasks. */
  readonly app?: string | undefined;
}

/** Throws `DATABASE_*`, and `EMBEDDED_IN_USE` when the process that holds the data has no API. Never changes the schema. */
export function openJobs(options: DoorOptions): Promise<JobsDoor> {
  return openDoor(options, direct, overHttp);
}

/** The same for any door that has both ways. */
export async function openDoor<Door>(
  { url, app }: DoorOptions,
  direct: (mill: Millrace) => Door,
  overHttp: (url: string) => Door,
): Promise<Door> {
  if (url !== undefined) return overHttp(url);
  const config = readConfig(process.env);
  if (!hasData(config)) {
    throw new MillraceError(
      "DATABASE_BEHIND",
      `There is no database in ${config.dataDir} yet; \`millrace up\` makes one.`,
    );
  }
  try {
    const tasks = app === undefined ? [] : (await loadApp(app)).app.tasks;
    return direct(await millrace(defineApp({ tasks }), { migrate: false, poolSize: 2 }));
  } catch (error) {
    const running = inUse(error) ? announcedApi(config) : undefined;
    if (running !== undefined) return overHttp(running);
    throw error;
  }
}

function inUse(error: unknown): boolean {
  return error instanceof MillraceError && error.code === "EMBEDDED_IN_USE";
}

function direct(mill: Millrace): JobsDoor {
  return {
    async list(options) {
      const { jobs, next } = await mill.jobs(options);
      return { items: jobs.map(jobItem), next };
    },
    async find(id) {
      const job = await mill.job(id);
      if (job === undefined) throw new MillraceError("JOB_NOT_FOUND", `There is no job ${id}.`);
      return jobDetail(job);
    },
    timeline: async (id) => timelineView(await mill.timeline(id)),
    explain: async (id) => explanationView(await mill.explain(id)),
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
    find: (id) => ask(url, `/jobs/${encodeURIComponent(id)}`),
    timeline: (id) => ask(url, `/jobs/${encodeURIComponent(id)}/timeline`),
    explain: (id) => ask(url, `/jobs/${encodeURIComponent(id)}/explain`),
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
