/** `millrace bulk <action>`: one action on many jobs; counts them, begins, shows and stops it. */
import type { ArgsDef } from "citty";
import type { BulkOperation, BulkOperationPage, BulkPreview } from "../client/index.ts";
import { type BulkAction, bulkActions } from "../jobs/bulk-walk-store.ts";
import { jobStatuses } from "../jobs/read-store.ts";
import { type ApiDoor, doorArguments, openApi } from "./api-door.ts";
import { durationOption, given, invalid, signature, signatureArguments, wholeOption, wordOption } from "./arguments.ts";
import { command } from "./command.ts";
import { counted, facts, fromNow, paint, print, printJson, table } from "./print.ts";

const words = [...bulkActions, "list", "show", "stop"] as const;

/** What finds jobs, for this command and for `dlq`. */
export const filterArguments = {
  queue: { type: "string", description: "Only jobs of this queue" },
  task: { type: "string", description: "Only jobs of this task" },
  tag: { type: "string", description: "Only jobs with this tag" },
  "error-code": { type: "string", valueHint: "CODE", description: "Only dead letters with this error code" },
  "dead-reason": { type: "string", valueHint: "CODE", description: "Only dead letters with this reason" },
  "older-than": { type: "string", valueHint: "duration", description: "Only those that ended, or came, longer ago" },
} as const satisfies ArgsDef;

/** How it is begun. */
export const paceArguments = {
  preview: { type: "boolean", description: "Only count, change nothing" },
  all: { type: "boolean", description: "Needed when there is no condition: really all jobs" },
  "per-second": { type: "string", valueHint: "number", description: "Jobs per second; default 1000" },
} as const satisfies ArgsDef;

type Texts<Name extends string> = { readonly [Each in Name]?: string | undefined };

/** The conditions as the API takes them. */
export function filterOf(args: Texts<keyof typeof filterArguments>) {
  return given({
    queue: args.queue,
    task: args.task,
    tag: args.tag,
    error_code: args["error-code"],
    reason: args["dead-reason"],
    older_than: durationOption(args["older-than"], "older-than"),
  });
}

export const bulk = command({
  meta: { name: "bulk", description: "One action on many jobs" },
  args: {
    action: { type: "positional", required: true, description: words.join(", ") },
    id: { type: "positional", required: false, description: "For show and stop: the id of the operation" },
    status: { type: "string", valueHint: jobStatuses.join("|"), description: "Only jobs of this status" },
    ...filterArguments,
    ids: { type: "string", valueHint: "a,b", description: "These jobs" },
    priority: { type: "string", valueHint: "number", description: "For reprioritise: the new priority" },
    "to-queue": { type: "string", description: "For move and replay: where they go" },
    ...paceArguments,
    ...signatureArguments,
    ...doorArguments,
  },
  async run({ args }) {
    const action = wordOption(args.action, "action", words);
    if (action === undefined) throw invalid(`The action must be one of ${words.join(", ")}.`);
    const door = await openApi(args);
    try {
      if (action === "list") {
        const { items } = await door.ask<BulkOperationPage>("GET", "/api/bulk");
        if (args.json) return printJson({ items });
        return print(items.length === 0 ? "No bulk operations." : tableOf(items));
      }
      if (action === "show" || action === "stop") {
        if (args.id === undefined) throw invalid(`bulk ${action} needs the id of an operation.`);
        const path = `/api/bulk/${encodeURIComponent(args.id)}`;
        const item = await (action === "show"
          ? door.ask<BulkOperation>("GET", path)
          : door.ask<BulkOperation>("POST", `${path}/stop`, signature({ by: args.by })));
        return args.json ? printJson(item) : print(describe(item));
      }
      if (args.id !== undefined) throw invalid(`"${args.id}" is one argument too many; --ids names jobs.`);
      const filter = given({
        ...filterOf(args),
        status: wordOption(args.status, "status", jobStatuses),
        ids: args.ids?.split(",").map((id) => id.trim()),
      });
      const priority = wholeOption(args.priority, "priority");
      await begin(door, action, filter, { ...beginOptions(args), ...given({ priority }) }, args.json);
    } finally {
      await door.close();
    }
  },
});

interface Begin extends Texts<"per-second" | "to-queue" | "by" | "reason"> {
  readonly preview?: boolean | undefined;
  readonly all?: boolean | undefined;
}

/** How it is begun, as the API takes it. */
export function beginOptions(args: Begin) {
  return given({
    preview: args.preview,
    all: args.all,
    per_second: wholeOption(args["per-second"], "per-second"),
    queue: args["to-queue"],
    ...signature(args),
  });
}

/** Begins it, or only counts, and says what came of that. */
export async function begin(
  door: ApiDoor,
  action: BulkAction,
  filter: object,
  options: object,
  asJson: boolean | undefined,
): Promise<void> {
  const begun = await door.ask<BulkOperation | BulkPreview>("POST", "/api/bulk", { action, filter, ...options });
  if (asJson) return printJson(begun);
  const number = `${begun.more_than_expected ? "more than " : ""}${counted(begun.expected, "job")}`;
  if (!("id" in begun)) return print(`${begun.action} would look at ${number}. Nothing was changed.`);
  print(`Begun: ${begun.action} of ${number}.\n${paint("dim", `millrace bulk show ${begun.id}`)}`);
}

function tableOf(items: readonly BulkOperation[]): string {
  const now = Date.now();
  return table(
    ["id", "action", "status", "expected", "looked at", "changed", "begun"],
    items.map((item) => [
      item.id,
      item.action,
      item.status,
      item.expected,
      item.looked_at,
      item.changed,
      fromNow(item.created_at, now),
    ]),
  );
}

function describe(item: BulkOperation): string {
  const now = Date.now();
  const when = (time: string | null): string | null =>
    time === null ? null : `${new Date(time).toISOString()}  (${fromNow(time, now)})`;
  return facts([
    ["id", item.id],
    ["action", item.action],
    ["status", item.status === "waiting" ? "waiting for a worker of the queue maintenance" : item.status],
    ["filter", JSON.stringify(item.filter)],
    ["options", Object.keys(item.options).length === 0 ? null : JSON.stringify(item.options)],
    ["expected", `${item.more_than_expected ? "more than " : ""}${item.expected}`],
    ["looked at", String(item.looked_at)],
    ["changed", String(item.changed)],
    ["by", item.created_by],
    ["begun", when(item.created_at)],
    ["stop asked", when(item.stop_asked_at)],
    ["stopped by", item.stopped_by],
    ["finished", when(item.finished_at)],
    ["error", item.error],
  ]);
}
