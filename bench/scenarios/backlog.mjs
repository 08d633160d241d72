import { together } from "../lib/cpu.mjs";
import { openStage, timelines } from "../lib/stage.mjs";
import { cpuServer, cpuWorker, others, rate } from "../lib/columns.mjs";

const LIKE_FOR_LIKE = 10_000;

export default {
  name: "backlog",
  title: "Drain with a backlog waiting: rate of the first 100,000 handler calls (at 10k: all, five times over)",
  columns: [rate, { title: "first 10k, jobs/s", value: (metrics) => metrics.first10k }, cpuServer, cpuWorker, others],
  variants: ({ quick }) =>
    (quick ? [10_000, 50_000] : [10_000, 200_000, 1_000_000]).map((waiting) => ({
      key: short(waiting),
      label: `${short(waiting)} waiting`,
      waiting,
    })),

  async run(env, contender, { waiting }) {
    const stage = await openStage(env, contender);
    try {
      return waiting <= LIKE_FOR_LIKE ? await several(stage, waiting) : await head(stage, waiting);
    } finally {
      await stage.close();
    }
  },
};

const short = (waiting) => (waiting >= 1_000_000 ? `${waiting / 1_000_000}M` : `${waiting / 1000}k`);

/** The first part of a large backlog; the rest is thrown away. */
async function head(stage, waiting) {
  const jobs = Math.min(100_000, waiting);
  await stage.prefill(waiting);
  await stage.startWorkers();
  await stage.handled(jobs);
  const ran = stage.total();
  const cpu = stage.cpuSinceFirstCall();
  const [line] = await timelines(stage);
  const rateOf = (part) => (part * 1000) / (line.marks[part / line.markEvery - 1] - line.first);
  return { rate: rateOf(jobs), first10k: rateOf(LIKE_FOR_LIKE), jobs, cpu: stage.perJob(cpu, ran) };
}

/** A backlog too small to time once is filled and drained several times. */
async function several(stage, waiting) {
  const times = 5;
  let seconds = 0;
  const used = [];
  for (let time = 0; time < times; time++) {
    await stage.prefill(waiting);
    await stage.startWorkers();
    await stage.handled(waiting);
    used.push(stage.cpuSinceFirstCall());
    const [line] = await timelines(stage);
    seconds += (line.marks[waiting / line.markEvery - 1] - line.first) / 1000;
    await stage.settled();
    await stage.stopWorkers();
  }
  const jobs = waiting * times;
  return { rate: jobs / seconds, first10k: jobs / seconds, jobs, cpu: stage.perJob(together(used), jobs) };
}
