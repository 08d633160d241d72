/** What Millrace must reach, and whether it did. Every target gets its line, whatever came out. */
import { PEERS } from "./contenders.mjs";
import { median, spread } from "./numbers.mjs";
import { metricsOf, ratios } from "./runs.mjs";

const ours = (results, [scenario, variant]) => metricsOf(results, scenario, variant, "millrace");

/** Each builds `{ of, values }`: the case a target is about, and its figures, one a round. */
const within = (scenario, variant, get) => ({
  of: [scenario, variant],
  values: (results) => [...ours(results, [scenario, variant]).values()].map(get),
});
const against = (scenario, variant, peer, get) => ({
  of: [scenario, variant],
  values: (results) => ratios(ours(results, [scenario, variant]), metricsOf(results, scenario, variant, peer), get),
});
const between = (scenario, variant, base) => ({
  of: [scenario, variant],
  values: (results) => ratios(ours(results, [scenario, variant]), ours(results, [scenario, base])),
});

/** The smallest lead over any peer in each round. */
const aheadOfAll = (scenario, variant) => ({
  of: [scenario, variant],
  values(results) {
    const leads = PEERS.map((peer) => against(scenario, variant, peer).values(results));
    if (leads.some((lead) => lead.length === 0)) return [];
    return leads[0].map((_, round) => Math.min(...leads.map((lead) => lead[round] ?? Infinity)));
  },
});

/** How much longer single calls take than in the base case: the one that grew most, of those whose name is like `call`. */
const growth = (scenario, variant, base, call) => ({
  of: [scenario, variant],
  values(results) {
    const [large, small] = [variant, base].map((one) => ours(results, [scenario, one]));
    return [...large.keys()]
      .filter((round) => small.has(round))
      .map((round) => {
        const [of, to] = [large.get(round).calls, small.get(round).calls];
        const names = Object.keys(of).filter((name) => call.test(name));
        return Math.max(...names.map((name) => of[name].p50 / to[name].p50));
      });
  },
});

const drains = [1, 2].flatMap((workers) =>
  Object.entries({ "graphile-worker": 2.5, "pg-boss": 3, bullmq: 4 }).map(([peer, least]) => ({
    target: `drain with ${workers} worker${workers > 1 ? "s" : ""} ≥ ${least}× ${peer}`,
    ...against("drain", `${workers}`, peer),
    least,
  })),
);

const reads = ["GET /jobs, a hundred", "GET /jobs/:id", "GET /api/queue/stats", "GET /metrics", "GET /metrics/prom"];

/** What is asked about jobs while many wait, against few: the same rules as with a long history. `many`, `few`: how much there is of what. */
const questions = (scenario, variant, base, [many, few]) => [
  {
    target: `stats() of a queue ${many} ≤ 1.5× of ${few}`,
    ...growth(scenario, variant, base, /^stats\(\) of (one|the) queue/),
    most: 1.5,
  },
  { target: `any list ${many} ≤ 2× of ${few}`, ...growth(scenario, variant, base, /^jobs/), most: 2 },
  // One far behind is told its place, which is counted, up to five thousand before it.
  {
    target: `explain ${many} ≤ 2× of ${few}, but for jobs far behind`,
    ...growth(scenario, variant, base, /^explain(?!.*far behind)/),
    most: 2,
  },
  { target: `timeline ${many} ≤ 2× of ${few}`, ...growth(scenario, variant, base, /^timeline/), most: 2 },
  ...["explain", "timeline"].map((verb) => ({
    target: `${verb} of any job ${many} < 20 ms, p99`,
    ...within(scenario, variant, (metrics) => metrics.worst[verb].p99),
    most: 20,
    unit: " ms",
  })),
];

