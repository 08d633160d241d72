/** `millrace remove <id>`: a job that does not run, and all that is known of it. */
import { doorArguments, openApi } from "./api-door.ts";
import { jobId } from "./arguments.ts";
import { command } from "./command.ts";
import { print, printJson } from "./print.ts";

export const remove = command({
  meta: { name: "remove", description: "Remove a job that does not run, with its history" },
  args: {
    id: { type: "positional", required: true, description: "Its id" },
    ...doorArguments,
  },
  async run({ args }) {
    const id = jobId(args.id);
    const door = await openApi(args);
    try {
      await door.ask("DELETE", `/jobs/${id}`);
      if (args.json) printJson({ id, removed: true });
      else print(`Job ${id} is removed.`);
    } finally {
      await door.close();
    }
  },
});
