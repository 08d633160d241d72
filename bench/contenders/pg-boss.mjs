/** pg-boss at its best: two fetchers of 1,000 jobs that go on while batches come back full, woken by NOTIFY. Keeps history. */
import { PgBoss } from "pg-boss";
import pg from "pg";

const settings = { batchSize: 1000, localConcurrency: 2, burstWhenBatchFull: true };

async function open(url, options) {
  const boss = new PgBoss({ connectionString: url, ...options });
  boss.on("error", (error) => console.error("pg-boss:", error.message));
  await boss.start();
  return boss;
}

export default {
  settings: { worker: { ...settings, useListenNotify: true, notify: true, max: 10 }, producer: { max: 16 } },

  async openProducer(url) {
    const boss = await open(url, { max: 16, supervise: false, schedule: false });
    await boss.createQueue("bench", { notify: true });
    const pool = new pg.Pool({ connectionString: url, max: 1 });
    return {
      bulk: (payloads) =>
        boss.insert(
          "bench",
          payloads.map((data) => ({ data })),
        ),
      add: (payload) => boss.send("bench", payload),
      async counts() {
        const { rows } = await pool.query(
          `select count(*) filter (where state < 'completed')::int as unfinished,
                  count(*) filter (where state = 'completed')::int as completed
             from pgboss.job where name = 'bench'`,
        );
        return rows[0];
      },
      async close() {
        await boss.stop({ graceful: false });
        await pool.end();
      },
    };
  },

  async startWorker(url, onJob) {
    const boss = await open(url, { max: 10, schedule: false, useListenNotify: true });
    await boss.work("bench", settings, async (jobs) => {
      for (const job of jobs) onJob(job.data);
    });
    return { stop: () => boss.stop({ graceful: true, timeout: 5000 }) };
  },
};