const TARGETS = [
  ...drains,
  { target: "mixed load ≥ 2.5× graphile-worker", ...against("mixed", "mixed", "graphile-worker"), least: 2.5 },
  {
    target: "mixed load flat: last third ≥ 0.9× first third",
    ...within("mixed", "mixed", (metrics) => metrics.flatness),
    least: 0.9,
  },
  { target: "bulk enqueue ahead of all peers", ...aheadOfAll("bulk", "1000"), least: 1 },
  ...[16, 256].map((inFlight) => ({
    target: `${inFlight} single enqueues in flight ≥ BullMQ on Redis`,
    ...against("single", `${inFlight}`, "bullmq"),
    least: 1,
  })),
  {
    target: "start latency p50 ≤ BullMQ on Redis",
    ...against("latency", "one", "bullmq", (metrics) => metrics.p50),
    most: 1,
  },
  { target: "start latency p99 < 10 ms", ...within("latency", "one", (metrics) => metrics.p99), most: 10, unit: " ms" },
  { target: "drain at 1M waiting within 10 % of 10k", ...between("backlog", "1M", "10k"), least: 0.9 },
  {
    target: "drain with a snapshot held within 20 % of without",
    ...between("snapshot", "held", "without"),
    least: 0.8,
  },
  {
    target: "an idle worker costs next to nothing: ≤ 10 ms CPU per second, its server included",
    ...within("idle", "idle", (metrics) => metrics.total),
    most: 10,
    unit: " ms/s",
  },
  {
    target: "memory flat over ten minutes: last third ≤ 1.1× middle third",
    ...within("memory", "memory", (metrics) => metrics.growth),
    most: 1.1,
  },
  { target: "drain of 1,000 queues ≥ 0.5× of one with the same jobs", ...between("queues", "many", "one"), least: 0.5 },
  {
    target: "start latency p99 < 10 ms while idle with 1,000 queues",
    ...within("queues", "many", (metrics) => metrics.latency.p99),
    most: 10,
    unit: " ms",
  },
  {
    target: "claim from one of 1,000 queues ≤ 1.5× of the only one",
    ...growth("queues", "many", "one", /^claim/),
    most: 1.5,
  },
  ...questions("queues", "many", "one", ["with 1,000 queues", "with one"]),
  ...[1, 3].flatMap((limit) => [
    {
      target: `10 jobs beside 100,000 of a saturated key (${limit} at a time) ≤ 1.25× of beside 100`,
      of: ["keys", `many-${limit}`],
      values: (results) =>
        ratios(ours(results, ["keys", `many-${limit}`]), ours(results, ["keys", `few-${limit}`]), ({ ten }) => ten.p50),
      most: 1.25,
    },
    {
      target: `claim beside 100,000 of a saturated key (${limit} at a time) ≤ 1.5× of beside 100`,
      ...growth("keys", `many-${limit}`, `few-${limit}`, /^claim/),
      most: 1.5,
    },
    ...questions("keys", `many-${limit}`, `few-${limit}`, [
      `with 100,000 of a saturated key (${limit} at a time)`,
      "with 100",
    ]),
  ]),
  ...["one", "two"].map((schedulers) => ({
    target: `100,000 schedules due in a minute fire < 1 s late with ${schedulers} scheduler${schedulers === "one" ? "" : "s"}, p99`,
    ...within("schedules", schedulers, (metrics) => metrics.fired.p99),
    most: 1000,
    unit: " ms",
  })),
  {
    target: "delayed jobs, a million of them, start < 500 ms late, p99",
    ...within("delayed", "delayed", (metrics) => metrics.p99),
    most: 500,
    unit: " ms",
  },
  {
    target: "a rate limit per key leaves ≤ 1,000 bytes per key",
    ...within("rates", "rates", ({ windows }) => (windows.megabytes * 1e6) / windows.live),
    most: 1000,
    unit: " bytes",
  },
  ...["explain", "timeline"].map((verb) => ({
    target: `${verb} of any job < 20 ms with 10M finished, p99`,
    ...within("history", "10M", (metrics) => metrics.worst[verb].p99),
    most: 20,
    unit: " ms",
  })),
  {
    target: "POST /jobs ≥ 5,000 requests/s, alone",
    ...within("http", "alone", ({ parts }) => parts["POST /jobs"].saturated.rate),
    least: 5000,
    unit: " requests/s",
  },
  ...reads.map((read) => ({
    target: `${read}, 50 a second while 2 workers drain: p95 < 20 ms`,
    ...within("http", "drain", ({ parts }) => parts[read].paced.p95),
    most: 20,
    unit: " ms",
  })),
  ...["GET /health, of a stranger", "GET /api/health, with a token"].map((health) => ({
    target: `${health}, while 2 workers drain and POST /jobs is saturated: never 100 ms`,
    ...within("http", "full", ({ parts }) => parts[health].paced.max),
    most: 100,
    unit: " ms",
  })),
  { target: "drain with 10M finished within 10 % of 10k", ...between("history", "10M", "10k"), least: 0.9 },
  {
    target: "enqueue with 10M finished within 10 % of 10k",
    of: ["history", "10M"],
    values: (results) =>
      ratios(ours(results, ["history", "10M"]), ours(results, ["history", "10k"]), (metrics) => metrics.enqueueRate),
    least: 0.9,
  },
  { target: "claim with 10M finished ≤ 1.5× of with 10k", ...growth("history", "10M", "10k", /^claim/), most: 1.5 },
  { target: "stats() with 10M finished ≤ 1.5× of with 10k", ...growth("history", "10M", "10k", /^stats/), most: 1.5 },
  {
    target: "any list with 10M finished ≤ 2× of with 10k",
    // With 10k finished, a thousandth of them, or a hundredth of a tenth, is no page of a hundred.
    ...growth("history", "10M", "10k", /^jobs(?!.*(tag, a thousandth|tag and queue))/),
    most: 2,
  },
];

function durability(results) {
  const target = "full history kept, durable commits";
  const runs = ["1", "2"].flatMap((workers) => [...ours(results, ["drain", workers]).values()]);
  const { fsync, synchronous_commit: commit } = results.machine.postgres;
  if (runs.length === 0) return { target, measured: "–", outcome: "not measured" };
  const kept = runs.every((metrics) => metrics.kept === metrics.jobs);
  const measured = `${kept ? "every" : "not every"} job in the history of every drain; fsync ${fsync}, synchronous_commit ${commit}`;
  return { target, measured, outcome: kept && fsync === "on" && commit === "on" ? "met" : "MISSED" };
}

/** In how many rounds the case was tried. */
function tried(results, [scenario, variant]) {
  const runs = results.runs.filter((run) => run.scenario === scenario && run.variant === variant);
  return new Set(runs.map((run) => run.round)).size;
}

/** @param results of any scenarios: targets of others are left out. @returns {{ target: string, measured: string, outcome: "met" | "MISSED" | "not measured" }[]} */
export function judge(results) {
  const { scenarios } = results.options;
  const asked = TARGETS.filter(({ of: [scenario] }) => scenarios.includes(scenario));
  const verdicts = asked.map(({ target, of, values, least, most, unit = "×" }) => {
    const found = values(results);
    const missing = tried(results, of) - found.length;
    const note = missing > 0 ? `${missing} round${missing > 1 ? "s" : ""} without a figure` : "";
    if (found.length === 0) return { target, measured: note || "–", outcome: "not measured" };
    const small = least === undefined;
    const met = small ? median(found, true) <= most : median(found) >= least;
    return {
      target,
      measured: [spread(found, small) + unit, note].filter(Boolean).join("; "),
      outcome: met ? "met" : "MISSED",
    };
  });
  return scenarios.includes("drain") ? [...verdicts, durability(results)] : verdicts;
}
