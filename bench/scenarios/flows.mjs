import { others, rate } from "../lib/columns.mjs";
import { timelines, openStage } from "../lib/stage.mjs";

export default {
  name: "flows",
  title: "Jobs that wait for others: one after ten thousand, and a thousand one after the other",
  own: true,
  named: true,
  columns: [
    rate,
    { title: "enqueue, ms", value: (metrics) => metrics.enqueueMs },
    { title: "first job to last, ms", value: (metrics) => metrics.ms },
    { title: "ms per link", value: (metrics) => metrics.linkMs },
    { title: "CPU server µs/job", value: (metrics) => metrics.cpu?.server },
    others,
  ],
  variants: ({ quick }) => {
    const [children, links] = quick ? [1000, 100] : [10_000, 1000];
    return [
      {
        key: "parent",
        label: `${children.toLocaleString("en-US")} children and their parent`,
        how: "batch",
        jobs: children + 1,
      },
      { key: "chain", label: `a chain of ${links.toLocaleString("en-US")}`, how: "chain", jobs: links },
    ];
  },

  async run(env, contender, { how, jobs }) {
    const stage = await openStage(env, contender);
    try {
      const enqueued = await stage.producer.call("compose", how, jobs);
      await stage.rest();
      await stage.startWorkers();
      await stage.handled(jobs);
      await stage.settled();
      const cpu = stage.perJob(stage.cpuSinceFirstCall(), jobs);
      const [{ done, first, latencies }] = await timelines(stage);
      if (done !== jobs) throw new Error(`${jobs} jobs, but ${done} handler calls`);
      const ms = enqueued.at + latencies[0] - first;
      const linkMs = how === "chain" ? ms / (jobs - 1) : null;
      return { rate: (jobs / ms) * 1000, enqueueMs: enqueued.ms, ms, linkMs, jobs, cpu };
    } finally {
      await stage.close();
    }
  },
};
