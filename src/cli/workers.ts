/** `millrace workers`: who runs jobs, and the orders for one of them. */
import type { ArgsDef } from "citty";
import { describeMs } from "../core/duration.ts";
import type { WorkerList } from "../client/index.ts";
import { doorArguments, openApi } from "./api-door.ts";
import { given, invalid, wholeOption, wordOption } from "./arguments.ts";
import { command } from "./command.ts";

import { counted, fromNow, print, printJson, table } from "./print.ts";

const orders = ["drain", "resume", "recycle", "concurrency"] as const;

type Order = "drain" | "resume" | "recycle" | { readonly concurrency: number };

/** For this command and for `drain`. */
export const orderArguments = {
  by: { type: "string", valueHint: "name", description: "Who orders it, for the audit (default: $USER)" },
  ...doorArguments,
} as const satisfies ArgsDef;

export function orderer({ by = process.env["USER"] }: { readonly by?: string | undefined }): { by?: string } {
  return given({ by });
}

export const workers = command({
  meta: { name: "workers", description: "List workers, or give one an order" },
  args: {
    order: {
      type: "positional",
      required: false,
      valueHint: orders.join("|"),
      description: "What the worker is to do; left out: list them all",
    },
    id: { type: "positional", required: false, description: "The worker's number in the list" },
    number: { type: "positional", required: false, description: "For concurrency: jobs at once" },
    ...orderArguments,
  },
  async run({ args }) {
    const asked = orderOf(args);
    const door = await openApi(args);
    try {
      if (asked) {
        const { worker, order } = asked;
        const path = `/api/workers/${worker}`;
        await (typeof order === "object"
          ? door.ask("PATCH", path, { ...order, ...orderer(args) })
          : door.ask("POST", `${path}/${order}`, orderer(args)));
        return args.json ? printJson({ id: worker, order }) : print(`Worker ${worker}: ${told(order)}`);
      }
      const list = await door.ask<WorkerList>("GET", "/api/workers");
      if (args.json) return printJson(list);
      if (list.drained) {
        print(`The system is drained ${sinceBy(list.drained)}; \`millrace drain resume\` lets workers claim again.`);
      }
      print(list.workers.length === 0 ? "No workers." : tableOf(list));
    } finally {
      await door.close();
    }
  },
});

/** `by ada since 2027-01-31T08:00:00.000Z (4 min ago)` */
export function sinceBy({ since, by }: { readonly since: Date | string; readonly by: string | null }): string {
  const who = by === null ? "" : `by ${by} `;
  return `${who}since ${new Date(since).toISOString()} (${fromNow(since, Date.now())})`;
}

interface Words {
  readonly order?: string | undefined;
  readonly id?: string | undefined;
  readonly number?: string | undefined;
}

function orderOf({ order, id, number }: Words): { worker: number; order: Order } | undefined {
  const word = wordOption(order, "order", orders);
  if (word === undefined) return undefined;
  const worker = wholeOption(id, "id");
  if (worker === undefined) throw invalid(`millrace workers ${word}: which one? \`millrace workers\` lists their ids.`);
  if (word !== "concurrency") {
    if (number !== undefined) throw invalid(`millrace workers ${word}: "${number}" is one argument too many.`);
    return { worker, order: word };
  }
  const concurrency = wholeOption(number, "number");
  if (concurrency === undefined) throw invalid("millrace workers concurrency: how many jobs at once?");
  return { worker, order: { concurrency } };
}

function told(order: Order): string {
  if (typeof order === "object") return `${counted(order.concurrency, "job")} at once from now on.`;
  if (order === "drain") return "claims nothing more, and ends what runs.";
  return order === "resume" ? "claims again." : "ends what runs, then stops and starts anew under a new id.";
}

function tableOf({ workers: items }: WorkerList): string {
  const now = Date.now();
  return table(
    ["id", "name", "state", "running", "of", "longest", "started", "beat", "queues", "version"],
    items.map((worker) => [
      worker.id,
      worker.name,
      worker.recycling ? `${worker.state}, to recycle` : worker.state,
      worker.active,
      worker.concurrency,
      worker.jobs[0] ? `${worker.jobs[0].task}, ${fromNow(worker.jobs[0].since, now)}` : "",
      fromNow(worker.started_at, now),
      worker.stopped_at === null ? `${describeMs(worker.beat_age_ms)} ago` : "",
      worker.queues?.join(",") ?? "every",
      worker.version,
    ]),
  );
}
