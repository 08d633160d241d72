/**
 * A client of an API that takes 20 requests a second and answers 429 beyond that. The queue's rate keeps all workers together below the
 * limit; should the API say "not now" all the same, the job waits as long as it asks for.
 *
 *     npx tsx examples/api-client.ts
 */
import { createServer } from "node:http";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { RateLimitError, defineApp, millrace, task } from "millrace";
import { z } from "zod";

// Somebody else's API.
const seen: number[] = [];
let refused = 0;
const api = createServer((request, response) => {
  const now = Date.now();
  if (seen.filter((at) => at > now - 1_000).length >= 20) {
    refused += 1;
    response.writeHead(429, { "Retry-After": "1" }).end();
    return;
  }
  seen.push(now);
  response.end(JSON.stringify({ path: request.url }));
}).listen(0, "127.0.0.1");
await once(api, "listening");
const { port } = api.address() as AddressInfo;

const fetchPage = task({
  name: "fetch-page",
  queue: "api",
  input: z.object({ page: z.int() }),
  async run({ input, signal }) {
    const answer = await fetch(`http://127.0.0.1:${port}/pages/${input.page}`, { signal });
    if (answer.status === 429) {
      const retryAfterMs = Number(answer.headers.get("Retry-After")) * 1_000;
      throw new RateLimitError("The API asks for a pause.", { retryAfterMs });
    }
    return answer.json() as Promise<{ path: string }>;
  },
});

const mill = await millrace(defineApp({ tasks: [fetchPage] }));
await mill.policies.set("api", { rate: { max: 18, per: "1s" } }); // a little below, for requests do not arrive as evenly as they start
const workers = [mill.work({ concurrency: 10 }), mill.work({ concurrency: 10 })];

const pages = Array.from({ length: 60 }, (_, page) => ({ page }));
const began = Date.now();
const ids = await mill.enqueueMany(fetchPage, pages);
await Promise.all(ids.map((id) => mill.waitUntilFinished(id)));
const seconds = (Date.now() - began) / 1_000;
console.log(`60 pages in ${seconds.toFixed(1)} s, ${refused} refused.`);

await Promise.all(workers.map((worker) => worker.stop()));
await mill.close();
api.close();
