/** Runs of durable steps: enqueued all at once, and run by a worker in the same process. */
import { setTimeout as sleep } from "node:timers/promises";
import { task } from "../../dist/index.js";

const QUEUE = "steps";
let onRun = () => {};

export const stepping = task({
  name: "stepping",
  queue: QUEUE,
  async run({ input, step }) {
    for (let n = 0; n < input.steps; n++) await step.run(`step ${n}`, () => n);
    onRun();
  },
});

/** @returns what begins so many runs and resolves when all are done and settled */
export function startSteps(mill, concurrency) {
  mill.work({ concurrency, queues: [QUEUE] });
  return async (runs, steps) => {
    const done = new Promise((resolve) => {
      let left = runs;
      onRun = () => --left === 0 && resolve();
    });
    await mill.enqueueMany(
      stepping,
      Array.from({ length: runs }, () => ({ steps })),
    );
    await done;
    for (;;) {
      const [{ waiting, active }] = await mill.stats(QUEUE);
      if (waiting + active === 0) return;
      await sleep(2);
    }
  };
}
