/** `millrace cancel <id>`: ends one job, and says what became of it. */
import type { Duration } from "../core/duration.ts";
import { given, jobId, signature, signatureArguments } from "./arguments.ts";
import { command } from "./command.ts";
import { doorArguments } from "./door.ts";
import { openJobs } from "./jobs-door.ts";
import { print, printJson } from "./print.ts";

export const cancel = command({
  meta: { name: "cancel", description: "Cancel a job" },
  args: {
    id: { type: "positional", required: true, description: "Its id" },
    wait: {
      type: "string",
      valueHint: "duration",
      description: "How long to wait for a running task to end; default 5s, 0s does not wait",
    },
    ...signatureArguments,
    ...doorArguments,
  },
  async run({ args }) {
    const id = jobId(args.id);
    const options = given({ ...signature(args), within: args.wait as Duration | undefined });
    const door = await openJobs(args);
    try {
      const result = await door.cancel(id, options);
      if (args.json) return printJson(result);
      print(
        result.status === "cancelled"
          ? `Job ${id} is cancelled.`
          : result.status === "cancelling"
            ? `Job ${id} was told to end and still runs${result.ignored ? "; its task ignores its signal" : ""}.`
            : `Too late: job ${id} is ${result.status}.`,
      );
    } finally {
      await door.close();
    }
  },
});
