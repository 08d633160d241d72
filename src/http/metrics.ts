/** The routes of metrics: as JSON for people and scripts, as text for Prometheus, and the ratios of runbook 003. */
import { matchedRoutes } from "hono/route";
import { z } from "zod";
import { MillraceError } from "../core/errors.ts";
import { checkedName } from "../core/options.ts";
import type { Database } from "../db/database.ts";
import type { Metrics, RequestLabels } from "../metrics/metrics.ts";
import type { Shared } from "../metrics/shared.ts";
import { type QueueRates, readLifecycle, readRates } from "../metrics/window-store.ts";
import { boardPath } from "./board.ts";
import { type Endpoints, endpoint } from "./endpoint.ts";
import type { ApiContext } from "./env.ts";

const queueQuery = z.strictObject({ queue: z.string().optional() });
const windowQuery = z.strictObject({ windowHours: z.coerce.number().int().min(1).max(720).default(24) });

const share = z.number().min(0).max(1);
const ratesAnswer = z.object({
  now_utc: z.iso.datetime(),
  queues: z.array(
    z.object({
      at: z.iso.datetime(),
      queue: z.string(),
      runnable_queue_depth: z.int().min(0),
      jobs_per_sec: z.number().min(0).describe("Attempts that ended within the last minute, per second."),
      success_rate: share,
      retry_rate: share.describe("Of those attempts, the share that is followed by another."),
      mean_latency_ms: z.number().min(0),
    }),
  ),
});
const some = z.int().min(0);
const opsMetrics = z.object({
  windowHours: z.int(),
  queue: z.object({ activeRuns: some, pendingRuns: some, runningRuns: some, runningWithoutHeartbeat: some }),
  scrape: z.object({ totalRuns: z.null(), completedRuns: z.null(), failedRuns: z.null(), successRate: z.null() }),
  lifecycle: z.object({ staleReconciledRuns: some, retriesTriggered: some, retrySuccessRate: share.nullable() }),
  callback: z.object({
    totalEvents: z.null(),
    completedEvents: z.null(),
    failedEvents: z.null(),
    failuresByType: z.null(),
    failuresByCode: z.null(),
  }),
});

const promText = { contentType: "text/plain", about: "JSON, or the exposition format of Prometheus." };
const prometheusText = "text/plain; version=0.0.4; charset=utf-8";

/** `rates`: of every queue, for all who ask. */
export function metricsEndpoints(db: Database, metrics: Metrics, rates: Shared<QueueRates[]>): Endpoints {
  const text = async (c: ApiContext): Promise<Response> =>
    c.body(await metrics.text(), 200, { "Content-Type": prometheusText });
  const ratios = {
    summary: "How jobs of the last hours fared, as ratios",
    about: "As runbook 003 asks for them. What belongs to rooms that are not there yet is null.",
    role: "viewer",
    query: windowQuery,
    answers: { 200: opsMetrics },
    handle: async ({ query }: { query: z.infer<typeof windowQuery> }) =>
      opsView(query.windowHours, await readLifecycle(db, query.windowHours)),
  } as const;
  return [
    endpoint("Metrics", "GET /metrics/prom", {
      summary: "Everything that is measured, for Prometheus",
      role: "viewer",
      answers: { 200: promText },
      handle: ({ c }) => text(c),
    }),
    endpoint("Metrics", "GET /metrics", {
      summary: "Depth and rates of each queue; for Prometheus, where `Accept` asks for text",
      about:
        "Where many ask for every queue, they share what is at most two seconds old, by `at`; what was changed through this server is in it.",
      role: "viewer",
      query: queueQuery,
      answers: { 200: [ratesAnswer, promText] },
      errors: ["QUEUE_NOT_FOUND", "QUEUE_NAME_INVALID"],
      async handle({ c, query: { queue } }) {
        c.header("Vary", "Accept");
        if (wantsText(c.req.header("accept"))) return text(c);
        const queues = await (queue === undefined ? rates.read() : readRates(db, checkedName(queue, "queue")));
        if (queue !== undefined && queues.length === 0)
          throw new MillraceError("QUEUE_NOT_FOUND", `There is no queue "${queue}".`);
        return { now_utc: new Date().toISOString(), queues };
      },
    }),
    endpoint("Metrics", "GET /ops/metrics", ratios),
    endpoint("Metrics", "GET /api/ops/metrics", ratios),
  ];
}

/** Whether an Accept header names a format of Prometheus, and JSON not before it. Wildcards name nothing. */
export function wantsText(accept = ""): boolean {
  const weights = accept.split(",").map((range): readonly [type: string, weight: number] => {
    const [type = "", ...parameters] = range.split(";").map((part) => part.trim().toLowerCase());
    const weight = parameters.find((parameter) => parameter.startsWith("q="));
    return [type, weight === undefined ? 1 : Number(weight.slice(2)) || 0];
  });
  const weightOf = (...types: string[]): number =>
    Math.max(0, ...weights.filter(([type]) => types.includes(type)).map(([, weight]) => weight));
  return weightOf("text/plain", "application/openmetrics-text") > weightOf("application/json");
}

/** What belongs to rooms that do not exist yet is null. */
function opsView(windowHours: number, jobs: Awaited<ReturnType<typeof readLifecycle>>): object {
  const ended = jobs.replaysCompleted + jobs.replaysFailed;
  return {
    windowHours,
    queue: {
      activeRuns: jobs.waiting + jobs.running,
      pendingRuns: jobs.waiting,
      runningRuns: jobs.running,
      runningWithoutHeartbeat: jobs.runningWithoutHeartbeat,
    },
    scrape: { totalRuns: null, completedRuns: null, failedRuns: null, successRate: null },
    lifecycle: {
      staleReconciledRuns: jobs.lost,
      retriesTriggered: jobs.replays,
      retrySuccessRate: ended === 0 ? null : jobs.replaysCompleted / ended,
    },
    callback: {
      totalEvents: null,
      completedEvents: null,
      failedEvents: null,
      failuresByType: null,
      failuresByCode: null,
    },
  };
}

/** The template a request was routed by. Middleware is registered under "/*": the first other path is the route. */
export function routeOf(c: ApiContext): string {
  return matchedRoutes(c).find(({ path }) => path !== "/*")?.path ?? "unmatched";
}

export function labelsOf(c: ApiContext, route: string, code: number): RequestLabels {
  return { method: c.req.method, route, route_class: classOf(c, route), code };
}

/**
 * `probe` and `ops`: asked by machines, all the time. `files`: of Bull Board's page. `stream`: takes as long as the caller wants. None of
 * them says how fast the API is, or how often it fails.
 */
function classOf({ req }: ApiContext, route: string): RequestLabels["route_class"] {
  if (/^(\/api)?\/health(\/|$)/.test(route) || route === "/livez" || route === "/readyz") return "probe";
  if (/^(\/api)?\/ops(\/|$)/.test(route) || route.startsWith("/metrics")) return "ops";
  if (route.startsWith(boardPath) && !req.path.startsWith(`${boardPath}/api/`)) return "files";
  return (route === "/events" && req.method !== "POST") || route.endsWith("/wait") ? "stream" : "api";
}
