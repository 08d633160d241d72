/** BullMQ on Redis (append-only file, fsync every second): 100 jobs at a time, finished jobs removed. Keeps no history. */
import { Queue, Worker } from "bullmq";
import { Redis } from "ioredis";

const settings = { concurrency: 100, removeOnComplete: { count: 0 } };

export default {
  settings: { worker: settings, producer: {} },

  async openProducer(url) {
    const connection = new Redis(url, { maxRetriesPerRequest: null });
    const queue = new Queue("bench", { connection });
    await queue.waitUntilReady();
    return {
      bulk: (payloads) => queue.addBulk(payloads.map((data) => ({ name: "noop", data }))),
      add: (payload) => queue.add("noop", payload),
      async counts() {
        const counts = await queue.getJobCounts("wait", "active", "delayed", "prioritized");
        return { unfinished: Object.values(counts).reduce((sum, count) => sum + count, 0), completed: null };
      },
      async close() {
        await queue.close();
        connection.disconnect();
      },
    };
  },

  async startWorker(url, onJob) {
    const connection = new Redis(url, { maxRetriesPerRequest: null });
    const worker = new Worker("bench", async (job) => onJob(job.data), { connection, ...settings });
    worker.on("error", (error) => console.error("bullmq:", error.message));
    await worker.waitUntilReady();
    return {
      async stop() {
        await worker.close();
        connection.disconnect();
      },
    };
  },
};
