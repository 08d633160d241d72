/** Why a job waits that is part of something: a flow, a run in steps, a key. */
import { describe, expect, test } from "vitest";
import { type Millrace, NonRetryableError, task } from "millrace";
import { useDatabase } from "../support/engine.ts";
import { StoreWorker } from "../support/store-worker.ts";

const file = useDatabase();
const plain = task({ name: "plain", run: () => undefined });
const bad = task({
  name: "bad",
  run() {
    throw new NonRetryableError("no funds", { code: "NO_FUNDS" });
  },
});

const time = String.raw`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`;
/** A sentence, in which `<T>` stands for a time and `<A>` for how far away it is. */
function sentence(text: string): RegExp {
  const literal = text.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`);
  const away = String.raw`(in )?[\d.]+ (ms|s|min|h|d)( ago)?`;
  return new RegExp(`^${literal.replaceAll("<T>", time).replaceAll("<A>", away)}$`);
}

const statusOf = async (mill: Millrace, id: string) => (await mill.job(id))?.status;

describe("a job of a flow", () => {
  test("waits for others: how many of how many, which, and how they stand", async () => {
    await using mill = await file.open([plain]);
    const { jobs } = await mill.enqueueFlow({
      jobs: {
        a: { task: plain },
        b: { task: plain, delay: "1h" },
        c: { task: plain, priority: 5 },
        d: { task: plain, after: ["a", "b", "c"] },
      },
    });
    const worker = await StoreWorker.register(mill);
    const claim = await worker.claim(1);
    const ask = () => mill.explain(jobs.d);
    expect(await ask()).toMatchObject({
      because: "BLOCKED",
      status: "blocked",
      summary: `Waits for 3 of 3 jobs: a ${jobs.a} (waiting), b ${jobs.b} (delayed), c ${jobs.c} (active).`,
      whatNext: "Nothing: it goes on by itself when they have ended. Ask about the first of them to see what holds it.",
      facts: { open: 3, total: 3 },
      attempts: 0,
      also: [],
    });
    await worker.settle(claim, { [jobs.c]: { next: "done", watched: true } });
    mill.work();
    await mill.waitUntilFinished(jobs.a);
    await expect
      .poll(async () => (await ask()).summary, { timeout: 10_000 })
      .toBe(`Waits for 1 of 3 jobs: b ${jobs.b} (delayed).`);
  });

  test("names five of those it waits for", async () => {
    await using mill = await file.open([plain]);
    const { callback, ids } = await mill.enqueueBatch(plain, Array.from({ length: 12 }), { callback: { task: plain } });
    const { summary, facts } = await mill.explain(callback);
    expect(summary).toMatch(/^Waits for 12 of 12 jobs: 1 \S+ \(waiting\), .* 5 \S+ \(waiting\), and 7 more\.$/);
    expect(facts["first"]).toMatchObject(ids.slice(0, 5).map((id) => ({ id, status: "waiting" })));
  });

  test("was released, and is in line or due later", async () => {
    await using mill = await file.open([plain]);
    await mill.enqueue(plain, null, { queue: "elsewhere" });
    const { jobs } = await mill.enqueueFlow({
      jobs: {
        a: { task: plain },
        later: { task: plain, after: ["a"], delay: "1h" },
        soon: { task: plain, after: ["a"], queue: "elsewhere" },
      },
    });
    mill.work({ queues: ["default"] });
    await expect.poll(() => statusOf(mill, jobs.later), { timeout: 10_000 }).toBe("delayed");
    const later = await mill.explain(jobs.later);
    expect(later.because).toBe("RELEASED");
    expect(later.summary).toMatch(
      sentence("Not due until <T> (<A>): released at <T>, when the jobs it waited for had ended, to run later."),
    );
    const soon = await mill.explain(jobs.soon);
    expect(soon.also[0]).toMatchObject({
      because: "IN_LINE",
      summary: expect.stringMatching(
        /^2nd in line of queue "elsewhere", behind 1 job, the first \S+\. Released at \S+ by the jobs it waited for\.$/,
      ) as string,
    });
  });

  test("was given up with the job it needs, which is named: retry that", async () => {
    await using mill = await file.open([plain, bad]);
    const { jobs } = await mill.enqueueFlow({
      jobs: {
        a: { task: bad },
        b: { task: plain, after: ["a"] },
        c: { task: plain, after: ["b"] },
      },
    });
    mill.work();
    await expect(mill.waitUntilFinished(jobs.c)).rejects.toMatchObject({ code: "JOB_FAILED" });
    const why = await mill.explain(jobs.b);
    expect(why).toMatchObject({
      because: "GAVE_UP",
      deadLetterReason: "DEPENDENCY_FAILED",
      whatNext: "Retry that one and this goes on by itself. Or retry this one, to run it without.",
      facts: { needs: [{ name: "a", id: jobs.a, status: "failed", deadLetterReason: "NON_RETRYABLE" }] },
      attempts: 0, // it never ran
      failedAttempts: 0,
      lastError: { errorCode: "DEPENDENCY_FAILED" },
    });
    expect(why.summary).toMatch(
      sentence(
        `Gave up at <T> (<A>) without a run, DEPENDENCY_FAILED: job a ${jobs.a} (failed), which it needs, failed.`,
      ),
    );
    expect((await mill.explain(jobs.c)).whatNext).toBe(
      "That one failed because of another: ask about it. When the first of the chain is retried and completes, this one goes on by itself.",
    );
  });

  test("was given up with several, or with one that cannot be retried any more", async () => {
    await using mill = await file.open([plain, bad]);
    const { jobs } = await mill.enqueueFlow({
      jobs: {
        a: { task: plain, delay: "1h" },
        b: { task: plain, delay: "1h" },
        c: { task: plain, after: ["a", "b"] },
      },
    });
    await mill.cancel(jobs.a);
    await mill.remove(jobs.b);
    mill.work();
    await expect(mill.waitUntilFinished(jobs.c)).rejects.toMatchObject({ code: "JOB_FAILED" });
    const { summary, whatNext } = await mill.explain(jobs.c);
    expect(summary).toContain(`jobs that it needs, a ${jobs.a} (cancelled), b ${jobs.b} (removed), failed.`);
    expect(whatNext).toBe("Retry this one, to run it without.");
  });
});

describe("a run in steps", () => {
  const order = task({
    name: "order",
    async run({ input, step }) {
      if (input === "sleep") await step.sleep("nap", "1h");
      else if (input === "event") await step.waitForEvent("paid", { event: "order.1.paid", timeout: "2h" });
      else await step.run("other", () => 1);
    },
  });

  test("sleeps, in which step and until when", async () => {
    await using mill = await file.open([order]);
    const { id } = await mill.enqueue(order, "sleep");
    mill.work();
    await expect.poll(() => statusOf(mill, id), { timeout: 10_000 }).toBe("delayed");
    const why = await mill.explain(id);
    expect(why).toMatchObject({
      because: "STEP_SLEEPS",
      whatNext: "Nothing: it goes on by itself then.",
      facts: { step: "nap" },
      attempts: 0,
    });
    expect(why.summary).toMatch(sentence('Sleeps in step "nap" until <T> (<A>).'));
  });

  test("waits for an event: which, in which step, and until when", async () => {
    await using mill = await file.open([order]);
    const { id } = await mill.enqueue(order, "event");
    mill.work();
    await expect.poll(() => statusOf(mill, id), { timeout: 10_000 }).toBe("delayed");
    const why = await mill.explain(id);
    expect(why).toMatchObject({
      because: "STEP_WAITS",
      whatNext: 'Emit event "order.1.paid". Without it the run goes on then, and is told that it did not come.',
      facts: { step: "paid", event: "order.1.paid" },
    });
    expect(why.summary).toMatch(sentence('Waits for event "order.1.paid" in step "paid" until <T> (<A>); emit it.'));
  });

  test("was given up because its code has changed", async () => {
    let isNew = false;
    const changing = task({
      name: "changing",
      async run({ step }) {
        if (!isNew) await step.sleep("nap", "1h");
      },
    });
    await using mill = await file.open([changing]);
    const { id } = await mill.enqueue(changing, null);
    mill.work();
    await expect.poll(() => statusOf(mill, id), { timeout: 10_000 }).toBe("delayed");
    isNew = true;
    await mill.promote(id);
    await expect.poll(() => statusOf(mill, id), { timeout: 10_000 }).toBe("failed");
    expect(await mill.explain(id)).toMatchObject({
      because: "GAVE_UP",
      whatNext:
        "Deploy the code that began the run, then retry it; or replay it, to begin anew. Nothing was done again.",
      lastError: { errorCode: "STEP_CHANGED" },
    });
  });
});

test("a job that was put off by an enqueue under its key says so", async () => {
  await using mill = await file.open([plain]);
  const debounce = { key: "k", wait: "1h" } as const;
  const { id } = await mill.enqueue(plain, 1, { debounce });
  expect((await mill.explain(id)).because).toBe("NOT_DUE");
  await mill.enqueue(plain, 2, { debounce });
  const why = await mill.explain(id);
  expect(why.because).toBe("DEBOUNCED");
  expect(why.summary).toMatch(
    sentence("Not due until <T> (<A>): it was enqueued again under its key at <T>, which put it off."),
  );
});
