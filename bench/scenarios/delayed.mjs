import { now, sleep } from "../lib/clock.mjs";
import { others } from "../lib/columns.mjs";
import { disturbance } from "../lib/cpu.mjs";
import { summary } from "../lib/probe.mjs";
import { openStage } from "../lib/stage.mjs";

const PER_SECOND = 1000;
const LEAD_MS = 15_000;

export default {
  name: "delayed",
  title: "Delayed jobs, a thousand due each second and the others later: how late they start, ms",
  own: true,
  named: true,
  lowerIsBetter: true,
  headline: (metrics) => metrics.p99,
  columns: [
    { title: "start after due p50, ms", value: (metrics) => metrics.p50 },
    { title: "p99", value: (metrics) => metrics.p99 },
    { title: "max", value: (metrics) => metrics.max },
    { title: "set-up, s", value: (metrics) => metrics.setUpSeconds },
    others,
  ],
  variants: ({ quick }) => [
    {
      key: "delayed",
      label: `${quick ? "20,000" : "1,000,000"} delayed`,
      delayed: quick ? 20_000 : 1_000_000,
      seconds: quick ? 5 : 60,
    },
  ],

  async run(env, contender, { delayed, seconds }) {
    const stage = await openStage(env, contender);
    try {
      const from = now();
      const jobs = seconds * PER_SECOND;
      const later = (delayed - jobs) / 2;
      await Promise.all(["1h", "2h"].map((delay) => stage.producer.call("bulkWith", later, { delay })));
      await stage.rest();
      const firstMs = Date.now() + LEAD_MS;
      await stage.producer.call("addDue", jobs, PER_SECOND, firstMs, 8);
      await stage.startWorkers();
      const leftMs = firstMs - Date.now();
      if (leftMs < 1000)
        throw new Error(`the first jobs were due ${1000 - leftMs} ms before the worker had come to rest`);
      const setUpSeconds = (now() - from) / 1000;
      await sleep(leftMs);
      const before = stage.cpu();
      await stage.handled(jobs);
      const cpu = stage.cpuSince(before);
      const { done, latencies } = await stage.workers[0].call("timeline");
      if (done !== jobs) throw new Error(`${jobs} jobs were due, but ${done} were run`);
      if (Math.min(...latencies) < 0) throw new Error("a job ran before it was due");
      return { ...summary(latencies), jobs, setUpSeconds, cpu: disturbance(cpu) };
    } finally {
      await stage.close();
    }
  },
};
