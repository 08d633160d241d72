/**
 * No more than a few requests are begun or answered before the event loop goes round. Of a hundred that are due at once the last would
 * otherwise hold up whoever asks meanwhile whether this server is well: a process that has to share its processor may take a second for
 * what it does in one go.
 */

/** In one round: each takes a tenth of a millisecond or two. With four, inserts that are shared by those of one round cost twice as much. */
const atOnce = 16;
/** So many rounds in a row are kept short, while fewer requests wait. */
const crowd = 64;

class Pace {
  #left = atOnce;
  #armed = false;
  #came = false;
  #short = 0;
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

  /**
   * A connection has come. Node lets in one per round, so rounds are kept short while more of them come: or the last of a crowd
   * that connects at once would wait for as many full rounds, and so would whoever asks meanwhile whether this server is well.
   */
  connected(): void {
    this.#came = true;
    this.#arm();
  }

  #arm(): void {
    if (this.#armed) return;
    this.#armed = true;
    setImmediate(this.#round);
  }

  readonly #round = (): void => {
    this.#short = this.#came && this.#short < crowd && this.#waiting.length < crowd ? this.#short + 1 : 0;
    this.#came = false;
    const room = this.#short > 0 ? 0 : atOnce;
    const due = this.#waiting.splice(0, room);
    this.#left = room - due.length;
    this.#armed = false;
    if (this.#short > 0) this.#arm();
    if (due.length > 0) this.#arm();
    for (const work of due) work();
  };
}

/** There is one event loop. */
export const pace = new Pace();
