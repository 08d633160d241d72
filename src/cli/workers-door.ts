/** Workers for the commands that look at them or give them orders: from the database, or through the API, as jobs-door.ts has it for jobs. */
import type { ArgsDef } from "citty";
import type { Millrace } from "../app/millrace.ts";
import { workerItem } from "../http/worker-view.ts";
import type { QueueStats } from "../jobs/stats-store.ts";
import { ask } from "./ask-api.ts";
import { type DoorOptions, type Wire, doorArguments, openDoor } from "./door.ts";

export type WorkerItem = Wire<ReturnType<typeof workerItem>>;

export type Order = "drain" | "resume" | "recycle" | { readonly concurrency: number };

export interface WorkersDoor {
  list(): Promise<WorkerItem[]>;
  stats(): Promise<QueueStats[]>;
  /** Throws `WORKER_NOT_FOUND`. */
  order(worker: number, order: Order): Promise<void>;
  /** Drains or resumes every worker. Returns the ids of those for which that changed something. */
  orderAll(order: "drain" | "resume"): Promise<number[]>;
  close(): Promise<void>;
}

export const orderArguments = {
  by: { type: "string", valueHint: "name", description: "Who orders it, for the audit (default: $USER)" },
  ...doorArguments,
} as const satisfies ArgsDef;

export function openWorkers(options: DoorOptions & { readonly by?: string | undefined }): Promise<WorkersDoor> {
  const by = options.by ?? process.env["USER"];
  const who = by === undefined ? {} : { by };
  return openDoor(
    options,
    (mill) => direct(mill, who),
    (url) => overHttp(url, who),
  );
}

function direct(mill: Millrace, who: { by?: string }): WorkersDoor {
  const { registry } = mill;
  return {
    list: async () => (await mill.workers()).map(workerItem),
    stats: () => mill.stats(),
    async order(worker, order) {
      if (typeof order === "object") await registry.setConcurrency(worker, order.concurrency, who);
      else await registry[order](worker, who);
    },
    orderAll: (order) => (order === "drain" ? mill.drain(who) : mill.undrain(who)),
    close: () => mill.close(),
  };
}

function overHttp(url: string, who: { by?: string }): WorkersDoor {
  return {
    list: async () => (await ask<{ workers: WorkerItem[] }>(url, "/api/workers")).workers,
    stats: async () => (await ask<{ stats: QueueStats[] }>(url, "/api/queue/stats")).stats,
    async order(worker, order) {
      const path = `/api/workers/${worker}`;
      if (typeof order === "object") await ask(url, path, { ...order, ...who }, "PATCH");
      else await ask(url, `${path}/${order}`, who);
    },
    orderAll: async (order) =>
      (await ask<{ changed: number[] }>(url, order === "drain" ? "/api/drain" : "/api/drain/resume", who)).changed,
    async close() {},
  };
}
