import { sleep } from "../lib/clock.mjs";
import { residentMegabytes } from "../lib/cpu.mjs";
import { mean } from "../lib/numbers.mjs";
import { openStage } from "../lib/stage.mjs";

/** Only with --long: ten minutes of steady work at a rate that everybody manages. */
export default {
  name: "memory",
  title: "Memory of the worker over ten minutes of steady work, MB resident",
  long: true,
  lowerIsBetter: true,
  headline: (metrics) => metrics.growth,
  columns: [
    { title: "jobs/s", value: (metrics) => metrics.rate },
    { title: "each tenth of the time, MB", series: (metrics) => metrics.tenths },
    { title: "last third / middle third", value: (metrics) => metrics.growth },
    { title: "peak, MB", value: (metrics) => Math.max(...metrics.resident) },
  ],
  variants: ({ quick }) => [{ key: "memory", label: quick ? "20 s" : "10 min", seconds: quick ? 20 : 600, rate: 5000 }],

  async run(env, contender, { seconds, rate }) {
    const stage = await openStage(env, contender);
    try {
      await stage.startWorkers();
      stage.relay();
      const fed = stage.producer.call("feed", seconds * 1000, { batch: 500, most: 20_000, rate });
      fed.catch(() => {}); // awaited below
      const resident = [];
      const step = (seconds * 1000) / 60;
      for (const from = performance.now(); resident.length < 60;) {
        await sleep(from + (resident.length + 1) * step - performance.now());
        resident.push(residentMegabytes(stage.workers[0].pid));
      }
      const jobs = stage.total();
      await fed;
      const part = (from, to) => mean(resident.slice(from, to));
      const tenths = Array.from({ length: 10 }, (_, index) => Math.round(part(index * 6, index * 6 + 6)));
      return { rate: jobs / seconds, jobs, resident, tenths, growth: part(40, 60) / part(20, 40) };
    } finally {
      await stage.close();
    }
  },
};
