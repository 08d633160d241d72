/**
 * One process of the benchmark: a producer or a worker of one contender. The harness calls it over IPC
 * (`{ id, command, args }` → `{ id, value }` or `{ id, error }`); while jobs run it tells how many are done.
 */
import { now, sleep } from "./lib/clock.mjs";
import { offer } from "./lib/commands.mjs";
import { payload } from "./lib/payload.mjs";

const [name, url] = [process.argv[2], process.env.BENCH_URL];
const { default: contender } = await import(`./contenders/${name}.mjs`);

const REPORT_MS = 5;
const MARK_EVERY = 1000;
const DUE_TOGETHER = 10;
let work = fresh();
let reporting = false;
let producer = null;
let worker = null;
const ahead = { handled: 0, wake: () => {} }; // as told by the harness, for a producer that must not run too far ahead

function fresh() {
  return { done: 0, first: null, marks: [], latencies: [] };
}

/** The handler of every contender. */
function onJob(input) {
  work.done++;
  if (work.first === null) {
    work.first = now();
    report();
  }
  if (work.done % MARK_EVERY === 0) work.marks.push(now());
  if (input.due) work.latencies.push(Date.now() - input.due);
  if (input.at) work.latencies.push(now() - input.at);
  if (reporting) return;
  reporting = true;
  setTimeout(report, input.at ? 0 : REPORT_MS);
}

function report() {
  reporting = false;
  process.send({ event: "done", done: work.done });
}

/** The time of each thousandth job, so that a rate can be told for any part of the run. */
const timeline = () => ({ ...work, markEvery: MARK_EVERY });

const commands = {
  async openProducer() {
    producer = await contender.openProducer(url);
  },
  /** @returns seconds */
  async bulk(jobs, batch, inFlight = 1) {
    const from = now();
    let left = jobs;
    const loop = async () => {
      while (left > 0) {
        const size = Math.min(batch, left);
        left -= size;
        await producer.bulk(Array.from({ length: size }, () => payload()));
      }
    };
    await Promise.all(Array.from({ length: inFlight }, loop));
    return (now() - from) / 1000;
  },
  /** Single enqueues, each awaited, so many at a time, for so long. */
  async single(inFlight, ms) {
    const from = now();
    let jobs = 0;
    const loop = async () => {
      for (; now() - from < ms; jobs++) await producer.add(payload());
    };
    await Promise.all(Array.from({ length: inFlight }, loop));
    return { jobs, seconds: (now() - from) / 1000 };
  },
  /** One job that carries the moment at which its enqueue began. `options`: what only Millrace is asked for, such as a queue. */
  addTimed: (options) => producer.add(payload(now()), options).then(() => undefined),
  /** Batches with such options. */
  async bulkWith(jobs, options) {
    for (let left = jobs; left > 0; left -= MARK_EVERY)
      await producer.bulk(
        Array.from({ length: Math.min(left, MARK_EVERY) }, () => payload()),
        options,
      );
  },
  /** So many jobs in each of these queues. */
  async spread(jobs, queues) {
    for (const queue of queues) await commands.bulkWith(jobs, { queue });
  },
  /** So many jobs a second become due, evenly, ten at a time, from `fromMs` (since 1970) on; each knows when. */
  async addDue(jobs, perSecond, fromMs, inFlight) {
    let next = 0;
    const loop = async () => {
      while (next < jobs) {
        const due = fromMs + (next / perSecond) * 1000;
        next += DUE_TOGETHER;
        const payloads = Array.from({ length: DUE_TOGETHER }, () => ({ ...payload(), due }));
        await producer.bulk(payloads, { runAt: new Date(due) });
      }
    };
    await Promise.all(Array.from({ length: inFlight }, loop));
  },
  /** So many children and their parent, or so many links; the last job carries the moment at which the call began. @returns it, and ms */
  async compose(how, jobs) {
    const at = now();
    await producer[how](
      Array.from({ length: jobs - 1 }, () => payload()),
      payload(at),
    );
    return { at, ms: now() - at };
  },
  /** Runs of so many steps each, so many at once, begun and run in this process. @returns seconds */
  async steps(runs, steps, atOnce) {
    const from = now();
    await producer.steps(runs, steps, atOnce);
    return (now() - from) / 1000;
  },
  keptSteps: () => producer.keptSteps(),
  /** Jobs that run for so long instead of counting. */
  holdWith: (jobs, ms, options) => producer.hold(jobs, ms, options),
  /** Batches of jobs with concurrency keys, the keys in turn, so many calls at a time, for so long. @returns jobs */
  async addKeyed(keys, { batch, inFlight, ms, most }, options) {
    const from = now();
    let jobs = 0;
    const loop = async () => {
      while (now() - from < ms) {
        if (jobs - ahead.handled > most - batch) await sleep(5);
        else {
          const concurrencyKey = `key-${(jobs / batch) % keys}`;
          jobs += batch;
          await producer.bulk(
            Array.from({ length: batch }, () => payload()),
            { ...options, concurrencyKey },
          );
        }
      }
    };
    await Promise.all(Array.from({ length: inFlight }, loop));
    return jobs;
  },
  /** Enqueues batches for so long; no more than `most` jobs wait, and no more than `rate` a second are made. */
  async feed(ms, { batch, most, rate = Infinity }) {
    const from = now();
    let jobs = 0;
    while (now() - from < ms) {
      if (jobs > ((now() - from) / 1000) * rate) await sleep(5);
      else if (jobs - ahead.handled > most - batch) await new Promise((resolve) => (ahead.wake = resolve));
      else {
        await producer.bulk(Array.from({ length: batch }, () => payload()));
        jobs += batch;
      }
    }
    return jobs;
  },
  counts: () => producer.counts(),
  /** Until nothing waits or runs; the moment is that at which the query that saw nothing was sent. */
  async settled() {
    for (;;) {
      const sent = now();
      const counts = await producer.counts();
      if (counts.unfinished === 0) return { at: sent, completed: counts.completed };
      await sleep(2);
    }
  },
  async startWorker() {
    work = fresh();
    worker = await contender.startWorker(url, onJob);
  },
  async stopWorker() {
    await worker.stop();
    worker = null;
  },
  timeline,
  settings: () => contender.settings,
};

offer(commands, ({ handled }) => {
  ahead.handled = handled;
  ahead.wake();
});
