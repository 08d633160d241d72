import { NonRetryableError, RateLimitError, task } from "millrace";
import { attemptTask, runTask } from "millrace/testing";
import { expect, test } from "vitest";
import { z } from "zod";

test("a task runs by itself, with its input as the schema made it and a context of its own", async () => {
  const greet = task({
    name: "greet",
    queue: "mail",
    input: z.object({ name: z.string(), loud: z.boolean().default(true) }),
    run: ({ input, attempt, maxAttempts, queue, task: name, log }) => {
      log.info({ to: input.name }, "greeting");
      return { text: `Hello, ${input.name}`, loud: input.loud, attempt, maxAttempts, queue, name };
    },
  });
  expect(await runTask(greet, { name: "Ada" }, { attempt: 2 })).toEqual({
    text: "Hello, Ada",
    loud: true,
    attempt: 2,
    maxAttempts: 25,
    queue: "mail",
    name: "greet",
  });
  const { logs } = await attemptTask(greet, { name: "Ada" });
  expect(logs).toMatchObject([{ level: "info", fields: { to: "Ada", task: "greet" }, message: "greeting" }]);
  // @ts-expect-error the input is typed
  await expect(runTask(greet, { name: 7 })).rejects.toMatchObject({ code: "BAD_PAYLOAD" });
  await expect(runTask(greet, { name: "Ada" }, { attemp: 1 } as object)).rejects.toThrow('Did you mean "attempt"?');
});

test("what it throws is thrown, and judged as a worker would", async () => {
  const error = new Error("down");
  const fails = task({ name: "fails", backoff: { delay: "10s" }, maxAttempts: 3, run: () => Promise.reject(error) });
  await expect(runTask(fails, {})).rejects.toBe(error);
  expect(await attemptTask(fails, {}, { attempt: 2 })).toMatchObject({ outcome: "retry", delayMs: 20_000, error });
  expect(await attemptTask(fails, {}, { attempt: 3 })).toMatchObject({ outcome: "dead", code: "UNKNOWN", error });

  const never = task({
    name: "never",
    run: () => {
      throw new NonRetryableError("no such user", { code: "NO_USER" });
    },
  });
  expect(await attemptTask(never, {})).toMatchObject({ outcome: "dead", code: "NO_USER" });

  const limited = task({
    name: "limited",
    run: () => Promise.reject(new RateLimitError("slow", { retryAfterMs: 90_000 })),
  });
  expect(await attemptTask(limited, {})).toMatchObject({ outcome: "retry", code: "RATE_LIMIT", delayMs: 90_000 });
});

test("snoozing, completing and being told to end are seen", async () => {
  const naps = task({ name: "naps", run: ({ snooze }) => snooze("5m") });
  expect(await attemptTask(naps, {})).toMatchObject({ outcome: "snoozed", delayMs: 300_000, error: undefined });
  await expect(runTask(naps, {})).rejects.toThrow('Task "naps" snoozed for 300000 ms');

  const tx = { query: async () => ({ rows: [] }) };
  const completes = task({ name: "completes", run: ({ complete }) => complete(tx) });
  expect(await attemptTask(completes, {})).toMatchObject({ outcome: "succeeded", completedIn: [tx] });

  const waits = task({
    name: "waits",
    timeout: "10ms",
    run: ({ signal }) =>
      new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason as Error))),
  });
  await expect(runTask(waits, {})).rejects.toMatchObject({ code: "TIMEOUT" });
  expect(await attemptTask(waits, {})).toMatchObject({ outcome: "retry", code: "TIMEOUT" });
  expect(await attemptTask(waits, {}, { signal: AbortSignal.timeout(1) })).toMatchObject({ outcome: "cancelled" });
});

test("an isolated task runs in its thread", async () => {
  const module = new URL("../isolate/handlers/acts.ts", import.meta.url);
  const acts = task({ name: "acts", isolate: "thread", run: module });
  expect(await attemptTask(acts, { do: "tell" })).toMatchObject({
    outcome: "succeeded",
    logs: [{ message: "here", fields: { task: "acts", attempt: 1 } }],
  });
  await expect(runTask(acts, { do: "fail" })).rejects.toThrow("an ordinary error");
  expect(await attemptTask(acts, { do: "snooze" })).toMatchObject({ outcome: "snoozed", delayMs: 300_000 });
});

test("progress is told, and one that is none is refused", async () => {
  const counts = task({
    name: "counts",
    run: ({ progress }) => {
      progress(10);
      progress({ of: 7 });
    },
  });
  expect(await attemptTask(counts, {})).toMatchObject({ outcome: "succeeded", progress: { of: 7 } });
  const wrong = task({ name: "wrong", run: ({ progress }) => progress(101) });
  expect(await attemptTask(wrong, {})).toMatchObject({ outcome: "dead", code: "PROGRESS_INVALID" });
});

test("an isolated task has steps here too", async () => {
  const order = task({
    name: "order",
    input: z.object({ do: z.string() }),
    isolate: "thread",
    run: new URL("../isolate/handlers/acts.ts", import.meta.url),
  });
  expect(await runTask(order, { do: "order" }, { events: { approved: "yes" } })).toEqual({
    paid: { receipt: 7, at: "1970-01-01T00:00:00.000Z" },
    approval: "yes",
    never: true,
  });
});
