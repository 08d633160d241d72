/**
 * Serves the queue `maintenance` in a process whose workers are bound to other queues: by a worker of its own, so that a bulk operation
 * that takes hours takes none of their places. One for all of them, from the start of the first to the stop of the last.
 */
import type { Companion } from "../jobs/upkeep.ts";
import type { Worker } from "../jobs/worker.ts";

/** Upkeep goes on beside one long bulk operation. */
export const laneConcurrency = 2;

export class MaintenanceLane {
  #worker: Worker | undefined;
  #users = 0;

  /** Keeps the lane open while its worker works. `open` starts the lane, if this one is the first. */
  beside(open: () => Worker): Companion {
    return {
      start: () => {
        this.#users += 1;
        if (this.#users === 1) this.#open(open);
      },
      hear: () => false,
      lookAgain: () => undefined,
      stop: async () => {
        this.#users -= 1;
        if (this.#users > 0) return;
        const worker = this.#worker;
        this.#worker = undefined;
        // Not waited for: what these jobs have not done, the next run of them does.
        await worker?.stop({ within: 0 });
      },
    };
  }

  #open(open: () => Worker): void {
    const worker = open();
    this.#worker = worker;
    void worker.recycled.then(() => {
      if (this.#worker === worker) this.#open(open);
    });
  }
}
