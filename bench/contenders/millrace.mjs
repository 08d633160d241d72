/** Millrace, the package as built: `npm run build` first. Keeps full history. */
import { defineApp, millrace, task } from "../../dist/index.js";

const CONCURRENCY = 100;
let onJob = () => {};

const noop = task({
  name: "noop",
  queue: "bench",
  async run({ input }) {
    onJob(input);
  },
});
const app = defineApp({ tasks: [noop] });

export default {
  settings: { worker: { concurrency: CONCURRENCY }, producer: {} },

  async openProducer(url) {
    const mill = await millrace(app, { databaseUrl: url, migrate: true });
    return {
      bulk: (payloads) => mill.enqueueMany(noop, payloads),
      add: (payload) => mill.enqueue(noop, payload),
      async counts() {
        const stats = (await mill.stats()).find((queue) => queue.name === "bench");
        if (!stats) return { unfinished: 0, completed: 0 };
        return { unfinished: stats.waiting + stats.active + stats.delayed, completed: stats.completed };
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
