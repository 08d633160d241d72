/** What the doctor looks at. Each check says what it found, and, when something is wrong, what to do. */
import { maintenanceQueue } from "../app/built-in.ts";
import { type Config, readConfig, unknownVariables } from "../app/config.ts";
import { describeMs } from "../core/duration.ts";
import { MillraceError } from "../core/errors.ts";
import type { Database } from "../db/database.ts";
import { latestVersion, requireCurrent } from "../db/migrate.ts";
import { diskUsedPercent } from "../http/readiness.ts";
import { workersView } from "../http/worker-view.ts";
import { bulkTaskName } from "../jobs/bulk.ts";
import { type WorkerState, listWorkers, readDrained, readSchedulingStopped } from "../jobs/registry-store.ts";
import { overHttp } from "./api-door.ts";
import { type Waiting, readServer, waitingJobs } from "./doctor-store.ts";
import { exitCodeOf, exitCodes } from "./exit-codes.ts";
import { withoutPassword } from "./mask.ts";
import { hasData, openDatabase } from "./open-database.ts";
import { counted } from "./print.ts";
import { type RunningApi, announcedApi } from "./running-api.ts";
import { checkSchedules } from "./schedule-checks.ts";
import { sinceBy } from "./workers.ts";

export interface Finding {
  readonly check:
    | "node"
    | "config"
    | "database"
    | "migrations"
    | "clock"
    | "disk"
    | "workers"
    | "waiting"
    | "schedules";
  readonly status: "ok" | "warn" | "fail";
  readonly message: string;
  /** What to do about it. */
  readonly action?: string;
  /** With `fail`. */
  readonly exitCode?: number;
}

const oldestNode = [20, 19] as const;
/** Jobs are timed by the database's clock alone; but a machine this far off misleads whoever compares its log with it. */
const clockLimitMs = 1_000;
/** Of runbook 002: warning, critical. */
const diskLimits = { warn: 80, fail: 90 };

export async function checkAll(env: Readonly<Record<string, string | undefined>>): Promise<Finding[]> {
  const node = checkNode(process.versions.node);
  let config: Config;
  try {
    config = readConfig(env);
  } catch (error) {
    return [node, failure("config", error)];
  }
  return [node, ...checkNames(env), ...(await checkDatabase(config)), await checkDisk(config)];
}

function checkNode(version: string): Finding {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  if (major > oldestNode[0] || (major === oldestNode[0] && minor >= oldestNode[1]))
    return { check: "node", status: "ok", message: `Node ${version}.` };
  const message = `Node ${version} is older than ${oldestNode.join(".")}, the oldest this is tested on.`;
  return { check: "node", status: "fail", message, action: "Install a newer Node.", exitCode: exitCodes.failed };
}

function checkNames(env: Readonly<Record<string, string | undefined>>): Finding[] {
  const unknown = unknownVariables(env);
  if (unknown.length === 0) return [{ check: "config", status: "ok", message: "Every variable is known and allowed." }];
  return unknown.map((message) => ({
    check: "config",
    status: "warn",
    message,
    action: "Correct or remove it; `millrace config` lists all there are.",
  }));
}

async function checkDatabase(config: Config): Promise<Finding[]> {
  if (!hasData(config)) {
    const message = `No embedded database in ${config.dataDir} yet, and DATABASE_URL is not set.`;
    return [{ check: "database", status: "ok", message, action: "`millrace up` makes one." }];
  }
  let db: Database;
  try {
    db = await openDatabase(config);
  } catch (error) {
    const held = error instanceof MillraceError && error.code === "EMBEDDED_IN_USE";
    const running = held ? announcedApi(config) : undefined;
    return running === undefined ? [failure("database", error)] : checkRunning(config, running);
  }
  try {
    const [database, clock] = await checkServer(db, config);
    const schema = await checkSchema(db);
    return [database, schema, clock, ...(schema.status === "ok" ? await checkWork(db) : [])];
  } catch (error) {
    return [failure("database", error)];
  } finally {
    await db.close();
  }
}

