/** The routes of metrics: as JSON for people and scripts, as text for Prometheus, and the ratios of runbook 003. */
import { type MiddlewareHandler, Hono } from "hono";
import { matchedRoutes } from "hono/route";
import { z } from "zod";
import { MillraceError } from "../core/errors.ts";
import { checkedName } from "../core/options.ts";
import type { Database } from "../db/database.ts";
import { readLifecycle, readRates } from "../metrics/window-store.ts";
import type { Metrics, RequestLabels } from "../metrics/metrics.ts";
import type { ApiContext, ApiEnv } from "./env.ts";
import { readQuery } from "./read.ts";

const queueQuery = z.strictObject({ queue: z.string().optional() });
const windowQuery = z.strictObject({ windowHours: z.coerce.number().int().min(1).max(720).default(24) });

const prometheusText = "text/plain; version=0.0.4; charset=utf-8";

export function metricsRoutes(db: Database, metrics: Metrics): Hono<ApiEnv> {
  const text = async (c: ApiContext): Promise<Response> =>
    c.body(await metrics.text(), 200, { "Content-Type": prometheusText });
  const ratios = async (c: ApiContext): Promise<Response> => {
    const { windowHours } = readQuery(c, windowQuery);
    return c.json(opsView(windowHours, await readLifecycle(db, windowHours)));
  };
  return new Hono<ApiEnv>()
    .get("/metrics/prom", text)
    .get("/metrics", async (c) => {
      c.header("Vary", "Accept");
      if (wantsText(c.req.header("accept"))) return text(c);
      const { queue } = readQuery(c, queueQuery);
      const queues = await readRates(db, queue === undefined ? undefined : checkedName(queue, "queue"));
      if (queue !== undefined && queues.length === 0)
        throw new MillraceError("QUEUE_NOT_FOUND", `There is no queue "${queue}".`);
      return c.json({ now_utc: new Date().toISOString(), queues });
    })
    .get("/ops/metrics", ratios)
    .get("/api/ops/metrics", ratios);
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

/** Measures every request. */
export function measured(metrics: Metrics): MiddlewareHandler<ApiEnv> {
  return async (c, next) => {
    const startedAt = performance.now();
    await next();
    const route = routeOf(c);
    const labels = { method: c.req.method, route, route_class: classOf(c.req.method, route), code: c.res.status };
    metrics.request(labels, (performance.now() - startedAt) / 1_000);
  };
}

/** `ops`: asked by machines, all the time. `stream`: takes as long as the caller wants. Neither says how fast the API is. */
function classOf(method: string, route: string): RequestLabels["route_class"] {
  if (/^(\/api)?\/(health|ops)(\/|$)/.test(route) || route.startsWith("/metrics")) return "ops";
  return (method === "GET" && route === "/events") || route.endsWith("/wait") ? "stream" : "api";
}
