/** The log of a command that stays: readable lines in its terminal, or, with --json, one JSON object per line. */
import { pino } from "pino";
import { prettyFactory } from "pino-pretty";
import type { Config } from "../app/config.ts";
import type { Log } from "../core/log.ts";
import { printsColour } from "./print.ts";
import type { Terminal } from "./terminal.ts";

/** Both write at once, in this thread: the last lines before a crash are the ones that matter. */
export function createLog(level: Config["logLevel"], terminal: Terminal | undefined): Log {
  const common = { level, base: null, serializers: { err: describeError } };
  if (terminal === undefined) {
    const formatters = { level: (label: string) => ({ level: label }) };
    return pino(
      { ...common, formatters, timestamp: pino.stdTimeFunctions.isoTime },
      pino.destination({ dest: 1, sync: true }),
    );
  }
  const pretty = prettyFactory({ colorize: printsColour(), translateTime: "SYS:HH:MM:ss", singleLine: true });
  return pino(common, { write: (line) => terminal.line(pretty(line).trimEnd()) });
}

/** Drivers hang the statement and its values on their errors, and a log is no place for the inputs of jobs. */
function describeError(error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  const { name, message, stack, code, cause } = error as Error & { code?: unknown };
  return { type: name, message, code, stack, ...(cause === undefined ? {} : { cause: describeError(cause) }) };
}
