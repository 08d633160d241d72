/** `millrace timeline <id>`: everything that happened to a job, a line each, in order. */
import { isUuid } from "../core/uuid.ts";
import { invalid } from "./arguments.ts";
import { command } from "./command.ts";
import { type JobTimeline, doorArguments, openJobs } from "./jobs-door.ts";
import { oneLine, paint, print, printJson } from "./print.ts";

export const timeline = command({
  meta: { name: "timeline", description: "Show everything that happened to a job" },
  args: {
    id: { type: "positional", required: true, description: "Its id" },
    ...doorArguments,
  },
  async run({ args }) {
    if (!isUuid(args.id)) throw invalid(`"${args.id}" is not the id of a job: ids are UUIDs.`);
    const door = await openJobs(args);
    try {
      const found = await door.timeline(args.id);
      if (args.json) printJson(found);
      else print(describe(found));
    } finally {
      await door.close();
    }
  },
});

/** Longest line: an error message may have 8 KiB. */
const longest = 500;

function describe(found: JobTimeline): string {
  const head = `${found.job_id}: task ${found.task} in queue ${found.queue}, ${found.status}`;
  const story = found.story.map(
    ({ at, summary }) => `${paint("dim", new Date(at).toISOString())}  ${oneLine(summary, longest)}`,
  );
  const advice = found.suggested_action === null ? [] : [`\nWhat to do: ${found.suggested_action}`];
  const note = found.note === null ? [] : [paint("dim", found.note)];
  return [paint("bold", head), ...story, ...note, ...advice].join("\n");
}
