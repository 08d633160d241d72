import { drainAll } from "../lib/drain.mjs";
import { openStage } from "../lib/stage.mjs";
import { cpuServer, cpuWorker, others, rate } from "../lib/columns.mjs";

export default {
  name: "drain",
  title: "Drain of no-op jobs: first handler call until all are done and settled",
  columns: [rate, cpuServer, cpuWorker, others],
  variants({ quick }) {
    const jobs = quick ? 20_000 : 100_000;
    return [1, 2].map((workers) => ({
      key: `${workers}`,
      label: workers === 1 ? "1 worker" : "2 workers",
      workers,
      jobs,
    }));
  },

  async run(env, contender, { workers, jobs }) {
    const stage = await openStage(env, contender, { workers });
    try {
      await stage.prefill(jobs);
      return await drainAll(stage, jobs);
    } finally {
      await stage.close();
    }
  },
};
