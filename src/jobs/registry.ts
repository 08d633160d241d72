/** Who runs jobs, and what an operator may order them to do. An order reaches its worker at once, or with its next heartbeat. */
import { MillraceError } from "../core/errors.ts";
import { textOrNull, wholeNumber } from "../core/options.ts";
import type { Database } from "../db/database.ts";
import {
  type Drained,
  type WorkerInfo,
  isAtWork,
  listWorkers,
  orderConcurrency,
  orderDrain,
  orderRecycle,
  orderScheduling,
  orderSystemDrain,
  readDrained,
  readSchedulingStopped,
} from "./registry-store.ts";

interface OrderOptions {
  /** Who orders it, for the audit. */
  by?: string;
}

export class Registry {
  readonly #db: Database;
  readonly #channel: string;

  constructor(db: Database, channel: string) {
    this.#db = db;
    this.#channel = channel;
  }

  /** Every worker that has not stopped, and those that did within a day. */
  list(): Promise<WorkerInfo[]> {
    return listWorkers(this.#db);
  }

  /** Lets a worker claim nothing more; what it has not started goes back, what runs ends. False when it drained already. */
  drain(worker: number, options: OrderOptions = {}): Promise<boolean> {
    return this.#setDraining(worker, true, options);
  }

  /** Lets it claim again. False when it did not drain. */
  resume(worker: number, options: OrderOptions = {}): Promise<boolean> {
    return this.#setDraining(worker, false, options);
  }

  /**
   * The same for every worker, and for those that start later, until `resumeAll`. Returns those for which it changed something. One of
   * them may be resumed alone.
   */
  drainAll(options: OrderOptions = {}): Promise<number[]> {
    return orderSystemDrain(this.#db, this.#channel, true, textOrNull(options.by, "by", 200));
  }

  /** Lets no schedule fire, and workers go on: the first step towards empty queues. False when it was so already. */
  stopScheduling(options: OrderOptions = {}): Promise<boolean> {
    return orderScheduling(this.#db, this.#channel, true, textOrNull(options.by, "by", 200));
  }

  /** Lets schedules fire again; late ticks are made up for as each schedule's `catchUp` says. False when they did. */
  resumeScheduling(options: OrderOptions = {}): Promise<boolean> {
    return orderScheduling(this.#db, this.#channel, false, textOrNull(options.by, "by", 200));
  }

  /** Since when no schedule fires although the system is not drained, and who wanted it; null: they do. */
  schedulingStopped(): Promise<Drained | null> {
    return readSchedulingStopped(this.#db);
  }

  /** Lets every worker claim again, whoever drained it, and schedules fire. */
  resumeAll(options: OrderOptions = {}): Promise<number[]> {
    return orderSystemDrain(this.#db, this.#channel, false, textOrNull(options.by, "by", 200));
  }

  /** Since when every worker drains, and who wanted it; null: they do not. */
  drained(): Promise<Drained | null> {
    return readDrained(this.#db);
  }

  /** Drains it, waits 20 s for what runs, interrupts the rest; then it stops and, under the CLI, starts anew. */
  async recycle(worker: number, options: OrderOptions = {}): Promise<void> {
    if (!(await orderRecycle(this.#db, this.#channel, worker, textOrNull(options.by, "by", 200))))
      throw notFound(worker);
  }

  /** How many jobs it runs at once, from now on until it ends. */
  async setConcurrency(worker: number, concurrency: number, options: OrderOptions = {}): Promise<void> {
    const wanted = wholeNumber(concurrency, "concurrency", 1, 10_000);
    if (!(await orderConcurrency(this.#db, this.#channel, worker, wanted, textOrNull(options.by, "by", 200))))
      throw notFound(worker);
  }

  async #setDraining(worker: number, draining: boolean, { by }: OrderOptions): Promise<boolean> {
    const changed = await orderDrain(this.#db, this.#channel, worker, draining, textOrNull(by, "by", 200));
    if (changed.length === 0 && !(await isAtWork(this.#db, worker))) throw notFound(worker);
    return changed.length > 0;
  }
}

function notFound(worker: number): MillraceError {
  return new MillraceError("WORKER_NOT_FOUND", `There is no worker ${worker} at work.`);
}
