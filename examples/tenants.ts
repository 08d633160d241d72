/**
 * A fair queue for many tenants: one of them enqueues a thousand reports, another ten. They take turns, so the small one is done after
 * about twenty; and no tenant has more than two running at once.
 *
 *     npx tsx examples/tenants.ts
 */
import { defineApp, millrace, task } from "millrace";
import { z } from "zod";

const order: string[] = [];

const report = task({
  name: "report",
  queue: "reports",
  input: z.object({ tenant: z.string() }),
  run: ({ input }) => void order.push(input.tenant),
});

const mill = await millrace(defineApp({ tasks: [report] }));
await mill.policies.set("reports", { keyConcurrency: 2 });

const reportsFor = (tenant: string, count: number): Promise<string[]> =>
  mill.enqueueMany(
    report,
    Array.from({ length: count }, () => ({ tenant })),
    { concurrencyKey: tenant },
  );
await reportsFor("large", 1_000);
const small = await reportsFor("small", 10);

const worker = mill.work({ concurrency: 4 });
await Promise.all(small.map((id) => mill.waitUntilFinished(id)));
const large = order.slice(0, order.lastIndexOf("small")).filter((tenant) => tenant === "large").length;
console.log(`The small tenant's 10 reports were done after ${large} of the large one's 1000.`);

await worker.stop();
await mill.close();
process.exitCode = large < 50 ? 0 : 1;
