import { defineApp, millrace, task } from "millrace";
import { z } from "zod";

const greet = task({
  name: "greet",
  input: z.object({ name: z.string() }),
  maxAttempts: 5,
  timeout: "30s",
  async run({ input, log }) {
    log.info({}, `Hello, ${input.name}!`);
  },
});

const app = defineApp({ tasks: [greet] });
const mill = await millrace(app, { log: console }); // PostgreSQL at DATABASE_URL, or embedded in ./.millrace

await mill.enqueue(greet, { name: "Ada" });
await mill.enqueue(greet, { name: "Grace" }, { delay: "2s", idempotencyKey: "greet-grace" });

const worker = mill.work({ concurrency: 50 });
process.once("SIGINT", () => void worker.stop({ within: "20s" }).then(() => mill.close()));
