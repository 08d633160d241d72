/** A contender on an empty database, with a producer process and worker processes: what every scenario plays on. */
import { difference, perJob, snapshot } from "./cpu.mjs";
import { sleep, within } from "./clock.mjs";
import { CONTENDERS } from "./contenders.mjs";
import { startChild } from "./rpc.mjs";
import { query, redis } from "./connect.mjs";

const WARM_UP_JOBS = 5000;
const PREFILL_IN_FLIGHT = 2;
const BATCH = 1000;

function databaseUrl(server, contender) {
  const url = new URL(server.url);
  url.pathname = `/bench_${contender.replaceAll("-", "_")}`;
  return url.href;
}

/** Takes away what a run left: nothing of it may be vacuumed or written out while the next one is measured. */
async function clear(servers, kind, url) {
  if (kind === "postgres") {
    const name = new URL(url).pathname.slice(1);
    await query(servers.postgres.url, `drop database if exists ${name} with (force)`);
  } else {
    await redis(url, (client) => client.flushdb());
  }
}

/** An own database for the contender, empty; or an empty Redis with a short log. */
async function prepare(servers, kind, contender) {
  const url = kind === "postgres" ? databaseUrl(servers.postgres, contender) : servers.redis.url;
  await clear(servers, kind, url);
  if (kind === "postgres") await query(servers.postgres.url, `create database ${new URL(url).pathname.slice(1)}`);
  else if (!servers.redis.given) await redis(url, (client) => client.bgrewriteaof());
  return url;
}

/**
 * Several thousand jobs have passed through each worker process when this returns, so that nobody is measured while its
 * code is being compiled.
 * @param {{ servers: object, limitMs: number, settings: object }} env
 */
export async function openStage(env, contender, { workers = 1 } = {}) {
  const kind = CONTENDERS[contender].server;
  const url = await prepare(env.servers, kind, contender);
  const children = [];
  const done = new Map(); // jobs handled since the last start, by worker index
  let firstCall = null; // CPU time when the first of them began
  let onProgress = () => {};
  const total = () => [...done.values()].reduce((sum, count) => sum + count, 0);
  const report = (index, message) => {
    if (done.size === 0) firstCall = stage.cpu();
    done.set(index, message.done);
    onProgress();
  };

  const stage = {
    url,
    kind,
    producer: null,
    workers: [],
    total,
    pids: () => ({
      postgres: env.servers.postgres.pid,
      redis: env.servers.redis.pid,
      workers: stage.workers.map((child) => child.pid),
      producer: stage.producer.pid,
    }),
    cpu: () => snapshot(stage.pids()),
    cpuSince: (before) => difference(before, stage.cpu()),
    /** From the first handler call since the workers were started. */
    cpuSinceFirstCall: () => difference(firstCall, stage.cpu()),
    perJob: (cpu, jobs) => perJob(cpu, jobs, kind),
    /** Puts jobs there unmeasured, and lets the server come to rest, the same for all. */
    async prefill(jobs) {
      await stage.producer.call("bulk", jobs, BATCH, PREFILL_IN_FLIGHT);
      await stage.rest();
    },
    /** Brings statistics and disk to rest. */
    async rest() {
      if (kind === "redis") return;
      await query(url, "analyze");
      await query(url, "checkpoint");
    },
    async startWorkers() {
      done.clear();
      await Promise.all(stage.workers.map((child) => child.call("startWorker")));
    },
    stopWorkers: () => Promise.all(stage.workers.map((child) => child.call("stopWorker"))),
    /** Until the workers have run so many jobs. */
    handled: (jobs, limitMs = env.limitMs) =>
      within(
        limitMs,
        `${jobs} jobs`,
        new Promise((resolve) => {
          onProgress = () => total() >= jobs && resolve();
          onProgress();
        }),
      ).catch((error) => {
        throw new Error(`${error.message}: ${total()} were run`);
      }),
    settled: () => within(env.limitMs, "settling", stage.producer.call("settled")),
    /** Lets a producer know how far the workers are. */
    relay() {
      onProgress = () => stage.producer.tell({ handled: total() });
    },
    async close() {
      await Promise.all(children.map((child) => child.kill()));
      await clear(env.servers, kind, url);
    },
  };
  const start = async (onEvent) => {
    const child = await startChild(contender, url, onEvent);
    children.push(child);
    return child;
  };
  try {
    const team = Array.from({ length: workers }, (_, index) => start((message) => report(index, message)));
    [stage.producer, ...stage.workers] = await Promise.all([start(), ...team]);
    env.settings[contender] ??= await stage.producer.call("settings");
    await within(env.limitMs, "opening", stage.producer.call("openProducer"));
    await warmUp(stage);
    return stage;
  } catch (error) {
    await stage.close();
    throw error;
  }
}

async function warmUp(stage) {
  for (const child of stage.workers) {
    await stage.producer.call("bulk", WARM_UP_JOBS, BATCH);
    await child.call("startWorker");
    await stage.settled();
    await child.call("stopWorker");
  }
  await sleep(100);
}

/** The jobs the workers ran, and when: first call, and each thousandth job of all of them. */
export async function timelines(stage) {
  return Promise.all(stage.workers.map((child) => child.call("timeline")));
}
