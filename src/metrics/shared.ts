/**
 * A reading that many ask for: taken once at a time, and everybody's for a while. Where it is asked for all the time nobody waits for
 * it: the last is told while the next is under way, until it is twice as old.
 */
export class Shared<Value> {
  readonly #take: () => Promise<Value>;
  readonly #ms: number;
  readonly #clock: () => number;
  #last: { readonly at: number; readonly reading: Promise<Value> } | undefined;
  #running: Promise<Value> | undefined;

  /** `ms`: how long a reading is everybody's, from when it was begun. `clock`: milliseconds that only go forward. */
  constructor(take: () => Promise<Value>, ms: number, clock = () => performance.now()) {
    this.#take = take;
    this.#ms = ms;
    this.#clock = clock;
  }

  /** Rejects as the reading does that is waited for. */
  read(): Promise<Value> {
    const last = this.#last;
    const age = last === undefined ? Number.POSITIVE_INFINITY : this.#clock() - last.at;
    if (last !== undefined && age < this.#ms) return last.reading;
    this.#running ??= this.#begin();
    return last !== undefined && age < this.#ms * 2 ? last.reading : this.#running;
  }

  /** What was read, or is being read, is out of date: whoever asks from now on gets a new reading. */
  forget(): void {
    this.#last = this.#running = undefined;
  }

  #begin(): Promise<Value> {
    const at = this.#clock();
    const reading = this.#take();
    const end = (last = this.#last): void => {
      if (this.#running !== reading) return;
      this.#last = last;
      this.#running = undefined;
    };
    reading.then(
      () => end({ at, reading }),
      () => end(), // whoever waits hears why
    );
    return reading;
  }
}
