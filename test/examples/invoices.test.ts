/** How the tasks of examples/invoices are tested: weeks pass in milliseconds, and nothing is mocked. */
import { runTask, testMillrace } from "millrace/testing";
import { beforeEach, expect, test } from "vitest";
import app, { invoice, outbox, sendMail } from "../../examples/invoices/app.ts";

beforeEach(() => {
  outbox.length = 0;
});

test("an invoice that is paid in time is not reminded of", async () => {
  await using mill = await testMillrace(app);
  const { id } = await mill.enqueue(invoice, { number: 7, to: "ada@example.com" });
  await mill.advance("13d");
  await mill.emit("invoice.7.paid", { amount: 100 });
  await mill.runUntilIdle();
  expect(await mill.result(id)).toBe("paid");
  expect(outbox.map(({ subject }) => subject)).toEqual(["Invoice 7"]);
});

test("one that is not is reminded of twice, then handed over", async () => {
  await using mill = await testMillrace(app);
  const { id } = await mill.enqueue(invoice, { number: 8, to: "eve@example.com" });
  await mill.advance("28d");
  expect(outbox.map(({ subject }) => subject)).toEqual(["Invoice 8", "Reminder 1: 8", "Reminder 2: 8"]);
  expect(await mill.result(id)).toBe("collection");
});

test("a busy mailbox is tried again a minute later", async () => {
  await using mill = await testMillrace(app);
  const { id } = await mill.enqueue(sendMail, { to: "busy@example.com", subject: "Hello" });
  await mill.runUntilIdle();
  await mill.expectStatus(id, "delayed");
  await mill.advance("1m");
  await mill.expectStatus(id, "completed");
});

test("one task by itself", async () => {
  await runTask(sendMail, { to: "ada@example.com", subject: "Hello" });
  expect(outbox).toEqual([{ to: "ada@example.com", subject: "Hello" }]);
  await expect(runTask(sendMail, { to: "nobody", subject: "Hello" })).rejects.toMatchObject({ code: "BAD_PAYLOAD" });
});
