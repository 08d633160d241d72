import { sleep, within } from "../lib/clock.mjs";
import { cpuServer, cpuWorker, others, rate } from "../lib/columns.mjs";
import { drainAll } from "../lib/drain.mjs";
import { openProbe, summary, timed } from "../lib/probe.mjs";
import { PAGE, inLine, lists, questions, worstAnswers } from "../lib/questions.mjs";
import { openStage } from "../lib/stage.mjs";

export default {
  name: "queues",
  title: "Many queues: the same jobs in one queue and spread evenly over a thousand, one worker for all of them",
  own: true,
  columns: [
    rate,
    { title: "start latency p50, ms", value: (metrics) => metrics.latency.p50 },
    { title: "p99", value: (metrics) => metrics.latency.p99 },
    cpuServer,
    cpuWorker,
    others,
  ],
  calls: (metrics) => metrics.calls,
  variants: ({ quick }) =>
    [1, quick ? 100 : 1000].map((queues) => ({
      key: queues === 1 ? "one" : "many",
      label: queues === 1 ? "1 queue" : `${queues.toLocaleString("en-US")} queues`,
      queues,
      jobs: quick ? 10_000 : 100_000,
      times: quick ? 40 : 200,
    })),

  async run(env, contender, { queues, jobs, times }) {
    const stage = await openStage(env, contender);
    const probe = await openProbe(stage.url);
    try {
      const names = Array.from({ length: queues }, (_, n) => `queue-${n}`);
      await stage.producer.call("spread", jobs / queues, names);
      await stage.rest();
      const calls = {
        "stats() of all queues, jobs waiting": await timed(times, () => probe.mill.stats()),
        "stats() of one queue": await timed(times, (n) => probe.mill.stats(names[n % queues])),
        ...(await questions(probe.mill, await kinds(stage.url, names, { jobs, times }), times)),
        ...(await lists(probe.mill, pages(names), times)),
        "claim of 100 (server)": await probe.claims(names[0], { times: times / 4, limit: 100 }),
        "look around (server)": await probe.lookAround(times / 4),
      };
      const drained = await drainAll(stage, jobs);
      calls["stats() of all queues, all done"] = await timed(times, () => probe.mill.stats());
      return { ...drained, calls, worst: worstAnswers(calls), latency: await latency(env, stage, names, times) };
    } finally {
      await probe.close();
      await stage.close();
    }
  },
};

/** Jobs that wait at the head of different queues, and far behind in them; `times` of each kind, or nearly. */
async function kinds(url, names, { jobs, times }) {
  const asked = names.filter((_, n) => n % Math.ceil(names.length / times) === 0);
  const count = Math.ceil(times / asked.length);
  const from = (jobs / names.length) * 0.9;
  return [
    ["the head of a queue", ["NO_WORKER"], await inLine(url, asked, { count })],
    ["one far behind in a queue", ["NO_WORKER"], await inLine(url, asked, { from, count })],
  ];
}

/** First pages. What waits is found whole; of any status, a page may end before a queue's hundred jobs are found. */
function pages(names) {
  const queueOf = (n) => names[n % names.length];
  return [
    ["first page", () => ({}), PAGE],
    ["by queue", (n) => ({ queue: queueOf(n) })],
    ["waiting, first page", () => ({ status: "waiting" }), PAGE],
    ["waiting, by queue", (n) => ({ status: "waiting", queue: queueOf(n) }), PAGE],
  ];
}

/** Enqueue called until handler called, one job at a time, each into a queue of chance. The worker has nothing else to do. */
async function latency(env, stage, names, samples) {
  await sleep(1500);
  const before = stage.total();
  for (let sample = 1; sample <= samples; sample++) {
    const queue = names[Math.floor(Math.random() * names.length)];
    await Promise.all([
      stage.handled(before + sample),
      within(env.limitMs, "enqueue", stage.producer.call("addTimed", { queue })),
    ]);
    await sleep(10 + Math.random() * 30);
  }
  const { latencies } = await stage.workers[0].call("timeline");
  return summary(latencies);
}
