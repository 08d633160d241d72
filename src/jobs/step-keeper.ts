/** Keeps the steps of one worker's jobs: those that finish together are written together. */
import { MillraceError } from "../core/errors.ts";
import type { Database, ForeignTransaction } from "../db/database.ts";
import type { NewStep, StepRecord, StepStore } from "../steps/steps.ts";
import type { RunningJob } from "./running.ts";
import { type OwnStep, awaitEvent, giveUpWait, keepSteps, keyOf, loadSteps } from "./steps-store.ts";

interface Waiting {
  readonly step: OwnStep;
  readonly resolve: (leftMs: number) => void;
  readonly reject: (error: unknown) => void;
}

/** Statements under way at once: one is written to disk while the next is gathered. */
const writesMax = 2;

export class StepKeeper {
  readonly #db: Database;
  readonly #channel: string;
  readonly #worker: () => number;
  #waiting: Waiting[] = [];
  #writes = 0;

  constructor(db: Database, channel: string, worker: () => number) {
    this.#db = db;
    this.#channel = channel;
    this.#worker = worker;
  }

  storeOf(job: RunningJob): StepStore<ForeignTransaction> {
    let { hasSteps } = job;
    const own = (step: NewStep): OwnStep => {
      const first = !hasSteps;
      hasSteps = true;
      return { ...step, lease: job.lease.id, jobId: job.id, attempt: job.attempt, first };
    };
    const ours = (record: StepRecord | undefined): StepRecord => {
      if (record) return record;
      throw lost(job.id);
    };
    return {
      load: () => loadSteps(this.#db, job.id),
      keep: (step) => this.#keep(own(step)),
      await: async (step) => {
        const asked = { ...own(step), event: step.event as string };
        return ours(await awaitEvent(this.#db, this.#channel, this.#worker(), asked));
      },
      giveUp: async (place) => ours(await giveUpWait(this.#db, job.id, place)),
      within: (step, work, json) =>
        this.#db.lend(async (tx) => {
          const value = await work(tx);
          const kept = own({ ...step, result: json(value) });
          const keys = await keepSteps(this.#db.adopt(tx), this.#worker(), [kept]);
          if (!keys.has(keyOf(kept))) throw lost(job.id);
          return value;
        }),
    };
  }

  #keep(step: OwnStep): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ step, resolve, reject });
      if (this.#writes >= writesMax) return;
      this.#writes += 1;
      queueMicrotask(() => void this.#write());
    });
  }

  async #write(): Promise<void> {
    while (this.#waiting.length > 0) {
      const batch = this.#waiting.splice(0, 500);
      try {
        const kept = await keepSteps(
          this.#db,
          this.#worker(),
          batch.map(({ step }) => step),
        );
        for (const { step, resolve, reject } of batch) {
          const leftMs = kept.get(keyOf(step));
          if (leftMs === undefined) reject(lost(step.jobId));
          else resolve(leftMs);
        }
      } catch (error) {
        for (const { reject } of batch) reject(error);
      }
    }
    this.#writes -= 1;
  }
}

function lost(id: string): MillraceError {
  return new MillraceError("JOB_STATE", `Job ${id} is no longer this worker's: the step was not kept.`);
}
