import { openStage } from "../lib/stage.mjs";
import { cpuProducer, cpuServer, others, rate } from "../lib/columns.mjs";

export default {
  name: "bulk",
  title: "Bulk enqueue: batches of 1,000, one in flight",
  columns: [rate, cpuServer, cpuProducer, others],
  variants: ({ quick }) => [{ key: "1000", label: "batches of 1,000", jobs: quick ? 20_000 : 100_000 }],

  async run(env, contender, { jobs }) {
    const stage = await openStage(env, contender, { workers: 0 });
    try {
      await stage.producer.call("bulk", 5000, 1000);
      const before = stage.cpu();
      const seconds = await stage.producer.call("bulk", jobs, 1000);
      const cpu = stage.cpuSince(before);
      const { unfinished } = await stage.producer.call("counts");
      if (unfinished !== jobs + 5000) throw new Error(`${jobs + 5000} jobs were enqueued, ${unfinished} are there`);
      return { rate: jobs / seconds, jobs, cpu: stage.perJob(cpu, jobs) };
    } finally {
      await stage.close();
    }
  },
};
