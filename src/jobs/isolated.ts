/** The tasks of one worker that run in threads or processes of their own: a pool for each, from its first job to the worker's end. */
import { availableParallelism } from "node:os";
import type { Log } from "../core/log.ts";
import { type IsolateRule, existingModule } from "../isolate/options.ts";
import { Pool } from "../isolate/pool.ts";
import type { Ask } from "../isolate/protocol.ts";
import { Suspension } from "../steps/steps.ts";
import type { Host, RunningJob } from "./running.ts";
import type { AnyTask } from "./task.ts";

/** What a task asks of the engine. */
type Engine = Pick<Host, "maxResultBytes" | "stepsOf" | "dependenciesOf">;

export class IsolatedTasks {
  readonly #log: Log;
  readonly #engine: Engine;
  readonly #concurrency: () => number;
  readonly #onBegin: (job: RunningJob) => void;
  readonly #pools = new Map<AnyTask, Pool>();

  /** `onBegin` hears when a job gets its thread or process. */
  constructor(log: Log, engine: Engine, concurrency: () => number, onBegin: (job: RunningJob) => void) {
    this.#log = log;
    this.#engine = engine;
    this.#concurrency = concurrency;
    this.#onBegin = onBegin;
  }

  async run(job: RunningJob): Promise<unknown> {
    const { id, queue, attempt, maxAttempts, schedule, input } = job;
    const definition = job.definition as AnyTask;
    const pool = this.#poolOf(definition, definition.isolate as IsolateRule);
    const work = {
      job: { id, task: definition.name, queue, attempt, maxAttempts, schedule, input },
      hasSteps: job.hasSteps,
      maxResultBytes: this.#engine.maxResultBytes,
      trace: job.span?.trace,
      began: () => this.#onBegin(job),
      log: (level: keyof Log, fields: object, message: string) => job.log[level](fields, message),
      progress: (json: string) => job.progress(JSON.parse(json)),
      ask: answers(this.#engine, job),
    };
    job.queued = true;
    job.onInterrupt = (reason) => pool.interrupt(work, reason);
    const outcome = pool.run(work);
    // Interrupted while its input was being checked.
    if (job.interrupted !== undefined) pool.interrupt(work, job.signal.reason as Error);
    const ended = await outcome.finally(() => {
      job.queued = false;
    });
    if (ended.as === "snoozed") return job.snooze(ended.pauseMs);
    if (ended.as === "suspended") throw new Suspension(ended.step, ended.pauseMs);
    if (ended.looked) job.looked();
    return ended.result === undefined ? undefined : JSON.parse(ended.result);
  }

  /** Kills what runs. Resolves when no thread and no process is left. */
  async close(): Promise<void> {
    await Promise.all([...this.#pools.values()].map((pool) => pool.close()));
    await new Promise((resolve) => setImmediate(resolve)); // until the runner has heard of it
  }

  #poolOf(definition: AnyTask, rule: IsolateRule): Pool {
    const known = this.#pools.get(definition);
    if (known) return known;
    const pool = new Pool({
      rule,
      module: existingModule(definition.name, rule.module),
      size: () => rule.size ?? Math.min(this.#concurrency(), availableParallelism()),
      log: this.#log,
    });
    this.#pools.set(definition, pool);
    return pool;
  }
}

/** The steps of one attempt, and what else it asks for, from where a task in the worker has them. */
function answers(engine: Engine, job: RunningJob): (about: Ask) => Promise<unknown> {
  let steps: ReturnType<Engine["stepsOf"]> | undefined;
  return async (about) => {
    if (about.what === "dependencies") return engine.dependenciesOf(job);
    steps ??= engine.stepsOf(job);
    switch (about.what) {
      case "load":
        return steps.load();
      case "keep":
        return steps.keep(about.step);
      case "await":
        return steps.await(about.step);
      case "giveUp":
        return steps.giveUp(about.place);
    }
  };
}
