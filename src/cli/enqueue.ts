/** `millrace enqueue <task> [input]`: one job. */
import { text } from "node:stream/consumers";
import { checkedName } from "../core/options.ts";
import type { EnqueuedJob } from "../client/index.ts";
import { doorArguments, openApi } from "./api-door.ts";
import {
  durationOption,
  given,
  instantOption,
  invalid,
  readJson,
  signature,
  signatureArguments,
  wholeOption,
} from "./arguments.ts";
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
    "unique-key": { type: "string", valueHint: "key", description: "One job at a time under it, until it has ended" },
    "debounce-key": {
      type: "string",
      valueHint: "key",
      description: "Wait until nobody has enqueued under it for --debounce-wait; the newest input runs",
    },
    "debounce-wait": { type: "string", valueHint: "duration", description: "With --debounce-key" },
    "throttle-key": {
      type: "string",
      valueHint: "key",
      description: "At most one job under it per --throttle-per",
    },
    "throttle-per": { type: "string", valueHint: "duration", description: "With --throttle-key" },
    "concurrency-key": {
      type: "string",
      valueHint: "key",
      description: "Jobs of one key are limited together and take turns with others",
    },
    tags: { type: "string", valueHint: "a,b", description: "Words to find the job by" },
    by: signatureArguments.by,
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
      unique: args["unique-key"] === undefined ? undefined : { key: args["unique-key"] },
      debounce: keyed(args, "debounce", "wait"),
      throttle: keyed(args, "throttle", "per"),
      concurrencyKey: args["concurrency-key"],
      by: signature(args).by,
      tags: args.tags?.split(",").map((tag) => tag.trim()),
    });
    const door = await openApi(args);
    try {
      const job = await door.ask<EnqueuedJob>("POST", "/jobs", body);
      if (args.json) return printJson(job);
      print(job.duplicate ? `There already is job ${job.id} with this key.` : `Enqueued job ${job.id}.`);
    } finally {
      await door.close();
    }
  },
});

/** A key and the time that belongs to it: both or neither. */
function keyed(args: Readonly<Record<string, unknown>>, name: string, time: string): object | undefined {
  const [key, text] = [args[`${name}-key`], args[`${name}-${time}`]] as (string | undefined)[];
  if (key === undefined && text === undefined) return undefined;
  if (key === undefined || text === undefined) throw invalid(`Give both --${name}-key and --${name}-${time}.`);
  return { key, [time]: durationOption(text, `${name}-${time}`) };
}
