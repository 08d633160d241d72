/** The API: every route, and what all of them share: request ids, one log line each, one way to say no, and who may come in. */
import { Hono, type MiddlewareHandler } from "hono";
import { methodNotAllowed } from "hono/method-not-allowed";
import { requestId } from "hono/request-id";
import type { Addresses } from "../access/addresses.ts";
import { type RateLimits, defaultRateLimits } from "../access/rate-limits.ts";
import { type SessionSettings, Sessions, defaultSessions } from "../access/sessions.ts";
import { SignIn, type SignInSettings } from "../access/sign-in.ts";
import { type GivenToken, Tokens } from "../access/tokens.ts";
import type { Millrace } from "../app/millrace.ts";
import { version } from "../app/version.ts";
import { actingAs } from "../audit/actor-store.ts";
import type { Log } from "../core/log.ts";
import { Metrics } from "../metrics/metrics.ts";
import { Shared } from "../metrics/shared.ts";
import { readRates } from "../metrics/window-store.ts";
import { answerEndpoints } from "./answers.ts";
import { auditEndpoints } from "./audit.ts";
import { actorOf, audited } from "./audited.ts";
import { authEndpoints } from "./auth.ts";
import { boardChanges, boardRoutes } from "./board.ts";
import { bulkEndpoints } from "./bulk.ts";
import { deadLetterEndpoints } from "./dead-letters.ts";
import { emitEndpoints } from "./emit.ts";
import type { Endpoint, Endpoints } from "./endpoint.ts";
import type { ApiEnv } from "./env.ts";
import { eventEndpoints } from "./events.ts";
import { flowEndpoints } from "./flows.ts";
import { Gate, opsAdminsOnly, requireRole } from "./gate.ts";
import { healthEndpoints, isKnown } from "./health.ts";
import { jobEndpoints } from "./jobs.ts";
import { labelsOf, metricsEndpoints, routeOf } from "./metrics.ts";
import { openApiDocument } from "./openapi.ts";
import { opsEndpoints } from "./ops.ts";
import { orderEndpoints } from "./orders.ts";
import { pageEndpoints } from "./page.ts";
import { policyEndpoints } from "./policies.ts";
import { problem, problemOf } from "./problem.ts";
import { countQueues, queueEndpoints } from "./queues.ts";
import { RateLimiter } from "./rate-limits.ts";
import { diskUsedPercent, impatient, readinessEndpoints } from "./readiness.ts";
import { Repeats } from "./repeats.ts";
import { resultEndpoints } from "./results.ts";
import { scheduleEndpoints } from "./schedules.ts";
import { SessionDoor } from "./session-door.ts";
import { refusals } from "./sign-in-pages.ts";
import { schedulerEndpoints } from "./scheduler.ts";
import { tokenEndpoints } from "./tokens.ts";
import { workerEndpoints } from "./workers.ts";

/** Counts of every queue, and rates, are everybody's for so long: a page that a hundred people look at asks fifty times a second. */
const countsMs = 100;
const ratesMs = 1_000;

export interface ApiOptions {
  /** The folder whose disk `/health/test` looks at. Default: the working folder. */
  readonly dataDir?: string;
  /** Before the names of metrics. Default `millrace_`. */
  readonly metricsPrefix?: string;
  readonly log: Log;
  /** Tokens of the environment, beside those in the database. */
  readonly givenTokens?: readonly GivenToken[];
  /**
   * Programs on this machine may come in as operators without a token. Default: where the database is embedded, and neither proxies nor
   * people who sign in are to come: through a proxy on this machine, strangers look like programs on it.
   */
  readonly trustMachine?: boolean;
  /** Whose X-Forwarded-For is believed. Default: nobody's. */
  readonly proxies?: Addresses | undefined;
  readonly rateLimits?: RateLimits | undefined;
  /** Who sees all of `/health` without credentials. Default: nobody. */
  readonly healthAllowlist?: Addresses | undefined;
  /** The share of the disk, 0 to 1, from which on `/health/test` is not ready. Default 0.9. */
  readonly diskThreshold?: number;
  /** The server begins to stop: nobody is to wait any longer, and nothing more is to be sent here. Default: it never does. */
  readonly stopping?: AbortSignal | undefined;
  /** How people sign in at an identity provider. Default: they cannot. */
  readonly signIn?: SignInSettings | undefined;
  /** Of sessions that begin with a token, where people do not sign in. */
  readonly sessions?: SessionSettings;
}

