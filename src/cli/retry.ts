/** `millrace retry <id>`: the same job again, one more attempt. */
import { doorArguments, openApi } from "./api-door.ts";
import { jobId, signature, signatureArguments } from "./arguments.ts";
import { command } from "./command.ts";
import { print, printJson } from "./print.ts";

export const retry = command({
  meta: { name: "retry", description: "Run a job again that was given up" },
  args: {
    id: { type: "positional", required: true, description: "Its id" },
    ...signatureArguments,
    ...doorArguments,
  },
  async run({ args }) {
    const id = jobId(args.id);
    const door = await openApi(args);
    try {
      const done = await door.ask<{ message: string }>("POST", `/jobs/${id}/retry`, signature(args));
      if (args.json) printJson(done);
      else print(done.message);
    } finally {
      await door.close();
    }
  },
});
