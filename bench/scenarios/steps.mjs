import { cpuProducer, cpuServer, others } from "../lib/columns.mjs";
import { openStage } from "../lib/stage.mjs";

const STEPS = 10;

export default {
  name: "steps",
  title: "Durable steps that do nothing, ten a run: runs begun until all have ended",
  among: ["millrace", "dbos", "absurd"],
  named: true,
  columns: [
    { title: "steps/s", value: (metrics) => metrics.rate },
    { title: "ms per run", value: (metrics) => metrics.runMs },
    { ...cpuServer, title: "CPU server µs/step" },
    { ...cpuProducer, title: "CPU process µs/step" },
    others,
  ],
  variants: ({ quick }) => [
    { key: "many", label: "100 runs at once", atOnce: 100, runs: quick ? 300 : 3000 },
    { key: "one", label: "1 run at a time", atOnce: 1, runs: quick ? 30 : 300 },
  ],
  skip: (contender) =>
    contender === "absurd" && !process.env.BENCH_ABSURD_SQL ? "BENCH_ABSURD_SQL does not name its SQL" : null,

  async run(env, contender, { atOnce, runs }) {
    const stage = await openStage(env, contender, { workers: 0 });
    try {
      const warmUp = Math.ceil(runs / 5);
      await stage.producer.call("steps", warmUp, STEPS, atOnce);
      await stage.rest();
      const before = stage.cpu();
      const seconds = await stage.producer.call("steps", runs, STEPS, atOnce);
      const cpu = stage.perJob(stage.cpuSince(before), runs * STEPS);
      const kept = await stage.producer.call("keptSteps");
      if (kept !== (warmUp + runs) * STEPS) throw new Error(`${(warmUp + runs) * STEPS} steps, but ${kept} were kept`);
      return {
        rate: (runs * STEPS) / seconds,
        runMs: (seconds * 1000 * Math.min(atOnce, runs)) / runs,
        runs,
        seconds,
        cpu,
      };
    } finally {
      await stage.close();
    }
  },
};
