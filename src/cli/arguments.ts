/**
 * Arguments are read strictly: citty takes what it does not know for granted, and a mistyped `--qeue` that is silently ignored
 * puts jobs where nobody looks for them.
 */
import type { ArgsDef } from "citty";
import { userInfo } from "node:os";
import { type Duration, durationMs } from "../core/duration.ts";
import { MillraceError } from "../core/errors.ts";
import { didYouMean } from "../core/options.ts";
import { isUuid } from "../core/uuid.ts";
import { readInstant } from "../jobs/enqueue-options.ts";

/** Throws `OPTION_UNKNOWN` or `OPTION_INVALID` for the first argument that `known` has no place for, or that is missing. */
export function checkArguments(command: string, given: readonly string[], known: ArgsDef): void {
  const entries = Object.entries(known);
  const options = new Map(
    entries.filter(([, { type }]) => type !== "positional").map(([name, { type }]) => [name, type]),
  );
  const places = entries.filter(([, { type }]) => type === "positional");
  let positionals = 0;
  for (let i = 0; i < given.length; i += 1) {
    const word = given[i] as string;
    if (!word.startsWith("-") || word === "-") {
      positionals += 1;
      if (positionals > places.length) throw invalid(`${command}: "${word}" is one argument too many.`);
      continue;
    }
    const [flag = "", value] = word.split(/=(.*)/s);
    const name = flag.replace(/^--(no-(?=.))?/, "");
    const negated = flag.startsWith("--no-");
    const type = options.get(name);
    if (!flag.startsWith("--") || type === undefined || (negated && type !== "boolean")) {
      const near = didYouMean(flag.replace(/^-+/, ""), options.keys()).replace(/"(.*)"/, '"--$1"');
      throw new MillraceError("OPTION_UNKNOWN", `${command}: unknown option "${flag}".${near}`);
    }
    if (type === "boolean") {
      if (value !== undefined) throw invalid(`${command}: --${name} takes no value.`);
    } else if (value === undefined) {
      i += 1;
      const next = given[i];
      if (next === undefined || next.startsWith("--")) throw invalid(`${command}: --${name} needs a value.`);
    }
  }
  const missing = places.slice(positionals).find(([, { required }]) => required !== false);
  if (missing) throw invalid(`${command}: <${missing[0]}> is missing. \`${command} --help\` shows how to call it.`);
}

/** The number in an option, or `OPTION_INVALID`. */
export function wholeOption(text: string | undefined, name: string): number | undefined {
  if (text === undefined) return undefined;
  if (/^-?\d{1,9}$/.test(text)) return Number(text);
  throw invalid(`--${name} must be a whole number, not "${text}".`);
}

/** The milliseconds of a duration in an option, or `OPTION_INVALID`. */
export function durationOption(text: string | undefined, name: string): number | undefined {
  return text === undefined ? undefined : durationMs(text as Duration, `--${name}`);
}

/** The time in an option, or `OPTION_INVALID`. It gets its zone here: the API may be of another machine, and refuses one without. */
export function instantOption(text: string | undefined, name = "run-at"): string | undefined {
  return text === undefined ? undefined : readInstant(text, `--${name}`).toISOString();
}

/** One of the words, or `OPTION_INVALID` with the nearest. */
export function wordOption<Word extends string>(
  text: string | undefined,
  name: string,
  words: readonly Word[],
): Word | undefined {
  if (text === undefined) return undefined;
  const word = words.find((candidate) => candidate === text);
  if (word !== undefined) return word;
  throw invalid(`--${name} must be one of ${words.join(", ")}, not "${text}".${didYouMean(text, words)}`);
}

export function invalid(message: string): MillraceError {
  return new MillraceError("OPTION_INVALID", message);
}

/** The options that were given: the engine tells "not given" from "undefined". */
export function given<Options extends object>(
  options: Options,
): { [Key in keyof Options]?: Exclude<Options[Key], undefined> } {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as never;
}

/** A value, or `OPTION_INVALID`. */
export function readJson(json: string, what = "The input"): unknown {
  try {
    return JSON.parse(json);
  } catch (error) {
    throw invalid(`${what} is not JSON: ${(error as Error).message}.`);
  }
}

/** The id of a job, or `OPTION_INVALID`. */
export function jobId(text: string): string {
  if (isUuid(text)) return text;
  throw invalid(`"${text}" is not the id of a job: ids are UUIDs.`);
}

/** Who gives an order and why. */
export const signatureArguments = {
  by: {
    type: "string",
    valueHint: "name",
    description: "Who does this, for the job's history; default: your user name",
  },
  reason: { type: "string", valueHint: "text", description: "Why, for the job's history" },
} as const satisfies ArgsDef;

export function signature({ by, reason }: { by?: string | undefined; reason?: string | undefined }): {
  by?: string;
  reason?: string;
} {
  return given({ by: by ?? userName(), reason });
}

function userName(): string | undefined {
  try {
    return userInfo().username;
  } catch {
    return undefined; // a process id without a user, as in some containers
  }
}
