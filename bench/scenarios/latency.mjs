import { sleep, within } from "../lib/clock.mjs";
import { disturbance } from "../lib/cpu.mjs";
import { percentile } from "../lib/numbers.mjs";
import { openStage } from "../lib/stage.mjs";
import { others } from "../lib/columns.mjs";

export default {
  name: "latency",
  title: "Start latency on an idle system, ms: enqueue called until handler called, one job at a time",
  lowerIsBetter: true,
  headline: (metrics) => metrics.p50,
  columns: [
    { title: "p50", value: (metrics) => metrics.p50 },
    { title: "p95", value: (metrics) => metrics.p95 },
    { title: "p99", value: (metrics) => metrics.p99 },
    { title: "max", value: (metrics) => metrics.max },
    others,
  ],
  variants: ({ quick }) => [{ key: "one", label: "one at a time", samples: quick ? 40 : 300 }],

  async run(env, contender, { samples }) {
    const stage = await openStage(env, contender);
    try {
      await stage.startWorkers();
      await sleep(1500);
      const before = stage.cpu();
      for (let sample = 1; sample <= samples; sample++) {
        await Promise.all([stage.handled(sample), within(env.limitMs, "enqueue", stage.producer.call("addTimed"))]);
        await sleep(10 + Math.random() * 30);
      }
      const cpu = stage.cpuSince(before);
      const { latencies } = await stage.workers[0].call("timeline");
      const at = (p) => percentile(latencies, p);
      const jobs = latencies.length;
      return { p50: at(50), p95: at(95), p99: at(99), max: at(100), jobs, cpu: disturbance(cpu) };
    } finally {
      await stage.close();
    }
  },
};
