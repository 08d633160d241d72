/** `millrace enqueue <task> [input]`: one job. */
import { text } from "node:stream/consumers";
import { checkedName } from "../core/options.ts";
import type { Enqueued } from "../jobs/enqueue.ts";
import { doorArguments, openApi } from "./api-door.ts";
import { durationOption, given, instantOption, readJson, wholeOption } from "./arguments.ts";
import { command } from "./command.ts";
import { print, printJson } from "./print.ts";

export const enqueue = command({
  meta: { name: "enqueue", description: "Put a job into its queue" },
  args: {
    task: { type: "positional", required: true, description: "Name of the task" },
    input: {
      type: "positional",
      required: false,
      description: "The input as JSON, or - for standard input; default {}",
    },
    queue: { type: "string", description: "Queue; default: the task's, where its app is known, or `default`" },
    delay: { type: "string", valueHint: "duration", description: "Run this much later: 250ms, 30s, 5m, 2h, 1d" },
    "run-at": {
      type: "string",
      valueHint: "time",
      description: "Run then: an ISO 8601 time such as 2027-01-31T08:00:00Z",
    },
    priority: { type: "string", valueHint: "number", description: "Higher runs first; default 0" },
    "max-attempts": { type: "string", valueHint: "number", description: "Total tries" },
    timeout: { type: "string", valueHint: "duration", description: "For one attempt" },
    key: { type: "string", description: "Idempotency key: a second job of this task under it is not made" },
    "concurrency-key": {
      type: "string",
      valueHint: "key",
      description: "Jobs of one key are limited together and take turns with others",
    },
    tags: { type: "string", valueHint: "a,b", description: "Words to find the job by" },
    app: {
      type: "string",
      valueHint: "file",
      description: "App module whose task brings queue, attempts and input schema",
    },
    ...doorArguments,
  },
  async run({ args }) {
    const body = given({
      task: checkedName(args.task, "task"),
      input: readJson(args.input === "-" ? await text(process.stdin) : (args.input ?? "{}")),
      queue: args.queue,
      delay: durationOption(args.delay, "delay"),
      runAt: instantOption(args["run-at"]),
      priority: wholeOption(args.priority, "priority"),
      maxAttempts: wholeOption(args["max-attempts"], "max-attempts"),
      timeout: durationOption(args.timeout, "timeout"),
      idempotencyKey: args.key,
      concurrencyKey: args["concurrency-key"],
      tags: args.tags?.split(",").map((tag) => tag.trim()),
    });
    const door = await openApi(args);
    try {
      const job = await door.ask<Enqueued>("POST", "/jobs", body);
      if (args.json) return printJson(job);
      print(job.duplicate ? `There already is job ${job.id} with this key.` : `Enqueued job ${job.id}.`);
    } finally {
      await door.close();
    }
  },
});
