/** The shape of a command: one per file, its arguments typed inside, all alike from outside. */
import { type ArgsDef, type CommandDef, defineCommand } from "citty";

export type Command = CommandDef;

export function command<const Args extends ArgsDef>(definition: CommandDef<Args>): Command {
  // Only `run` sees the types of its own arguments; whoever holds the command cannot call it with others.
  return defineCommand(definition) as unknown as Command;
}

/** Every command has these. */
export const everyCommand = {
  json: { type: "boolean", description: "JSON instead of text, for programs" },
} as const satisfies ArgsDef;
