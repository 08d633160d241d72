/** `millrace jobs`: lists jobs, newest first or in the order of work. */
import type { ArgsDef } from "citty";
import type { JobPage } from "../client/index.ts";
import { wholeNumber } from "../core/options.ts";
import { jobStatuses } from "../jobs/read-store.ts";
import { type ApiDoor, doorArguments, openApi } from "./api-door.ts";
import { instantOption, wholeOption, wordOption } from "./arguments.ts";
import { withQuery } from "./ask-api.ts";
import { command } from "./command.ts";
import { fromNow, oneLine, paint, print, printJson, table } from "./print.ts";

/** Which page of jobs, for this command and for `dlq`. */
export const pageArguments = {
  limit: { type: "string", valueHint: "number", description: "1 to 500; default 20" },
  after: { type: "string", valueHint: "cursor", description: "`next` of the page before" },
} as const satisfies ArgsDef;

export const jobs = command({
  meta: { name: "jobs", description: "List jobs" },
  args: {
    status: { type: "string", valueHint: jobStatuses.join("|"), description: "Only jobs of this status" },
    queue: { type: "string", description: "Only jobs of this queue" },
    task: { type: "string", description: "Only jobs of this task" },
    tag: { type: "string", description: "Only jobs with this tag, archived ones too" },
    input: { type: "string", valueHint: "json", description: "Only jobs whose input contains this" },
    search: { type: "string", valueHint: "text", description: "Only jobs with this text in their input" },
    "created-after": { type: "string", valueHint: "time", description: "Only jobs created then or later" },
    "created-before": { type: "string", valueHint: "time", description: "Only jobs created before" },
    ...pageArguments,
    ...doorArguments,
  },
  async run({ args }) {
    const { queue, task, tag, input, search, after } = args;
    const status = wordOption(args.status, "status", jobStatuses);
    const path = withQuery("/jobs", {
      status,
      queue,
      task,
      tag,
      input,
      search,
      created_after: instantOption(args["created-after"], "created-after"),
      created_before: instantOption(args["created-before"], "created-before"),
      limit: pageLimit(args.limit),
      after,
    });
    const door = await openApi(args);
    try {
      await printPage(door, path, args.json, "No jobs.");
    } finally {
      await door.close();
    }
  },
});

export function pageLimit(text: string | undefined): number {
  return wholeNumber(wholeOption(text, "limit") ?? 20, "--limit", 1, 500);
}

/** `nothing`: what is said when the page has no jobs. */
export async function printPage(
  door: ApiDoor,
  path: string,
  asJson: boolean | undefined,
  nothing: string,
): Promise<void> {
  const { items, next, looked } = await door.ask<JobPage>("GET", path);
  if (asJson) return printJson({ items, next });
  print(items.length > 0 ? tableOf(items) : next === null ? nothing : `None among the first ${looked} jobs.`);
  if (next !== null) print(paint("dim", `\nMore: --after ${next}`));
}

function tableOf(items: JobPage["items"]): string {
  const now = Date.now();
  return table(
    ["id", "queue", "task", "status", "attempt", "created", "due", "error"],
    items.map((job) => [
      job.id,
      job.queue,
      job.task,
      job.status,
      `${job.attempt}/${job.max_attempts}`,
      fromNow(job.created_at, now),
      job.status === "delayed" ? fromNow(job.run_at, now) : "",
      job.last_error_code === null ? "" : oneLine(`${job.last_error_code}: ${job.last_error_message}`, 60),
    ]),
  );
}
