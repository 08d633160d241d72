/**
 * What single statements and calls of Millrace take, seen from the harness: claims as the server times them, calls of the package
 * from call to answer.
 */
import pg from "pg";
import { now } from "./clock.mjs";
import { percentile } from "./numbers.mjs";

/** No worker has this number: its leases are taken back at once, and nobody mistakes them for their own. */
const NOBODY = 2 ** 30;
const WARM_UP_CALLS = 5;
/** As Millrace sets its own sessions. */
const SESSION = "set enable_seqscan = off; set jit = off; set plan_cache_mode = force_generic_plan";

/** @param {number[]} ms */
export const summary = (ms) => ({ p50: percentile(ms, 50), p99: percentile(ms, 99), max: percentile(ms, 100) });

/** One call after the other; the first few are not counted. @returns {Promise<{ p50: number, p99: number, max: number }>} milliseconds */
export async function timed(times, call) {
  const took = [];
  for (let n = -WARM_UP_CALLS; n < times; n++) {
    const from = now();
    await call(Math.max(n, 0));
    if (n >= 0) took.push(now() - from);
  }
  return summary(took);
}

/** A part of the built package that it does not export. */
export const part = (file) => import(`../../dist/${file}.js`);

/** The built package, loaded when it is needed: it may not be built when somebody asks for --help. */
export async function openProbe(url) {
  const [index, sql, claim, careful] = await Promise.all(
    ["index", "db/sql", "jobs/claim-store", "jobs/careful-store"].map(part),
  );
  const mill = await index.millrace(index.defineApp({ tasks: [] }), { databaseUrl: url, migrate: true });
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  await client.query(SESSION);
  const server = timekeeper(client, new sql.Dialect("millrace", false));
  const queueId = (name) => mill.names.queues.id(name);
  const wanted = (queue, limit) => ({ worker: NOBODY, queue, tasks: null, limit });

  /** Claims, each in a transaction that is rolled back. `before` may put jobs there, in the same transaction. */
  const claims = async (times, claimOnce, before = async () => {}) => {
    const took = [];
    let jobs = [];
    for (let n = -WARM_UP_CALLS; n < times; n++) {
      await client.query("begin");
      await before(client);
      const ms = server.from();
      ({ jobs } = await claimOnce(claim.leaseId(NOBODY, 1)));
      await client.query("rollback");
      if (n >= 0) took.push(ms());
    }
    return { ...summary(took), jobs: jobs.length };
  };

  return {
    mill,
    /** Server time of claims from the head of a plain queue. */
    async claims(queueName, { times, limit }) {
      const want = { ...wanted(await queueId(queueName), limit), lanes: [{ rank: 0, ...claim.fromTheHead }] };
      return claims(times, (lease) => claim.closeAndClaim(server.db, undefined, { ...want, lease }));
    },
    /** The same of a queue with limits or concurrency keys; all its statements together. */
    async carefulClaims(queueName, { times, limit, before }) {
      const want = { ...wanted(await queueId(queueName), limit), suspects: false };
      return claims(times, (firstLease) => careful.claimWithCare(server.db, { ...want, firstLease }), before);
    },
    /** Server time of the look around that tells a worker where work is. */
    async lookAround(times) {
      return claims(times, async () => ({ jobs: (await claim.lookAround(server.db, null, null)).lanes }));
    },
    async close() {
      await client.end();
      await mill.close();
    },
  };
}

/** A database whose statements run twice: once for the server to tell how long they took, taken back, and once for their answer. */
function timekeeper(client, dialect) {
  const prepared = new Map();
  let spent = 0;
  const literal = (value) => (value === null || value === undefined ? "null" : client.escapeLiteral(String(value)));

  async function explain({ text, values }) {
    if (!prepared.has(text)) {
      prepared.set(text, `probe_${prepared.size}`);
      await client.query(`prepare ${prepared.get(text)} as ${text}`);
    }
    const given = values.length > 0 ? `(${values.map(literal).join(", ")})` : "";
    await client.query("savepoint probe");
    const { rows } = await client.query(
      `explain (analyze, timing off, format json) execute ${prepared.get(text)}${given}`,
    );
    await client.query("rollback to savepoint probe");
    return rows[0]["QUERY PLAN"][0]["Execution Time"];
  }

  const run = (rowMode) => async (query) => {
    const { text, values } = dialect.statement(query);
    spent += await explain({ text, values });
    return (await client.query({ text, values, rowMode })).rows;
  };
  const executor = { query: run(undefined), rows: run("array") };
  return {
    db: { ...executor, transaction: (work) => work(executor) },
    /** @returns how many milliseconds the server spent since */
    from() {
      const before = spent;
      return () => spent - before;
    },
  };
}
