/** `millrace dlq [action]`: the jobs that were given up: one by one, counted, and what is done to many of them. */
import type { Duration } from "../core/duration.ts";
import { deadLetterGroups } from "../jobs/dead-letters-store.ts";
import { given, invalid, signatureArguments, wholeOption, wordOption } from "./arguments.ts";
import { beginOptions, filterArguments, filterOf, paceArguments, tell } from "./bulk.ts";
import { command } from "./command.ts";
import { tableOf } from "./jobs.ts";
import { doorArguments } from "./door.ts";
import { type JobsDoor, openJobs } from "./jobs-door.ts";
import { fromNow, paint, print, printJson, table } from "./print.ts";

const words = ["list", "retry", "replay", "purge"] as const;
const actions = { retry: "retry", replay: "replay", purge: "remove" } as const;

export const dlq = command({
  meta: { name: "dlq", description: "Dead letters: list, count, retry, replay, purge" },
  args: {
    action: { type: "positional", required: false, description: `${words.join(", ")}; default list` },
    group: { type: "string", valueHint: deadLetterGroups.join("|"), description: "Count them by this instead" },
    ...filterArguments,
    limit: { type: "string", valueHint: "number", description: "1 to 500; default 20" },
    after: { type: "string", valueHint: "cursor", description: "`next` of the page before" },
    "to-queue": { type: "string", description: "For replay: where the new jobs go" },
    ...paceArguments,
    ...signatureArguments,
    ...doorArguments,
  },
  async run({ args }) {
    const action = wordOption(args.action ?? "list", "action", words) ?? "list";
    const group = wordOption(args.group, "group", deadLetterGroups);
    const filter = filterOf(args);
    if (action === "list" && filter.olderThan !== undefined) throw invalid("--older-than is for retry, replay, purge.");
    const limit = wholeOption(args.limit, "limit") ?? 20;
    const door = await openJobs(args);
    try {
      if (action === "list")
        return await (group === undefined
          ? list(door, { ...filter, limit, after: args.after }, args.json)
          : count(door, group, filter, args.json));
      // What failed today may still be looked at.
      const aged = action === "purge" ? { olderThan: "24h" as Duration, ...filter } : filter;
      if (Object.keys(aged).length === 0 && args.all !== true)
        throw invalid(`dlq ${action} needs a condition, or --all; --preview counts.`);
      const options = given({ ...beginOptions(args), reason: args.reason, queue: args["to-queue"] });
      tell(await door.bulk(actions[action], { ...aged, status: "failed" }, options), args.json);
    } finally {
      await door.close();
    }
  },
});

async function list(
  door: JobsDoor,
  options: ReturnType<typeof filterOf> & { limit: number; after: string | undefined },
  asJson: boolean | undefined,
): Promise<void> {
  const { queue, task, tag, errorCode, reason, limit, after } = options;
  const page = await door.list(given({ queue, task, tag, errorCode, reason, limit, after, status: "failed" as const }));
  if (asJson) return printJson(page);
  print(page.items.length === 0 ? "No dead letters." : tableOf(page.items));
  if (page.next !== null) print(paint("dim", `\nMore: --after ${page.next}`));
}

async function count(
  door: JobsDoor,
  group: (typeof deadLetterGroups)[number],
  { queue, task, errorCode, reason }: ReturnType<typeof filterOf>,
  asJson: boolean | undefined,
): Promise<void> {
  const found = await door.deadLetters(group, given({ queue, task, errorCode, reason }));
  if (asJson) return printJson(found);
  const now = Date.now();
  const rows = found.groups.map((one) => [one.value, one.count, fromNow(one.oldest, now), fromNow(one.newest, now)]);
  print(rows.length === 0 ? "No dead letters." : table([group, "jobs", "oldest", "newest"], rows));
}
