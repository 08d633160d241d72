/** `millrace workers`: who runs jobs, and the orders for one of them. */
import { describeMs } from "../core/duration.ts";
import { invalid, wholeOption, wordOption } from "./arguments.ts";
import { command } from "./command.ts";
import { counted, fromNow, print, printJson, table } from "./print.ts";
import { type Order, type WorkerItem, openWorkers, orderArguments } from "./workers-door.ts";

const orders = ["drain", "resume", "recycle", "concurrency"] as const;

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
    const given = orderOf(args);
    const door = await openWorkers(args);
    try {
      if (given) {
        await door.order(given.worker, given.order);
        if (args.json) return printJson({ id: given.worker, order: given.order });
        return print(`Worker ${given.worker}: ${told(given.order)}`);
      }
      const items = await door.list();
      if (args.json) return printJson({ workers: items });
      print(items.length === 0 ? "No workers." : tableOf(items));
    } finally {
      await door.close();
    }
  },
});

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

function tableOf(items: readonly WorkerItem[]): string {
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
