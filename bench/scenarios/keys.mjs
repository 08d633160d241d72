import { now, sleep } from "../lib/clock.mjs";
import { openProbe, summary } from "../lib/probe.mjs";
import { openStage } from "../lib/stage.mjs";

const QUEUE = "keyed";
/** How long a job of the saturated key holds its place. */
const HOLD_MS = 250;
const OTHERS = 10;

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
      await stage.producer.call("holdWith", waiting, HOLD_MS, { queue: QUEUE, concurrencyKey: "saturated" });
      await stage.rest();
      const claims = () => probe.carefulClaims(QUEUE, { times, limit: 100, before: (tx) => otherJobs(probe, tx) });
      const calls = { "claim, key free": await claims() };
      await stage.startWorkers();
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
      return { ten: summary(ten), calls, drift: calls["claim, at the end"].p50 / calls["claim, key saturated"].p50 };
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

/** Until as many jobs run as may. */
async function saturated({ mill }, keyConcurrency) {
  for (;;) {
    const [queue] = await mill.stats(QUEUE);
    if (queue.active >= keyConcurrency) return;
    await sleep(5);
  }
}
