/** The sweep: forgets all marks and learns anew where work is, often enough that nothing is overlooked for long, and never more often. */
import type { Outlook } from "./claim-store.ts";
import type { Lanes } from "./lanes.ts";

/** Marks are forgotten at least this often: the bound on how long a late commit or a higher priority can be overlooked. */
const sweepMs = 500;
/** … unless that is slow: then looking, and the claim from the head after it, take a tenth of the time together. */
const sweepShare = 20;
/** An idle worker looks around this often although nobody called: the fallback for a lost NOTIFY. */
const pollMs = 2_000;
/** Without LISTEN, polling is all there is. */
const pollDeafMs = 100;

export class Sweep {
  /** Under way, or not to be begun. */
  busy = false;
  readonly #lanes: Lanes;
  readonly #lookAround: () => Promise<Outlook>;
  /** Whether a NOTIFY would arrive. */
  readonly #hearing: () => boolean;
  #lookedAt = Number.NEGATIVE_INFINITY;
  #tookMs = 0;

  constructor(lanes: Lanes, lookAround: () => Promise<Outlook>, hearing: () => boolean) {
    this.#lanes = lanes;
    this.#lookAround = lookAround;
    this.#hearing = hearing;
  }

  /** The next one is due at once. */
  again(): void {
    this.#lookedAt = Number.NEGATIVE_INFINITY;
  }

  /** `asleep`: producers call when something comes. */
  isDue(now: number, asleep: boolean): boolean {
    if (this.busy) return false;
    if (this.#lanes.anyDue) return now - this.#lookedAt > Math.max(sweepMs, sweepShare * this.#tookMs);
    return now >= Math.min(this.#lanes.nextDueAt, asleep ? this.asleepUntil : this.#lookedAt + sweepMs);
  }

  /** performance.now() when a sleeping worker looks although nobody called. */
  get asleepUntil(): number {
    return this.#lookedAt + (this.#hearing() ? pollMs : pollDeafMs);
  }

  async look(): Promise<void> {
    const askedAt = performance.now();
    this.busy = true;
    try {
      const outlook = await this.#lookAround();
      const now = performance.now();
      this.#lookedAt = now;
      this.#tookMs = now - askedAt;
      this.#lanes.sweep(outlook, now);
    } finally {
      this.busy = false;
    }
  }
}
