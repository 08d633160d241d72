/**
 * What runs in the thread or process: loads the handler once, then runs one job after another. Started by vessel.ts, by its file
 * name; nothing imports it.
 */
import { inspect } from "node:util";
import { Worker, parentPort, workerData } from "node:worker_threads";
import { type Duration, durationMs } from "../core/duration.ts";
import { MillraceError, NonRetryableError, type ErrorCode, errorCodes } from "../core/errors.ts";
import type { Log } from "../core/log.ts";
import { readFailure } from "../core/retry.ts";
import type { FromIsolate, JobFacts, ToIsolate } from "./protocol.ts";
import { loadTypescript } from "./typescript.ts";

type Handler = (context: object) => unknown;

/** The job that runs. */
interface Turn {
  readonly turn: number;
  abort: AbortController | undefined;
  reason: Error | undefined;
}

class Snooze extends Error {
  readonly pauseMs: number;
  constructor(pauseMs: number) {
    super("snoozed");
    this.pauseMs = pauseMs;
  }
}

/** How long a process may take to hand over its last words. */
const lastWordsMs = 500;
const parentLookMs = 1_000;

let current: Turn | undefined;

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
  if (message.say === "run") return void run(message.turn, message.job);
  if (message.turn !== current?.turn) return;
  const { code, message: text } = message;
  current.reason =
    code in errorCodes ? new MillraceError(code as ErrorCode, text) : Object.assign(new Error(text), { code });
  current.abort?.abort(current.reason);
}

async function run(number: number, job: JobFacts): Promise<void> {
  const turn: Turn = { turn: number, abort: undefined, reason: undefined };
  current = turn;
  try {
    const result = await (handler as Handler)(contextOf(turn, job));
    done(turn, job, result);
  } catch (thrown) {
    const how =
      thrown instanceof Snooze
        ? { as: "snoozed" as const, pauseMs: thrown.pauseMs }
        : { as: "failed" as const, failure: readFailure(thrown) };
    tell({ say: "ended", turn: number, how });
  }
}

/** The same as a function in the worker is given (jobs/context.ts). */
function contextOf(turn: Turn, job: JobFacts): object {
  return {
    ...job,
    get signal(): AbortSignal {
      if (turn.abort === undefined) {
        turn.abort = new AbortController();
        if (turn.reason) turn.abort.abort(turn.reason);
      }
      return turn.abort.signal;
    },
    log: logOf(job),
    snooze(pause: Duration): never {
      throw new Snooze(durationMs(pause, "snooze"));
    },
    complete(): Promise<never> {
      return Promise.reject(
        new NonRetryableError(
          `complete(tx) needs the worker's own thread, and task "${job.task}" runs isolated: run it without isolate, or let it return to be done.`,
        ),
      );
    },
  };
}

/** What cannot be cloned stays here: the job is done all the same. */
function done(turn: Turn, job: JobFacts, result: unknown): void {
  const looked = turn.abort !== undefined;
  try {
    tell({ say: "ended", turn: turn.turn, how: { as: "done", result, looked } });
  } catch (error) {
    const { message } = readFailure(error);
    logOf(job).warn(
      { error: message },
      "the task's result cannot leave its thread or process; the job is done without it",
    );
    tell({ say: "ended", turn: turn.turn, how: { as: "done", result: undefined, looked } });
  }
}

function logOf({ id }: JobFacts): Log {
  const at =
    (level: keyof Log) =>
    (fields: object, message: string): void => {
      const say = (given: object): void =>
        tell({ say: "log", job: id, level, fields: given, message: String(message) });
      try {
        say({ ...fields });
      } catch {
        say(Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, printable(value)])));
      }
    };
  return { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
}

/** A field as it is, or, when it cannot be cloned, as text. */
function printable(value: unknown): unknown {
  try {
    return structuredClone(value);
  } catch {
    return inspect(value, { depth: 2 });
  }
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
