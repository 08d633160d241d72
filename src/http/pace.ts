/**
 * No more than a few requests are begun or answered before the event loop goes round. Of a hundred that are due at once the last would
 * otherwise hold up whoever asks meanwhile whether this server is well: a process that has to share its processor may take a second for
 * what it does in one go.
 */

/** In one go: each takes a tenth of a millisecond or two. With four, inserts that are shared by those of one round cost twice as much. */
const atOnce = 16;

class Pace {
  #left = atOnce;
  #armed = false;
  readonly #waiting: (() => void)[] = [];

  /** Now, or in one of the next rounds: first come, first served. */
  run(work: () => void): void {
    if (this.#left === 0) return void this.#waiting.push(work);
    this.#left--;
    this.#arm();
    work();
  }

  /** Undefined: go on at once. */
  turn(): Promise<void> | undefined {
    if (this.#left === 0) return new Promise((resolve) => this.#waiting.push(resolve));
    this.#left--;
    this.#arm();
    return undefined;
  }

  #arm(): void {
    if (this.#armed) return;
    this.#armed = true;
    setImmediate(this.#round);
  }

  readonly #round = (): void => {
    const due = this.#waiting.splice(0, atOnce);
    this.#left = atOnce - due.length;
    this.#armed = false;
    if (due.length > 0) this.#arm();
    for (const work of due) work();
  };
}

/** There is one event loop. */
export const pace = new Pace();
