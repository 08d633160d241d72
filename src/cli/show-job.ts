/** A command that asks the API one thing about one job and shows the answer. */
import { doorArguments, openApi } from "./api-door.ts";
import { jobId } from "./arguments.ts";
import { type Command, command } from "./command.ts";
import { print, printJson } from "./print.ts";

/**
 * `aspect`: what follows the id in the path, such as `/timeline`. `describe` is asked even when JSON is wanted: it may throw; where it
 * returns undefined, there is nothing to print as text.
 */
export function showJob<Found>(
  name: string,
  description: string,
  aspect: string,
  describe: (found: Found) => string | undefined,
): Command {
  return command({
    meta: { name, description },
    args: {
      id: { type: "positional", required: true, description: "Its id" },
      ...doorArguments,
    },
    async run({ args }) {
      const id = jobId(args.id);
      const door = await openApi(args);
      try {
        const found = await door.ask<Found>("GET", `/jobs/${id}${aspect}`);
        const text = describe(found);
        if (args.json) printJson(found);
        else if (text !== undefined) print(text);
      } finally {
        await door.close();
      }
    },
  });
}
