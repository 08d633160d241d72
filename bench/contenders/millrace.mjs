/** Millrace, the package as built: `npm run build` first. Keeps full history. */
import { setTimeout as sleep } from "node:timers/promises";
import { defineApp, millrace, task } from "../../dist/index.js";

const CONCURRENCY = 100;
const BATCH = 1000;
let onJob = () => {};

const noop = task({
  name: "noop",
  queue: "bench",
  async run({ input }) {
    onJob(input);
  },
});
/** Keeps its place for a while, and does not count. */
const hold = task({
  name: "hold",
  queue: "bench",
  async run({ input }) {
    await sleep(input.ms);
  },
});
const app = defineApp({ tasks: [noop, hold] });

export default {
  settings: { worker: { concurrency: CONCURRENCY }, producer: {} },

  async openProducer(url) {
    const mill = await millrace(app, { databaseUrl: url, migrate: true });
    return {
      bulk: (payloads, options) => mill.enqueueMany(noop, payloads, options),
      add: (payload, options) => mill.enqueue(noop, payload, options),
      async hold(jobs, ms, options) {
        for (let left = jobs; left > 0; left -= BATCH)
          await mill.enqueueMany(
            hold,
            Array.from({ length: Math.min(left, BATCH) }, () => ({ ms })),
            options,
          );
      },
      /** Of all queues but that of its own upkeep. */
      async counts() {
        const counts = { unfinished: 0, completed: 0 };
        for (const { name, waiting, active, delayed, completed } of await mill.stats()) {
          if (name === "maintenance") continue;
          counts.unfinished += waiting + active + delayed;
          counts.completed += completed;
        }
        return counts;
      },
      close: () => mill.close(),
    };
  },

  async startWorker(url, handler) {
    onJob = handler;
    const mill = await millrace(app, { databaseUrl: url, migrate: true });
    const worker = mill.work({ concurrency: CONCURRENCY });
    return {
      async stop() {
        await worker.stop({ within: "5s" });
        await mill.close();
      },
    };
  },
};
