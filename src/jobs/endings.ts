/**
 * Tells those who wait for the ends of jobs: dependencies, schedules. An end is on file before anybody is told, and comes off file in
 * the transaction that tells, so none is lost and none is told twice.
 */
import type { Log } from "../core/log.ts";
import { type Database, type Executor, isTransient } from "../db/database.ts";
import { type Ending, anyEndings, takeEndings } from "./endings-store.ts";
import type { Chore } from "./upkeep.ts";

/** Hears of ends, within the transaction that takes them off file. */
export type EndingListener = (tx: Executor, endings: readonly Ending[]) => Promise<void>;

/** How often to look for what nobody here has caused: a cancel from elsewhere, a worker that died before it told. Milliseconds. */
const lookEveryMs = 500;

export class Endings {
  readonly #db: Database;
  readonly #channel: string;
  readonly #listeners: readonly EndingListener[];
  readonly #log: Log;
  #telling: Promise<void> | undefined;
  #again = false;

  constructor(db: Database, channel: string, listeners: readonly EndingListener[], log: Log) {
    this.#db = db;
    this.#channel = channel;
    this.#listeners = listeners;
    this.#log = log;
  }

  get chore(): Chore {
    return {
      name: "endings",
      everyMs: lookEveryMs,
      run: async () => {
        if (await anyEndings(this.#db)) await this.tell();
      },
    };
  }

  /** Something has ended; nobody waits for this. What fails is done by the chore. */
  soon(): void {
    this.tell().catch((error: unknown) => {
      const level = isTransient(error) ? "debug" : "warn";
      this.#log[level]({ err: error }, "who waits for a job has not been told that it ended; trying again");
    });
  }

  /** Resolves when everything that has ended by now is told. */
  tell(): Promise<void> {
    this.#again = true;
    this.#telling ??= this.#tellAll().finally(() => {
      this.#telling = undefined;
    });
    return this.#telling;
  }

  async #tellAll(): Promise<void> {
    while (this.#again) {
      this.#again = false;
      await this.#tellSome();
      // What is told may end other jobs.
      while (await anyEndings(this.#db)) await this.#tellSome();
    }
  }

  #tellSome(): Promise<void> {
    return this.#db.transaction(async (tx) => {
      const endings = await takeEndings(tx, this.#channel);
      if (endings.length > 0) for (const listener of this.#listeners) await listener(tx, endings);
    });
  }
}
