/** `millrace drain`: every worker, also one that starts later, ends what it runs and claims nothing more, until `millrace drain resume`. */
import { setTimeout as pause } from "node:timers/promises";
import { constants } from "node:os";
import { untilEmpty, withoutSchedules } from "../app/drain.ts";
import type { QueueStats, QueueStatsList, WorkerList } from "../client/index.ts";
import { type ApiDoor, openApi } from "./api-door.ts";
import { invalid, wordOption } from "./arguments.ts";
import { command } from "./command.ts";
import { counted, print, printJson } from "./print.ts";
import { orderArguments, orderer } from "./workers.ts";

const lookEveryMs = 1_000;

interface Sizes {
  /** Jobs that workers hold; those of dead workers do not end. */
  readonly active: number;
  readonly workers: number;
  readonly queues: readonly QueueStats[];
  readonly drained: WorkerList["drained"];
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
    "until-empty": {
      type: "boolean",
      description:
        "First let no schedule fire, and workers go on until no queue has a job that waits or runs; Ctrl-C takes it back",
    },
    ...orderArguments,
  },
  async run({ args }) {
    const order = wordOption(args.order, "order", ["resume"] as const) ?? "drain";
    const first = args["until-empty"] === true;
    if (first && order === "resume") throw invalid("millrace drain resume: --until-empty is for draining.");
    const door = await openApi(args);
    const show = args.json ? () => undefined : (sizes: Sizes) => print(lineOf(sizes));
    try {
      const give = (): Promise<{ changed: number[] }> =>
        door.ask("POST", order === "drain" ? "/api/drain" : "/api/drain/resume", orderer(args));
      const given = first ? await whenEmpty(door, orderer(args), show, give) : await give();
      if (given === undefined) return;
      const { changed } = given;
      // What came while it was ordered may run yet.
      const waits = (args.wait === true || first) && order === "drain";
      if (!args.json)
        print(
          `${counted(changed.length, "worker")} told to ${order === "drain" ? "drain; so is every one that starts" : "claim again"}.`,
        );
      const sizes = waits ? await untilNothingRuns(door, show) : undefined;
      if (args.json) return printJson({ order, changed, ...sizes });
      if (sizes) print("Nothing runs. What waits stays in its queues; `millrace drain resume` lets it run.");
    } finally {
      await door.close();
    }
  },
});

/** Gives the order once the queues are empty. A signal before that gives up, and lets schedules fire again: undefined. */
async function whenEmpty<Answer>(
  door: ApiDoor,
  by: { by?: string },
  show: (sizes: Sizes) => void,
  give: () => Promise<Answer>,
): Promise<Answer | undefined> {
  const wish = new AbortController();
  const giveUp = (signal: NodeJS.Signals): void => {
    process.exitCode = 128 + constants.signals[signal];
    wish.abort();
  };
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
  for (const signal of signals) process.on(signal, giveUp);
  try {
    return await withoutSchedules(
      async () => (await door.ask<{ changed: boolean }>("POST", "/api/drain/scheduling", by)).changed,
      () => door.ask("POST", "/api/drain/scheduling/resume", by),
      async () => {
        await untilEmpty(() => look(door), show, wish.signal);
        return give();
      },
    );
  } catch (error) {
    if (!wish.signal.aborted) throw error;
    process.stderr.write("Given up: nothing is drained, and schedules fire again.\n");
    return undefined;
  } finally {
    for (const signal of signals) process.off(signal, giveUp);
  }
}

/** Twice in a row, for a claim may have been under way when the order came. */
async function untilNothingRuns(door: ApiDoor, show: (sizes: Sizes) => void): Promise<Sizes> {
  for (let zeros = 0; ; await pause(lookEveryMs)) {
    const sizes = await look(door);
    show(sizes);
    zeros = sizes.active === 0 ? zeros + 1 : 0;
    if (zeros === 2) return sizes;
  }
}

async function look(door: ApiDoor): Promise<Sizes> {
  const { workers, drained } = await door.ask<WorkerList>("GET", "/api/workers");
  const { stats: queues } = await door.ask<QueueStatsList>("GET", "/api/queue/stats");
  const alive = workers.filter(({ state }) => state !== "stopped" && state !== "lost");
  const active = alive.reduce((sum, worker) => sum + worker.active, 0);
  return { active, workers: alive.length, queues, drained };
}

function lineOf({ active, workers, queues }: Sizes): string {
  const sizes = queues.map((queue) => {
    const { name, active: running, waiting, delayed, paused } = queue;
    return `${name} ${running}+${waiting}${delayed > 0 ? `, ${delayed} delayed` : ""}${paused ? ", paused" : ""}`;
  });
  return `${counted(active, "job")} running on ${counted(workers, "worker")}; running + waiting: ${sizes.join("; ") || "no queues"}`;
}
