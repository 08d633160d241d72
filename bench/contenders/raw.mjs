/**
 * Not a product: the ceiling. A bare loop of the data shape that Millrace has, with no retries, limits, timeouts, heartbeat
 * or recovery. It shows what the shape allows on the machine, and so what the product around it costs.
 */
import pg from "pg";
import { CLAIM, ENQUEUE, SCHEMA, ZERO } from "../lib/raw-sql.mjs";
import { uuidv7 } from "../lib/uuid.mjs";

const BATCH = 500;
const LANES = 2;
const SWEEP_MS = 500;
const VACUUM_MS = 3000;

async function connect(url) {
  const client = new pg.Client({ connectionString: url });
  client.on("error", (error) => console.error("raw:", error.message));
  await client.connect();
  return client;
}

export default {
  settings: { worker: { batch: BATCH, lanes: LANES, sweepMs: SWEEP_MS, vacuumMs: VACUUM_MS }, producer: { max: 2 } },

  async openProducer(url) {
    const pool = new pg.Pool({ connectionString: url, max: 2 });
    await pool.query(SCHEMA);
    const insert = (payloads) => {
      const ids = payloads.map(uuidv7);
      return pool.query({
        name: "enqueue",
        text: ENQUEUE,
        values: [ids, payloads.map((payload) => JSON.stringify(payload))],
      });
    };
    return {
      bulk: insert,
      add: coalesce(insert),
      async counts() {
        const { rows } = await pool.query(
          `select ((select count(*) from ready) + (select count(*) from lease))::int as unfinished,
                  (select coalesce(sum(n), 0)::int from done) as completed`,
        );
        return rows[0];
      },
      close: () => pool.end(),
    };
  },

  async startWorker(url, onJob) {
    const lanes = await Promise.all(Array.from({ length: LANES }, () => connect(url)));
    const listener = await connect(url);
    const janitor = await connect(url);
    const worker = {
      mark: { runAt: "-infinity", id: ZERO },
      sweptAt: 0,
      stopping: false,
      sleepers: [],
      flagged: false,
    };
    worker.flag = async (on) => {
      worker.flagged = on;
      await listener.query(on ? "insert into sleeper values (1)" : "delete from sleeper");
    };
    listener.on("notification", () => worker.sleepers[0]?.());
    await listener.query("listen bench; delete from sleeper");
    const vacuum = setInterval(() => {
      janitor.query("vacuum (truncate off) ready").catch(() => {});
    }, VACUUM_MS);
    const loops = lanes.map((client) => lane(worker, client, onJob));
    return {
      async stop() {
        worker.stopping = true;
        clearInterval(vacuum);
        for (const wake of worker.sleepers) wake();
        await Promise.all(loops);
        await Promise.all([...lanes, listener, janitor].map((client) => client.end()));
      },
    };
  },
};

/** Concurrent calls share one insert; at most two inserts are under way. Each promise resolves after its commit. */
function coalesce(insert) {
  let waiting = [];
  let flying = 0;
  const flush = async () => {
    if (flying >= 2 || waiting.length === 0) return;
    const batch = waiting;
    waiting = [];
    flying++;
    try {
      await insert(batch.map((entry) => entry.payload));
      for (const entry of batch) entry.resolve();
    } catch (error) {
      for (const entry of batch) entry.reject(error);
    }
    flying--;
    void flush();
  };
  return (payload) =>
    new Promise((resolve, reject) => {
      waiting.push({ payload, resolve, reject });
      if (waiting.length === 1) queueMicrotask(() => void flush());
    });
}

/** Settles the last batch and claims the next in one statement, from the mark on; now and then from the head. */
async function lane(worker, client, onJob) {
  let last = { lease: -1, min: ZERO, max: ZERO, started: [], took: [] };
  while (!worker.stopping || last.lease !== -1) {
    const sweep = performance.now() - worker.sweptAt > SWEEP_MS;
    if (sweep) worker.sweptAt = performance.now();
    const from = sweep ? { runAt: "-infinity", id: ZERO } : worker.mark;
    const limit = worker.stopping ? 0 : BATCH;
    const values = [last.lease, last.min, last.max, last.started, last.took, from.runAt, from.id, limit];
    const { rows } = await client.query({ name: "claim", text: CLAIM, values, rowMode: "array" });
    last = { lease: -1, min: ZERO, max: ZERO, started: [], took: [] };
    if (rows.length === 0) {
      if (worker.stopping) continue;
      if (!sweep) worker.sweptAt = 0;
      else if (!worker.flagged) await worker.flag(true);
      else await asleep(worker);
      continue;
    }
    if (worker.flagged && rows.length > BATCH) void worker.flag(false);
    const [, id, runAt] = rows.pop();
    if (!sweep) worker.mark = { runAt, id };
    last = await run(rows, onJob);
  }
}

/** Until somebody enqueues, or half a second. */
function asleep(worker) {
  return new Promise((resolve) => {
    const wake = () => {
      clearTimeout(timer);
      worker.sleepers = worker.sleepers.filter((other) => other !== wake);
      resolve();
    };
    const timer = setTimeout(wake, SWEEP_MS);
    worker.sleepers.push(wake);
  });
}

async function run(rows, onJob) {
  const started = Array.from({ length: rows.length }, () => 0);
  const took = [...started];
  const base = performance.now();
  let min = rows[0][1];
  let max = min;
  const handle = async ([, id, , payload], index) => {
    const at = performance.now();
    if (id < min) min = id;
    if (id > max) max = id;
    await onJob(JSON.parse(payload));
    started[index] = Math.trunc(at - base);
    took[index] = Math.trunc(performance.now() - at);
  };
  await Promise.all(rows.map(handle));
  return { lease: rows[0][0], min, max, started, took };
}
