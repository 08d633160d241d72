/** `millrace queues`: how many jobs are where, and the orders for a queue or for all. */
import type { IngestDecision, PolicyDecision, QueueStats, QueueStatsList } from "../client/index.ts";
import { doorArguments, openApi } from "./api-door.ts";
import { durationOption, given, invalid, signature, signatureArguments, wholeOption, wordOption } from "./arguments.ts";
import { withQuery } from "./ask-api.ts";
import { command } from "./command.ts";
import { fromNow, oneLine, print, printJson, table } from "./print.ts";

const orders = ["pause", "resume", "clean"] as const;
const words = ["show", ...orders, "decisions", "denials"] as const;

export const queues = command({
  meta: { name: "queues", description: "Show how many jobs are where; pause, resume and clean queues" },
  args: {
    action: {
      type: "positional",
      required: false,
      valueHint: words.join("|"),
      description: "Left out: all counts. decisions: what storm control held back; denials: what was not let in",
    },
    queue: { type: "positional", required: false, description: "Its name" },
    all: { type: "boolean", description: "For pause, resume and clean: every queue" },
    grace: {
      type: "string",
      valueHint: "duration",
      description: "For clean: jobs that ended longer ago than this go; default 24h",
    },
    limit: { type: "string", valueHint: "number", description: "For decisions and denials: the newest so many" },
    ...signatureArguments,
    ...doorArguments,
  },
  async run({ args }) {
    const action = wordOption(args.action, "action", words);
    const { queue } = args;
    const isOrder = action === "pause" || action === "resume" || action === "clean";
    if (isOrder && (queue === undefined) === (args.all !== true))
      throw invalid(`millrace queues ${action}: name one queue, or say --all.`);
    if (!isOrder && args.all) throw invalid("--all is for pause, resume and clean.");
    if (action !== "clean" && args.grace !== undefined) throw invalid("--grace is for clean.");
    if ((action === "show" || action === "decisions") && queue === undefined)
      throw invalid(`millrace queues ${action}: which queue?`);
    const grace = durationOption(args.grace, "grace");
    const limit = wholeOption(args.limit, "limit");
    const path = `/api/queue/${encodeURIComponent(queue ?? "")}`;
    const door = await openApi(args);
    try {
      if (isOrder) {
        const order = args.all ? `/api/queue/${action}-all` : `${path}/${action}`;
        const why = action === "pause" ? signature(args) : undefined;
        const done = await door.ask<{ message: string }>("POST", withQuery(order, given({ grace })), why);
        return args.json ? printJson(done) : print(done.message);
      }
      if (action === "decisions") {
        const found = await door.ask<{ items: PolicyDecision[] }>("GET", withQuery(`${path}/decisions`, { limit }));
        return args.json ? printJson(found) : print(decisionsOf(found.items, "Storm control held nothing back."));
      }
      if (action === "denials") {
        const asked = withQuery("/ingest/decisions", { queue, limit });
        const found = await door.ask<IngestDecision[]>("GET", asked);
        return args.json ? printJson(found) : print(decisionsOf(found, "Everything was let in."));
      }
      const counts = queue === undefined ? "/api/queue/stats" : `${path}/stats`;
      const found = await door.ask<QueueStatsList>("GET", counts);
      if (args.json) printJson(found);
      else print(found.stats.length === 0 ? "No queues." : tableOf(found.stats));
    } finally {
      await door.close();
    }
  },
});

function tableOf(stats: readonly QueueStats[]): string {
  return table(
    ["queue", "waiting", "active", "delayed", "failed", "completed", "total", ""],
    stats.map((one) => [
      one.name,
      one.waiting,
      one.active,
      one.delayed,
      one.failed,
      one.completed,
      one.total,
      one.paused ? "paused" : "",
    ]),
  );
}

function decisionsOf(items: readonly (PolicyDecision | IngestDecision)[], none: string): string {
  if (items.length === 0) return none;
  const now = Date.now();
  return table(
    ["when", "queue", "decision", "reason", "details"],
    items.map((one) => [
      fromNow("at" in one ? one.at : one.created_at, now),
      one.queue,
      one.decision,
      one.reason_code,
      oneLine(JSON.stringify("details" in one ? one.details : one.details_json), 80),
    ]),
  );
}
