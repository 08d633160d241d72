/** `millrace metrics`: depth and rates of queues, as people, Prometheus or service level objectives ask for them. */
import { doorArguments, openApi } from "./api-door.ts";
import { wordOption } from "./arguments.ts";
import { answerOf } from "./ask-api.ts";
import { command } from "./command.ts";
import { print, printJson, table } from "./print.ts";

const formats = ["table", "prometheus", "objectives"] as const;
const patienceMs = 30_000;

interface Rates {
  readonly queue: string;
  readonly runnable_queue_depth: number;
  readonly jobs_per_sec: number;
  readonly success_rate: number | null;
  readonly retry_rate: number | null;
  readonly mean_latency_ms: number;
}

export const metrics = command({
  meta: { name: "metrics", description: "Depth and rates of every queue" },
  args: {
    format: {
      type: "string",
      valueHint: formats.join("|"),
      description: "prometheus: every metric; objectives: the ratios that service levels are made of",
    },
    ...doorArguments,
  },
  async run({ args }) {
    const format = wordOption(args.format, "format", formats) ?? "table";
    const door = await openApi(args);
    try {
      if (format === "prometheus") {
        const answer = await door.follow("/metrics/prom", undefined, AbortSignal.timeout(patienceMs));
        if (!answer.ok) return await answerOf(answer, "The API");
        return print((await answer.text()).trimEnd());
      }
      if (format === "objectives") return printJson(await door.ask("GET", "/ops/metrics"));
      const found = await door.ask<{ queues: Rates[] }>("GET", "/metrics");
      if (args.json) printJson(found);
      else print(found.queues.length === 0 ? "No queues." : tableOf(found.queues));
    } finally {
      await door.close();
    }
  },
});

const percent = (share: number | null): string => (share === null ? "" : `${Math.round(share * 1_000) / 10} %`);

function tableOf(queues: readonly Rates[]): string {
  return table(
    ["queue", "due", "jobs/s", "succeed", "retried", "mean ms"],
    queues.map((one) => [
      one.queue,
      one.runnable_queue_depth,
      one.jobs_per_sec,
      percent(one.success_rate),
      percent(one.retry_rate),
      Math.round(one.mean_latency_ms),
    ]),
  );
}
