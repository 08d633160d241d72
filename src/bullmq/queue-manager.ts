/**
 * BullMQ's words for what Millrace does, for those who come from there: one manager, its queues, one worker per queue.
 *
 * It connects on first use, so that a module can export one without waiting; everything it shows is the database's, so that two
 * managers, or a manager and a `millrace()`, in different processes see and do the same.
 */
import { defineApp } from "../app/app.ts";
import { type Millrace, millrace } from "../app/millrace.ts";
import type { MillraceOptions } from "../app/options.ts";
import { MillraceError } from "../core/errors.ts";
import { silent } from "../core/log.ts";
import { checkedName } from "../core/options.ts";
import type { Cleaned } from "../jobs/control-store.ts";
import { type DefaultJobOptions, type JobsOptions, withUsual } from "./job-options.ts";
import { type CountedState, Queue } from "./queue.ts";
import { refuseForeign } from "./refusal.ts";
import { type Processor, Worker, type WorkerOptions } from "./worker.ts";

export interface QueueManagerOptions extends MillraceOptions {
  /** A Millrace of your own, with its connections; the manager leaves it open. */
  mill?: Millrace;
  /** For jobs that do not say otherwise. */
  defaultJobOptions?: DefaultJobOptions;
}

/** Counts of one queue; `total` is their sum. */
export interface Stats extends Record<CountedState, number> {
  name: string;
  total: number;
}

const dayMs = 86_400_000;

/** Nothing is connected or stored yet. Throws `OPTION_UNKNOWN`, `OPTION_INVALID`. */
export function createQueueManager(options: QueueManagerOptions = {}): QueueManager {
  return new QueueManager(options);
}

export class QueueManager {
  readonly #own: MillraceOptions;
  readonly #given: Millrace | undefined;
  readonly #defaults: JobsOptions;
  readonly #queues = new Map<string, Queue>();
  readonly #workers = new Map<string, Worker>();
  #mill: Promise<Millrace> | undefined;
  #closing: Promise<void> | undefined;

  constructor({ mill, defaultJobOptions = {}, ...own }: QueueManagerOptions) {
    // Other unknown ones are refused by millrace() when it connects.
    refuseForeign("createQueueManager", own);
    if (mill !== undefined && Object.keys(own).length > 0)
      throw new MillraceError("OPTION_INVALID", "createQueueManager: give mill or its options, not both.");
    this.#own = own;
    this.#given = mill;
    this.#defaults = withUsual(defaultJobOptions);
  }

  /** Always the same object for the same name, until the manager is closed. */
  getQueue<Data = unknown>(name: string): Queue<Data> {
    let queue = this.#queues.get(checkedName(name, "queue"));
    if (queue === undefined) {
      queue = new Queue(name, this.#connect, this.#defaults);
      this.#queues.set(name, queue);
    }
    return queue as Queue<never> as Queue<Data>;
  }

  /**
   * One worker per queue. As long as it is not closed, a second one is not made: the first is returned, with a warning. Give it more
   * concurrency, or start more processes.
   */
  registerWorker<Data = unknown>(name: string, processor: Processor<Data>, options: WorkerOptions = {}): Worker {
    const first = this.#workers.get(checkedName(name, "queue"));
    if (first?.isRunning()) {
      process.emitWarning(
        `The queue "${name}" has a worker in this manager already; the second processor will not run.`,
        { code: "MILLRACE_SECOND_WORKER" },
      );
      return first;
    }
    const worker = new Worker(name, processor, options, this.#connect, this.#own.log ?? silent);
    this.#workers.set(name, worker);
    return worker;
  }

  /** Nothing of this queue starts, in any process, until it is resumed. */
  async pauseQueue(name: string): Promise<void> {
    await this.getQueue(name).pause();
  }

  async resumeQueue(name: string): Promise<void> {
    await this.getQueue(name).resume();
  }

  /** Deletes jobs, completed and failed, that ended more than `graceMs` ago. Default 24 hours. */
  async cleanQueue(name: string, graceMs: number = dayMs): Promise<Cleaned> {
    return this.getQueue(name).clean(graceMs);
  }

  /** Zeros for a queue that never had a job. */
  async getQueueStats(name: string): Promise<Stats> {
    return statsOf(name, await this.getQueue(name).getJobCounts());
  }

  /** All queues of the database, whoever uses them, and those of this manager that had no job yet. */
  async getAllStats(): Promise<Stats[]> {
    const stored = await (await this.#connect()).stats();
    const names = new Set(stored.map(({ name }) => name));
    const unused = [...this.#queues.keys()].filter((name) => !names.has(name));
    return [...stored.map((stats) => statsOf(stats.name, stats)), ...unused.map((name) => statsOf(name, empty))].sort(
      (a, b) => (a.name < b.name ? -1 : 1),
    );
  }

  /** Stops the workers, closes the queues' objects, then the connections. What is used of the manager later connects anew. */
  close(): Promise<void> {
    this.#closing ??= this.#close().finally(() => {
      this.#closing = undefined;
    });
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  readonly #connect = async (): Promise<Millrace> => {
    if (this.#given !== undefined) return this.#given;
    await this.#closing;
    this.#mill ??= millrace(defineApp({ tasks: [] }), this.#own).catch((error: unknown) => {
      this.#mill = undefined; // the next call tries again
      throw error;
    });
    return this.#mill;
  };

  async #close(): Promise<void> {
    const workers = [...this.#workers.values()];
    const queues = [...this.#queues.values()];
    this.#workers.clear();
    this.#queues.clear();
    await Promise.all([...workers.map((worker) => worker.close()), ...queues.map((queue) => queue.close())]);
    const mill = await this.#mill?.catch(() => undefined); // what never connected need not be closed
    this.#mill = undefined;
    await mill?.close();
  }
}

const empty: Record<CountedState, number> = { waiting: 0, active: 0, completed: 0, failed: 0, delayed: 0 };

function statsOf(name: string, counts: Record<CountedState, number>): Stats {
  const { waiting, active, completed, failed, delayed } = counts;
  return { name, waiting, active, completed, failed, delayed, total: waiting + active + completed + failed + delayed };
}
