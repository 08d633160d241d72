/** Waiting for something to become true, looked at whenever anything may have changed. No polling. */
export class Conditions {
  readonly #waiting = new Set<() => void>();

  /** Something may have changed. */
  check(): void {
    for (const check of this.#waiting) check();
  }

  /** Resolves true once `isTrue` is, false when that takes longer than `withinMs`. */
  until(isTrue: () => boolean, withinMs: number): Promise<boolean> {
    if (isTrue()) return Promise.resolve(true);
    return new Promise((resolve) => {
      const end = (result: boolean): void => {
        this.#waiting.delete(check);
        clearTimeout(timer);
        resolve(result);
      };
      const check = (): void => {
        if (isTrue()) end(true);
      };
      const timer = setTimeout(() => end(false), withinMs);
      this.#waiting.add(check);
    });
  }
}
