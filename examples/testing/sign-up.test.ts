// sign-up.test.ts
import { testMillrace } from "millrace/testing";
import { test } from "vitest";
import { app, sendMail, shop, signUp } from "./shop.ts";

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
