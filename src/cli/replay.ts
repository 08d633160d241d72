/** `millrace replay <id>`: a new job like an old one. */
import type { ReplayedJob } from "../client/index.ts";
import { doorArguments, openApi } from "./api-door.ts";
import { durationOption, given, instantOption, jobId, readJson, signature, signatureArguments } from "./arguments.ts";
import { command } from "./command.ts";
import { print, printJson } from "./print.ts";

export const replay = command({
  meta: { name: "replay", description: "Make a new job of an old one, whatever became of it" },
  args: {
    id: { type: "positional", required: true, description: "Id of the old job" },
    queue: { type: "string", description: "Another queue" },
    delay: { type: "string", valueHint: "duration", description: "Run this much later: 250ms, 30s, 5m, 2h, 1d" },
    "run-at": { type: "string", valueHint: "time", description: "Run then: ISO 8601, such as 2027-01-31T08:00:00Z" },
    input: { type: "string", valueHint: "json", description: "Another input" },
    ...signatureArguments,
    ...doorArguments,
  },
  async run({ args }) {
    const id = jobId(args.id);
    const changes = given({
      ...signature(args),
      queue: args.queue,
      delay: durationOption(args.delay, "delay"),
      runAt: instantOption(args["run-at"]),
      input: args.input === undefined ? undefined : readJson(args.input),
    });
    const door = await openApi(args);
    try {
      const fresh = await door.ask<ReplayedJob>("POST", `/jobs/${id}/replay`, changes);
      if (args.json) printJson(fresh);
      else print(`Enqueued job ${fresh.new_job_id}, a replay of ${id}.`);
    } finally {
      await door.close();
    }
  },
});
