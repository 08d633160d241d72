/**
 * Something that is measured for many who ask: at most once at a time and once in two seconds, and nobody waits longer than they can.
 * Where it is asked for all the time nobody waits at all, but for the first.
 */
import { within } from "./deadline.ts";

export type Reading<Value> =
  | { readonly ok: true; readonly value: Value }
  | { readonly ok: false; readonly reason: string };

/** A reading is everybody's for so long. */
const sharedMs = 2_000;
/** A value is told for so long while the next is under way. */
const renewedMs = 4_000;
/** And stands in for one that is late for so long: a moment of much work is no outage. */
const standingMs = 10_000;

export class Gauge<Value> {
  readonly #measure: () => Promise<Value>;
  #asked: Promise<Reading<Value>> | undefined;
  #last: { readonly at: number; readonly reading: Reading<Value> } | undefined;

  constructor(measure: () => Promise<Value>) {
    this.#measure = measure;
  }

  /** Waits until then at most, by the clock of `performance.now()`. Never throws. */
  async read(untilMs: number): Promise<Reading<Value>> {
    const now = performance.now();
    const age = this.#last === undefined ? Number.POSITIVE_INFINITY : now - this.#last.at;
    if (this.#last !== undefined && age < sharedMs) return this.#last.reading;
    this.#asked ??= this.#ask();
    if (this.#last?.reading.ok && age < renewedMs) return this.#last.reading;
    const waitMs = Math.max(untilMs - now, 0);
    const reading = await within(waitMs, this.#asked);
    if (reading !== undefined) return reading;
    if (this.#last?.reading.ok && age < standingMs) return this.#last.reading;
    return { ok: false, reason: `no answer within ${Math.round(waitMs)} ms` };
  }

  async #ask(): Promise<Reading<Value>> {
    let reading: Reading<Value>;
    try {
      reading = { ok: true, value: await this.#measure() };
    } catch (error) {
      reading = { ok: false, reason: (error as Error).message.replace(/\.$/, "") };
    }
    this.#last = { at: performance.now(), reading };
    this.#asked = undefined;
    return reading;
  }
}
