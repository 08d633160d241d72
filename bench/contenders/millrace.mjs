/** Millrace, the package as built: `npm run build` first. Keeps full history. */
import { setTimeout as sleep } from "node:timers/promises";
import { defineApp, millrace, task } from "../../dist/index.js";
import { posted } from "../http/app.mjs";
import { query } from "../lib/connect.mjs";
import { startSteps, stepping } from "./millrace-steps.mjs";

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
/** Keeps its place for a while, or until it is cancelled, and does not count. */
const hold = task({
  name: "hold",
  queue: "bench",
  async run({ input, signal }) {
    await sleep(input.ms, undefined, { signal });
  },
});
/** What schedules enqueue. */
const tick = task({
  name: "tick",
  queue: "bench",
  async run({ schedule }) {
    onJob({ due: schedule.at.getTime() });
  },
});
const app = defineApp({ tasks: [noop, hold, tick, posted, stepping] });

export default {
  settings: { worker: { concurrency: CONCURRENCY }, producer: {} },

  async openProducer(url) {
    const mill = await millrace(app, { databaseUrl: url, migrate: true });
    let begin; // starts with the first of them
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
      batch: (inputs, parent) => mill.enqueueBatch(noop, inputs, { callback: { task: noop, input: parent } }),
      chain: (inputs, last) =>
        mill.enqueueFlow({
          jobs: Object.fromEntries(
            [...inputs, last].map((input, n) => [`${n}`, { task: noop, input, after: n === 0 ? [] : [`${n - 1}`] }]),
          ),
        }),
      async steps(runs, steps, atOnce) {
        begin ??= startSteps(mill, atOnce);
        await begin(runs, steps);
      },
      async keptSteps() {
        const [{ kept }] = await query(url, "select count(*)::int as kept from millrace.steps");
        return kept;
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
