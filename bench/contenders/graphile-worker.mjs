/** graphile-worker at its best: jobs fetched 500 at a time, completions and failures written in batches. Keeps no history. */
import { Logger, makeWorkerUtils, run } from "graphile-worker";
import pg from "pg";

const logger = new Logger(() => (level, message) => level === "error" && console.error(message));
const settings = {
  concurrentJobs: 24,
  localQueue: { size: 500 },
  completeJobBatchDelay: 0,
  failJobBatchDelay: 0,
  maxPoolSize: 10,
};

export default {
  settings: { worker: settings, producer: { max: 16 } },

  async openProducer(url) {
    const pool = new pg.Pool({ connectionString: url, max: 16 });
    const utils = await makeWorkerUtils({ pgPool: pool, logger });
    await utils.migrate();
    return {
      bulk: (payloads) => utils.addJobs(payloads.map((payload) => ({ identifier: "noop", payload }))),
      add: (payload) => utils.addJob("noop", payload),
      async counts() {
        const { rows } = await pool.query("select count(*)::int as unfinished from graphile_worker._private_jobs");
        return { unfinished: rows[0].unfinished, completed: null };
      },
      async close() {
        await utils.release();
        await pool.end();
      },
    };
  },

  async startWorker(url, onJob) {
    const runner = await run({
      preset: { worker: { ...settings, connectionString: url } },
      logger,
      noHandleSignals: true,
      crontab: "",
      taskList: { noop: async (payload) => onJob(payload) },
    });
    return { stop: () => runner.stop() };
  },
};