/** The embedded database is held by an `up`, which alone can look inside. Its API says the rest. */
async function checkRunning({ dataDir }: Config, running: RunningApi): Promise<Finding[]> {
  const message = `${dataDir}, embedded, is held by the \`millrace up\` at ${running.url}`;
  const door = overHttp(running);
  try {
    await door.ask("GET", "/health/test");
    const workers = await door.ask<WorkersSeen>("GET", "/api/workers");
    return [{ check: "database", status: "ok", message: `${message}, which is ready.` }, ...checkWorkers(workers)];
  } catch (error) {
    const action = "Look at its log; stop it and start it again.";
    const exitCode = exitCodes.database;
    const { message: why } = error as Error;
    return [{ check: "database", status: "fail", message: `${message}. ${why}`, action, exitCode }];
  }
}

async function checkServer(db: Database, { databaseUrl, dataDir }: Config): Promise<[Finding, Finding]> {
  const askedAt = Date.now();
  const { version, clockMs, databaseBytes } = await readServer(db);
  const answeredAt = Date.now();
  const size = `${Math.ceil(databaseBytes / 1_048_576)} MB`;
  const place =
    databaseUrl === undefined
      ? `${dataDir}, embedded PostgreSQL ${version}`
      : `${withoutPassword(databaseUrl)}, PostgreSQL ${version}, answers in ${answeredAt - askedAt} ms`;
  // Its clock was read at some moment between our two.
  const offMs = Math.max(clockMs - answeredAt, askedAt - clockMs, 0);
  const ahead = clockMs > answeredAt ? "behind" : "ahead of";
  return [
    { check: "database", status: "ok", message: `${place}, ${size}.` },
    offMs <= clockLimitMs
      ? { check: "clock", status: "ok", message: "This machine and the database agree on the time." }
      : {
          check: "clock",
          status: "warn",
          message: `This machine's clock is ${describeMs(offMs)} ${ahead} the database's.`,
          action: "Synchronise both (NTP). Jobs keep to the database's clock; log lines and ids are stamped here.",
        },
  ];
}

async function checkSchema(db: Database): Promise<Finding> {
  try {
    await requireCurrent(db);
    const message = `Schema ${db.schema} is at version ${latestVersion}, as this Millrace needs it.`;
    return { check: "migrations", status: "ok", message };
  } catch (error) {
    return failure("migrations", error);
  }
}

async function checkWork(db: Database): Promise<Finding[]> {
  const [workers, drained, waiting] = [await listWorkers(db), await readDrained(db), await waitingJobs(db)];
  const stopped = await readSchedulingStopped(db);
  const schedules = await checkSchedules(db, workers.length > 0);
  const stuck = waiting.filter(({ served, paused }) => !served || paused).map(stuckJobs);
  const jobs = waiting.reduce((sum, row) => sum + row.jobs, 0);
  const message = jobs === 0 ? "No job waits." : `${counted(jobs, "job")} waiting, each for a live worker.`;
  return [
    ...checkWorkers(workersView(workers, drained, stopped)),
    ...(stuck.length > 0 ? stuck : [{ check: "waiting", status: "ok", message } as const]),
    ...schedules,
  ];
}

/** From the database, or from an API. */
interface WorkersSeen {
  readonly workers: readonly {
    readonly id: number;
    readonly name: string;
    readonly state: WorkerState;
    readonly queues: readonly string[] | null;
    readonly tasks: readonly string[] | null;
    readonly concurrency: number;
    readonly recycling: boolean;
  }[];
  readonly drained: Parameters<typeof sinceBy>[0] | null;
  readonly scheduling_stopped: Parameters<typeof sinceBy>[0] | null;
}

