/** `millrace worker`: one more process that runs jobs, without an API. Start as many as you like on one PostgreSQL. */
import { command } from "./command.ts";
import { runApp, runArguments } from "./run-app.ts";

export const worker = command({
  meta: { name: "worker", description: "Run jobs, without an API" },
  args: runArguments,
  run: ({ args }) => runApp(args, false),
});
