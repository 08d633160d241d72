/**
 * Fan-out and fan-in: GitHub's example deliveries are read by one job per kind of event, and one last job, with all their results, adds
 * them up. A kind that cannot be read does not stop the others.
 *
 *     npx tsx examples/import.ts
 */
import { createRequire } from "node:module";
import type { WebhookDefinition } from "@octokit/webhooks-examples";
import { NonRetryableError, defineApp, millrace, task } from "millrace";
import { z } from "zod";

const examples = createRequire(import.meta.url)("@octokit/webhooks-examples") as WebhookDefinition[];
const count = z.object({ event: z.string(), deliveries: z.int(), bytes: z.int() });

const readKind = task({
  name: "read-kind",
  queue: "import",
  input: z.object({ event: z.string() }),
  run({ input: { event } }): z.infer<typeof count> {
    const kind = examples.find(({ name }) => name === event);
    if (kind === undefined) throw new NonRetryableError(`GitHub sends no "${event}".`);
    const bytes = kind.examples.reduce((sum, delivery) => sum + JSON.stringify(delivery).length, 0);
    return { event, deliveries: kind.examples.length, bytes };
  },
});

const addUp = task({
  name: "add-up",
  queue: "import",
  async run({ dependencies }) {
    const parts = await dependencies();
    const counts = parts.filter(({ state }) => state === "completed").map(({ result }) => count.parse(result));
    return {
      kinds: counts.length,
      unreadable: parts.length - counts.length,
      deliveries: counts.reduce((sum, { deliveries }) => sum + deliveries, 0),
      largest: counts.sort((a, b) => b.bytes - a.bytes)[0]?.event,
    };
  },
});

const mill = await millrace(defineApp({ tasks: [readKind, addUp] }));
const worker = mill.work({ concurrency: 20 });

const events = [...examples.map(({ name }) => name), "carrier_pigeon"];
const { ids, callback } = await mill.enqueueBatch(
  readKind,
  events.map((event) => ({ event })),
  { callback: { task: addUp } }, // runs when all have ended, however they ended
);
console.log(`${ids.length} jobs read, one will add up.`);
console.log(await mill.waitUntilFinished(callback));

await worker.stop();
await mill.close();
