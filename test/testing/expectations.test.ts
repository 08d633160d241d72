import { defineApp, task } from "millrace";
import { testMillrace } from "millrace/testing";
import { expect, test } from "vitest";
import { z } from "zod";

const mail = task({
  name: "mail",
  input: z.object({ to: z.string(), cc: z.array(z.string()).default([]), at: z.date().or(z.string()).optional() }),
  maxAttempts: 1,
  run: () => Promise.reject(new Error("the server is down")),
});
const other = task({ name: "other", run: () => undefined });
const app = defineApp({ tasks: [mail, other] });
const now = new Date("2030-01-01T00:00:00Z");

test("a job is found by a part of its input, its queue, tags, priority, delay and time", async () => {
  await using mill = await testMillrace(app, { now });
  const { id } = await mill.enqueue(
    mail,
    { to: "ada", cc: ["bob"], at: now.toISOString() },
    { queue: "slow", tags: ["a", "b"], priority: 3, delay: "1h" },
  );
  expect((await mill.expectEnqueued(mail)).id).toBe(id);
  const runAt = new Date(now.getTime() + 3_600_000);
  await mill.expectEnqueued(mail, {
    input: { to: "ada" },
    queue: "slow",
    tags: ["b"],
    priority: 3,
    delay: "1h",
    runAt,
  });
  await mill.expectEnqueued("mail", { input: { to: expect.stringMatching(/^a/), at: now }, status: "delayed" });
  await mill.expectEnqueued(mail, { input: (input: unknown) => JSON.stringify(input).includes("bob") });
  await mill.expectNotEnqueued(other);
  for (const wrong of [
    { input: { to: "eve" } },
    { input: { cc: [] } },
    { input: { to: expect.any(Number) } },
    { queue: "default" },
    { tags: ["c"] },
    { priority: 4 },
    { delay: "2h" as const },
    { runAt: now },
    { status: "waiting" as const },
    { input: () => false },
  ]) {
    await mill.expectNotEnqueued(mail, wrong);
    await expect(mill.expectEnqueued(mail, wrong)).rejects.toThrow('No job of task "mail" with');
  }
  await expect(mill.expectEnqueued(mail, { inputs: {} } as object)).rejects.toThrow('Did you mean "input"?');
});

test("the newest job that fits is returned, whatever became of it", async () => {
  await using mill = await testMillrace(app);
  await mill.enqueue(other, { n: 1 });
  const { id } = await mill.enqueue(other, { n: 2 });
  await mill.runUntilIdle();
  expect(await mill.expectEnqueued(other)).toMatchObject({ id, status: "completed" });
});

test("a message says what was enqueued instead, and what is wrong with it", async () => {
  await using mill = await testMillrace(app);
  await expect(mill.expectEnqueued(mail)).rejects.toThrow('No job of task "mail" was enqueued; nothing was.');
  const { id } = await mill.enqueue(other, { n: 1 });
  await expect(mill.expectEnqueued(mail)).rejects.toThrow(
    `No job of task "mail" was enqueued; the jobs are of other tasks:\n  other ${id} {"n":1}, queue default, waiting`,
  );
  const second = await mill.enqueue(mail, { to: "bob" });
  await expect(mill.expectEnqueued(mail, { input: { to: "ada" } })).rejects.toThrow(
    `No job of task "mail" with {"input":{"to":"ada"}} was enqueued; the jobs of "mail" are:\n  mail ${second.id} {"to":"bob"}, queue default, waiting\n    input.to is "bob", not "ada"`,
  );
  await expect(mill.expectNotEnqueued(mail)).rejects.toThrow(
    'No job of task "mail" was to be enqueued; there are:\n  mail',
  );
  for (let n = 0; n < 15; n += 1) await mill.enqueue(mail, { to: `number ${n}` });
  await expect(mill.expectEnqueued(mail, { queue: "slow" })).rejects.toThrow("… and 6 more");
});

test("expectStatus explains why a job is where it is", async () => {
  await using mill = await testMillrace(app, { now });
  const waiting = await mill.enqueue(mail, { to: "ada" }, { delay: "1h" });
  await expect(mill.expectStatus(waiting.id, "completed")).rejects.toThrow(
    /is delayed, not completed\.\n {2}.*in 60 min/s,
  );
  await mill.advance("1h");
  const job = await mill.expectStatus(waiting.id, "failed");
  expect(job.lastErrorMessage).toBe("the server is down");
  await expect(mill.expectStatus(waiting.id, "completed")).rejects.toThrow("the server is down");
  await expect(mill.expectStatus("01b8dac5-b400-7011-a2b6-87af3eaae1db", "failed")).rejects.toThrow("There is no job");
});
