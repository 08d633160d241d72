/** Beside a worker that fires no schedules: says again and again that its app's code lives, so that what it defines is not retired. */
import type { Log } from "../core/log.ts";
import { type Companion, type Upkeep, keepUp } from "../jobs/upkeep.ts";
import type { DefinedSet, Standing } from "./code.ts";
import { beatMs } from "./scheduler.ts";
import type { Schedules } from "./schedules.ts";

export class Presence implements Companion {
  readonly #schedules: Schedules;
  readonly #sets: readonly DefinedSet[];
  readonly #decides: boolean;
  readonly #log: Log;
  readonly #random: () => number;
  #standing: Standing | undefined;
  #upkeep: Upkeep | undefined;

  /** `decides`: its process defined its schedules when it started, and goes on with that. */
  constructor(
    schedules: Schedules,
    sets: readonly DefinedSet[],
    decides: boolean,
    surroundings: { readonly log: Log; readonly random: () => number },
  ) {
    this.#schedules = schedules;
    this.#sets = sets;
    this.#decides = decides;
    this.#log = surroundings.log;
    this.#random = surroundings.random;
  }

  start(): void {
    const chore = { name: "schedule_versions", everyMs: beatMs, run: () => this.#beat() };
    this.#upkeep = keepUp([chore], this.#log, this.#random);
  }

  hear(): boolean {
    return false;
  }

  lookAgain(): void {}

  async stop(): Promise<void> {
    await this.#upkeep?.stop();
  }

  async #beat(): Promise<void> {
    const before = this.#standing;
    if (!this.#decides) await this.#schedules.keepAlive(this.#sets);
    else this.#standing = await this.#schedules.define(this.#sets, before === undefined ? {} : { before });
  }
}
