/** Follows the tables for everybody in this process who listens: one look at a time, and none while nobody does. */
import type { Log } from "../core/log.ts";
import { type Database, isTransient } from "../db/database.ts";
import { writePlace } from "./place.ts";
import { Reader } from "./reader.ts";
import type { Heard } from "./shape.ts";
import type { Source } from "./types.ts";

/** What one look has found, and the place behind it. */
export interface Batch {
  readonly heard: readonly Heard[];
  readonly place: string;
}

export interface Listener {
  readonly wants: ReadonlySet<Source>;
  /** A job whose events are to be told one by one, however many others there are. */
  readonly job?: string | undefined;
  hear(batch: Batch): void;
}

export interface FollowerSettings {
  readonly log: Log;
  /** How long history is kept at least, in ms. */
  readonly keptMs: number;
  /** Pause between looks, in ms. */
  readonly everyMs: number;
}

/** Looking takes a fifth of the time at most, and half of it while it has fallen behind. */
const restPerWork = 4;
const retryPauseMaxMs = 5_000;

export class Follower {
  readonly #db: Database;
  readonly #settings: FollowerSettings;
  readonly #listeners = new Set<Listener>();
  /** Those who wait to hear that their tables are followed. */
  #joining: ((place: string | undefined) => void)[] = [];
  #running: Promise<void> | undefined;
  #wake: () => void = () => undefined;
  #closed = false;

  constructor(db: Database, settings: FollowerSettings) {
    this.#db = db;
    this.#settings = settings;
  }

  /**
   * Resolves, with the place that is then, when everything that commits from then on is told to the listener; without one when nothing
   * is followed any more.
   */
  join(listener: Listener): Promise<string | undefined> {
    this.#listeners.add(listener);
    const ready = new Promise<string | undefined>((resolve) => this.#joining.push(resolve));
    this.#start();
    this.#wake();
    return ready;
  }

  leave(listener: Listener): void {
    this.#listeners.delete(listener);
    if (this.#listeners.size === 0) this.#wake();
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#listeners.clear();
    this.#wake();
    await this.#running;
  }

  #start(): void {
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
      if (this.#listeners.size > 0 && !this.#closed) this.#start(); // joined in the moment of its end
    });
  }

  async #run(): Promise<void> {
    const { log, keptMs, everyMs } = this.#settings;
    const reader = new Reader(this.#db, keptMs);
    let failures = 0;
    while (this.#listeners.size > 0 && !this.#closed) {
      const startedAt = performance.now();
      let pauseMs: number;
      try {
        const more = await this.#look(reader);
        const tookMs = performance.now() - startedAt;
        pauseMs = more ? tookMs : Math.max(everyMs, restPerWork * tookMs);
        failures = 0;
      } catch (error) {
        failures += 1;
        pauseMs = Math.min(100 * 2 ** failures, retryPauseMaxMs);
        const level = isTransient(error) ? "debug" : "warn";
        log[level]({ err: error, retry_ms: pauseMs }, "events could not be read; none is lost, trying again");
      }
      if (this.#joining.length === 0 || failures > 0) await this.#rest(pauseMs);
    }
    for (const resolve of this.#joining.splice(0)) resolve(undefined);
  }

  /** True when there is more than one look takes. */
  async #look(reader: Reader): Promise<boolean> {
    const joining = this.#joining;
    const listeners = [...this.#listeners];
    await reader.follow(new Set(listeners.flatMap(({ wants }) => [...wants])));
    this.#joining = this.#joining.filter((resolve) => !joining.includes(resolve));
    if (joining.length > 0) {
      const place = writePlace(reader.place);
      for (const resolve of joining) resolve(place);
    }
    const jobs = listeners.flatMap(({ job }) => job ?? []);
    const { heard, more } = await reader.look(jobs);
    const batch: Batch = { heard, place: writePlace(reader.place) };
    for (const listener of listeners) if (this.#listeners.has(listener)) listener.hear(batch);
    return more;
  }

  #rest(ms: number): Promise<void> {
    if (this.#closed || this.#listeners.size === 0) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}
