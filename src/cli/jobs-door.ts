/**
 * Jobs for the commands that look at them or add some: straight from the database, or, while an `up` holds the embedded one or
 * --url says so, through its API. Both answer in the API's own words, so that --json prints the same either way.
 */
import type { ArgsDef } from "citty";
import { defineApp } from "../app/app.ts";
import { readConfig } from "../app/config.ts";
import { type ListOptions, type Millrace, millrace } from "../app/millrace.ts";
import { type ErrorCode, MillraceError, errorCodes } from "../core/errors.ts";
import { jobDetail, jobItem } from "../http/job-view.ts";
import type { EnqueueOptions } from "../jobs/enqueue.ts";
import { everyCommand } from "./command.ts";
import { loadApp } from "./load-app.ts";
import { hasData } from "./open-database.ts";
import { announcedApi } from "./running-api.ts";

/** Times are Dates here and texts when they came over HTTP. */
type Wire<Item> = { readonly [Key in keyof Item]: Date extends Item[Key] ? Item[Key] | string : Item[Key] };
export type JobItem = Wire<ReturnType<typeof jobItem>>;
export type JobDetail = Wire<ReturnType<typeof jobDetail>>;

export interface NewJob {
  readonly job_id: string;
  readonly id: string;
  /** An earlier job already has the idempotency key. */
  readonly duplicate: boolean;
}

export interface JobsDoor {
  list(options: ListOptions): Promise<{ items: JobItem[]; next: string | null }>;
  /** Throws `JOB_NOT_FOUND`. */
  find(id: string): Promise<JobDetail>;
  enqueue(task: string, input: unknown, options: Omit<EnqueueOptions, "tx" | "backoff">): Promise<NewJob>;
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

/** Throws `DATABASE_*`, and `EMBEDDED_IN_USE` when the process that holds the data has no API. Never changes the schema. */
export async function openJobs({
  url,
  app,
}: {
  url?: string | undefined;
  app?: string | undefined;
}): Promise<JobsDoor> {
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
    async enqueue(name, input, options) {
      const task = mill.app.tasks.find((candidate) => candidate.name === name);
      const job = await (task ? mill.enqueue(task, input as never, options) : mill.enqueue(name, input, options));
      return { job_id: job.id, ...job };
    },
    close: () => mill.close(),
  };
}

function overHttp(url: string): JobsDoor {
  return {
    list: (options) => ask(url, `/jobs?${new URLSearchParams(options as Record<string, string>).toString()}`),
    find: (id) => ask(url, `/jobs/${encodeURIComponent(id)}`),
    enqueue: (task, input, options) => ask(url, "/jobs", { task, input, ...options }),
    async close() {},
  };
}

const answerWithinMs = 30_000;

async function ask<Answer>(base: string, path: string, body?: object): Promise<Answer> {
  const request: RequestInit = { signal: AbortSignal.timeout(answerWithinMs) };
  if (body !== undefined) {
    request.method = "POST";
    request.headers = { "Content-Type": "application/json" };
    request.body = JSON.stringify(body);
  }
  let response: Response;
  try {
    response = await fetch(base.replace(/\/+$/, "") + path, request);
  } catch (cause) {
    const reason = ((cause as Error).cause as Error | undefined)?.message ?? (cause as Error).message;
    throw new MillraceError(
      "OPTION_INVALID",
      `No Millrace answers at ${base}: ${reason}. Is \`millrace up\` running there?`,
      {
        cause,
      },
    );
  }
  const answer = (await response.json().catch(() => ({}))) as Answer & { code?: string; detail?: string };
  if (response.ok) return answer;
  const { code, detail = `${base} answered with status ${response.status}.` } = answer;
  throw new MillraceError(code !== undefined && code in errorCodes ? (code as ErrorCode) : "INTERNAL", detail);
}
