/** `millrace timeline <id>`: everything that happened to a job, a line each, in order. */
import type { Timeline } from "../client/index.ts";
import { oneLine, paint } from "./print.ts";
import { showJob } from "./show-job.ts";

export const timeline = showJob("timeline", "Show everything that happened to a job", "/timeline", describe);

/** Longest line: an error message may have 8 KiB. */
const longest = 500;

function describe(found: Timeline): string {
  const head = `${found.job_id}: task ${found.task} in queue ${found.queue}, ${found.status}`;
  const story = found.story.map(
    ({ at, summary }) => `${paint("dim", new Date(at).toISOString())}  ${oneLine(summary, longest)}`,
  );
  const advice = found.suggested_action === null ? [] : [`\nWhat to do: ${found.suggested_action}`];
  const note = found.note === null ? [] : [paint("dim", found.note)];
  return [paint("bold", head), ...story, ...note, ...advice].join("\n");
}
