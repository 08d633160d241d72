/** `millrace drain`: every worker ends what it runs and claims nothing more, until `millrace drain resume`. */
import { setTimeout as pause } from "node:timers/promises";
import type { QueueStats } from "../jobs/stats-store.ts";
import { type ApiDoor, openApi } from "./api-door.ts";
import { wordOption } from "./arguments.ts";
import { command } from "./command.ts";
import { counted, print, printJson } from "./print.ts";
import { type WorkerList, orderArguments, orderer } from "./workers.ts";

const lookEveryMs = 1_000;

interface Sizes {
  /** Jobs that workers hold; those of dead workers do not end. */
  readonly active: number;
  readonly workers: number;
  readonly queues: readonly QueueStats[];
}

export const drain = command({
  meta: { name: "drain", description: "Let every worker end what runs and claim nothing more, or claim again" },
  args: {
    order: {
      type: "positional",
      required: false,
      valueHint: "resume",
      description: "resume: every worker claims again",
    },
    wait: { type: "boolean", description: "Stay until nothing runs, and show the sizes of the queues meanwhile" },
    ...orderArguments,
  },
  async run({ args }) {
    const order = wordOption(args.order, "order", ["resume"] as const) ?? "drain";
    const door = await openApi(args);
    try {
      const path = order === "drain" ? "/api/drain" : "/api/drain/resume";
      const { changed } = await door.ask<{ changed: number[] }>("POST", path, orderer(args));
      const waits = args.wait === true && order === "drain";
      if (!args.json)
        print(`${counted(changed.length, "worker")} told to ${order === "drain" ? "drain" : "claim again"}.`);
      const sizes = waits ? await untilNothingRuns(door, args.json === true) : undefined;
      if (args.json) return printJson({ order, changed, ...sizes });
      if (sizes) print("Nothing runs. What waits stays in its queues; `millrace drain resume` lets it run.");
    } finally {
      await door.close();
    }
  },
});

/** Twice in a row, for a claim may have been under way when the order came. */
async function untilNothingRuns(door: ApiDoor, quietly: boolean): Promise<Sizes> {
  for (let zeros = 0; ; await pause(lookEveryMs)) {
    const sizes = await look(door);
    if (!quietly) print(lineOf(sizes));
    zeros = sizes.active === 0 ? zeros + 1 : 0;
    if (zeros === 2) return sizes;
  }
}

async function look(door: ApiDoor): Promise<Sizes> {
  const { workers } = await door.ask<WorkerList>("GET", "/api/workers");
  const { stats: queues } = await door.ask<{ stats: QueueStats[] }>("GET", "/api/queue/stats");
  const alive = workers.filter(({ state }) => state !== "stopped" && state !== "lost");
  return { active: alive.reduce((sum, worker) => sum + worker.active, 0), workers: alive.length, queues };
}

function lineOf({ active, workers, queues }: Sizes): string {
  const sizes = queues.map(({ name, active: running, waiting }) => `${name} ${running}+${waiting}`).join(", ");
  return `${counted(active, "job")} running on ${counted(workers, "worker")}; running + waiting: ${sizes || "no queues"}`;
}
