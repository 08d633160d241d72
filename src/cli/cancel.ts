/** `millrace cancel <id>`: ends one job, and says what became of it. */
import { longestWaitMs } from "../http/orders.ts";
import type { Cancelled } from "../jobs/cancel.ts";
import { doorArguments, openApi } from "./api-door.ts";
import { durationOption, given, jobId, signature, signatureArguments } from "./arguments.ts";
import { command } from "./command.ts";
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
    const wait = durationOption(args.wait, "wait");
    const body = given({ ...signature(args), wait });
    const door = await openApi(args);
    try {
      const extraMs = Math.min(wait ?? 0, longestWaitMs);
      const result = await door.ask<Cancelled>("POST", `/jobs/${id}/cancel`, body, extraMs);
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
