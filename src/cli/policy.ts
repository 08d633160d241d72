/** `millrace policy`: the limits of queues; shows them, changes them, takes them away. */
import type { Policy, PolicyList } from "../client/index.ts";
import { describeMs } from "../core/duration.ts";
import { doorArguments, openApi } from "./api-door.ts";
import { given, invalid, wholeOption } from "./arguments.ts";
import { command } from "./command.ts";
import { facts, print, printJson, table } from "./print.ts";

const numbers = {
  concurrency: "Jobs running at once, over all workers",
  "key-concurrency": "Jobs running at once of one concurrency key",
  "max-in-flight": "Storm control: jobs running at once",
  "max-attempts-per-minute": "Storm control: attempts per minute, retries included",
  "max-payload-bytes": "Largest input",
  "max-enqueue-per-minute": "Jobs taken per minute",
  priority: "For jobs enqueued without one",
} as const;
const durations = {
  "throttle-delay": "How long storm control holds the queue's breath; default 500ms",
  "keep-completed": "Completed jobs are deleted after so long",
  "keep-failed": "Dead letters are deleted after so long",
} as const;

const setting = (description: string, valueHint: string) => ({ type: "string", valueHint, description }) as const;

export const policy = command({
  meta: { name: "policy", description: "Show and change the limits of queues" },
  args: {
    queue: { type: "positional", required: false, description: "Its name; without one, all policies are listed" },
    concurrency: setting(numbers.concurrency, "number|none"),
    "key-concurrency": setting(numbers["key-concurrency"], "number|none"),
    rate: setting("Starts per duration, such as 10/1s", "max/per|none"),
    "key-rate": setting("Starts per duration of one concurrency key", "max/per|none"),
    "max-in-flight": setting(numbers["max-in-flight"], "number|none"),
    "max-attempts-per-minute": setting(numbers["max-attempts-per-minute"], "number|none"),
    "throttle-delay": setting(durations["throttle-delay"], "duration"),
    "max-payload-bytes": setting(numbers["max-payload-bytes"], "number|none"),
    "max-enqueue-per-minute": setting(numbers["max-enqueue-per-minute"], "number|none"),
    priority: setting(numbers.priority, "number|none"),
    "keep-completed": setting(durations["keep-completed"], "duration|none"),
    "keep-failed": setting(durations["keep-failed"], "duration|none"),
    remove: { type: "boolean", description: "Take every limit away" },
    by: { type: "string", description: "Who does this, for the audit" },
    ...doorArguments,
  },
  async run({ args }) {
    const { queue, by } = args;
    const changes = changesOf(args);
    const changing = Object.keys(changes).length > 0;
    if (queue === undefined && (changing || args.remove)) throw invalid("millrace policy: name the queue to change.");
    if (changing && args.remove)
      throw invalid("millrace policy: --remove takes every limit away; give no others with it.");
    const door = await openApi(args);
    const path = `/api/queue/${encodeURIComponent(queue ?? "")}/policy`;
    try {
      if (queue === undefined) {
        const { items } = await door.ask<PolicyList>("GET", "/api/policies");
        return args.json ? printJson({ items }) : print(items.length === 0 ? "No queue has limits." : tableOf(items));
      }
      if (args.remove) {
        await door.ask("DELETE", by === undefined ? path : `${path}?by=${encodeURIComponent(by)}`);
        return args.json ? printJson({ queue, removed: true }) : print(`Queue ${queue} has no limits any more.`);
      }
      const found = changing
        ? await door.ask<Policy>("PATCH", path, { ...changes, ...given({ by }) })
        : await door.ask<Policy>("GET", path);
      if (args.json) printJson(found);
      else print(factsOf(found));
    } finally {
      await door.close();
    }
  },
});

type Given = Readonly<Record<string, unknown>>;

const snake = (name: string): string => name.replaceAll("-", "_");

function changesOf(args: Given): Record<string, unknown> {
  const changes: Record<string, unknown> = {};
  const each = (names: object, read: (text: string, name: string) => unknown): void => {
    for (const name of Object.keys(names)) {
      const text = args[name];
      if (typeof text === "string") changes[snake(name)] = text === "none" ? null : read(text, name);
    }
  };
  each(numbers, (text, name) => wholeOption(text, name));
  each(durations, (text) => text);
  each({ rate: "", "key-rate": "" }, (text, name) => {
    const [, max, per] = /^(\d{1,9})\/(.+)$/.exec(text) ?? [];
    if (per === undefined) throw invalid(`--${name} must be max/per, such as 10/1s, not "${text}".`);
    return { max: Number(max), per };
  });
  return changes;
}

function textOf(value: unknown, name: string): string {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return name.endsWith("_ms") ? describeMs(value) : String(value);
  const { max, per_ms: perMs } = value as { max: number; per_ms: number };
  return `${max}/${describeMs(perMs)}`;
}

const columns = [
  "concurrency",
  "key_concurrency",
  "rate",
  "key_rate",
  "max_in_flight",
  "max_attempts_per_minute",
  "max_payload_bytes",
  "max_enqueue_per_minute",
  "priority",
  "keep_completed_ms",
  "keep_failed_ms",
] as const;

function tableOf(items: readonly Policy[]): string {
  const used = columns.filter((name) => items.some((item) => item[name] !== null));
  return table(
    ["queue", ...used],
    items.map((item) => [item.queue, ...used.map((name) => textOf(item[name], name))]),
  );
}

function factsOf(found: Policy): string {
  return facts([
    ["queue", found.queue],
    ...columns.map((name) => [name, textOf(found[name], name)] as const),
    ["throttle_delay_ms", textOf(found["throttle_delay_ms"], "throttle_delay_ms")],
    ["updated", `${found.updated_at}${found.updated_by === null ? "" : ` by ${found.updated_by}`}`],
  ]);
}
