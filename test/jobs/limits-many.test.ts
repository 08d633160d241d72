/** Limits that count starts and what is in flight, with several processes' worth of workers on one database: exact all the same. */
import { expect, test, vi } from "vitest";
import { type AnyTask, type Millrace, task } from "millrace";
import { sql } from "../../src/db/sql.ts";
import { freshSchema, tally, useDatabase } from "../support/engine.ts";

vi.setConfig({ testTimeout: 90_000 });
const file = useDatabase();
const many = (count: number): number[] => Array.from({ length: count }, (_, n) => n);

/** Three of them, each with a worker of so many places. They begin together, when everything is enqueued. */
async function three(
  tasks: readonly AnyTask[],
  places: number,
  policy: Parameters<Millrace["policies"]["set"]>[1],
  enqueue: (mill: Millrace) => Promise<unknown>,
) {
  const schema = freshSchema();
  const mills = await Promise.all([1, 2, 3].map(() => file.open(tasks, { schema })));
  const [mill] = mills as [Millrace];
  await mill.policies.set("default", policy);
  await enqueue(mill);
  for (const each of mills) each.work({ concurrency: places });
  const close = async (): Promise<void> => void (await Promise.all(mills.map((each) => each.close())));
  return { mill, [Symbol.asyncDispose]: close };
}

test("a rate per key is used up and not exceeded, for each key alone", async () => {
  const ran = tally<unknown>();
  const note = task({ name: "note", run: ({ input }) => ran.add(input) });
  await using all = await three([note], 2, { keyRate: { max: 3, per: 300 } }, async (mill) => {
    for (const key of ["a", "b"]) await mill.enqueueMany(note, many(20), { concurrencyKey: key });
  });
  await ran.reached(40);
  await vi.waitFor(async () => expect(await all.mill.stats("default")).toMatchObject([{ completed: 40 }]), 20_000);
  const busiest = await all.mill.db.query<{ key: string; n: number }>(sql`
    with starts as (
      select j.key, s.claimed_at as at from millrace.settled s cross join unnest(s.job_ids) as done (id) join millrace.jobs j on j.id = done.id
      where j.key <> ''
    )
    select key, max(n)::int as n from (
      select key, (select count(*) from starts o where o.key = starts.key and o.at >= starts.at and o.at < starts.at + interval '300 milliseconds') as n
      from starts
    ) counted group by key order by key`);
  expect(busiest).toEqual([
    { key: "a", n: 3 },
    { key: "b", n: 3 },
  ]);
});

test("maxInFlight is reached and never exceeded", async () => {
  let running = 0;
  let most = 0;
  const ran = tally<unknown>();
  const note = task({
    name: "note",
    async run({ input }) {
      running += 1;
      most = Math.max(most, running);
      await new Promise((resolve) => setTimeout(resolve, 3));
      running -= 1;
      ran.add(input);
    },
  });
  await using all = await three([note], 20, { maxInFlight: 4, throttleDelay: 1 }, (mill) =>
    mill.enqueueMany(note, many(120)),
  );
  await ran.reached(120);
  expect(most).toBe(4);
  expect((await all.mill.policies.decisions("default"))[0]).toMatchObject({ reason_code: "IN_FLIGHT_EXCEEDED" });
});

test("maxAttemptsPerMinute lets so many start and not one more, retries among them", async () => {
  const ran = tally<unknown>();
  const note = task({
    name: "note",
    backoff: { type: "fixed", delay: 0, jitter: 0 },
    run({ input, attempt }) {
      ran.add(input);
      if (attempt === 1 && (input as number) % 2 === 0) throw new Error("once more");
    },
  });
  await using all = await three([note], 2, { maxAttemptsPerMinute: 9, throttleDelay: 1 }, (mill) =>
    mill.enqueueMany(note, many(40)),
  );
  await ran.reached(9);
  const decisions = async (): Promise<unknown[]> => all.mill.policies.decisions("default");
  // Each of them is a look at the queue that found it used up.
  await vi.waitFor(async () => expect((await decisions()).length).toBeGreaterThan(10), 30_000);
  expect(ran.seen).toHaveLength(9);
  expect((await decisions())[0]).toMatchObject({ reason_code: "RETRY_RATE_EXCEEDED" });
});
