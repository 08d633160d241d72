/** The first thing `up` and `worker` say: what runs, where its data is, and what to try. */
import type { Config } from "../app/config.ts";
import type { Millrace } from "../app/millrace.ts";
import { version } from "../app/version.ts";
import type { Log } from "../core/log.ts";
import type { AppModule } from "./load-app.ts";
import { withoutPassword } from "./mask.ts";
import { counted, facts, paint } from "./print.ts";
import type { Terminal } from "./terminal.ts";

export interface Introduction {
  readonly mill: Millrace;
  readonly module: AppModule;
  readonly config: Config;
  /** Empty: no API here. */
  readonly urls: readonly string[];
  /** Programs on this machine need no token. */
  readonly trusting: boolean;
  readonly terminal: Terminal | undefined;
  readonly log: Log;
}

export function introduce({ mill, module, config, urls, trusting, terminal, log }: Introduction): void {
  const { databaseUrl, dataDir, schema, concurrency, queues } = config;
  const embedded = mill.db.kind === "embedded";
  const database = embedded ? dataDir : withoutPassword(databaseUrl ?? "");
  if (terminal === undefined) {
    const tasks = module.app.tasks.map((task) => task.name);
    log.info({ version, database, schema, app: module.path, tasks, queues, concurrency, urls }, "millrace is up");
    return;
  }
  const data = embedded
    ? `${dataDir}, embedded: one process; survives a killed process, not a power cut\n(set DATABASE_URL to a PostgreSQL for both)`
    : `${database}, schema ${schema}`;
  terminal.line(
    `\n${paint("bold", `Millrace ${version}`)}\n\n${facts([
      ["data", data],
      ["app", `${module.path}: ${module.app.tasks.map((task) => task.name).join(", ")}`],
      ["worker", `${counted(concurrency, "job")} at once, ${queues ? `queues ${queues.join(", ")}` : "every queue"}`],
      ["open", urls.join("\n")],
      ["try", urls[0] && suggestions(urls[0], module, trusting).join("\n")],
      ["stop", "Ctrl-C"],
    ])}\n`,
  );
}

function suggestions(url: string, { app }: AppModule, trusting: boolean): string[] {
  const simple = app.tasks.find((task) => task.schema === undefined) ?? app.tasks[0];
  const body = JSON.stringify({ job_type: simple?.name, payload_json: {} });
  const token = trusting ? "" : ' -H "Authorization: Bearer $MILLRACE_TOKEN"';
  return [
    ...(trusting ? [] : ["export MILLRACE_TOKEN=$(npx millrace token create me --role operator)"]),
    `curl ${url}/api/queue/stats${token}`,
    `curl ${url}/dlq${token}`,
    ...(simple ? [`curl ${url}/jobs${token} -H 'Content-Type: application/json' -d '${body}'`] : []),
    "npx millrace jobs --status failed",
    "npx millrace doctor",
  ];
}
