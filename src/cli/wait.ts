/** `millrace wait <id>`: until a job has ended; then what its task returned. */
import type { CompletedJob } from "../client/index.ts";
import { MillraceError } from "../core/errors.ts";
import { doorArguments, openApi } from "./api-door.ts";
import { durationOption, jobId } from "./arguments.ts";
import { withQuery } from "./ask-api.ts";
import { command } from "./command.ts";
import { print, printJson } from "./print.ts";
import { resultText } from "./result.ts";

const defaultWithinMs = 3_600_000;
/** A server holds no request longer than a minute, so a longer wait is asked for in pieces. */
const pieceMs = 30_000;

export const wait = command({
  meta: { name: "wait", description: "Wait until a job has ended, and show what its task returned" },
  args: {
    id: { type: "positional", required: true, description: "Its id" },
    within: { type: "string", valueHint: "duration", description: "How long to wait; default 1h" },
    ...doorArguments,
  },
  async run({ args }) {
    const id = jobId(args.id);
    const withinMs = durationOption(args.within, "within") ?? defaultWithinMs;
    const until = performance.now() + withinMs;
    const door = await openApi(args);
    try {
      for (;;) {
        const leftMs = Math.max(Math.ceil(until - performance.now()), 0);
        const within = Math.min(leftMs, pieceMs);
        try {
          const found = await door.ask<CompletedJob>(
            "GET",
            withQuery(`/jobs/${id}/wait`, { within }),
            undefined,
            within,
          );
          const text = resultText(found);
          if (args.json) printJson(found);
          else if (text !== undefined) print(text);
          return;
        } catch (error) {
          if (!(error instanceof MillraceError) || error.code !== "WAIT_TIMEOUT") throw error;
          if (leftMs > pieceMs) continue;
          throw new MillraceError("WAIT_TIMEOUT", `Job ${id} has not ended within ${withinMs} ms; it goes on.`);
        }
      }
    } finally {
      await door.close();
    }
  },
});
