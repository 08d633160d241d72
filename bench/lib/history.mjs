/** A database with a past of any length: made by SQL, and held against what a worker leaves. */
import pg from "pg";
import { now, sleep } from "./clock.mjs";
import { query } from "./connect.mjs";
import { DEAD_LETTERS, IDS, JOBS, LIKE_DRAINED, RETRIED, SETTLED, STEPWISE, beginning } from "./history-sql.mjs";
import { part } from "./probe.mjs";

export const SELDOM = { queue: "seldom", task: "seldom" };
const DEAD = 1000;
const CANCELLED = 1000;
const DELAYED = 1000;
const ARCHIVINGS = 2; // about a thousand jobs each
const CHECKED = 2090; // two rounds of them
/** Queues of jobs that no worker of the benchmark has the task of: they are asked about, and taken away before work goes on. */
const ASIDE = { limited: "limited", keyed: "keyed", steps: "stepwise", blocked: "blocked" };
const ASIDE_JOBS = 1000;
const KEYS = 10;
const STEPS = 100;
const NEEDED = 20; // by each blocked job

/**
 * Makes `size` finished jobs, dead letters, archived, delayed and cancelled ones, and `waiting` that wait.
 * @returns what the measurements need to find them
 */
export async function makeHistory(stage, probe, { size, waiting }) {
  const { mill } = probe;
  const from = now();
  const [queue, seldomQueue] = await mill.names.queues.ids(["bench", SELDOM.queue]);
  const [task, seldomTask] = await mill.names.tasks.ids(["noop", SELDOM.task]);
  const [{ worker, drained }] = await query(
    stage.url,
    "select max(worker) as worker, max(id) as drained from millrace.settled",
  );
  const completedBefore = (await stage.producer.call("counts")).completed;
  const fromMs = beginning(size, Date.now());
  await Promise.all([
    loosely(stage.url, [
      [JOBS, [fromMs, queue, task, seldomQueue, seldomTask, size]],
      [DEAD_LETTERS, [fromMs, queue, task, worker, size, DEAD]],
    ]),
    loosely(stage.url, [
      [SETTLED, [fromMs, queue, worker, seldomQueue, size]],
      [RETRIED, [fromMs, queue, worker, size]],
    ]),
  ]);
  await mustBeLikeDrained(stage.url, drained);
  await countAndArchive(stage.url, mill);
  await alive(stage, mill, waiting);
  const aside = await setAside(stage, mill);
  await query(stage.url, "vacuum (analyze)");
  await query(stage.url, "checkpoint");
  const { completed } = await stage.producer.call("counts");
  if (completed !== completedBefore + size)
    throw new Error(`${size} jobs were made, but ${completed - completedBefore} count as completed`);
  return { seconds: (now() - from) / 1000, aside, ids: (numbers) => idsOf(stage.url, fromMs, numbers) };
}

/** Statements on one connection that does not wait for the disk: what it made is gone with the database anyway. */
async function loosely(url, statements) {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    await client.query("set synchronous_commit = off");
    for (const [text, values] of statements) await client.query(text, values);
  } finally {
    await client.end();
  }
}

/** What is true of the batches a worker has left, up to `drained`, must be true of those made here, and nothing else. */
async function mustBeLikeDrained(url, drained) {
  const traits = async (from, most) => {
    const rows = await query(url, LIKE_DRAINED, [most, from]);
    return { batches: rows.length, kinds: [...new Set(rows.map((row) => JSON.stringify(row)))] };
  };
  const real = await traits(1, Number(drained));
  const made = await traits(Number(drained) + 1, CHECKED);
  if (real.batches > 0 && real.kinds.length === 1 && made.kinds.length === 1 && real.kinds[0] === made.kinds[0]) return;
  throw new Error(`made batches are not like drained ones: ${made.kinds.join(" ")}, but ${real.kinds.join(" ")}`);
}

/** What Millrace does by itself as time goes by, with its own statements: folds counts, archives the oldest. */
async function countAndArchive(url, { db }) {
  const [{ foldTallies }, { archive }] = await Promise.all(["jobs/stats-store", "jobs/maintenance-store"].map(part));
  do {
    while (!(await foldTallies(db, 0))) await sleep(100);
  } while (await counting(url)); // a round counts so many, the next one those that follow
  for (let time = 0; time < ARCHIVINGS; time++) await archive(db, 0);
}

async function counting(url) {
  const [{ more }] = await query(url, "select next_until is not null as more from millrace.tally_mark");
  return more;
}

/** Jobs that are not finished, and cancelled ones: few enough for the front door. */
async function alive(stage, mill, waiting) {
  const later = { queue: "bench", delay: "1d" };
  const inputs = Array.from({ length: CANCELLED }, () => ({}));
  for (const id of await mill.enqueueMany("noop", inputs, later)) await mill.cancel(id, { by: "bench" });
  await stage.producer.call("bulkWith", DELAYED, later);
  await stage.producer.call("bulk", waiting, 1000, 2);
}

/** Jobs of a queue with every limit, of concurrency keys that take turns, that sleep in their hundredth step, and that wait for others. */
async function setAside(stage, mill) {
  const { task } = SELDOM;
  const some = (count) => Array.from({ length: count }, () => ({}));
  const per = "1h";
  const limits = { concurrency: 10, rate: { max: 1000, per }, maxInFlight: 10, maxAttemptsPerMinute: 1000 };
  await mill.policies.set(ASIDE.limited, limits);
  await mill.policies.set(ASIDE.keyed, { keyConcurrency: 3, keyRate: { max: 1000, per } });
  const limited = await mill.enqueueMany(task, some(ASIDE_JOBS), { queue: ASIDE.limited });
  const keyed = [];
  for (let key = 0; key < KEYS; key++) {
    const options = { queue: ASIDE.keyed, concurrencyKey: `key ${key}` };
    keyed.push(...(await mill.enqueueMany(task, some(ASIDE_JOBS / KEYS), options)));
  }
  const stepwise = await mill.enqueueMany(task, some(ASIDE_JOBS), { queue: ASIDE.steps, delay: "1d" });
  await query(stage.url, STEPWISE, [await mill.names.queues.id(ASIDE.steps), STEPS]);
  const blocked = [];
  for (let flow = 0; flow < ASIDE_JOBS / NEEDED; flow++) {
    const needed = Array.from({ length: NEEDED }, (_, n) => [`${n}`, { task, queue: ASIDE.blocked }]);
    const last = { task, queue: ASIDE.blocked, after: needed.map(([name]) => name) };
    const { jobs } = await mill.enqueueFlow({ jobs: { ...Object.fromEntries(needed), last } });
    blocked.push(jobs.last);
  }
  return { limited, keyed, stepwise, blocked };
}

/** Those that are left of them; what waits for others first, or it would be given up. */
export async function clearAside({ mill }) {
  for (const status of ["blocked", "waiting", "delayed"])
    for (const queue of Object.values(ASIDE))
      for (;;) {
        const { jobs } = await mill.jobs({ status, queue, limit: 500 });
        if (jobs.length === 0) break;
        for (const { id } of jobs) await mill.cancel(id, { by: "bench" });
      }
}

async function idsOf(url, fromMs, numbers) {
  return (await query(url, IDS, [fromMs, numbers])).map(({ id }) => id);
}

/** So that all that is left is what a worker can run now. */
export async function cancelDelayed({ mill }) {
  for (;;) {
    const { jobs } = await mill.jobs({ status: "delayed", limit: 500 });
    if (jobs.length === 0) return;
    for (const { id } of jobs) await mill.cancel(id, { by: "bench" });
  }
}
