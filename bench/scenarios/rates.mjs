import { cpuProducer, cpuServer, cpuWorker, others, rate } from "../lib/columns.mjs";
import { query } from "../lib/connect.mjs";
import { openProbe } from "../lib/probe.mjs";
import { openStage } from "../lib/stage.mjs";

const QUEUE = "rated";

export default {
  name: "rates",
  title: "A rate limit per key, 10,000 keys in turn: what is left behind by a minute of work",
  own: true,
  columns: [
    rate,
    { title: "claims/s", value: (metrics) => metrics.claimRate },
    { title: "windows, rows", value: (metrics) => metrics.windows.live },
    { title: "MB", value: (metrics) => metrics.windows.megabytes },
    { title: "bytes per key", value: (metrics) => (metrics.windows.megabytes * 1e6) / metrics.windows.live },
    { title: "dead rows", value: (metrics) => metrics.windows.dead },
    { title: "longest window, entries", value: (metrics) => metrics.windows.entries },
    cpuServer,
    cpuWorker,
    cpuProducer,
    others,
  ],
  variants: ({ quick }) => [
    {
      key: "rates",
      label: quick ? "1,000 keys, 6 s" : "10,000 keys, 60 s",
      keys: quick ? 1000 : 10_000,
      seconds: quick ? 6 : 60,
    },
  ],

  async run(env, contender, { keys, seconds }) {
    const stage = await openStage(env, contender);
    const probe = await openProbe(stage.url);
    try {
      // More than any key gets: what is measured is counting, not waiting.
      await probe.mill.policies.set(QUEUE, { keyRate: { max: 1000, per: "10s" } });
      await stage.startWorkers();
      stage.relay();
      const before = stage.cpu();
      const feed = { batch: 10, inFlight: 16, ms: seconds * 1000, most: 20_000 };
      const enqueued = await stage.producer.call("addKeyed", keys, feed, { queue: QUEUE });
      const jobs = stage.total();
      const cpu = stage.perJob(stage.cpuSince(before), jobs);
      await stage.handled(enqueued);
      await stage.settled();
      const { claims } = (await query(stage.url, CLAIMS))[0];
      const windows = (await query(stage.url, WINDOWS))[0];
      if (windows.live !== Math.min(keys, enqueued / feed.batch))
        throw new Error(`${keys} keys, but ${windows.live} windows`);
      return { rate: jobs / seconds, jobs, enqueued, claimRate: claims / seconds, windows, cpu };
    } finally {
      await probe.close();
      await stage.close();
    }
  },
};

/** Jobs of one claim have the same time on their leases, and history keeps it. */
const CLAIMS = `
  select count(distinct claimed_at)::int as claims
    from millrace.settled where queue = (select id from millrace.queues where name = '${QUEUE}')`;

/** Counted, not estimated: statistics come late. */
const WINDOWS = `
  select count(*)::int as live, max(cardinality(at)) as entries,
         pg_total_relation_size('millrace.rate_windows') / 1e6::float8 as megabytes,
         (select n_dead_tup::int from pg_stat_user_tables where relid = 'millrace.rate_windows'::regclass) as dead
    from millrace.rate_windows`;
