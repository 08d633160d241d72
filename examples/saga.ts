/**
 * A saga: a trip is booked in steps, each of which can be undone. When a later one fails, those before it are undone in reverse. Kill
 * the process anywhere: what was done is not done again, and what has to be undone is undone.
 *
 *     npx tsx examples/saga.ts
 */
import { type JobContext, defineApp, millrace, task } from "millrace";
import { z } from "zod";

const trip = z.object({ traveller: z.string(), card: z.string() });

/** Stands for the airline, the hotel and the bank. */
const ledger: string[] = [];
const note = (line: string): void => void ledger.push(line);

async function charge(card: string): Promise<string> {
  if (card === "stolen") throw new Error("the bank refuses the card");
  return `charged ${card}`;
}

const bookTrip = task({
  name: "book-trip",
  input: trip,
  maxAttempts: 3,
  backoff: { delay: "100ms" },
  async run(job: JobContext<z.infer<typeof trip>>) {
    const { step, input, attempt, maxAttempts } = job;
    const undo: [string, () => void][] = [];
    const flight = await step.run("book flight", () => {
      note(`${input.traveller}: flight booked`);
      return "LH 400";
    });
    undo.push(["cancel flight", () => note(`${input.traveller}: flight ${flight} cancelled`)]);
    await step.run("book hotel", () => note(`${input.traveller}: hotel booked`));
    undo.push(["cancel hotel", () => note(`${input.traveller}: hotel cancelled`)]);
    // A person decides; the run sleeps meanwhile, and no worker is held up.
    const approved = await step.waitForEvent("approval", { event: `trip.${job.id}.approved`, timeout: "3d" });
    if (approved !== true) return giveBack(job, undo, "not approved");
    // Tried like a job without steps: until the last attempt, what it throws is tried again.
    const paid = await step.run("pay", () =>
      charge(input.card).catch((error: unknown) => {
        if (attempt < maxAttempts) throw error;
        return undefined;
      }),
    );
    if (paid === undefined) return giveBack(job, undo, "not paid");
    return { flight, paid };
  },
});

async function giveBack({ step }: JobContext, undo: readonly [string, () => void][], why: string): Promise<object> {
  for (const [name, work] of undo.toReversed()) await step.run(name, work);
  return { undone: undo.length, why };
}

const mill = await millrace(defineApp({ tasks: [bookTrip] }));
const worker = mill.work();

const ada = await mill.enqueue(bookTrip, { traveller: "Ada", card: "good" });
const eve = await mill.enqueue(bookTrip, { traveller: "Eve", card: "stolen" });
for (const { id } of [ada, eve]) await mill.emit(`trip.${id}.approved`, true);
console.log("Ada:", await mill.waitUntilFinished(ada));
console.log("Eve:", await mill.waitUntilFinished(eve));
console.log(ledger.filter((line) => line.startsWith("Eve")).join("\n"));

await worker.stop();
await mill.close();
