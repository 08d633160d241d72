/** The options of `millrace()`, `mill.work()`, `mill.jobs()` and `mill.logs()`. */
import type { Duration } from "../core/duration.ts";
import type { Log } from "../core/log.ts";
import type { PGlite } from "../db/embedded.ts";
import type { JobStatus } from "../jobs/read-store.ts";

/** Everything has a default; what is not given comes from the environment (docs/reference/configuration.md). */
export interface MillraceOptions {
  /** PostgreSQL. Default `DATABASE_URL`; neither: embedded. `null`: embedded even if `DATABASE_URL` is set. */
  databaseUrl?: string | null;
  /** Folder for embedded data; `null` keeps it in memory. */
  dataDir?: string | null;
  /** A PGlite of your own instead. */
  pglite?: PGlite;
  schema?: string;
  /** Bring the schema up to date first. Default true; with false, a database that is behind is refused. */
  migrate?: boolean;
  poolSize?: number;
  /** The database is reached through a pooler in transaction mode. */
  pooler?: boolean;
  /** Direct connection for LISTEN behind a pooler. */
  listenUrl?: string;
  maxPayloadBytes?: number;
  /** Jobs a queue takes per minute, unless its policy says otherwise. Default: no limit. */
  maxEnqueuePerMinute?: number;
  /** Define the app's schedules, and fire what is due beside each worker. Default `MILLRACE_SCHEDULER`, or true. */
  scheduler?: boolean;
  /** Default: silent. pino and console fit. */
  log?: Log;
  /** Spans for OpenTelemetry, where its API is installed and a provider registered. Default true. */
  telemetry?: boolean;
  /** Time for ids, ms since 1970. For tests; every decision about due times is the database's. */
  now?: () => number;
  /** Chance for jitter, 0 to 1. For tests. */
  random?: () => number;
}

export interface WorkOptions {
  /** Default: every queue. */
  queues?: readonly string[];
  /** Jobs running at once. Default 10. */
  concurrency?: number;
  /** Without a heartbeat for this long, this worker is dead and its jobs are queued again. 250 ms to a day, default `"10s"`. */
  lease?: Duration;
  /** How often to look for dead workers. 50 ms to a day, default `"5s"`. */
  reapEvery?: Duration;
  /** Default: host name and process id. */
  name?: string;
  /** Jobs of tasks this app does not define: leave them to a worker that has them (default), or fail them as `UNKNOWN_JOB_TYPE`. */
  unknownTasks?: "leave" | "fail";
  /** Also fire schedules. Default: the `scheduler` of `millrace()`. Any number of processes may. */
  scheduler?: boolean;
  /** Also serve the queue `maintenance`, whatever `queues` are: bulk operations and upkeep. Default `MILLRACE_MAINTENANCE`, or true. */
  maintenance?: boolean;
}

export interface ListOptions {
  status?: JobStatus;
  queue?: string;
  task?: string;
  tag?: string;
  /** With status `"failed"`: why it was given up, and its error code. */
  reason?: string;
  errorCode?: string;
  /** What the input contains, as PostgreSQL's `@>` has it: `{ user: 7 }` finds `{ user: 7, plan: "pro" }`. */
  input?: unknown;
  /** A text somewhere in the JSON of the input, in capitals or not. */
  search?: string;
  createdAfter?: Date | string;
  createdBefore?: Date | string;
  /** 1 to 500, default 100. */
  limit?: number;
  /** `next` of the page before. */
  after?: string;
}

export interface LogsOptions {
  /** `n` of the last line seen. Default 0: from the first. */
  after?: number;
  /** 1 to 1 000, default 200. */
  limit?: number;
}

export const optionNames: ReadonlySet<string> = new Set([
  "databaseUrl",
  "dataDir",
  "pglite",
  "schema",
  "migrate",
  "poolSize",
  "pooler",
  "listenUrl",
  "maxPayloadBytes",
  "maxEnqueuePerMinute",
  "scheduler",
  "log",
  "telemetry",
  "now",
  "random",
]);
export const workNames: ReadonlySet<string> = new Set([
  "queues",
  "concurrency",
  "lease",
  "reapEvery",
  "name",
  "unknownTasks",
  "scheduler",
  "maintenance",
]);
export const listNames: ReadonlySet<string> = new Set([
  "status",
  "queue",
  "task",
  "tag",
  "reason",
  "errorCode",
  "input",
  "search",
  "createdAfter",
  "createdBefore",
  "limit",
  "after",
]);
export const logsNames: ReadonlySet<string> = new Set(["after", "limit"]);
