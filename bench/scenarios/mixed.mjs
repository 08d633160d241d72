import { sleep } from "../lib/clock.mjs";
import { mean } from "../lib/numbers.mjs";
import { sizes } from "../lib/sizes.mjs";
import { openStage } from "../lib/stage.mjs";
import { cpuProducer, cpuServer, cpuWorker, others, rate } from "../lib/columns.mjs";

export default {
  name: "mixed",
  title: "Enqueue and process together for a minute: batches of 1,000, at most 20,000 ahead of the worker",
  columns: [
    rate,
    { title: "each tenth of the time, jobs/s", series: (metrics) => metrics.series },
    { title: "last third / first third", value: (metrics) => metrics.flatness },
    cpuServer,
    cpuWorker,
    cpuProducer,
    { title: "size after, MB", value: (metrics) => metrics.sizes.megabytes },
    { title: "bytes/job", value: (metrics) => (metrics.sizes.megabytes * 1e6) / metrics.jobs },
    others,
  ],
  details: (metrics) => metrics.sizes.text,
  variants: ({ quick }) => [{ key: "mixed", label: quick ? "6 s" : "60 s", seconds: quick ? 6 : 60 }],

  async run(env, contender, { seconds }) {
    const stage = await openStage(env, contender);
    try {
      await stage.startWorkers();
      stage.relay();
      const before = stage.cpu();
      const fed = stage.producer.call("feed", seconds * 1000, { batch: 1000, most: 20_000 });
      fed.catch(() => {}); // awaited below
      const series = await watch(stage, seconds);
      const jobs = stage.total();
      const cpu = stage.perJob(stage.cpuSince(before), jobs);
      const enqueued = await fed;
      await stage.handled(enqueued);
      await stage.settled();
      const third = Math.floor(series.length / 3);
      const flatness = mean(series.slice(-third)) / mean(series.slice(0, third));
      return { rate: jobs / seconds, jobs, enqueued, series, flatness, sizes: await sizes(stage), cpu };
    } finally {
      await stage.close();
    }
  },
};

/** Jobs per second in each tenth of the time. */
async function watch(stage, seconds) {
  const series = [];
  const from = performance.now();
  let last = { at: from, total: 0 };
  for (let part = 1; part <= 10; part++) {
    await sleep(from + (part * seconds * 1000) / 10 - performance.now());
    const next = { at: performance.now(), total: stage.total() };
    series.push(Math.round(((next.total - last.total) * 1000) / (next.at - last.at)));
    last = next;
  }
  return series;
}
