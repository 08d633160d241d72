import { timelines } from "./stage.mjs";

/** Starts the workers and waits until every job is done and settled; says so if one ran twice or never. */
export async function drainAll(stage, jobs) {
  const completedBefore = (await stage.producer.call("counts")).completed;
  await stage.startWorkers();
  await stage.handled(jobs);
  const settled = await stage.settled();
  const cpu = stage.cpuSinceFirstCall();
  const lines = await timelines(stage);
  const ran = lines.reduce((sum, line) => sum + line.done, 0);
  if (ran !== jobs) throw new Error(`${jobs} jobs, but ${ran} handler calls`);
  const kept = settled.completed === null ? null : settled.completed - completedBefore;
  if (kept !== null && kept !== jobs) throw new Error(`${jobs} jobs done, but ${kept} are kept as completed`);
  const first = Math.min(...lines.filter((line) => line.first !== null).map((line) => line.first));
  const seconds = (settled.at - first) / 1000;
  const settleMs = settled.at - Math.max(...lines.flatMap((line) => line.marks));
  return {
    rate: jobs / seconds,
    jobs,
    seconds,
    settleMs,
    kept,
    fifths: fifths(lines, first, jobs),
    cpu: stage.perJob(cpu, jobs),
  };
}

/** Jobs per second in each fifth of the run, from the times of every thousandth job. */
function fifths(lines, first, jobs) {
  if (jobs < 10_000) return null;
  const times = lines.flatMap((line) => line.marks).sort((a, b) => a - b);
  const edges = [0.2, 0.4, 0.6, 0.8, 1].map((part) => Math.max(1, Math.floor(times.length * part)));
  return edges.map((edge, index) => {
    const start = index === 0 ? 0 : edges[index - 1];
    const from = start === 0 ? first : times[start - 1];
    return Math.round(((edge - start) * lines[0].markEvery * 1000) / (times[edge - 1] - from));
  });
}
