/** What becomes of one job: its result, what it waits for, its steps, and waiting for its end. */
import { z } from "zod";
import type { Millrace } from "../app/millrace.ts";
import { durationMs } from "../core/duration.ts";
import { MillraceError } from "../core/errors.ts";
import { countDependencies, listDependencies } from "../jobs/dependencies-store.ts";
import type { Job } from "../jobs/read-store.ts";
import { unlessStopping } from "./deadline.ts";
import { type Endpoints, endpoint } from "./endpoint.ts";
import { dependencyCounts, jobStatus } from "./job-view.ts";
import { longestWaitMs } from "./orders.ts";
import { duration, jobIdParams } from "./read.ts";
import { snakeCased } from "./snake-case.ts";
import { attemptNumber, text, time } from "./wire.ts";

const place = z.coerce.number().int();
const pageQuery = z.strictObject({
  limit: place.min(1).max(500).default(100),
  after: place.min(0).max(2_147_483_647).default(0),
});
const waitQuery = z.strictObject({ within: z.union([z.coerce.number().min(0), duration]).default("30s") });

const outcome = {
  job_id: z.uuid(),
  id: z.uuid(),
  result: z.unknown().optional().describe("What its task returned; absent while that is nothing."),
};
const itemPlace = z.int().min(1);
const next = text.nullable().describe("The `after` of the page that follows; null on the last one.");
const dependency = z
  .object({
    place: itemPlace,
    name: text.describe("What the flow calls it."),
    id: z.uuid(),
    state: z.enum(["open", "completed", "failed"]),
    on_failure: z.enum(["fail", "ignore", "continue"]),
  })
  .meta({ id: "Dependency" });
const step = z
  .object({
    place: itemPlace,
    name: text,
    kind: z.enum(["run", "sleep", "event"]),
    until: time.nullable().describe("When a sleep, or a wait for an event, is over."),
    event: text.nullable(),
    result: z.unknown().describe("What it returned, or what came with the event."),
    failure: z
      .object({ name: text, code: text, message: text })
      .nullable()
      .describe("What it threw before the run went on to another step; the run finds it whenever it comes by again."),
    attempt: attemptNumber,
    started_at: time,
    finished_at: time.nullable(),
  })
  .meta({ id: "Step" });

/** `stopping`: nobody is to wait any longer. */
export function resultEndpoints(mill: Millrace, stopping: AbortSignal | undefined): Endpoints {
  const existing = async (id: string): Promise<Job> => {
    const job = await mill.job(id);
    if (job !== undefined) return job;
    throw new MillraceError("JOB_NOT_FOUND", `There is no job ${id}.`);
  };

  return [
    endpoint("Jobs", "GET /jobs/:id/result", {
      summary: "What a job's task returned",
      role: "viewer",
      params: jobIdParams,
      answers: { 200: z.object({ ...outcome, status: jobStatus }).meta({ id: "JobResult" }) },
      errors: ["JOB_NOT_FOUND"],
      async handle({ params }) {
        const { id, status } = await existing(params.id);
        return { job_id: id, id, status, ...resultOf(await mill.result(id)) };
      },
    }),
    endpoint("Jobs", "GET /jobs/:id/wait", {
      summary: "Wait for a job to complete, and get its result",
      about: "The request is held for `within`, 60 s at most; after `WAIT_TIMEOUT` the job goes on: ask again.",
      role: "viewer",
      routeClass: "stream",
      params: jobIdParams,
      query: waitQuery,
      answers: { 200: z.object({ ...outcome, status: z.literal("completed") }).meta({ id: "CompletedJob" }) },
      errors: ["JOB_NOT_FOUND", "JOB_FAILED", "JOB_CANCELLED", "WAIT_TIMEOUT", "STOPPING"],
      async handle({ c, params: { id }, query: { within } }) {
        const longest = c.env?.inProcess ? Number.POSITIVE_INFINITY : longestWaitMs;
        const patience = { within: Math.min(durationMs(within, "within"), longest) };
        const result = await unlessStopping(stopping, mill.waitUntilFinished(id, patience));
        return { job_id: id, id, status: "completed", ...resultOf(result) };
      },
    }),
    endpoint("Jobs", "GET /jobs/:id/dependencies", {
      summary: "The jobs that a job needs, and what became of them",
      role: "viewer",
      params: jobIdParams,
      query: pageQuery,
      answers: {
        200: z.object({ items: z.array(dependency), next, ...dependencyCounts }).meta({ id: "DependencyPage" }),
      },
      errors: ["JOB_NOT_FOUND"],
      async handle({ params, query: { limit, after } }) {
        const { id } = await existing(params.id);
        const items = await listDependencies(mill.db, id, limit, after);
        return { items: items.map(snakeCased), next: nextOf(items, limit), ...(await countDependencies(mill.db, id)) };
      },
    }),
    endpoint("Jobs", "GET /jobs/:id/steps", {
      summary: "What a job's run has done step by step",
      role: "viewer",
      params: jobIdParams,
      query: pageQuery,
      answers: { 200: z.object({ items: z.array(step), next }).meta({ id: "StepPage" }) },
      errors: ["JOB_NOT_FOUND"],
      async handle({ params, query: { limit, after } }) {
        const { id } = await existing(params.id);
        const items = (await mill.steps(id, { limit, after })).map(({ result, ...rest }) => ({
          ...snakeCased(rest),
          result,
        }));
        return { items, next: nextOf(items, limit) };
      },
    }),
  ];
}

/** A task that returned nothing has no result; null is one. */
function resultOf(result: unknown): { result?: unknown } {
  return result === undefined ? {} : { result };
}

function nextOf(items: readonly { place: number }[], limit: number): string | null {
  return items.length === limit ? String(items.at(-1)?.place) : null;
}
