#!/usr/bin/env node
/** `millrace <command>`: finds the command, refuses what it does not understand, and turns errors into sentences and exit codes. */
import { type ArgsDef, renderUsage, runCommand } from "citty";
import { stripVTControlCharacters } from "node:util";
import { version } from "../app/version.ts";
import { MillraceError } from "../core/errors.ts";
import { didYouMean } from "../core/options.ts";
import { checkArguments } from "./arguments.ts";
import type { Command } from "./command.ts";
import { commands } from "./commands.ts";
import { exitCodeOf, exitCodes } from "./exit-codes.ts";
import { print, printsColour } from "./print.ts";

const millrace: Command = {
  meta: { name: "millrace", version, description: "Durable jobs on PostgreSQL, with an embedded database by default." },
  subCommands: commands,
};

// `millrace jobs | head` is no failure: the reader has seen enough.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") throw error;
});

const [name, ...rest] = process.argv.slice(2);
try {
  await run(name, rest);
} catch (error) {
  complain(error, process.argv.includes("--json"));
  process.exitCode = exitCodeOf(error);
}

async function run(name: string | undefined, rest: readonly string[]): Promise<void> {
  if (name === "--version" || name === "-v") return print(version);
  if (name === undefined) process.exitCode = exitCodes.usage;
  if (name === undefined || name === "--help" || name === "-h" || name === "help") return help(millrace);
  const load = commands[name];
  if (load === undefined) {
    const what = name.startsWith("-") ? "option" : "command";
    throw new MillraceError(
      "OPTION_UNKNOWN",
      `There is no ${what} "${name}".${didYouMean(name, Object.keys(commands))} \`millrace --help\` lists them.`,
    );
  }
  const command = await load();
  if (rest.includes("--help") || rest.includes("-h")) return help(command, millrace);
  checkArguments(`millrace ${name}`, rest, command.args as ArgsDef);
  await runCommand(command, { rawArgs: [...rest] });
}

async function help(command: Command, parent?: Command): Promise<void> {
  const usage = await renderUsage(command, parent);
  print(printsColour() ? usage : stripVTControlCharacters(usage));
}

/** One sentence, its code, and what to do. For errors that are not ours also where they come from. */
function complain(error: unknown, asJson: boolean): void {
  const known = error instanceof MillraceError ? error : undefined;
  const message = error instanceof Error ? error.message : String(error);
  if (asJson) {
    const { code = "INTERNAL", action } = known ?? {};
    process.stderr.write(`${JSON.stringify({ code, message, action })}\n`);
    return;
  }
  const stack = (known === undefined ? error : known.code === "APP_INVALID" ? known.cause : undefined) as
    | Error
    | undefined;
  const advice = known && `  ${known.code}: ${known.action}`;
  process.stderr.write(`${[`millrace: ${message}`, advice, stack?.stack].filter(Boolean).join("\n")}\n`);
}
