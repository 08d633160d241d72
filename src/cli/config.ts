/** `millrace config`: every variable with its value, where the value comes from, its default, and what it is for. */
import { defaultText, unknownVariables, variables } from "../app/config.ts";
import { command, everyCommand } from "./command.ts";
import { exitCodes } from "./exit-codes.ts";
import { withoutPassword } from "./mask.ts";
import { paint, print, printJson } from "./print.ts";

interface Setting {
  readonly name: string;
  readonly aliases: readonly string[];
  /** As written in the environment, secrets masked, or the default. Null: not set, and there is no default. */
  readonly value: string | null;
  /** The variable that is set, or `default`. */
  readonly source: string;
  readonly valid: boolean;
  readonly default: string | null;
  readonly allowed: string;
  readonly about: string;
}

export const config = command({
  meta: { name: "config", description: "Print every setting: value, source, default, description" },
  args: everyCommand,
  run({ args }) {
    const settings = readSettings(process.env);
    const unknown = unknownVariables(process.env);
    if (args.json) printJson({ settings, unknown });
    else print([...settings.map(describe), ...unknown.map((sentence) => paint("yellow", sentence))].join("\n\n"));
    if (settings.some(({ valid }) => !valid)) process.exitCode = exitCodes.usage;
  },
});

function readSettings(env: Readonly<Record<string, string | undefined>>): Setting[] {
  return Object.values(variables).map((variable) => {
    const [name = "", ...aliases] = variable.names;
    const source = variable.names.find((candidate) => env[candidate] !== undefined && env[candidate] !== "");
    const text = source && env[source]?.trim();
    const shown = defaultText(variable) ?? null;
    return {
      name,
      aliases,
      value: text === undefined ? shown : masked(name, text),
      source: source ?? "default",
      valid: text === undefined || variable.read(text) !== undefined,
      default: shown,
      allowed: variable.kind,
      about: variable.about,
    };
  });
}

function masked(name: string, value: string): string {
  if (name.endsWith("_URL")) return withoutPassword(value);
  return /TOKEN|SECRET|PASSWORD|KEY/.test(name) ? "***" : value;
}

function describe({ name, aliases, value, source, valid, default: usual, allowed, about }: Setting): string {
  const origin = source === "default" ? "default" : `from ${source}, default ${usual ?? "none"}`;
  return [
    `${paint("bold", name)} = ${value ?? "(not set)"}  ${paint("dim", `(${origin})`)}`,
    ...(valid ? [] : [paint("red", `  Not allowed: it must be ${allowed}.`)]),
    `  ${about}`,
    ...(aliases.length > 0 ? [`  Also read: ${aliases.join(", ")}`] : []),
  ].join("\n");
}
