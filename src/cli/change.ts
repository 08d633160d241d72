/** `millrace change <id>`: another time, priority or queue for a job that waits. */
import type { Job } from "../client/index.ts";
import { doorArguments, openApi } from "./api-door.ts";
import {
  durationOption,
  given,
  instantOption,
  invalid,
  jobId,
  signature,
  signatureArguments,
  wholeOption,
} from "./arguments.ts";
import { command } from "./command.ts";
import { fromNow, print, printJson } from "./print.ts";

export const change = command({
  meta: { name: "change", description: "Give a job that waits another time, priority or queue" },
  args: {
    id: { type: "positional", required: true, description: "Its id" },
    now: { type: "boolean", description: "It is due at once" },
    delay: { type: "string", valueHint: "duration", description: "It is due this much later: 250ms, 30s, 5m, 2h, 1d" },
    "run-at": {
      type: "string",
      valueHint: "time",
      description: "It is due then: ISO 8601, such as 2027-01-31T08:00:00Z",
    },
    priority: { type: "string", valueHint: "number", description: "Higher runs first" },
    queue: { type: "string", description: "It moves to this queue" },
    ...signatureArguments,
    ...doorArguments,
  },
  async run({ args }) {
    const id = jobId(args.id);
    if (args.now && args.delay !== undefined) throw invalid("Give --now or --delay, not both.");
    const place = given({
      delay: args.now ? 0 : durationOption(args.delay, "delay"),
      run_at: instantOption(args["run-at"]),
      priority: wholeOption(args.priority, "priority"),
      queue: args.queue,
    });
    if (Object.keys(place).length === 0)
      throw invalid("millrace change: what is to change? --now, --delay, --run-at, --priority or --queue.");
    const door = await openApi(args);
    try {
      const job = await door.ask<Job>("PATCH", `/jobs/${id}`, { ...place, ...signature(args) });
      if (args.json) return printJson(job);
      print(`Job ${id} is ${job.status} in queue ${job.queue}, priority ${job.priority}${dueOf(job)}.`);
    } finally {
      await door.close();
    }
  },
});

function dueOf({ run_at: due, status }: Job): string {
  return due === null || status !== "delayed" ? "" : `, due ${fromNow(due, Date.now())}`;
}
