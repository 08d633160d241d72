/** `millrace up`: everything in one process. The schema is brought up to date, the API answers, jobs run. */
import { command } from "./command.ts";
import { runApp, runArguments } from "./run-app.ts";

export const up = command({
  meta: { name: "up", description: "Run everything in one process: migrations, API, worker" },
  args: runArguments,
  run: ({ args }) => runApp(args, true),
});
