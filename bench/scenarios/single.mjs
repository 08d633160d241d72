import { openStage } from "../lib/stage.mjs";
import { cpuProducer, cpuServer, others, rate } from "../lib/columns.mjs";

export default {
  name: "single",
  title: "Single enqueue: each call awaited, 1, 16 and 256 calls in flight",
  columns: [rate, cpuServer, cpuProducer, others],
  variants: ({ quick }) =>
    [1, 16, 256].map((inFlight) => ({
      key: `${inFlight}`,
      label: `${inFlight} in flight`,
      inFlight,
      ms: quick ? 1000 : 2000,
    })),

  async run(env, contender, { inFlight, ms }) {
    const stage = await openStage(env, contender, { workers: 0 });
    try {
      await stage.producer.call("single", inFlight, 500);
      const before = stage.cpu();
      const { jobs, seconds } = await stage.producer.call("single", inFlight, ms);
      return { rate: jobs / seconds, jobs, cpu: stage.perJob(stage.cpuSince(before), jobs) };
    } finally {
      await stage.close();
    }
  },
};
