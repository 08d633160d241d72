import { createRequire } from "node:module";
import type { WebhookDefinition } from "@octokit/webhooks-examples";
import { type Log, type Millrace, millrace } from "millrace";
import { expect, test } from "vitest";
import app, { start } from "../../examples/github-webhooks/app.ts";
import { describeDelivery } from "../../examples/github-webhooks/events.ts";
import { freshSchema, gate, useDatabase } from "../support/engine.ts";

/** Deliveries that name no repository, and so have no feed to go to: all that GitHub's collection has of them, by event. */
const rejectedByEvent = {
  github_app_authorization: 2,
  installation: 7,
  installation_repositories: 3,
  marketplace_purchase: 4,
  membership: 5,
  org_block: 4,
  organization: 5,
  ping: 1,
  projects_v2_item: 7,
  security_advisory: 4,
  sponsorship: 4,
  team: 3,
};

const file = useDatabase();

test("of GitHub's 329 example payloads 280 become lines of a feed and 49 dead letters, once each", async () => {
  const report = gate<object>();
  const hear = (fields: object): void => {
    if ("rejected" in fields) report.open(fields);
  };
  const log: Log = { debug() {}, info: hear, warn() {}, error() {} };
  await using mill = await millrace(app, { ...file.door, schema: freshSchema(), log });
  await start(mill);
  await using worker = mill.work();
  expect(await report.opened).toMatchObject({ deliveries: 329, lines: 280, repositories: 13, rejected: 49 });
  await worker.stop();

  expect(await feed(mill)).toEqual({ lines: 280, deliveries: 280 });
  expect(await mill.stats("github")).toMatchObject([{ completed: 280, failed: 49, waiting: 0, active: 0, delayed: 0 }]);
  const { jobs } = await mill.jobs({ queue: "github", status: "failed" });
  const letters = jobs.map(({ deadLetterReason, lastErrorCode, attempt }) => ({
    deadLetterReason,
    lastErrorCode,
    attempt,
  }));
  const letter = { deadLetterReason: "NON_RETRYABLE", lastErrorCode: "BAD_PAYLOAD", attempt: 1 };
  expect(letters).toEqual(Array(49).fill(letter));
  const counts: Record<string, number> = {};
  for (const event of jobs.flatMap(({ tags }) => tags)) counts[event] = (counts[event] ?? 0) + 1;
  expect(counts).toEqual(rejectedByEvent);

  await start(mill); // as at the next start of the process
  expect(await mill.stats("github")).toMatchObject([{ completed: 280, failed: 49, waiting: 0 }]);
});

test("what is rejected says which field it lacks", () => {
  expect(() => describeDelivery("security_advisory", { action: "published" })).toThrow(
    'A delivery of "security_advisory" does not say enough for the feed: sender: Invalid input: expected object, received undefined; repository: ',
  );
});

test("a sentence says who did what", () => {
  const kinds = createRequire(import.meta.url)("@octokit/webhooks-examples") as WebhookDefinition[];
  const told = (event: string, i: number): string => {
    const { actor, sentence } = describeDelivery(event, kinds.find(({ name }) => name === event)?.examples[i]);
    return `${actor} ${sentence}`;
  };
  expect(told("issues", 0)).toBe('Codertocat edited issue #1 "Spelling error in the README file"');
  expect(told("push", 1)).toBe("Codertocat deleted refs/tags/simple-tag");
  expect(told("push", 4)).toBe("Codertocat pushed 1 commit to refs/heads/master");
  expect(told("watch", 0)).toBe("Codertocat watch started");
});

async function feed(mill: Millrace): Promise<unknown> {
  const { rows } = await mill.transaction((tx) =>
    tx.query("select count(*)::int as lines, count(distinct delivery)::int as deliveries from github_feed", []),
  );
  return rows[0];
}
