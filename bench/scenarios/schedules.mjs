import { sleep } from "../lib/clock.mjs";
import { others } from "../lib/columns.mjs";
import { query } from "../lib/connect.mjs";
import { disturbance } from "../lib/cpu.mjs";
import { openProbe, summary } from "../lib/probe.mjs";
import { openStage, timelines } from "../lib/stage.mjs";

const MODEL = "model";
const LEAD_MS = 20_000;

export default {
  name: "schedules",
  title: "Schedules that are all due within a minute, evenly: how late they fire, ms",
  own: true,
  named: true,
  lowerIsBetter: true,
  headline: (metrics) => metrics.fired.p99,
  columns: [
    { title: "fired after its tick p50, ms", value: (metrics) => metrics.fired.p50 },
    { title: "p99", value: (metrics) => metrics.fired.p99 },
    { title: "max", value: (metrics) => metrics.fired.max },
    { title: "its job started after the tick p50, ms", value: (metrics) => metrics.started.p50 },
    { title: "p99", value: (metrics) => metrics.started.p99 },
    others,
  ],
  variants: ({ quick }) =>
    [1, 2].map((workers) => ({
      key: workers === 1 ? "one" : "two",
      label: `${quick ? "5,000" : "100,000"} schedules, ${workers === 1 ? "1 scheduler" : "2 schedulers"}`,
      workers,
      schedules: quick ? 5000 : 100_000,
      ms: quick ? 5000 : 60_000,
    })),

  async run(env, contender, { workers, schedules, ms }) {
    const stage = await openStage(env, contender, { workers });
    try {
      const firstMs = Date.now() + LEAD_MS;
      await make(stage.url, { schedules, firstMs, ms });
      await stage.rest();
      await stage.startWorkers();
      const leftMs = firstMs - Date.now();
      if (leftMs < 1000)
        throw new Error(`the first tick came ${1000 - leftMs} ms before the schedulers had come to rest`);
      await sleep(leftMs);
      const before = stage.cpu();
      await stage.handled(schedules);
      const cpu = stage.cpuSince(before);
      await stage.settled();
      const fired = await lateness(stage.url, schedules);
      const started = (await timelines(stage)).flatMap(({ latencies }) => latencies);
      if (started.length !== schedules) throw new Error(`${schedules} schedules, but ${started.length} jobs were run`);
      return { fired, started: summary(started), schedules, cpu: disturbance(cpu) };
    } finally {
      await stage.close();
    }
  },
};

/** One is made through the front door; the others are its likes, each counting its hours from a tick of its own. */
async function make(url, { schedules, firstMs, ms }) {
  const probe = await openProbe(url);
  try {
    await probe.mill.schedules.create({ name: MODEL, task: "tick", queue: "bench", every: "1h" });
  } finally {
    await probe.close();
  }
  await query(url, COPIES, [MODEL, schedules, firstMs, ms]);
}

/** $1 the model, $2 how many, $3 ms since 1970 of the first tick, $4 the ms over which they are spread. */
const COPIES = `
  insert into millrace.schedules (name, source, spec, task, queue, anchor, next_at, due_at)
  select 'bench-' || n, source, spec, task, queue, at, at, at
    from millrace.schedules, generate_series(0, $2::int - 1) n,
         lateral (select to_timestamp(($3::bigint + n::bigint * $4::int / $2::int) / 1000.0) as at) tick
   where name = $1`;

/** By what history says: each has fired once and nothing was missed. Maintenance has ticks too, once a minute; they do not count. `fired_at` is when the transaction began that fired it. */
async function lateness(url, schedules) {
  const [row] = await query(url, LATENESS);
  if (row.runs !== schedules || row.fired !== schedules)
    throw new Error(`${schedules} schedules, but ${row.runs} ticks, of which ${row.fired} were fired`);
  const [p50, p99, max] = row.late;
  return { p50, p99, max };
}

const LATENESS = `
  select count(*)::int as runs, count(*) filter (where status = 'fired' and count = 1)::int as fired,
         percentile_disc(array[0.5, 0.99, 1]) within group (order by (extract(epoch from fired_at - tick_at) * 1000)::float8) as late
    from millrace.schedule_runs r join millrace.schedules s on s.id = r.schedule where s.name like 'bench-%'`;
