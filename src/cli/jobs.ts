/** `millrace jobs`: lists jobs, newest first or in the order of work. */
import { jobStatuses } from "../jobs/read-store.ts";
import { given, wholeOption, wordOption } from "./arguments.ts";
import { command } from "./command.ts";
import { doorArguments } from "./door.ts";
import { type JobItem, openJobs } from "./jobs-door.ts";
import { fromNow, oneLine, paint, print, printJson, table } from "./print.ts";

export const jobs = command({
  meta: { name: "jobs", description: "List jobs" },
  args: {
    status: { type: "string", valueHint: jobStatuses.join("|"), description: "Only jobs of this status" },
    queue: { type: "string", description: "Only jobs of this queue" },
    task: { type: "string", description: "Only jobs of this task" },
    tag: { type: "string", description: "Only jobs with this tag" },
    limit: { type: "string", valueHint: "number", description: "1 to 500; default 20" },
    after: { type: "string", valueHint: "cursor", description: "`next` of the page before" },
    ...doorArguments,
  },
  async run({ args }) {
    const options = given({
      status: wordOption(args.status, "status", jobStatuses),
      queue: args.queue,
      task: args.task,
      tag: args.tag,
      limit: wholeOption(args.limit, "limit") ?? 20,
      after: args.after,
    });
    const door = await openJobs(args);
    try {
      const page = await door.list(options);
      if (args.json) return printJson(page);
      print(page.items.length === 0 ? "No jobs." : tableOf(page.items));
      if (page.next !== null) print(paint("dim", `\nMore: --after ${page.next}`));
    } finally {
      await door.close();
    }
  },
});

export function tableOf(items: readonly JobItem[]): string {
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
