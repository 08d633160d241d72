/** One look at the whole system, shared by all who ask within two seconds, and given up by those who have waited for one. */
import type { Database } from "../db/database.ts";
import {
  type DeadLetters,
  type Durations,
  type QueueState,
  type ScheduleState,
  type ScheduleStates,
  type Server,
  type System,
  type Total,
  readDeadLetters,
  readDurations,
  readQueues,
  readScheduleStates,
  readSchedules,
  readServer,
  readSystem,
  readTotals,
} from "./snapshot-store.ts";

export interface Snapshot {
  readonly queues: readonly QueueState[];
  readonly totals: readonly Total[];
  readonly durations: readonly Durations[];
  readonly deadLetters: readonly DeadLetters[];
  readonly system: System;
  readonly scheduleStates: ScheduleStates;
  readonly schedules: readonly ScheduleState[];
  readonly server: Server;
  /** How long it took to read. */
  readonly tookMs: number;
  /** How far the database's clock is ahead of this process's. */
  readonly clockAheadSeconds: number;
}

const sharedMs = 2_000;

export class Snapshots {
  readonly #db: Database;
  readonly #cap: number;
  readonly #budgetMs: number;
  #flight: Promise<Snapshot> | undefined;
  #last: { readonly snapshot: Snapshot; readonly at: number } | undefined;

  /** `cap`: queues, and schedules, that are told apart. `budgetMs`: how long anybody waits. */
  constructor(db: Database, cap: number, budgetMs: number) {
    this.#db = db;
    this.#cap = cap;
    this.#budgetMs = budgetMs;
  }

  /** Throws when the database does, or when the budget is used up. There is one look at a time, however many wait and however long it takes. */
  async take(): Promise<Snapshot> {
    if (this.#last !== undefined && performance.now() - this.#last.at < sharedMs) return this.#last.snapshot;
    const budgetMs = this.#budgetMs;
    this.#flight ??= this.#look().finally(() => (this.#flight = undefined));
    let timer: NodeJS.Timeout | undefined;
    const tooLate = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`the database did not answer within ${budgetMs} ms`)), budgetMs);
    });
    try {
      return await Promise.race([this.#flight, tooLate]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** One statement after another: metrics never take more than one connection from the jobs. */
  async #look(): Promise<Snapshot> {
    const db = this.#db;
    const cap = this.#cap;
    const startedAt = performance.now();
    const before = Date.now();
    const system = await readSystem(db);
    const clockAheadSeconds = system.now - (before + Date.now()) / 2_000;
    const snapshot: Snapshot = {
      system,
      clockAheadSeconds,
      queues: await readQueues(db, cap),
      totals: await readTotals(db, cap),
      durations: await readDurations(db, cap),
      deadLetters: await readDeadLetters(db, cap),
      scheduleStates: await readScheduleStates(db),
      schedules: await readSchedules(db, cap),
      server: await readServer(db, db.schema),
      tookMs: performance.now() - startedAt,
    };
    this.#last = { snapshot, at: performance.now() };
    return snapshot;
  }
}
