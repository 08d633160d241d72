/** A command that asks the API one thing about one job and shows the answer. */
import { doorArguments, openApi } from "./api-door.ts";
import { jobId } from "./arguments.ts";
import { type Command, command } from "./command.ts";
import { print, printJson } from "./print.ts";

/** `aspect`: what follows the id in the path, such as `/timeline`. */
export function showJob<Found>(
  name: string,
  description: string,
  aspect: string,
  describe: (found: Found) => string,
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
        if (args.json) printJson(found);
        else print(describe(found));
      } finally {
        await door.close();
      }
    },
  });
}
