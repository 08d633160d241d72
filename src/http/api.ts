/** The API: every route, and what all of them share: request ids, one log line each, one way to say no, and who may come in. */
import { Hono, type MiddlewareHandler } from "hono";
import { methodNotAllowed } from "hono/method-not-allowed";
import { requestId } from "hono/request-id";
import { matchedRoutes } from "hono/route";
import type { Addresses } from "../access/addresses.ts";
import { type RateLimits, defaultRateLimits } from "../access/rate-limits.ts";
import { type GivenToken, Tokens } from "../access/tokens.ts";
import type { Millrace } from "../app/millrace.ts";
import { version } from "../app/version.ts";
import type { Log } from "../core/log.ts";
import { answerRoutes } from "./answers.ts";
import { boardRoutes } from "./board.ts";
import { bulkRoutes } from "./bulk.ts";
import { deadLetterRoutes } from "./dead-letters.ts";
import type { Endpoints } from "./endpoint.ts";
import type { ApiEnv } from "./env.ts";
import { Gate, requireRole } from "./gate.ts";
import { openApiDocument } from "./openapi.ts";
import { tokenEndpoints } from "./tokens.ts";
import { emitRoutes } from "./emit.ts";
import { flowRoutes } from "./flows.ts";
import { eventRoutes } from "./events.ts";
import { diskUsedPercent, livenessRoutes, readinessRoutes } from "./health.ts";
import { jobRoutes } from "./jobs.ts";
import { orderRoutes } from "./orders.ts";
import { pageRoutes } from "./page.ts";
import { problem, problemOf } from "./problem.ts";
import { policyRoutes } from "./policies.ts";
import { queueEndpoints } from "./queues.ts";
import { RateLimiter } from "./rate-limits.ts";
import { scheduleRoutes } from "./schedules.ts";
import { schedulerRoutes } from "./scheduler.ts";
import { resultRoutes } from "./results.ts";
import { workerRoutes } from "./workers.ts";

export interface ApiOptions {
  /** The folder whose disk `/health/test` looks at. Default: the working folder. */
  readonly dataDir?: string;
  readonly log: Log;
  /** Tokens of the environment, beside those in the database. */
  readonly givenTokens?: readonly GivenToken[];
  /** Programs on this machine may come in as operators without a token. Default: where the database is embedded. */
  readonly trustMachine?: boolean;
  /** Whose X-Forwarded-For is believed. Default: nobody's. */
  readonly proxies?: Addresses | undefined;
  readonly rateLimits?: RateLimits | undefined;
}

export function createApi(mill: Millrace, options: ApiOptions): Hono<ApiEnv> {
  const { dataDir = ".", log, givenTokens = [], trustMachine = mill.db.kind === "embedded", proxies } = options;
  const { rateLimits = defaultRateLimits } = options;
  const tokens = new Tokens(mill.db, givenTokens);
  const gate = new Gate({ tokens, trustMachine, proxies });
  const limiter = new RateLimiter(rateLimits, (c) => gate.addressOf(c));
  const endpoints: Endpoints = [...queueEndpoints(mill), ...tokenEndpoints(tokens)];
  const document = openApiDocument(endpoints, version);

  const api = new Hono<ApiEnv>();
  api
    .use(requestId())
    .use(logged(log))
    .use(
      methodNotAllowed({
        app: api,
        onMethodNotAllowed: (c, methods) =>
          problem(c, "METHOD_NOT_ALLOWED", `${c.req.path} has no ${c.req.method}.`, {
            headers: { Allow: methods.join(", ") },
          }),
      }),
    )
    .onError((error, c) => problemOf(error, c, log))
    .notFound((c) => problem(c, "ROUTE_NOT_FOUND", `There is nothing at ${c.req.method} ${c.req.path}.`))
    .get("/openapi.json", (c) => c.json(document))
    .route("/", livenessRoutes())
    .use(gate.enter);
  for (const one of endpoints) {
    api.on(one.method, one.path, async (c) => {
      await limiter.count(c, one.routeClass);
      requireRole(c, one.role);
      return one.handle(c);
    });
  }
  api
    .route(
      "/",
      readinessRoutes(mill.db, () => diskUsedPercent(dataDir)),
    )
    .route("/", jobRoutes(mill))
    .route("/", resultRoutes(mill))
    .route("/", flowRoutes(mill))
    .route("/", emitRoutes(mill))
    .route("/", answerRoutes(mill))
    .route("/", orderRoutes(mill))
    .route("/", deadLetterRoutes(mill))
    .route("/", bulkRoutes(mill))
    .route("/", policyRoutes(mill))
    .route("/", scheduleRoutes(mill))
    .route("/", schedulerRoutes(mill))
    .route("/", workerRoutes(mill))
    .route("/", eventRoutes(mill))
    .route("/", boardRoutes(mill, limiter, log))
    .route("/", pageRoutes());
  return api;
}

function logged(log: Log): MiddlewareHandler<ApiEnv> {
  return async (c, next) => {
    const startedAt = performance.now();
    await next();
    // Middleware is registered under "/*": the first other path is the route.
    const route = matchedRoutes(c).find(({ path }) => path !== "/*");
    log.info(
      {
        request_id: c.get("requestId"),
        method: c.req.method,
        route: route?.path ?? "unmatched",
        status: c.res.status,
        duration_ms: Math.round((performance.now() - startedAt) * 10) / 10,
      },
      "request.completed",
    );
  };
}
