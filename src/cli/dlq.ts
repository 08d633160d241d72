/** `millrace dlq [action]`: the jobs that were given up: one by one, counted, and what is done to many of them. */
import type { DeadLetterGroups } from "../client/index.ts";
import { MillraceError } from "../core/errors.ts";
import { type DeadLetterGroup, deadLetterGroups } from "../jobs/dead-letters-store.ts";
import { type ApiDoor, doorArguments, openApi } from "./api-door.ts";
import { invalid, signatureArguments, wordOption } from "./arguments.ts";
import { withQuery } from "./ask-api.ts";
import { begin, beginOptions, filterArguments, filterOf, paceArguments } from "./bulk.ts";
import { command } from "./command.ts";
import { pageArguments, pageLimit, printPage } from "./jobs.ts";
import { fromNow, print, printJson, table } from "./print.ts";

const words = ["list", "retry", "replay", "purge"] as const;
const actions = { retry: "retry", replay: "replay", purge: "remove" } as const;

const many = Object.keys(actions);
/** Options that not every action has, and whose they are. */
const owners: Readonly<Record<string, readonly string[]>> = {
  group: ["list"],
  limit: ["list"],
  after: ["list"],
  "to-queue": ["replay"],
  "older-than": many,
  preview: many,
  all: many,
  "per-second": many,
  by: many,
  reason: many,
};

export const dlq = command({
  meta: { name: "dlq", description: "Dead letters: list, count, retry, replay, purge" },
  args: {
    action: { type: "positional", required: false, description: `${words.join(", ")}; default list` },
    group: { type: "string", valueHint: deadLetterGroups.join("|"), description: "Count them by this instead" },
    ...filterArguments,
    ...pageArguments,
    "to-queue": { type: "string", description: "For replay: where the new jobs go" },
    ...paceArguments,
    ...signatureArguments,
    ...doorArguments,
  },
  async run({ args }) {
    const action = wordOption(args.action ?? "list", "action", words) ?? "list";
    refuseOthers(action, args);
    const group = wordOption(args.group, "group", deadLetterGroups);
    const filter = filterOf(args);
    const limit = pageLimit(args.limit);
    const door = await openApi(args);
    try {
      if (action === "list" && group !== undefined) return await count(door, group, filter, args.json);
      if (action === "list") {
        const path = withQuery("/dlq", { ...filter, limit, after: args.after });
        return await printPage(door, path, args.json, "No dead letters.");
      }
      // What failed today may still be looked at.
      const aged = action === "purge" ? { older_than: "24h", ...filter } : filter;
      const { older_than: age, ...others } = aged;
      const excluding = Object.keys(others).length > 0 || (age !== undefined && age !== 0);
      if (!excluding && args.all !== true)
        throw new MillraceError("FILTER_TOO_WIDE", `dlq ${action} needs a condition, or --all; --preview counts.`);
      await begin(door, actions[action], { ...aged, status: "failed" }, beginOptions(args), args.json);
    } finally {
      await door.close();
    }
  },
});

function refuseOthers(action: string, args: Readonly<Record<string, unknown>>): void {
  for (const [option, whose] of Object.entries(owners))
    if (args[option] !== undefined && !whose.includes(action))
      throw invalid(`millrace dlq ${action}: --${option} is for ${whose.join(", ")}.`);
  for (const option of ["limit", "after"])
    if (args[option] !== undefined && args["group"] !== undefined)
      throw invalid(`millrace dlq: --${option} is for the list, and --group counts.`);
}

async function count(
  door: ApiDoor,
  group: DeadLetterGroup,
  filter: ReturnType<typeof filterOf>,
  asJson: boolean | undefined,
): Promise<void> {
  const found = await door.ask<DeadLetterGroups>("GET", withQuery("/dlq", { group, ...filter }));
  if (asJson) return printJson(found);
  const now = Date.now();
  const rows = found.groups.map((one) => [one.value, one.count, fromNow(one.oldest, now), fromNow(one.newest, now)]);
  print(rows.length === 0 ? "No dead letters." : table([group, "jobs", "oldest", "newest"], rows));
}
