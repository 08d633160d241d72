/** A handler that does what its input says. */
import { setTimeout as pause } from "node:timers/promises";
import { threadId } from "node:worker_threads";
import { type JobContext, MillraceError, NonRetryableError, RateLimitError } from "millrace";

export interface Act {
  readonly do: string;
  readonly ms?: number;
  readonly name?: string;
}

const acts: Readonly<Record<string, (context: JobContext<Act>) => unknown>> = {
  tell({ input, id, task, queue, attempt, maxAttempts, log }) {
    log.info({ input, id, task, queue, attempt, maxAttempts, pid: process.pid, threadId }, "here");
  },
  wait({ input, log }) {
    log.info({}, "waiting");
    return pause(input.ms);
  },
  obey({ signal, log }) {
    log.info({ pid: process.pid, threadId }, "obeying");
    return new Promise((_, reject) => {
      signal.addEventListener("abort", () => {
        log.info({ reason: (signal.reason as MillraceError).code }, "aborted");
        reject(signal.reason as Error);
      });
    });
  },
  loop({ log }) {
    log.info({ pid: process.pid }, "looping");
    for (;;);
  },
  hoard({ log }) {
    log.info({}, "hoarding");
    const kept: number[][] = [];
    for (;;) kept.push(Array.from({ length: 10_000 }, Math.random));
  },
  exit: () => process.exit(3),
  async reject() {
    void Promise.reject(new Error("nobody awaits this"));
    await pause(60_000);
  },
  async throwLater() {
    setTimeout(() => {
      throw new TypeError("nobody catches this");
    }, 1);
    await pause(60_000);
  },
  fail() {
    throw new Error("an ordinary error");
  },
  failWithCode() {
    throw Object.assign(new Error("no"), { code: "CARD_DECLINED" });
  },
  giveUp() {
    throw new NonRetryableError("never again", { code: "GONE" });
  },
  slowDown() {
    throw new RateLimitError("not now", { retryAfterMs: 120_000 });
  },
  badPayload() {
    throw new MillraceError("BAD_PAYLOAD", "this will never fit");
  },
  snooze: ({ snooze }) => snooze("5m"),
  complete: ({ complete }) => complete({ query: () => Promise.resolve({ rows: [] }) }),
  async report({ progress, log, dependencies }) {
    progress(10);
    log.info({ n: 1 }, "one");
    log.debug({}, "unheard");
    progress({ rowsDone: 3 });
    log.error({}, "two");
    return (await dependencies()).map(({ name, result }) => ({ name, result, at: new Date(0) }));
  },
  badProgress: ({ progress }) => progress(200),
  async order({ step, attempt, log }) {
    const paid = await step.run("pay", () => {
      log.info({}, `pays in attempt ${attempt}`);
      return { receipt: 7, at: new Date(0) };
    });
    await step.sleep("nap", "50ms").catch((error: unknown) => {
      log.info({}, "falls asleep");
      throw error;
    });
    const approval = await step.waitForEvent("approval", { event: "approved" });
    const never = await step.waitForEvent("never", { event: "never", timeout: "20ms" });
    await step.sleepUntil("past", new Date(0));
    return { paid, approval, never: never === undefined };
  },
  /** Catches whatever its step throws, and would compensate. */
  async forgiving({ step, input, log }) {
    try {
      await step.run(input.name ?? "one", () => {
        if (input.name === "fails") throw Object.assign(new Error("no"), { code: "CARD_DECLINED" });
      });
      await step.sleep("nap", "1h");
    } catch (error) {
      await step.run("compensate", () => log.info({}, `compensates ${(error as { code?: string }).code}`));
      await step.sleep("rest", "20ms");
    }
    return "fine";
  },
  async stubborn({ step, log }) {
    await step.sleep("nap", "30ms").catch(() => log.info({}, "caught"));
    await step.run("after", () => log.info({}, "after")).catch(() => undefined);
  },
  async changed({ input, step }) {
    const { name = "first" } = input;
    if (name !== "") await step.run(name, () => 1);
    await step.sleep("nap", "1h");
  },
  forgetful: async ({ step, attempt }) => {
    if (attempt === 1) {
      await step.run("first", () => 1);
      throw new Error("once more");
    }
  },
  async busyStep({ step, log, attempt }) {
    await step.run("before", () => attempt);
    await step.run("busy", () => {
      log.info({}, "looping");
      for (;;);
    });
  },
  async unawaited({ step, log }) {
    void step.run("slow", async () => {
      await pause(50);
      log.info({}, "done all the same");
    });
    await step.sleep("nap", "30ms");
  },
  async lateStep({ step, log }) {
    try {
      await step.run("late", async () => {
        log.info({}, "in the step");
        await pause(300);
      });
    } catch (error) {
      log.info({ ours: error instanceof MillraceError, code: (error as MillraceError).code }, "not kept");
    }
  },
  transaction: ({ step }) => step.transaction("book", () => 1),
  wrongStep: ({ step }) => step.run("outer", () => step.run("inner", () => 1)),
  uncloneable: () => () => undefined,
  logUncloneable({ log }) {
    log.warn({ fn: () => 1, n: 2 }, "with a function");
  },
};

export default function act(context: JobContext<Act>): unknown {
  const chosen = acts[context.input.do];
  if (chosen === undefined) throw new NonRetryableError(`There is no act "${context.input.do}".`);
  return chosen(context);
}
