/** `millrace explain <id>`: why a job is where it is, and what would move it. */
import type { Explanation } from "../client/index.ts";
import { facts, fromNow, oneLine } from "./print.ts";
import { showJob } from "./show-job.ts";

export const explain = showJob("explain", "Say why a job is where it is, and what would move it", "/explain", describe);

/** Longest sentence on a terminal: an error message may have 8 KiB. */
const longest = 1_000;

function describe(found: Explanation): string {
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
