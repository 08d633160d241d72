/** `millrace job <id>`: everything about one job. */
import type { JobDetail } from "../client/index.ts";
import { progressText } from "../core/progress.ts";
import { counted, facts, fromNow } from "./print.ts";
import { showJob } from "./show-job.ts";

export const job = showJob("job", "Show one job", "", describe);

function describe(found: JobDetail): string {
  const now = Date.now();
  const when = (time: string | null): string | null =>
    time === null ? null : `${new Date(time).toISOString()}  (${fromNow(time, now)})`;
  const { dependencies: needs } = found;
  const error = found.last_error_code === null ? null : `${found.last_error_code}: ${found.last_error_message}`;
  return facts([
    ["id", found.id],
    ["task", found.task],
    ["queue", found.queue],
    ["status", found.dlq_reason_code === null ? found.status : `${found.status}, ${found.dlq_reason_code}`],
    ["attempt", `${found.attempt} of ${found.max_attempts}`],
    ["priority", String(found.priority)],
    ["tags", found.tags.join(", ")],
    ["created", when(found.created_at)],
    ["due", when(found.run_at)],
    ["started", when(found.started_at)],
    ["finished", when(found.finished_at)],
    [
      "progress",
      found.progress === null ? null : `${progressText(found.progress)}  (${fromNow(found.progress_at, now)})`,
    ],
    ["worker", found.worker_id],
    ["needs", needs && `${counted(needs.total, "job")}, ${needs.open} open, ${needs.failed} failed`],
    ["replay of", found.replay_of_job_id],
    ["error", error],
    ["input", JSON.stringify(found.input, undefined, 2)],
    ["result", found.result === undefined ? null : JSON.stringify(found.result, undefined, 2)],
    ["stack", found.last_error_stack],
  ]);
}
