/** `millrace schedules`: what comes again and again; shows, makes, changes, pauses and runs it, and looks ahead and back. */
import type { PreviewedTick, Schedule, SchedulePage, ScheduleRunPage } from "../client/index.ts";
import { type ApiDoor, doorArguments, openApi } from "./api-door.ts";
import { given, invalid, readJson, signature, signatureArguments, wholeOption, wordOption } from "./arguments.ts";
import { command } from "./command.ts";
import { print, printJson } from "./print.ts";
import { factsOf, previewTable, runsTable, schedulesTable } from "./schedules-print.ts";

const verbs = [
  "list",
  "show",
  "runs",
  "preview",
  "run",
  "pause",
  "resume",
  "create",
  "update",
  "reset",
  "delete",
] as const;
type Verb = (typeof verbs)[number];

const text = (description: string, valueHint: string) => ({ type: "string", valueHint, description }) as const;
const settings = {
  task: text("The task it enqueues", "name"),
  cron: text("When: five fields, six with seconds first, or @daily and its like", "pattern"),
  every: text("When: an interval, such as 5m", "duration"),
  zone: text("Time zone of the pattern, such as Europe/Berlin; default UTC", "name"),
  input: text("Input of its jobs", "json"),
  queue: text("Queue of its jobs; default: the task's", "name"),
  priority: text("Of its jobs; higher runs first", "number"),
  "max-attempts": text("Total tries of each job", "number"),
  timeout: text("For one attempt", "duration"),
  tags: text("Words to find its jobs by", "a,b"),
  "concurrency-key": text("Of its jobs", "key"),
  overlap: text("While the run before goes on: allow, skip (default) or queue", "word"),
  concurrency: text("Runs at once, for skip and queue; default 1", "number"),
  "catch-up": text("Of late ticks: none, last (default) or all", "word"),
  jitter: text("Each run comes up to so much later", "duration"),
  "start-grace": text("A tick later than this is missed; default 60s", "duration"),
  "run-grace": text("A run longer than this is overdue", "duration"),
} as const;
const numbers: ReadonlySet<string> = new Set(["priority", "max-attempts", "concurrency"]);

export const schedules = command({
  meta: { name: "schedules", description: "Show, make, change, pause and run schedules" },
  args: {
    verb: { type: "positional", required: false, valueHint: verbs.join("|"), description: "Left out: list" },
    name: { type: "positional", required: false, description: "The schedule" },
    ...settings,
    paused: { type: "boolean", description: "For create: it begins paused" },
    count: text("For preview: how many ticks; default 10", "number"),
    status: text("For runs: only those that were fired, queued, skipped, missed or denied", "word"),
    limit: text("For list and runs", "number"),
    after: text("For list and runs: next of the page before", "cursor"),
    ...signatureArguments,
    ...doorArguments,
    app: text("App module whose task brings its queue, attempts and input schema", "file"),
  },
  async run({ args }) {
    const verb = wordOption(args.verb, "verb", verbs) ?? "list";
    const order = orderOf(verb, args);
    const door = await openApi(args);
    try {
      const answer = await order.ask(door);
      if (args.json) printJson(answer);
      else print(order.tell(answer));
    } finally {
      await door.close();
    }
  },
});

type Words = Readonly<Record<string, unknown>> & { readonly name?: string | undefined };

interface Order {
  ask(door: ApiDoor): Promise<unknown>;
  tell(answer: unknown): string;
}

