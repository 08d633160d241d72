/** A handler that does what its input says. */
import { setTimeout as pause } from "node:timers/promises";
import { threadId } from "node:worker_threads";
import { type JobContext, MillraceError, NonRetryableError, RateLimitError } from "millrace";

export interface Act {
  readonly do: string;
  readonly ms?: number;
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
