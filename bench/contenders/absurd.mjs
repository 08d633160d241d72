/**
 * absurd: runs are spawned in transactions of 100 (each by itself would be a commit each), and a worker in the same process
 * claims and runs as many as may be under way. Its npm package is without the SQL: `BENCH_ABSURD_SQL` names that. Keeps history.
 */
import { readFileSync } from "node:fs";
import { Absurd } from "absurd-sdk";
import pg from "pg";
import { query } from "../lib/connect.mjs";

const QUEUE = "steps";
const settings = { connections: 20, pollInterval: 0.01, spawnedTogether: 100 };
let onRun = () => {};

async function install(pool) {
  await pool.query(readFileSync(process.env.BENCH_ABSURD_SQL, "utf8"));
  const sdk = new URL("../node_modules/absurd-sdk/package.json", import.meta.url);
  const { version } = JSON.parse(readFileSync(sdk, "utf8"));
  const { rows } = await pool.query("select absurd.get_schema_version() as schema");
  if (rows[0].schema !== version)
    throw new Error(`BENCH_ABSURD_SQL has the schema of absurd ${rows[0].schema}, but the SDK is ${version}`);
}

/** `execute` resolves when the end of the run is committed. */
const hooks = {
  async wrapTaskExecution(_context, execute) {
    await execute();
    onRun();
  },
};

export default {
  settings: { worker: settings, producer: {} },

  async openProducer(url) {
    const pool = new pg.Pool({ connectionString: url, max: settings.connections });
    await install(pool);
    const absurd = new Absurd({ db: pool, queueName: QUEUE, hooks });
    await absurd.createQueue();
    absurd.registerTask({ name: "stepping" }, async ({ steps }, context) => {
      for (let n = 0; n < steps; n++) await context.step(`step ${n}`, async () => n);
    });
    async function spawnTogether(runs, steps) {
      const client = await pool.connect();
      const bound = absurd.bindToConnection(client);
      await client.query("begin");
      for (let n = 0; n < runs; n++) await bound.spawn("stepping", { steps });
      await client.query("commit");
      client.release();
    }
    let worker; // starts with the first of them
    return {
      async steps(runs, steps, atOnce) {
        worker ??= await absurd.startWorker({ concurrency: atOnce, pollInterval: settings.pollInterval });
        const done = new Promise((resolve) => {
          let left = runs;
          onRun = () => --left === 0 && resolve();
        });
        for (let left = runs; left > 0; left -= settings.spawnedTogether)
          await spawnTogether(Math.min(left, settings.spawnedTogether), steps);
        await done;
      },
      async keptSteps() {
        const [{ kept }] = await query(url, `select count(*)::int as kept from absurd.c_${QUEUE}`);
        return kept;
      },
      async close() {
        await absurd.close();
        await pool.end();
      },
    };
  },
};
