/** `millrace result <id>`: what a job's task returned. */
import type { JobResult } from "../client/index.ts";
import { MillraceError } from "../core/errors.ts";
import { showJob } from "./show-job.ts";

export const result = showJob<JobResult>("result", "Show what a job's task returned", "/result", (found) => {
  if (found.status !== "completed")
    throw new MillraceError(
      "JOB_STATE",
      `Job ${found.id} is ${found.status}; only one that is completed has a result.`,
    );
  return resultText(found);
});

/** The result alone, for other programs; undefined for a task that returned nothing. */
export function resultText({ result }: Pick<JobResult, "result">): string | undefined {
  return result === undefined ? undefined : JSON.stringify(result, undefined, 2);
}
