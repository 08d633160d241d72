import pg from "pg";
import { CONTENDERS } from "../lib/contenders.mjs";
import { drainAll } from "../lib/drain.mjs";
import { openStage } from "../lib/stage.mjs";
import { cpuServer, cpuWorker, others, rate } from "../lib/columns.mjs";

export default {
  name: "snapshot",
  title: "Drain while another transaction holds a snapshot open (nothing can be vacuumed away), and without",
  columns: [
    rate,
    { title: "by fifth of the run, jobs/s", series: (metrics) => metrics.fifths },
    cpuServer,
    cpuWorker,
    others,
  ],
  variants({ quick }) {
    const jobs = quick ? 40_000 : 200_000;
    return [
      { key: "without", label: "without", jobs, hold: false },
      { key: "held", label: "snapshot held", jobs, hold: true },
    ];
  },
  skip: (contender) => (CONTENDERS[contender].server === "redis" ? "Redis has no snapshots to hold" : null),

  async run(env, contender, { jobs, hold }) {
    const stage = await openStage(env, contender);
    const holder = new pg.Client({ connectionString: stage.url });
    try {
      await stage.prefill(jobs);
      await holder.connect();
      if (hold) await holder.query("begin isolation level repeatable read; select count(*) from pg_class");
      return await drainAll(stage, jobs);
    } finally {
      await holder.end();
      await stage.close();
    }
  },
};
