import { cpuServer, cpuWorker, others, rate } from "../lib/columns.mjs";
import { query } from "../lib/connect.mjs";
import { drainAll } from "../lib/drain.mjs";
import { SELDOM, cancelDelayed, clearAside, makeHistory } from "../lib/history.mjs";
import { openProbe, part, timed } from "../lib/probe.mjs";
import { inLine, lists, questions, worstAnswers } from "../lib/questions.mjs";
import { sizes } from "../lib/sizes.mjs";
import { openStage } from "../lib/stage.mjs";

export default {
  name: "history",
  title: "With ten thousand, a million and ten million finished jobs: work goes on, and questions are asked",
  own: true,
  named: true,
  columns: [
    rate,
    { title: "enqueue, jobs/s", value: (metrics) => metrics.enqueueRate },
    cpuServer,
    cpuWorker,
    { title: "explain, worst p50, ms", value: (metrics) => metrics.worst.explain.p50 },
    { title: "worst p99", value: (metrics) => metrics.worst.explain.p99 },
    { title: "timeline, worst p50, ms", value: (metrics) => metrics.worst.timeline.p50 },
    { title: "worst p99", value: (metrics) => metrics.worst.timeline.p99 },
    { title: "set-up, s", value: (metrics) => metrics.setUpSeconds },
    others,
  ],
  calls: (metrics) => metrics.calls,
  details: (metrics) => metrics.sizes.text,
  variants: ({ quick }) =>
    (quick ? [10_000, 100_000] : [10_000, 1_000_000, 10_000_000]).map((size) => ({
      key: short(size),
      label: `${short(size)} finished`,
      size,
      waiting: quick ? 10_000 : 100_000,
      times: quick ? 40 : 200,
    })),

  async run(env, contender, { size, waiting, times }) {
    const stage = await openStage(env, contender);
    const probe = await openProbe(stage.url);
    try {
      const past = await makeHistory(stage, probe, { size, waiting });
      const explained = await questions(probe.mill, await kinds(stage.url, past, { size, waiting, times }), times);
      const calls = {
        ...explained,
        "stats()": await timed(times, () => probe.mill.stats()),
        ...(await lists(probe.mill, await pages(stage.url, past, { size, times }), times)),
        "claim of 1,000 (server)": await probe.claims("bench", { times: times / 4, limit: 1000 }),
      };
      const more = waiting / 2;
      const enqueueSeconds = await stage.producer.call("bulk", more, 1000);
      await clearAside(probe);
      await cancelDelayed(probe);
      const before = await sizes(stage);
      const drained = await drainAll(stage, waiting + more);
      const rates = { ...drained, enqueueRate: more / enqueueSeconds };
      return { ...rates, calls, worst: worstAnswers(calls), setUpSeconds: past.seconds, sizes: before };
    } finally {
      await probe.close();
      await stage.close();
    }
  },
};

const short = (size) => (size >= 1_000_000 ? `${size / 1_000_000}M` : `${size / 1000}k`);

/** `count` different whole numbers from 0, below `most`, by chance. */
function chances(count, most) {
  const found = new Set();
  while (found.size < count) found.add(Math.floor(Math.random() * most));
  return [...found];
}

/** Each kind of job that timeline and explain are asked about. */
async function kinds(url, past, { size, waiting, times }) {
  const idsOf = async (text, values) => (await query(url, text, values)).map(({ id }) => id);
  // Not of the oldest, which are archived: of ten thousand, they lie anywhere in the first half.
  const middle = chances(times, size * 0.4).map((n) => Math.floor(size * 0.5) + n);
  const retried = Array.from({ length: times }, () => 9500 + 10_000 * Math.floor(Math.random() * (size / 10_000)));
  const { limited, keyed, stepwise, blocked } = past.aside;
  return [
    ["a completed job", ["COMPLETED"], await past.ids(middle)],
    ["one that was retried", ["COMPLETED"], await past.ids(retried)],
    ["the head of the line", ["IN_LINE", "NO_WORKER"], await inLine(url, ["bench"], { count: times })],
    ["one far behind", ["IN_LINE", "NO_WORKER"], await inLine(url, ["bench"], { from: waiting * 0.9, count: times })],
    ["a dead letter", ["GAVE_UP"], await some(idsOf, "select job_id::text as id from millrace.dead_letters", times)],
    ["an archived job", ["ARCHIVED"], await some(idsOf, "select id::text from millrace.jobs_archive", times)],
    ["one of a queue with limits", ["NO_WORKER"], limited],
    ["one with a concurrency key", ["NO_WORKER"], keyed],
    ["one that sleeps in its hundredth step", ["STEP_SLEEPS"], stepwise],
    ["one that waits for twenty others", ["BLOCKED"], blocked],
  ];
}

const some = (idsOf, text, times) => idsOf(`${text} order by random() limit $1`, [times]);

/** Pages of a hundred: the first, and some from within. */
async function pages(url, past, { size, times }) {
  const { writeCursor } = await part("app/cursor");
  const places = async (status, text) =>
    (await query(url, text)).map(({ place }) => writeCursor(place.map(String), status));
  const ids = await past.ids(chances(times, size));
  const within = {
    all: ids.map((id) => writeCursor([id], undefined)),
    waiting: await places(
      "waiting",
      `select array[line::text, rank::text, run_at::text, job_id::text] as place from millrace.pending
        where run_at <= now() order by random() limit ${times}`,
    ),
    completed: await places(
      "completed",
      `select array[finished_at::text, id::text, '1'] as place from millrace.settled where id % greatest(1, ${size} / 100000) = 0 order by random() limit ${times}`,
    ),
    failed: await places(
      "failed",
      `select array[failed_at::text, job_id::text] as place from millrace.dead_letters order by random() limit ${times}`,
    ),
  };
  const asked = [
    ["first page", {}],
    ["from within", {}, within.all],
    ...["waiting", "delayed", "completed", "failed", "cancelled"].map((status) => [
      `${status}, first page`,
      { status },
    ]),
    ["waiting, from within", { status: "waiting" }, within.waiting],
    ["completed, from within", { status: "completed" }, within.completed],
    ["failed, from within", { status: "failed" }, within.failed],
    ["by queue, most jobs in it", { queue: "bench" }],
    ["by queue, a hundredth is in it", { queue: SELDOM.queue }],
    ["by task, a hundredth is of it", { task: SELDOM.task }],
    ["by tag, a tenth has it", { tag: "often" }],
    ["by tag, a thousandth has it", { tag: "seldom" }],
    ["by tag, a tenth has it, from within", { tag: "often" }, within.all],
    ["by tag, a thousandth has it, from within", { tag: "seldom" }, within.all],
    ["by tag, nobody has it", { tag: "never" }],
    ["by tag and queue, a hundredth is in it", { tag: "often", queue: SELDOM.queue }],
    ["completed, by tag, a tenth has it", { status: "completed", tag: "often" }],
    ["failed, by tag, none of them has it", { status: "failed", tag: "often" }],
    ["completed, by queue, a hundredth is in it", { status: "completed", queue: SELDOM.queue }],
    ["completed, by queue, from within", { status: "completed", queue: "bench" }, within.completed],
  ];
  return asked.map(([name, options, after]) => [
    name,
    (n) => (after ? { ...options, after: after[n % after.length] } : options),
  ]);
}
