/** Something that is measured for many who ask: once in two seconds, and nobody waits longer than they can. */
import { Shared } from "../metrics/shared.ts";
import { within } from "./deadline.ts";

export type Reading<Value> =
  | { readonly ok: true; readonly value: Value }
  | { readonly ok: false; readonly reason: string };

/** A reading is everybody's for so long. */
const sharedMs = 2_000;
/** And stands in for one that is late for so long: a moment of much work is no outage. */
const standingMs = 10_000;

export class Gauge<Value> {
  readonly #shared: Shared<Reading<Value>>;
  #well: { readonly at: number; readonly reading: Reading<Value> } | undefined;

  constructor(measure: () => Promise<Value>) {
    this.#shared = new Shared(() => this.#ask(measure), sharedMs);
  }

  /** Waits until then at most, by the clock of `performance.now()`. Never throws. */
  async read(untilMs: number): Promise<Reading<Value>> {
    const now = performance.now();
    const waitMs = Math.max(untilMs - now, 0);
    const reading = await within(waitMs, this.#shared.read());
    if (reading !== undefined) return reading;
    if (this.#well !== undefined && now - this.#well.at < standingMs) return this.#well.reading;
    return { ok: false, reason: `no answer within ${Math.round(waitMs)} ms` };
  }

  async #ask(measure: () => Promise<Value>): Promise<Reading<Value>> {
    try {
      const reading = { ok: true, value: await measure() } as const;
      this.#well = { at: performance.now(), reading };
      return reading;
    } catch (error) {
      this.#well = undefined;
      return { ok: false, reason: (error as Error).message.replace(/\.$/, "") };
    }
  }
}
