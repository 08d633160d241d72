/** docs/guides/testing.md: its examples, executed. */
import { readFileSync } from "node:fs";
import { RateLimitError, defineApp, task } from "millrace";
import { type TestMillrace, attemptTask, runTask, testMillrace } from "millrace/testing";
import { expect, test } from "vitest";
import { z } from "zod";

const sendMail = task({
  name: "send-mail",
  input: z.object({ to: z.email(), template: z.enum(["welcome", "reminder"]) }),
  run: ({ input, log }) => {
    if (!input.to.startsWith("full")) return { sent: true };
    log.warn({ to: input.to }, "mailbox full");
    throw new RateLimitError("mailbox full", { retryAfterMs: 90_000 });
  },
});
const signUp = task({
  name: "sign-up",
  input: z.object({ email: z.email() }),
  run: async ({ input }) => {
    const { mill } = shop;
    await mill.enqueue(sendMail, { to: input.email, template: "welcome" });
    await mill.enqueue(sendMail, { to: input.email, template: "reminder" }, { delay: "1d" });
  },
});
const charge = task({
  name: "charge",
  input: z.object({ order: z.string() }),
  run: ({ input, complete }) =>
    shop.mill.transaction(async (tx) => {
      await tx.query("insert into charges values ($1)", [input.order]);
      await complete(tx);
    }),
});
const app = defineApp({ tasks: [sendMail, signUp, charge] });

/** What the modules of a real app have as a global: the Millrace of their process. */
const shop = {} as { mill: TestMillrace };

test("a welcome mail goes out, and a reminder a day later", async () => {
  await using mill = await testMillrace(app, { now: new Date("2030-01-01T09:00:00Z") });
  shop.mill = mill;

  await mill.enqueue(signUp, { email: "ada@example.com" });
  await mill.runUntilIdle();
  await mill.expectEnqueued(sendMail, { input: { to: "ada@example.com", template: "welcome" }, status: "completed" });

  const reminder = await mill.expectEnqueued(sendMail, { input: { template: "reminder" }, delay: "1d" });
  await mill.advance("1d");
  await mill.expectStatus(reminder.id, "completed");
});

test("a full mailbox is tried again after the time it asks for", async () => {
  expect(await runTask(sendMail, { to: "ada@example.com", template: "welcome" })).toEqual({ sent: true });

  const attempt = await attemptTask(sendMail, { to: "full@example.com", template: "welcome" }, { attempt: 2 });
  expect(attempt).toMatchObject({ outcome: "retry", code: "RATE_LIMIT", delayMs: 90_000 });
  expect(attempt.logs).toMatchObject([{ level: "warn", message: "mailbox full" }]);
});

test("whatever statement it dies at, the card is charged once", async () => {
  await using mill = await testMillrace(app);
  await mill.pglite.exec("create table charges (order_id text)");

  await mill.eachCrash(
    async (mill) => {
      shop.mill = mill;
      await mill.enqueue(charge, { order: "order-1" }, { idempotencyKey: "order-1" });
      await mill.runUntilIdle();
    },
    async (mill) => {
      shop.mill = mill;
      await mill.enqueue(charge, { order: "order-1" }, { idempotencyKey: "order-1" });
      await mill.runUntilIdle();
      expect((await mill.pglite.query("select * from charges")).rows).toEqual([{ order_id: "order-1" }]);
    },
  );
});

test("every example of the guide stands in this file", () => {
  const page = readFileSync("docs/guides/testing.md", "utf8");
  const here = readFileSync(import.meta.filename, "utf8");
  const examples = [...page.matchAll(/^```ts\n(.*?)^```$/gms)].map(([, code = ""]) => code);
  expect(examples).toHaveLength(3);
  for (const example of examples) expect(here).toContain(example);
});