function checkWorkers({ workers, drained, scheduling_stopped: stopped }: WorkersSeen): Finding[] {
  const live = workers.filter(({ state }) => state !== "lost" && state !== "stopped");
  const recycling = live.filter((worker) => worker.recycling);
  const draining = live.filter((worker) => worker.state === "draining" && !worker.recycling);
  const warn = (message: string, action: string): Finding => ({ check: "workers", status: "warn", message, action });
  const all: Finding[] = drained
    ? [warn(`The system is drained ${sinceBy(drained)}: no worker claims jobs, nor will one that starts.`, resumeAll)]
    : stopped
      ? [warn(`No schedule fires, ordered ${sinceBy(stopped)}: somebody waits for the queues to empty.`, fireAgain)]
      : [];
  if (live.length === 0) return [...all, warn("No worker runs.", "Start `millrace up` or `millrace worker`.")];
  const slots = live.reduce((sum, { concurrency }) => sum + concurrency, 0);
  const message = `${counted(live.length, "worker")}, ${counted(slots, "job")} at once: ${live.map(({ name }) => name).join(", ")}.`;
  const one = "`millrace workers resume <id>` lets one claim again";
  return [
    { check: "workers", status: "ok", message },
    ...all,
    ...(live.some(servesMaintenance) ? [] : [warn(nobodyMaintains, maintainAgain)]),
    ...(draining.length > 0 && drained === null
      ? [
          warn(
            `${draining.length} of ${live.length} drain and claim no jobs: ${idsOf(draining)}.`,
            `${one}, \`millrace drain resume\` all.`,
          ),
        ]
      : []),
    ...(recycling.length > 0
      ? [
          warn(
            `${recycling.length} of ${live.length} end what they run, to start anew: ${idsOf(recycling)}.`,
            recycleEnds,
          ),
        ]
      : []),
  ];
}

const servesMaintenance = ({ queues, tasks }: WorkersSeen["workers"][number]): boolean =>
  (queues?.includes(maintenanceQueue) ?? true) && (tasks?.includes(bulkTaskName) ?? true);
const nobodyMaintains =
  "No worker serves the queue maintenance: bulk operations wait, and nothing old is archived or deleted.";
const maintainAgain = "Start one without MILLRACE_MAINTENANCE=off.";
const resumeAll = "`millrace drain resume` lets every worker claim again.";
const fireAgain = "`millrace drain resume` lets them fire again, if nobody does wait.";
const recycleEnds =
  "Wait half a minute. One that stays holds a job that ignores its signal, which ends with its process: let that be started again.";

const idsOf = (workers: WorkersSeen["workers"]): string => workers.map(({ id, name }) => `${id} (${name})`).join(", ");

function stuckJobs({ task, queue, jobs, paused, oldestMs }: Waiting): Finding {
  const who = `${counted(jobs, "job")} of task "${task}" in queue "${queue}", the oldest for ${describeMs(oldestMs)}`;
  const [why, action] = paused
    ? ["the queue is paused", `POST /api/queue/${queue}/resume lets it run.`]
    : [
        "no live worker defines the task and works on the queue",
        "Deploy a worker whose app has this task, or correct the name where it is enqueued.",
      ];
  return { check: "waiting", status: "warn", message: `${who}: ${why}.`, action };
}

async function checkDisk({ databaseUrl, dataDir }: Config): Promise<Finding> {
  const folder = databaseUrl === undefined ? dataDir : ".";
  const used = await diskUsedPercent(folder);
  const message = `The disk of ${folder === "." ? "this folder" : folder} is ${used} % full.`;
  const status = used >= diskLimits.fail ? "fail" : used >= diskLimits.warn ? "warn" : "ok";
  if (status === "ok") return { check: "disk", status, message };
  const action = "Make room: PostgreSQL stops writing when the disk is full, and then nothing runs.";
  return { check: "disk", status, message, action, ...(status === "fail" ? { exitCode: exitCodes.failed } : {}) };
}

function failure(check: Finding["check"], error: unknown): Finding {
  const { message } = error as Error;
  const action = error instanceof MillraceError ? { action: error.action } : {};
  return { check, status: "fail", message, ...action, exitCode: exitCodeOf(error) };
}
