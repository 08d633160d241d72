/** `millrace result <id>`: what a job's task returned. */
import { MillraceError } from "../core/errors.ts";
import { doorArguments, openApi } from "./api-door.ts";
import { jobId } from "./arguments.ts";
import { command } from "./command.ts";
import { print, printJson } from "./print.ts";

export interface JobResult {
  readonly id: string;
  readonly status: string;
  /** Absent: it returned nothing. */
  readonly result?: unknown;
}

export const result = command({
  meta: { name: "result", description: "Show what a job's task returned" },
  args: {
    id: { type: "positional", required: true, description: "Its id" },
    ...doorArguments,
  },
  async run({ args }) {
    const id = jobId(args.id);
    const door = await openApi(args);
    try {
      const found = await door.ask<JobResult>("GET", `/jobs/${id}/result`);
      if (found.status !== "completed")
        throw new MillraceError("JOB_STATE", `Job ${id} is ${found.status}; only one that is completed has a result.`);
      printResult(found, args.json);
    } finally {
      await door.close();
    }
  },
});

/** As text: the result alone, for other programs; nothing for a task that returned nothing. */
export function printResult(found: JobResult, asJson: boolean | undefined): void {
  if (asJson) printJson(found);
  else if (found.result !== undefined) print(JSON.stringify(found.result, undefined, 2));
}
