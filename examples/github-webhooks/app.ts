/**
 * GitHub's webhooks as jobs. A delivery is written down and its job enqueued in one transaction; the job writes a line into the
 * activity feed and is done, in one transaction too. Whatever is killed, whenever: no delivery is lost, no line is written twice.
 *
 *     npx millrace up --app examples/github-webhooks/app.ts
 */
import { createRequire } from "node:module";
import type { WebhookDefinition } from "@octokit/webhooks-examples";
import { type Millrace, defineApp, task } from "millrace";
import { z } from "zod";
import { analyseScene, demoOk, emailSend, failMe, ok } from "./demo.ts";
import { describeDelivery } from "./events.ts";

const delivery = z.object({ id: z.string(), event: z.string(), payload: z.unknown() });
type Delivery = z.infer<typeof delivery>;

/** The one of this process; `start` is given it before any job runs. */
let mill: Millrace;

export const addToFeed = task({
  name: "add-to-feed",
  queue: "github",
  input: delivery,
  timeout: "10s",
  async run({ input, log, complete }) {
    const { repository, actor, sentence } = describeDelivery(input.event, input.payload);
    await mill.transaction(async (tx) => {
      await tx.query("insert into github_feed (delivery, repository, actor, sentence) values ($1, $2, $3, $4)", [
        input.id,
        repository,
        actor,
        sentence,
      ]);
      await complete(tx);
    });
    log.debug({ repository }, `${actor} ${sentence}`);
  },
});

/** Waits until nothing is left to add, then says what came of it. */
export const reportFeed = task({
  name: "report-feed",
  async run({ log, snooze }) {
    const [queue] = await mill.stats(addToFeed.queue);
    if (queue && !queue.paused && queue.waiting + queue.active > 0) snooze("250ms");
    const { rows } = await mill.transaction((tx) =>
      tx.query(
        `select (select count(*)::int from github_deliveries) as deliveries,
                (select count(*)::int from github_feed) as lines,
                (select count(distinct repository)::int from github_feed) as repositories`,
        [],
      ),
    );
    const { deliveries, lines, repositories } = rows[0] as Record<string, number>;
    const rejected = queue?.failed ?? 0;
    log.info(
      { deliveries, lines, repositories, rejected },
      `${deliveries} deliveries: ${lines} in the feeds of ${repositories} repositories, ${rejected} rejected as BAD_PAYLOAD`,
    );
  },
});

export default defineApp({ tasks: [addToFeed, reportFeed, ok, demoOk, failMe, emailSend, analyseScene] });

/** Called by `millrace up` and `millrace worker`, before the first job runs. Done again at every start, so it must not mind. */
export async function start(given: Millrace): Promise<void> {
  mill = given;
  await makeTables();
  const deliveries = examples();
  let received = 0;
  for (const one of deliveries) if (await receive(one)) received += 1;
  mill.log.info(
    { received, known: deliveries.length - received },
    `received ${received} of ${deliveries.length} webhooks`,
  );
  if (received > 0) await mill.enqueue(reportFeed, {});
  for (const entityId of ["1", "2", "3"])
    await mill.enqueue(analyseScene, { entityId }, { idempotencyKey: `demo-${entityId}`, idempotencyKeep: "3650d" });
}

async function makeTables(): Promise<void> {
  await mill.transaction(async (tx) => {
    // Several processes may start at once, and `if not exists` does not make them wait for one another.
    await tx.query("select pg_advisory_xact_lock(hashtext('github-webhooks'))::text", []);
    await tx.query("create table if not exists github_deliveries (id text primary key, event text not null)", []);
    // No unique delivery here: that each comes once is the transaction's doing, and the tests prove it.
    await tx.query(
      `create table if not exists github_feed (
         id bigint generated always as identity primary key, delivery text not null, repository text not null,
         actor text not null, sentence text not null, at timestamptz not null default now())`,
      [],
    );
  });
}

/** What a web server would do with each POST from GitHub. False when it was delivered before, as GitHub may do. */
async function receive({ id, event, payload }: Delivery): Promise<boolean> {
  return mill.transaction(async (tx) => {
    const { rows } = await tx.query(
      "insert into github_deliveries (id, event) values ($1, $2) on conflict do nothing returning id",
      [id, event],
    );
    if (rows.length === 0) return false;
    await mill.enqueue(addToFeed, { id, event, payload }, { tx, tags: [event] });
    mill.log.debug({ delivery: id }, "received");
    return true;
  });
}

/** The 329 payloads GitHub publishes. They come without their ids, so each is called by its place, such as `issues/3`. */
function examples(): Delivery[] {
  const kinds = createRequire(import.meta.url)("@octokit/webhooks-examples") as WebhookDefinition[];
  return kinds.flatMap(({ name, examples }) =>
    examples.map((payload, i) => ({ id: `${name}/${i}`, event: name, payload })),
  );
}
