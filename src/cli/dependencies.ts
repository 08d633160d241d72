/** `millrace dependencies <id>`: the jobs that a job needs, and what became of them. */
import type { DependencyPage } from "../client/index.ts";
import { doorArguments, openApi } from "./api-door.ts";
import { jobId } from "./arguments.ts";
import { withQuery } from "./ask-api.ts";
import { command } from "./command.ts";
import { pageArguments, pageLimit } from "./jobs.ts";
import { counted, oneLine, paint, print, printJson, table } from "./print.ts";

export const dependencies = command({
  meta: { name: "dependencies", description: "Show the jobs that a job needs, and what became of them" },
  args: {
    id: { type: "positional", required: true, description: "Its id" },
    ...pageArguments,
    ...doorArguments,
  },
  async run({ args }) {
    const id = jobId(args.id);
    const path = withQuery(`/jobs/${id}/dependencies`, { limit: pageLimit(args.limit), after: args.after });
    const door = await openApi(args);
    try {
      const found = await door.ask<DependencyPage>("GET", path);
      if (args.json) return printJson(found);
      if (found.total === 0) return print("It needs no other job.");
      print(
        table(
          ["job", "id", "state", "on failure"],
          found.items.map((one) => [oneLine(one.name, 60), one.id, one.state, one.on_failure]),
        ),
      );
      const { total, open, failed } = found;
      print(paint("dim", `${counted(total, "job")}: ${open} open, ${failed} failed.`));
      if (found.next !== null) print(paint("dim", `More: --after ${found.next}`));
    } finally {
      await door.close();
    }
  },
});