export function createApi(mill: Millrace, options: ApiOptions): Hono<ApiEnv> {
  const { dataDir = ".", log, givenTokens = [], proxies, signIn } = options;
  const isPrivate = mill.db.kind === "embedded" && proxies === undefined && signIn === undefined;
  const { trustMachine = isPrivate } = options;
  const { rateLimits = defaultRateLimits, healthAllowlist: allowlist, diskThreshold = 0.9 } = options;
  const { metricsPrefix: prefix = "millrace_" } = options;
  const diskUsed = impatient(async () => (await diskUsedPercent(dataDir)) / 100);
  const metrics = new Metrics(mill.db, { prefix, version, diskUsed, log });
  const counts = new Shared(() => countQueues(mill), countsMs);
  const rates = new Shared(() => readRates(mill.db), ratesMs);
  const changed = (): void => {
    counts.forget();
    rates.forget();
  };
  const tokens = new Tokens(mill.db, givenTokens);
  const browsers = signIn ?? options.sessions ?? defaultSessions;
  const sessions = new Sessions(mill.db, tokens, browsers);
  const provider = signIn && new SignIn(mill.db, signIn, sessions, log);
  void provider?.prepare();
  const door = new SessionDoor(sessions, { origin: browsers.origin, strict: provider !== undefined });
  const gate = new Gate({ tokens, door, trustMachine, proxies });
  const repeats = new Repeats(mill.db, log);
  const limiter = new RateLimiter(rateLimits, (c) => gate.addressOf(c));
  const endpoints: Endpoints = [
    ...jobEndpoints(mill),
    ...resultEndpoints(mill, options.stopping),
    ...answerEndpoints(mill),
    ...orderEndpoints(mill, options.stopping),
    ...flowEndpoints(mill),
    ...emitEndpoints(mill),
    ...deadLetterEndpoints(mill),
    ...bulkEndpoints(mill),
    ...queueEndpoints(mill, counts),
    ...policyEndpoints(mill),
    ...scheduleEndpoints(mill),
    ...schedulerEndpoints(mill),
    ...workerEndpoints(mill),
    ...eventEndpoints(mill),
    ...opsEndpoints(mill),
    ...metricsEndpoints(mill.db, metrics, rates),
    ...healthEndpoints(mill, { gate, allowlist }),
    ...readinessEndpoints(mill.db, {
      diskUsedPercent: () => diskUsedPercent(dataDir),
      diskThreshold,
      isKnown: (c, withinMs) => isKnown(gate, c, withinMs),
      stopping: options.stopping,
    }),
    ...tokenEndpoints(tokens),
    ...authEndpoints({ gate, door, sessions, signIn: provider }),
    ...auditEndpoints(mill.db),
    ...pageEndpoints(() => document),
  ];
  const document = openApiDocument(endpoints, version);

  const refused = refusals(provider?.settings.origin);
  const api = new Hono<ApiEnv>();
  api
    .use(requestId())
    .use(guardedAnswer)
    .use(watched(metrics, log, changed))
    .use(
      methodNotAllowed({
        app: api,
        onMethodNotAllowed: (c, methods) =>
          problem(c, "METHOD_NOT_ALLOWED", `${c.req.path} has no ${c.req.method}.`, {
            headers: { Allow: methods.join(", ") },
          }),
      }),
    )
    .onError((error, c) => problemOf(error, c, log, refused))
    .notFound((c) => problem(c, "ROUTE_NOT_FOUND", `There is nothing at ${c.req.method} ${c.req.path}.`));
  const mount = (one: Endpoint): void => {
    api.on(one.method, one.path, async (c) => {
      await limiter.count(c, one.routeClass);
      requireRole(c, one.role);
      const handle = () => one.handle(c, repeats.of(c, one));
      return one.routeClass === "ops" ? actingAs(actorOf(c, gate.addressOf(c)), handle) : handle();
    });
  };
  api.use(audited({ db: mill.db, endpoints, more: boardChanges, addressOf: (c) => gate.addressOf(c), log }));
  for (const one of endpoints) if (one.role === "public") mount(one);
  api.use(gate.enter);
  api.use("/api/ops/queues", opsAdminsOnly(sessions));
  for (const one of endpoints) if (one.role !== "public") mount(one);
  api.use("/admin/queues/*", (c, next) => actingAs(actorOf(c, gate.addressOf(c)), next));
  return api.route("/", boardRoutes(mill, limiter, log));
}

/** Answers are for who asked and are what they say they are. What is otherwise says so itself. */
const guardedAnswer: MiddlewareHandler<ApiEnv> = (c, next) => {
  c.header("X-Content-Type-Options", "nosniff");
  c.header("Cache-Control", "no-store");
  return next();
};

/** Every request is measured, and leaves a line. `changed` is called before the answer to what may have changed something. */
function watched(metrics: Metrics, log: Log, changed: () => void): MiddlewareHandler<ApiEnv> {
  return async (c, next) => {
    const startedAt = performance.now();
    const route = routeOf(c);
    c.set("route", route);
    await next();
    if (c.req.method !== "GET") changed();
    const tookMs = performance.now() - startedAt;
    const { status } = c.res;
    metrics.request(labelsOf(c, route, status), tookMs / 1_000);
    log.info(
      {
        request_id: c.get("requestId"),
        method: c.req.method,
        route,
        status,
        duration_ms: Math.round(tookMs * 10) / 10,
      },
      "request.completed",
    );
  };
}
