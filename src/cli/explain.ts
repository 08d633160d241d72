/** `millrace explain <id>`: why a job is where it is, and what would move it. */
import { isUuid } from "../core/uuid.ts";
import { invalid } from "./arguments.ts";
import { command } from "./command.ts";
import { type JobExplanation, doorArguments, openJobs } from "./jobs-door.ts";
import { facts, fromNow, oneLine, print, printJson } from "./print.ts";

export const explain = command({
  meta: { name: "explain", description: "Say why a job is where it is, and what would move it" },
  args: {
    id: { type: "positional", required: true, description: "Its id" },
    ...doorArguments,
  },
  async run({ args }) {
    if (!isUuid(args.id)) throw invalid(`"${args.id}" is not the id of a job: ids are UUIDs.`);
    const door = await openJobs(args);
    try {
      const found = await door.explain(args.id);
      if (args.json) printJson(found);
      else print(describe(found));
    } finally {
      await door.close();
    }
  },
});

/** Longest sentence on a terminal: an error message may have 8 KiB. */
const longest = 1_000;

function describe(found: JobExplanation): string {
  const due = found.next_run_at;
  const error = found.last_error;
  return facts([
    ["job", `${found.job_id}: task ${found.task} in queue ${found.queue}`],
    ["status", found.status],
    ["why", oneLine(found.summary, longest)],
    ["also", found.also.map(({ summary }) => oneLine(summary, longest)).join("\n")],
    ["next", found.what_next],
    ["due", due === null ? null : `${new Date(due).toISOString()}  (${fromNow(due, Date.now())})`],
    ["attempts", `${found.attempts}, ${found.failed_attempts} of them failed`],
    ["error", error && oneLine(`${error.error_code}: ${error.error_message ?? ""}`, longest)],
    ["advice", found.suggested_action],
  ]);
}
