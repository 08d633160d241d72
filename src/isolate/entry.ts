/**
 * What runs in the thread or process: loads the handler once, then runs one job after another. Started by vessel.ts, by its file
 * name; nothing imports it.
 */
import { Worker, parentPort, workerData } from "node:worker_threads";
import { NonRetryableError } from "../core/errors.ts";
import { readFailure } from "../core/retry.ts";
import { type Within, loadWithin } from "../telemetry/trace-context.ts";
import type { Ended, FromIsolate, ToIsolate } from "./protocol.ts";
import { type Handler, Turn } from "./turn.ts";
import { loadTypescript } from "./typescript.ts";

/** How long a process may take to hand over its last words. */
const lastWordsMs = 500;
const parentLookMs = 1_000;

/** The job that runs. */
let current: Turn | undefined;
/** Loaded for the first job that comes with a trace. */
let loading: Promise<Within | undefined> | undefined;

if (parentPort) parentPort.on("message", hear);
else livesWithItsParent();
process.on("uncaughtException", (error) => lastWords({ say: "crashed", failure: readFailure(error) }));

const handler = await load(parentPort ? (workerData as { module: string }).module : (process.argv[2] as string));
if (handler) tell({ say: "ready" });

async function load(module: string): Promise<Handler | undefined> {
  try {
    if (/\.[cm]?tsx?$/.test(module)) loadTypescript();
    const { default: found } = (await import(module)) as { default?: unknown };
    if (typeof found === "function") return found as Handler;
    throw new NonRetryableError("its default export is not a function.");
  } catch (error) {
    const failure = readFailure(error);
    const message = `The handler in ${module} cannot be used: ${failure.message}`;
    lastWords({ say: "unusable", failure: { ...failure, message } });
    return undefined;
  }
}

function hear(message: ToIsolate): void {
  if (message.say === "run") return void run(message);
  if (message.turn !== current?.number) return;
  if (message.say === "answer") current.hear(message);
  else current.abort(message.code, message.message);
}

async function run(message: Extract<ToIsolate, { say: "run" }>): Promise<void> {
  const turn = new Turn(message, tell);
  current = turn;
  const work = (): Promise<Ended> => turn.run(handler as Handler);
  const { trace } = message;
  const within = trace && (await withinOf(message.job.id));
  tell({ say: "ended", turn: turn.number, how: await (within ? within(trace, work) : work()) });
}

function withinOf(job: string): Promise<Within | undefined> {
  const warn = (fields: object, text: string): void => tell({ say: "log", job, level: "warn", fields, message: text });
  loading ??= loadWithin({ warn });
  return loading;
}

/** Throws when the message cannot be cloned. */
function tell(message: FromIsolate, sent?: () => void): void {
  if (parentPort) {
    parentPort.postMessage(message);
    sent?.();
  } else process.send?.(message, undefined, undefined, () => sent?.());
}

function lastWords(message: FromIsolate): void {
  const end = (): never => process.exit(1);
  setTimeout(end, lastWordsMs);
  tell(message, end);
}

/**
 * A process must not outlive its worker: the job runs again elsewhere. It hears of the worker's end, unless it is busy; then a
 * thread of its own does. Ctrl-C in a terminal reaches every process there, and it is the worker who decides what that means.
 */
function livesWithItsParent(): void {
  process.on("message", hear);
  process.on("disconnect", () => process.exit());
  process.on("SIGINT", () => undefined);
  process.on("SIGTERM", () => undefined);
  const watch = `setInterval(() => process.ppid === ${process.argv[3]} || process.kill(process.pid, "SIGKILL"), ${parentLookMs})`;
  new Worker(watch, { eval: true, execArgv: [] }).unref();
}
