/** What a worker says of itself in the registry: that it sleeps, and producers must call it, or that nobody needs to. */

/** Busy for this long after being idle: tell producers that nobody needs waking. */
const awakeAfterMs = 100;

export class Idleness {
  /** The registry says that we sleep. */
  said = false;
  readonly #say: (idle: boolean) => Promise<void>;
  #busySince = 0;
  /** One statement after the other: two on their way at once could arrive in either order. */
  #last: Promise<void> = Promise.resolve();

  constructor(say: (idle: boolean) => Promise<void>) {
    this.#say = say;
  }

  /** Nobody knows any more what the registry says. */
  forget(): void {
    this.said = false;
  }

  /** Says that we sleep. */
  async sleep(now: number): Promise<void> {
    await this.#write(true);
    this.said = true;
    this.#busySince = now;
  }

  /** A claim was answered. Full claims for a while: says that we are awake. */
  async working(now: number, exhausted: boolean): Promise<void> {
    if (exhausted) this.#busySince = now;
    if (!this.said || now - this.#busySince < awakeAfterMs) return;
    this.said = false;
    await this.#write(false);
  }

  #write(idle: boolean): Promise<void> {
    const write = this.#last.then(() => this.#say(idle));
    this.#last = write.catch(() => undefined); // told to whoever asked
    return write;
  }
}
