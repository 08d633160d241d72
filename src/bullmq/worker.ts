/** A worker in the words of BullMQ: one queue, and one processor for whatever is in it. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Millrace } from "../app/millrace.ts";
import { MillraceError } from "../core/errors.ts";
import type { Log } from "../core/log.ts";
import { wholeNumber } from "../core/options.ts";
import { isTransient } from "../db/database.ts";
import type { RunningJob } from "../jobs/running.ts";
import { type AnyTask, task } from "../jobs/task.ts";
import type { Worker as EngineWorker } from "../jobs/worker.ts";
import { backoffOf, usual } from "./job-options.ts";
import { type Door, type Job, runningJob } from "./job.ts";
import { refuseForeign } from "./refusal.ts";

/**
 * `token` is the number of the lease under which the worker holds the job. `signal` is made for processors that declare it, and
 * aborted when the worker must stop.
 */
export type Processor<Data = unknown> = (job: Job<Data>, token?: string, signal?: AbortSignal) => unknown;

export interface WorkerOptions {
  /** Jobs running at once. Default 5. */
  concurrency?: number;
}

const known: ReadonlySet<string> = new Set(["concurrency"]);
const retryPauseMaxMs = 5_000;

export class Worker {
  /** The queue's. */
  readonly name: string;
  readonly concurrency: number;
  readonly #closing = new AbortController();
  readonly #started: Promise<EngineWorker | undefined>;

  /** Throws what is wrong with the options; connects later, and keeps trying while the database is away. */
  constructor(name: string, processor: Processor<never>, options: WorkerOptions, connect: Door, log: Log) {
    if (typeof processor !== "function")
      throw new MillraceError("OPTION_INVALID", "registerWorker: the processor must be a function.");
    refuseForeign("registerWorker", options, known);
    this.name = name;
    this.concurrency = wholeNumber(options.concurrency ?? 5, "registerWorker: concurrency", 1, 10_000);
    // Nobody may be waiting for it. If it can never start, the rejection ends the process: better than a queue nobody works on.
    this.#started = this.#start(processor as Processor, connect, log);
  }

  /** Resolves when the worker listens for jobs; rejects when it never will. */
  async waitUntilReady(): Promise<void> {
    await (await this.#started)?.ready();
  }

  /** False once it is told to close. */
  isRunning(): boolean {
    return !this.#closing.signal.aborted;
  }

  /**
   * Starts no more jobs and waits up to 20 s for those that run; then, or at once with `force`, aborts their signals. What did not
   * end is given back without having used up an attempt.
   */
  async close(force = false): Promise<void> {
    this.#closing.abort();
    const worker = await this.#started.catch(() => undefined);
    await worker?.stop({ within: force ? 0 : "20s" });
  }

  async #start(processor: Processor, connect: Door, log: Log): Promise<EngineWorker | undefined> {
    const { signal } = this.#closing;
    for (let pauseMs = 100; !signal.aborted; pauseMs = Math.min(pauseMs * 2, retryPauseMaxMs)) {
      try {
        const mill = await connect();
        if (signal.aborted) return undefined;
        return mill.startWorker({ queues: [this.name], concurrency: this.concurrency }, [], anyJob(processor, mill));
      } catch (error) {
        if (!isAway(error)) throw error;
        log.warn({ err: error, queue: this.name, retry_ms: pauseMs }, "connecting the worker failed; trying again");
        await sleep(pauseMs, undefined, { signal }).catch(() => undefined); // closed: the loop sees it
      }
    }
    return undefined;
  }
}

function isAway(error: unknown): boolean {
  return isTransient(error) || (error instanceof MillraceError && error.code === "DATABASE_UNREACHABLE");
}

/** The task that runs jobs of every name. As in BullMQ, an attempt may take as long as it likes. */
function anyJob(processor: Processor, mill: Millrace): AnyTask {
  // BullMQ's own rule: an AbortController per job is worth its price to those who look at it only.
  const wantsSignal = processor.length >= 3;
  return task({
    name: "bullmq",
    maxAttempts: usual.attempts,
    backoff: backoffOf(usual.backoff),
    timeout: 0,
    keepLogs: 10_000, // the most there may be: BullMQ keeps them all
    async run(context) {
      const running = context as RunningJob;
      const processedOn = Date.now();
      const name = await mill.names.tasks.nameOf(running.taskId);
      const job = runningJob(running, name, processedOn, async () => mill);
      const token = running.lease.id;
      await (wantsSignal ? processor(job, token, context.signal) : processor(job, token));
    },
  });
}
