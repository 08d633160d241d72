/** `millrace steps <id>`: what a job's run has done step by step. */
import type { Step, StepPage } from "../client/index.ts";
import { doorArguments, openApi } from "./api-door.ts";
import { jobId } from "./arguments.ts";
import { withQuery } from "./ask-api.ts";
import { command } from "./command.ts";
import { pageArguments, pageLimit } from "./jobs.ts";
import { fromNow, oneLine, paint, print, printJson, table } from "./print.ts";

export const steps = command({
  meta: { name: "steps", description: "Show what a job's run has done step by step" },
  args: {
    id: { type: "positional", required: true, description: "Its id" },
    ...pageArguments,
    ...doorArguments,
  },
  async run({ args }) {
    const id = jobId(args.id);
    const limit = args.limit === undefined ? 100 : pageLimit(args.limit);
    const door = await openApi(args);
    try {
      const path = withQuery(`/jobs/${id}/steps`, { limit, after: args.after });
      const found = await door.ask<StepPage>("GET", path);
      if (args.json) return printJson(found);
      print(found.items.length === 0 ? "No steps." : tableOf(found.items));
      if (found.next !== null) print(paint("dim", `\nMore: --after ${found.next}`));
    } finally {
      await door.close();
    }
  },
});

function tableOf(items: readonly Step[]): string {
  const now = Date.now();
  return table(
    ["step", "name", "kind", "attempt", "done", "until", "result"],
    items.map((step) => [
      step.place,
      oneLine(step.name, 60),
      step.event === null ? step.kind : `event ${oneLine(step.event, 60)}`,
      step.attempt,
      fromNow(step.finished_at, now),
      step.until === null ? "" : fromNow(step.until, now),
      step.failure !== null
        ? oneLine(`${step.failure.name}: ${step.failure.message}`, 60)
        : step.result === null
          ? ""
          : oneLine(JSON.stringify(step.result), 60),
    ]),
  );
}
