// send-mail.test.ts
import { attemptTask, runTask } from "millrace/testing";
import { expect, test } from "vitest";
import { sendMail } from "./shop.ts";

test("a full mailbox is tried again after the time it asks for", async () => {
  expect(await runTask(sendMail, { to: "ada@example.com", template: "welcome" })).toEqual({ sent: true });

  const attempt = await attemptTask(sendMail, { to: "full@example.com", template: "welcome" }, { attempt: 2 });
  expect(attempt).toMatchObject({ outcome: "retry", code: "RATE_LIMIT", delayMs: 90_000 });
  expect(attempt.logs).toMatchObject([{ level: "warn", message: "mailbox full" }]);
});
