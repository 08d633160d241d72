import { now, sleep } from "../lib/clock.mjs";
import { openProbe, summary, timed } from "../lib/probe.mjs";
import { PAGE, inLine, lists, questions, worstAnswers } from "../lib/questions.mjs";
import { openStage } from "../lib/stage.mjs";

const QUEUE = "keyed";
/** How long a job of the saturated key holds its place. */
const HOLD_MS = 250;
const OTHERS = 10;
/** Long enough for all questions: whoever holds a place meanwhile is cancelled afterwards. */
const HOLD_STILL_MS = 600_000;
/** Jobs of each kind that questions are about. */
const ASKED = 10;

export default {
  name: "keys",
  title:
    "A saturated concurrency key: 10 jobs of another key beside it, from the enqueue until all have run, ms; claims as the server times them",
  own: true,
  lowerIsBetter: true,
  headline: (metrics) => metrics.ten.p50,
  columns: [
    { title: "10 jobs of another key, p50, ms", value: (metrics) => metrics.ten.p50 },
    { title: "longest, ms", value: (metrics) => metrics.ten.max },
    { title: "claim p50, ms", value: (metrics) => metrics.calls["claim, key saturated"].p50 },
    { title: "claim p50 at the end / at the beginning", value: (metrics) => metrics.drift },
  ],
  calls: (metrics) => metrics.calls,
  variants: ({ quick }) =>
    [1, 3].flatMap((keyConcurrency) =>
      [100, quick ? 10_000 : 100_000].map((waiting) => ({
        key: `${waiting === 100 ? "few" : "many"}-${keyConcurrency}`,
        label: `${waiting.toLocaleString("en-US")} of the saturated key, ${keyConcurrency} at a time`,
        keyConcurrency,
        waiting,
        rounds: quick ? 3 : 20,
        times: quick ? 20 : 100,
      })),
    ),

  async run(env, contender, { keyConcurrency, waiting, rounds, times }) {
    const stage = await openStage(env, contender);
    const probe = await openProbe(stage.url);
    try {
      await probe.mill.policies.set(QUEUE, { keyConcurrency });
      const key = { queue: QUEUE, concurrencyKey: "saturated" };
      await stage.producer.call("holdWith", keyConcurrency, HOLD_STILL_MS, key);
      await stage.producer.call("holdWith", waiting, HOLD_MS, key);
      await stage.rest();
      const claims = () => probe.carefulClaims(QUEUE, { times, limit: 100, before: (tx) => otherJobs(probe, tx) });
      const calls = { "claim, key free": await claims() };
      await stage.startWorkers();
      await saturated(probe, keyConcurrency);
      Object.assign(calls, await asked(stage.url, probe, { waiting, times }));
      await saturated(probe, keyConcurrency);
      calls["claim, key saturated"] = await claims();
      const ten = [];
      for (let round = 1; round <= rounds; round++) {
        const from = now();
        await stage.producer.call("bulkWith", OTHERS, { queue: QUEUE, concurrencyKey: "other" });
        await stage.handled(round * OTHERS);
        ten.push(now() - from);
        await sleep(50);
      }
      if (waiting > 1000) await saturated(probe, keyConcurrency);
      calls["claim, at the end"] = await claims();
      const drift = calls["claim, at the end"].p50 / calls["claim, key saturated"].p50;
      return { ten: summary(ten), calls, drift, worst: worstAnswers(calls) };
    } finally {
      await probe.close();
      await stage.close();
    }
  },
};

/** What a claim finds beside the saturated key: taken back with it. */
async function otherJobs({ mill }, tx) {
  const inputs = Array.from({ length: OTHERS }, () => ({}));
  await mill.enqueueMany("noop", inputs, { queue: QUEUE, concurrencyKey: "other", tx });
}

/** Questions while nothing moves; then those that held the places go, and so do the jobs that were only asked about. */
async function asked(url, { mill }, { waiting, times }) {
  const inputs = Array.from({ length: ASKED }, () => ({}));
  const later = await mill.enqueueMany("noop", inputs, { queue: QUEUE, concurrencyKey: "other", delay: "1d" });
  const { jobs: running } = await mill.jobs({ status: "active", queue: QUEUE });
  const holding = running.map(({ id }) => id);
  const waitingFrom = (from) => inLine(url, [QUEUE], { key: "saturated", from, count: ASKED });
  const kinds = [
    ["the head of the saturated key", ["KEY_FULL"], await waitingFrom(0)],
    ["one of it far behind", ["KEY_FULL"], await waitingFrom(waiting * 0.9)],
    ["one of another key, not due", ["NOT_DUE"], later],
    ["one that runs", ["RUNNING"], holding],
  ];
  const pages = [
    ["by queue", () => ({ queue: QUEUE }), PAGE],
    ["waiting, by queue", () => ({ status: "waiting", queue: QUEUE }), PAGE],
    ["active, by queue", () => ({ status: "active", queue: QUEUE }), holding.length],
  ];
  const calls = {
    ...(await questions(mill, kinds, times)),
    ...(await lists(mill, pages, times)),
    "stats() of the queue": await timed(times, () => mill.stats(QUEUE)),
  };
  for (const id of [...later, ...holding]) await mill.cancel(id, { by: "bench" }); // waits until it has ended
  return calls;
}

/** Until as many jobs run as may. */
async function saturated({ mill }, keyConcurrency) {
  for (;;) {
    const [queue] = await mill.stats(QUEUE);
    if (queue.active >= keyConcurrency) return;
    await sleep(5);
  }
}
