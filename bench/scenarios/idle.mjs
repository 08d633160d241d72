import { sleep } from "../lib/clock.mjs";
import { disturbance } from "../lib/cpu.mjs";
import { openStage } from "../lib/stage.mjs";
import { others } from "../lib/columns.mjs";

export default {
  name: "idle",
  title: "What an idle worker costs: CPU ms per second, after some work and 3 s of rest",
  lowerIsBetter: true,
  headline: (metrics) => metrics.total,
  columns: [
    { title: "worker and server, ms/s", value: (metrics) => metrics.total },
    { title: "worker, ms/s", value: (metrics) => metrics.worker },
    { title: "server, ms/s", value: (metrics) => metrics.server },
    others,
  ],
  variants: ({ quick }) => [{ key: "idle", label: "idle", seconds: quick ? 5 : 20 }],

  async run(env, contender, { seconds }) {
    const stage = await openStage(env, contender);
    try {
      await stage.startWorkers();
      await stage.producer.call("bulk", 1000, 1000);
      await stage.handled(1000);
      await stage.settled();
      await sleep(3000);
      const before = stage.cpu();
      await sleep(seconds * 1000);
      const cpu = stage.cpuSince(before);
      if (!cpu) throw new Error("CPU time can only be read on Linux");
      const perSecond = (value) => (value === null ? null : (value / cpu.seconds) * 1000);
      const [worker, server] = [perSecond(cpu.worker), perSecond(cpu[stage.kind])];
      return { worker, server, total: worker + server, cpu: disturbance(cpu) };
    } finally {
      await stage.close();
    }
  },
};
