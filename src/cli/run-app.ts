/**
 * What `up` and `worker` do: open the database, load the app, take on their roles, and stay until told to stop. Then nothing new
 * is taken in, what runs may finish, and what was not started goes back to its queue.
 */
import type { ArgsDef } from "citty";
import { randomBytes } from "node:crypto";
import { type GivenToken, Tokens } from "../access/tokens.ts";
import { type Config, readConfig, unknownVariables } from "../app/config.ts";
import { type Millrace, millrace } from "../app/millrace.ts";
import { sessionSettings, signInSettings } from "../app/sign-in.ts";
import type { Log } from "../core/log.ts";
import { createApi } from "../http/api.ts";
import { type Serving, serve } from "../http/server.ts";
import type { Worker } from "../jobs/worker.ts";
import { type ApiAddress, apiAddress, trustsMachine } from "./api-address.ts";
import { given } from "./arguments.ts";
import { everyCommand } from "./command.ts";
import { introduce } from "./banner.ts";
import { exitCodes } from "./exit-codes.ts";
import { loadApp } from "./load-app.ts";
import { createLog } from "./log.ts";
import { hasData } from "./open-database.ts";
import { Progress } from "./progress.ts";
import { announceApi, withdrawApi } from "./running-api.ts";
import { stopAsked } from "./stop-asked.ts";
import { openTerminal } from "./terminal.ts";

export const runArguments = {
  app: {
    type: "string",
    valueHint: "file",
    description: "The app module, TypeScript or JavaScript (default: app.ts, app.js or app.mjs in this folder)",
  },
  ...everyCommand,
} as const satisfies ArgsDef;

/** How long running jobs and requests get to finish; orchestrators commonly kill after 30 s. */
const stopWithinMs = 20_000;
/** For requests that came meanwhile. */
const closeWithinMs = 2_000;

export async function runApp(
  args: { readonly app?: string | undefined; readonly json?: boolean | undefined },
  withApi: boolean,
): Promise<void> {
  const config = readConfig(process.env);
  const address = withApi ? apiAddress(config) : undefined;
  const terminal = args.json ? undefined : openTerminal(process.stdout);
  const log = createLog(config.logLevel, terminal);
  const stop = stopAsked(log);
  for (const sentence of unknownVariables(process.env)) log.warn({}, sentence);
  const module = await loadApp(args.app);
  if (!hasData(config)) terminal?.line(`Making an embedded database in ${config.dataDir}: once, for a few seconds …`);

  const mill = await millrace(module.app, { log });
  let api: Serving | undefined;
  const stopping = new AbortController();
  try {
    withdrawApi(config); // a killed one may have left its address
    if (address) api = await openApi(mill, config, { address, log, stopping: stopping.signal });
    const { urls = [] } = api ?? {};
    const trusting = address !== undefined && trustsMachine(config, address);
    introduce({ mill, module, config, urls, trusting, terminal, log });
    await module.start?.(mill);
    const progress = await Progress.begin(mill, { terminal, log, url: urls[0] });
    const { worker, stuck } = await keepWorking(mill, config, stop);
    progress.stop();
    stopping.abort();
    // The port stays open: whoever watches /readyz learns that nothing more is to be sent here, and has the time to see to it.
    const [{ hung }] = await Promise.all([worker.stop({ within: stopWithinMs }), api?.drain(stopWithinMs)]);
    await api?.close(closeWithinMs);
    if (hung > 0) process.exitCode = stuck ? exitCodes.restart : exitCodes.failed;
  } finally {
    withdrawApi(config);
    await api?.close(closeWithinMs);
    await mill.close();
  }
  terminal?.line("Stopped.");
  // What a task left behind, a timer or a pool of its own, would keep the process for ever.
  process.exit();
}

/** Takes over the address, so that other commands find this process while it holds the embedded database. */
async function openApi(
  mill: Millrace,
  config: Config,
  { address, log, stopping }: { address: ApiAddress; log: Log; stopping: AbortSignal },
): Promise<Serving> {
  const {
    dataDir,
    metricsPrefix,
    apiTokens = [],
    trustProxy: proxies,
    rateLimits,
    healthAllowlist,
    diskThreshold,
  } = config;
  const embedded = mill.db.kind === "embedded";
  // Whoever may read the data folder may do anything with what is in it: for commands while this process holds the data.
  const own: GivenToken = { token: randomBytes(32).toString("base64url"), role: "admin", name: "command line" };
  const signIn = signInSettings(config);
  const api = createApi(mill, {
    ...(embedded ? { dataDir } : {}),
    trustMachine: trustsMachine(config, address),
    givenTokens: embedded ? [...apiTokens, own] : apiTokens,
    proxies,
    rateLimits,
    healthAllowlist,
    diskThreshold,
    metricsPrefix,
    signIn,
    sessions: sessionSettings(config),
    stopping,
    log,
  });
  const guarded = signIn !== undefined || (await new Tokens(mill.db, apiTokens).any());
  const serving = await serve(api, { ...address, log, guarded });
  if (embedded) announceApi(config, { url: serving.urls[0] as string, token: own.token });
  return serving;
}

/** A worker that is recycled starts anew, until somebody wants an end. `stuck`: it could not, since a job ignores its signal. */
async function keepWorking(
  mill: Millrace,
  config: Config,
  stop: Promise<void>,
): Promise<{ worker: Worker; stuck: boolean }> {
  for (;;) {
    const worker = startWorker(mill, config);
    const recycled = await Promise.race([stop, worker.recycled]);
    if (!recycled) return { worker, stuck: false };
    if (recycled.hung > 0) {
      mill.log.error(
        { hung: recycled.hung },
        "jobs that ignore their signal end only with this process; it exits to be started again",
      );
      return { worker, stuck: true };
    }
  }
}

function startWorker(mill: Millrace, config: Config): Worker {
  return mill.work({
    concurrency: config.concurrency,
    lease: config.leaseSeconds * 1_000,
    reapEvery: config.reapIntervalMs,
    ...given({ queues: config.queues, name: config.workerName }),
  });
}
