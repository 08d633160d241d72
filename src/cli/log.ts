/** The log of a command that stays: readable lines in its terminal, or, with --json, one JSON object per line. */
import { pino } from "pino";
import { prettyFactory } from "pino-pretty";
import type { Config } from "../app/config.ts";
import type { Log } from "../core/log.ts";
import { printsColour } from "./print.ts";
import type { Terminal } from "./terminal.ts";

/** Both write at once, in this thread: the last lines before a crash are the ones that matter. */
export function createLog(level: Config["logLevel"], terminal: Terminal | undefined): Log {
  if (terminal === undefined) return pino({ level, base: null }, pino.destination({ sync: true }));
  const pretty = prettyFactory({
    colorize: printsColour(),
    translateTime: "SYS:HH:MM:ss",
    ignore: "pid,hostname",
    singleLine: true,
  });
  return pino({ level }, { write: (line) => terminal.line(pretty(line).trimEnd()) });
}
