/**
 * A worker's ear for cancels: a NOTIFY names the job, and since one may be missed, the worker also asks which of its jobs are to end.
 * Any worker finishes requests that nobody is left to answer.
 */
import type { Log } from "../core/log.ts";
import { type Database, isTransient } from "../db/database.ts";
import { finishRequests, markIgnored, requestsFor } from "./cancel-store.ts";
import type { Runner } from "./runner.ts";
import type { RunningJob } from "./running.ts";
import type { Settler } from "./settler.ts";
import type { Chore } from "./upkeep.ts";

/** How often to ask, in ms, whether NOTIFYs arrive or not: one may get lost, and a task is to hear of its cancel within a second. */
const askMs = 750;
const finishMs = 5_000;
/** A call for a job that is not here: its claim may be under way. */
const secondLookMs = 100;

interface Setting {
  readonly db: Database;
  readonly log: Log;
  readonly workerId: () => number;
  /** Nothing runs, waits to be started or is being claimed. */
  readonly quiet: () => boolean;
  /** Something left the worker: see what can be done now. */
  readonly pump: () => void;
}

export class Cancels {
  readonly #setting: Setting;
  readonly #runner: Runner;
  readonly #settler: Settler;
  #secondLook: NodeJS.Timeout | undefined;

  constructor(setting: Setting, runner: Runner, settler: Settler) {
    this.#setting = setting;
    this.#runner = runner;
    this.#settler = settler;
  }

  /** A NOTIFY; false when it is about something else. */
  hear(payload: string): boolean {
    if (!payload.startsWith("cancel:")) return false;
    if (!this.#cancel(payload.slice("cancel:".length)) && !this.#setting.quiet())
      this.#secondLook ??= setTimeout(() => {
        this.#secondLook = undefined;
        this.#ask().catch((error: unknown) => this.#complain("asking for cancels", error));
      }, secondLookMs);
    return true;
  }

  /** A cancelled task that does not end. */
  ignored(job: RunningJob): void {
    if (job.interrupted !== "cancelled") return;
    markIgnored(this.#setting.db, job.id).catch((error: unknown) => this.#complain("noting an ignored cancel", error));
  }

  get chores(): Chore[] {
    return [
      {
        name: "cancel_requests",
        everyMs: askMs,
        run: async () => {
          if (this.#runner.running.size + this.#runner.buffered > 0) await this.#ask();
        },
      },
      {
        name: "finish_cancels",
        everyMs: finishMs,
        run: async () => {
          const jobs = await finishRequests(this.#setting.db);
          if (jobs > 0) this.#setting.log.info({ jobs }, "cancelled jobs that had come back to their queue");
        },
      },
    ];
  }

  close(): void {
    clearTimeout(this.#secondLook);
  }

  async #ask(): Promise<void> {
    const { db, workerId } = this.#setting;
    for (const id of await requestsFor(db, workerId())) this.#cancel(id);
  }

  /** False when this worker knows no such job. */
  #cancel(id: string): boolean {
    const { known, unstarted } = this.#runner.cancel(id);
    this.#settler.cancelled(unstarted);
    if (unstarted.length > 0) this.#setting.pump();
    return known;
  }

  #complain(what: string, error: unknown): void {
    this.#setting.log[isTransient(error) ? "debug" : "warn"]({ err: error }, `${what} failed`);
  }
}