/** What the words ask of the API, and how its answer reads. */
function orderOf(verb: Verb, args: Words): Order {
  const order = <Answer>(ask: (door: ApiDoor) => Promise<Answer>, tell: (answer: Answer) => string): Order => ({
    ask,
    tell: (answer) => tell(answer as Answer),
  });
  const said = settingsOf(args);
  const changing = Object.keys(said).length > 0;
  const timing = verb === "preview" && args.name === undefined;
  if (changing && !timing && verb !== "create" && verb !== "update" && !(verb === "run" && onlyInput(said)))
    throw invalid(`millrace schedules ${verb}: takes no settings; \`millrace schedules update\` changes them.`);
  const { by, reason } = signature(args as { by?: string; reason?: string });
  const path = (aspect = ""): string => {
    if (args.name === undefined)
      throw invalid(`millrace schedules ${verb}: which one? \`millrace schedules\` lists them.`);
    return `/api/schedules/${encodeURIComponent(args.name)}${aspect}`;
  };
  switch (verb) {
    case "list":
      return order(
        (door) => door.ask<SchedulePage>("GET", `/api/schedules${query(args, "limit", "after")}`),
        ({ items }) => (items.length === 0 ? "No schedules." : schedulesTable(items)),
      );
    case "show": {
      const to = path();
      return order((door) => door.ask<Schedule>("GET", to), factsOf);
    }
    case "runs": {
      const to = path(`/runs${query({ ...args, before: args["after"] }, "limit", "before", "status")}`);
      return order(
        (door) => door.ask<ScheduleRunPage>("GET", to),
        ({ items }) => (items.length === 0 ? "Nothing has come of it yet." : runsTable(items)),
      );
    }
    case "preview": {
      const count = wholeOption(args["count"] as string | undefined, "count");
      const tell = ({ items }: { items: PreviewedTick[] }): string =>
        items.length === 0 ? "It never comes." : previewTable(items);
      if (timing && !changing) throw invalid("millrace schedules preview: name a schedule, or give --cron or --every.");
      if (timing)
        return order((door) => door.ask("POST", "/api/schedules/preview", { ...said, ...given({ count }) }), tell);
      const to = path(`/preview${query(args, "count")}`);
      return order((door) => door.ask("GET", to), tell);
    }
    case "run": {
      const to = path("/run");
      return order(
        (door) =>
          door.ask<{ status: string; job_id: string | null }>("POST", to, { ...said, ...given({ by, reason }) }),
        ({ job_id: job }) => (job === null ? "Queued behind the run before it." : `Enqueued job ${job}.`),
      );
    }
    case "pause":
    case "resume": {
      const to = path(`/${verb}`);
      const body = verb === "pause" ? given({ by, reason }) : given({ by });
      return order(
        (door) => door.ask<{ message: string }>("POST", to, body),
        ({ message }) => message,
      );
    }
    case "create": {
      path();
      const { name, paused } = args;
      const body = { name, ...said, ...given({ by, paused: paused === true ? true : undefined }) };
      return order((door) => door.ask<Schedule>("POST", "/api/schedules", body), factsOf);
    }
    case "update": {
      const to = path();
      if (!changing) throw invalid("millrace schedules update: there is nothing to change.");
      return order((door) => door.ask<Schedule>("PATCH", to, { ...said, ...given({ by }) }), factsOf);
    }
    case "reset": {
      const to = path("/reset");
      return order((door) => door.ask<Schedule>("POST", to, given({ by })), factsOf);
    }
    case "delete": {
      const to = path(by === undefined ? "" : `?by=${encodeURIComponent(by)}`);
      return order(
        async (door) => {
          await door.ask("DELETE", to);
          return { name: args.name, deleted: true };
        },
        () => `Schedule ${args.name} is gone, with its history; its jobs stay.`,
      );
    }
  }
}

/** The settings that were given, as the API spells them; `none` takes one back to its default, where it is no word of its own. */
function settingsOf(args: Words): Record<string, unknown> {
  const said: Record<string, unknown> = {};
  for (const name of Object.keys(settings)) {
    const value = args[name];
    if (typeof value !== "string") continue;
    said[name.replaceAll("-", "_")] =
      value === "none" && name !== "catch-up"
        ? null
        : name === "input"
          ? readJson(value)
          : name === "tags"
            ? value.split(",").map((tag) => tag.trim())
            : numbers.has(name)
              ? wholeOption(value, name)
              : value;
  }
  return said;
}

function onlyInput(said: object): boolean {
  return Object.keys(said).every((name) => name === "input");
}

function query(args: Words, ...names: string[]): string {
  const entries = names.flatMap((name) => (typeof args[name] === "string" ? [[name, args[name]]] : []));
  return entries.length === 0 ? "" : `?${new URLSearchParams(Object.fromEntries(entries)).toString()}`;
}
