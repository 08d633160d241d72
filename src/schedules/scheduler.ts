/**
 * The loop that fires schedules: sleeps until the next one is due, or until somebody says that definitions changed. Every process that
 * works has one; they need not know of each other.
 */
import type { Log } from "../core/log.ts";
import { type Database, isTransient } from "../db/database.ts";
import type { Companion } from "../jobs/upkeep.ts";
import type { DefinedSet, Standing } from "./code.ts";
import { nextDue, schedulesToCheck } from "./firing-store.ts";
import type { Schedules } from "./schedules.ts";

/** It looks this often although nothing is due: a NOTIFY may be lost, and this machine's clock may run otherwise than the database's. */
const lookMs = 1_000;
/** What is due is held by another scheduler. */
const heldMs = 20;
/** How often it says that its definitions live, and looks after runs that nobody spoke of, and schedules that a wrong clock put off. */
export const beatMs = 15_000;
const checkedAtOnce = 100;

export class Scheduler implements Companion {
  readonly #schedules: Schedules;
  readonly #db: Database;
  readonly #sets: readonly DefinedSet[];
  readonly #log: Log;
  #timer: NodeJS.Timeout | undefined;
  #beatTimer: NodeJS.Timeout | undefined;
  #round: Promise<void> | undefined;
  #beating: Promise<void> | undefined;
  #again = false;
  #stopped = false;
  #standing: Standing | undefined;
  #checkedUpTo = 0;
  #pauseMs = 0;

  /** `sets`: what its process defines. */
  constructor(schedules: Schedules, db: Database, sets: readonly DefinedSet[], log: Log) {
    this.#schedules = schedules;
    this.#db = db;
    this.#sets = sets;
    this.#log = log;
  }

  start(): void {
    this.#beat();
    this.lookAgain();
  }

  hear(payload: string): boolean {
    if (payload !== "schedules") return false;
    this.lookAgain();
    return true;
  }

  lookAgain(): void {
    if (this.#stopped) return;
    this.#again = true;
    this.#round ??= this.#fire().finally(() => {
      this.#round = undefined;
    });
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#beatTimer);
    await this.#round;
    await this.#beating;
  }

  async #fire(): Promise<void> {
    clearTimeout(this.#timer);
    let waitMs = lookMs;
    try {
      while (this.#again && !this.#stopped) {
        this.#again = false;
        const due = await nextDue(this.#db);
        waitMs = due ?? lookMs;
        if (waitMs > 0) continue;
        const { schedules } = await this.#schedules.fire();
        this.#again = schedules > 0;
        waitMs = heldMs;
      }
      this.#pauseMs = 0;
    } catch (error) {
      waitMs = this.#trouble("firing schedules", error);
    }
    if (!this.#stopped)
      this.#timer = setTimeout(() => this.lookAgain(), Math.min(Math.max(waitMs, 1), Math.max(lookMs, this.#pauseMs)));
  }

  #beat(): void {
    const before = this.#standing;
    this.#beating = (async () => {
      try {
        this.#standing = await this.#schedules.define(this.#sets, before === undefined ? {} : { before });
        await this.#schedules.setBack();
        const ids = await schedulesToCheck(this.#db, this.#checkedUpTo, checkedAtOnce);
        this.#checkedUpTo = ids.length < checkedAtOnce ? 0 : (ids.at(-1) ?? 0);
        if (ids.length > 0) await this.#schedules.check(ids);
      } catch (error) {
        this.#trouble("looking after schedules", error);
      }
      if (!this.#stopped) this.#beatTimer = setTimeout(() => this.#beat(), beatMs);
    })();
  }

  /** How long to wait before trying again: 100 ms, doubling up to 5 s. */
  #trouble(what: string, error: unknown): number {
    this.#pauseMs = Math.min(Math.max(this.#pauseMs * 2, 100), 5_000);
    const level = isTransient(error) || this.#stopped ? "debug" : "warn";
    this.#log[level]({ err: error, retry_ms: this.#pauseMs }, `${what} failed; trying again`);
    return this.#pauseMs;
  }
}
