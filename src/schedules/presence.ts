/** Beside a worker that fires no schedules: says again and again that its app's code lives, so that what it defines is not retired. */
import type { Log } from "../core/log.ts";
import { isTransient } from "../db/database.ts";
import type { Companion } from "../jobs/upkeep.ts";
import type { DefinedSet, Standing } from "./code.ts";
import { beatMs } from "./scheduler.ts";
import type { Schedules } from "./schedules.ts";

export class Presence implements Companion {
  readonly #schedules: Pick<Schedules, "define" | "keepAlive">;
  readonly #sets: readonly DefinedSet[];
  readonly #decides: boolean;
  readonly #log: Log;
  #standing: Standing | undefined;
  #timer: NodeJS.Timeout | undefined;
  #beating: Promise<void> | undefined;
  #stopped = false;

  /** `decides`: its process defined its schedules when it started, and goes on with that. */
  constructor(
    schedules: Pick<Schedules, "define" | "keepAlive">,
    sets: readonly DefinedSet[],
    decides: boolean,
    log: Log,
  ) {
    this.#schedules = schedules;
    this.#sets = sets;
    this.#decides = decides;
    this.#log = log;
  }

  start(): void {
    this.#beating = this.#beat().finally(() => {
      if (!this.#stopped) this.#timer = setTimeout(() => this.start(), beatMs);
    });
  }

  hear(): boolean {
    return false;
  }

  lookAgain(): void {}

  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#beating;
  }

  async #beat(): Promise<void> {
    const before = this.#standing;
    try {
      if (!this.#decides) await this.#schedules.keepAlive(this.#sets);
      else this.#standing = await this.#schedules.define(this.#sets, before === undefined ? {} : { before });
    } catch (error) {
      const level = isTransient(error) || this.#stopped ? "debug" : "warn";
      this.#log[level]({ err: error, retry_ms: beatMs }, "saying that the app's schedules live failed; trying again");
    }
  }
}
