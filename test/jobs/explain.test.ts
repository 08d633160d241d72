/** Why a job is where it is: every reason there is, arranged by hand, and the sentence that tells it. */
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { type Explanation, type Job, type Millrace, task } from "millrace";
import { explainJob, timelineOfJob } from "../../src/jobs/answers.ts";
import { claimWithCare } from "../../src/jobs/careful-store.ts";
import { leaseId } from "../../src/jobs/claim-store.ts";
import { becauses, explain } from "../../src/jobs/explain.ts";
import { readStanding } from "../../src/jobs/explain-store.ts";
import { sql } from "../../src/db/sql.ts";
import { useDatabase } from "../support/engine.ts";
import { StoreWorker, reapNow, succeeded } from "../support/store-worker.ts";

const file = useDatabase();
const plain = task({ name: "plain", run: () => undefined });
const quick = task({ name: "quick", queue: "quick", timeout: "1m", run: () => undefined });

const time = String.raw`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`;
/** A sentence, in which `T` stands for a time and `A` for how far away it is. */
function sentence(text: string): RegExp {
  const literal = text.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`);
  return new RegExp(
    `^${literal.replaceAll("<T>", time).replaceAll("<A>", String.raw`(in )?[\d.]+ (ms|s|min|h|d)( ago)?`)}$`,
  );
}

/** Limits for a queue, as an operator would set them. */
async function limit(mill: Millrace, queue: string, policy: string): Promise<number> {
  const id = await mill.names.queues.id(queue);
  await mill.db.script(
    `update millrace.queues set careful = true where id = ${id};
     insert into millrace.queue_policies (queue) values (${id});
     update millrace.queue_policies set ${policy} where queue = ${id};`,
  );
  return id;
}

/** Claims from a queue with limits; returns the ids of what may start. */
async function claimCareful(mill: Millrace, worker: StoreWorker, queue: number, most = 10): Promise<string[]> {
  const firstLease = leaseId(worker.id, 1_000);
  const want = { firstLease, worker: worker.id, queue, tasks: null, limit: most, suspects: false };
  return (await claimWithCare(mill.db, want)).jobs.map(([, id]) => id);
}

const others = ({ also }: Explanation): string[] => also.map(({ because }) => because);

describe("a job that is due and does not run", () => {
  test("has no worker, and none was ever there", async () => {
    await using mill = await file.open([plain]);
    const { id } = await mill.enqueue(plain, {});
    const why = await mill.explain(id);
    expect(why).toEqual({
      jobId: id,
      status: "waiting",
      queue: "default",
      task: "plain",
      because: "NO_WORKER",
      summary: 'No live worker serves task "plain" in queue "default"; none was ever seen.',
      whatNext: 'Start a worker that works on queue "default" and whose app defines task "plain".',
      also: [], // it is the next in line
      facts: expect.objectContaining({ workersRunning: 0, lastName: null }),
      attempts: 0,
      failedAttempts: 0,
      nextRunAt: expect.any(Date),
      lastError: null,
      deadLetterReason: null,
      suggestedAction: null,
    });
  });

  test("has lost its last worker, whose name and last beat are told", async () => {
    await using mill = await file.open([plain]);
    const { id } = await mill.enqueue(plain, {});
    const worker = await StoreWorker.register(mill, "old-one");
    await worker.die();
    const { because, summary } = await mill.explain(id);
    expect(because).toBe("NO_WORKER");
    expect(summary).toMatch(
      sentence('No live worker serves task "plain" in queue "default"; the last one, old-one, was seen at <T> (<A>).'),
    );
  });

  test("is of a task that no running worker has", async () => {
    await using mill = await file.open([plain]);
    const { id } = await mill.enqueue(plain, {});
    await StoreWorker.register(mill);
    await mill.db.query(sql`update millrace.workers set tasks = '{-1}'`);
    const { summary, whatNext } = await mill.explain(id);
    expect(summary).toContain("1 worker runs: 1 on the queue, 0 with the task, none with both.");
    expect(whatNext).toBe('Deploy a worker whose app defines task "plain".');
  });

  test("is of a task that running workers have, on other queues", async () => {
    await using mill = await file.open([plain]);
    const { id } = await mill.enqueue(plain, {});
    await StoreWorker.register(mill);
    await mill.db.query(sql`update millrace.workers set queues = '{-1}'`);
    const { summary, whatNext } = await mill.explain(id);
    expect(summary).toContain("1 worker runs: 0 on the queue, 1 with the task, none with both.");
    expect(whatNext).toBe(
      'Let a worker that has task "plain" work on queue "default" too: MILLRACE_QUEUE, or work({ queues }).',
    );
    await StoreWorker.register(mill);
    await mill.db.query(
      sql`update millrace.workers set queues = null, tasks = '{-1}' where id = (select max(id) from millrace.workers)`,
    );
    expect(await mill.explain(id)).toMatchObject({
      summary: expect.stringContaining("2 workers run: 1 on the queue, 1 with the task, none with both."),
      whatNext,
    });
  });

  test("has only workers that are draining or being replaced", async () => {
    await using mill = await file.open([plain]);
    const { id } = await mill.enqueue(plain, {});
    const worker = await StoreWorker.register(mill);
    await mill.db.query(sql`update millrace.workers set draining = true`);
    expect(await mill.explain(id)).toMatchObject({
      because: "WORKERS_DRAINING",
      summary: 'The only worker that serves task "plain" in queue "default" is draining and takes no more jobs.',
    });
    await StoreWorker.register(mill);
    expect((await mill.explain(id)).because).toBe("IN_LINE");
    await mill.db.query(sql`update millrace.workers set recycle_asked_at = now() where id <> ${worker.id}`);
    expect((await mill.explain(id)).summary).toMatch(/^Each of the 2 workers that serves/);
  });

  test("waits for the drained system: by whom and since when, unless a worker takes jobs all the same", async () => {
    await using mill = await file.open([plain]);
    const { id } = await mill.enqueue(plain, {});
    const { id: later } = await mill.enqueue(plain, {}, { delay: "1h" });
    await mill.drain({ by: "ada" });
    const why = await mill.explain(id);
    expect(why).toMatchObject({ because: "SYSTEM_DRAINED", facts: { drainedBy: "ada" } });
    expect(why.summary).toMatch(sentence("The system is drained since <T> (<A>) by ada: no worker takes a job."));
    expect(others(why)).toEqual(["NO_WORKER"]);
    const worker = await StoreWorker.register(mill);
    expect(others(await mill.explain(id))).toEqual([]);
    expect(others(await mill.explain(later))).toEqual(["SYSTEM_DRAINED"]);
    await mill.registry.resume(worker.id);
    expect((await mill.explain(id)).because).toBe("IN_LINE");
    await mill.registry.drain(worker.id);
    expect((await mill.explain(id)).because).toBe("SYSTEM_DRAINED");
    await mill.undrain();
    expect((await mill.explain(id)).because).toBe("IN_LINE");
  });

  test("is in a paused queue: by whom, since when and why, and what else is missing", async () => {
    await using mill = await file.open([plain]);
    const { id } = await mill.enqueue(plain, {}, { queue: "mail" });
    await mill.pause("mail", { by: "ada", reason: "provider is down." });
    const why = await mill.explain(id);
    expect(why).toMatchObject({ because: "QUEUE_PAUSED", whatNext: 'Resume queue "mail".' });
    expect(why.summary).toMatch(
      sentence('Queue "mail" was paused at <T> (<A>) by ada because provider is down: nothing of it starts.'),
    );
    expect(others(why)).toEqual(["NO_WORKER"]);
  });

  test("has others before it beside what holds it, which is told as well", async () => {
    await using mill = await file.open([plain]);
    const { id: first } = await mill.enqueue(plain, {});
    const { id } = await mill.enqueue(plain, {});
    expect((await mill.explain(id)).also).toEqual([
      { because: "IN_LINE", summary: `2nd in line of queue "default", behind 1 job, the first ${first}.` },
    ]);
  });

  test("went down with a worker and waits to be run alone", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const ids = await mill.enqueueMany(plain, [1, 2]);
    await worker.claim(2);
    await worker.die();
    await reapNow(mill);
    await StoreWorker.register(mill);
    const why = await mill.explain(ids[0] as string);
    expect(why).toMatchObject({
      because: "SUSPECT",
      summary: "It went down with a worker and waits to be run alone.",
      also: [],
      facts: { losses: 1 },
      lastError: { errorCode: "WORKER_LOST" },
      attempts: 0, // lost in company: it counts for nothing
    });
    expect(why.suggestedAction).toContain("why the worker died");
    await mill.db.query(sql`update millrace.pending set losses = 2`);
    expect(await mill.explain(ids[0] as string)).toMatchObject({
      summary: "It went down with a worker 2 times and waits to be run alone.",
      facts: { losses: 2 },
    });
  });
});

describe("a job in line", () => {
  test("is told its place, who is first, and how busy the workers are; neither delayed jobs nor suspects count", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill, "busy");
    await mill.enqueueMany(plain, [1, 2]);
    await worker.claim(2); // what it holds
    const stranger = await StoreWorker.register(mill);
    await mill.enqueue(plain, {});
    await stranger.claim(1); // what is held by a worker that could not run this job
    await mill.db.query(sql`update millrace.workers set tasks = '{-1}' where id = ${stranger.id}`);
    const doomed = await StoreWorker.register(mill);
    await mill.enqueue(plain, {}, { priority: 9 });
    await doomed.claim(1);
    await doomed.die();
    await reapNow(mill);
    await mill.enqueue(plain, {}, { priority: 9, delay: "1h" });
    const [first] = await mill.enqueueMany(plain, [1, 2, 3], { priority: 5 });
    await mill.enqueueMany(plain, Array.from({ length: 8 }));
    const { id } = await mill.enqueue(plain, {});
    await mill.enqueueMany(plain, [1, 2], { priority: -1 });
    const why = await mill.explain(id);
    expect(why).toMatchObject({
      because: "IN_LINE",
      summary: `12th in line of queue "default", behind 11 jobs, the first ${first}. 1 worker with 1 place holds 2 jobs.`,
      whatNext: "Nothing: it starts when its turn comes. More workers, or a higher priority, make that sooner.",
      also: [],
      facts: { place: 12, ahead: 11, moreThan: null, first: [first, expect.any(String), expect.any(String)] },
    });
  });

  test("is told when its turn comes, from what the queue finished in the last minute", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    await mill.enqueueMany(plain, Array.from({ length: 120 }));
    await worker.close(await worker.claim(120));
    await mill.enqueue(plain, {});
    const { id } = await mill.enqueue(plain, {});
    expect(await mill.explain(id)).toMatchObject({
      summary: expect.stringContaining("2nd in line"),
      whatNext:
        "Nothing: the queue finishes 2 jobs a second, so its turn comes in about 1 s. More workers, or a higher priority, make that sooner.",
      facts: { perSecond: 2, etaMs: 1_000 },
    });
  });

  test.each([
    [12, "12 jobs a minute", "10 s"],
    [1, "1 job a minute", "2 min"],
  ])("of a queue that is slow, with %i jobs in the last minute, is told that", async (jobs, speed, eta) => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    await mill.enqueueMany(plain, Array.from({ length: jobs }));
    await worker.close(await worker.claim(jobs));
    await mill.enqueue(plain, {});
    const { id } = await mill.enqueue(plain, {});
    expect((await mill.explain(id)).whatNext).toContain(
      `the queue finishes ${speed}, so its turn comes in about ${eta}.`,
    );
  });

  test("is next in line when nobody is before it", async () => {
    await using mill = await file.open([plain]);
    await StoreWorker.register(mill);
    const { id } = await mill.enqueue(plain, {});
    expect(await mill.explain(id)).toMatchObject({ because: "IN_LINE", facts: { place: 1, ahead: 0, first: [] } });
  });

  test("is behind more than five thousand, however many more there are", async () => {
    await using mill = await file.open([plain]);
    await StoreWorker.register(mill);
    const queue = await mill.names.queues.id("default");
    const fill = (rank: number, n: number) =>
      mill.db.query(sql`
        insert into millrace.pending (line, rank, run_at, job_id, task, attempt)
        select ${queue}::int, ${rank}::smallint, now() - interval '1 hour', gen_random_uuid(), 1, 1 from generate_series(1, ${n}::int)`);
    await fill(-1, 2_500);
    await fill(0, 2_499);
    const { id } = await mill.enqueue(plain, {});
    expect(await mill.explain(id)).toMatchObject({ facts: { place: 5_000, ahead: 4_999 } });
    await fill(0, 1);
    const why = await mill.explain(id);
    expect(why.facts).toMatchObject({ place: null, ahead: null, moreThan: 5_000, etaMs: null });
    expect(why.summary).toContain('Behind more than 5000 jobs in line of queue "default", the first ');
  });

  test("under a concurrency key stands in the line of its key, and keys take turns", async () => {
    await using mill = await file.open([plain]);
    await StoreWorker.register(mill);
    await mill.enqueueMany(plain, [1, 2, 3], { queue: "keys", concurrencyKey: "a" });
    await mill.enqueue(plain, {}, { queue: "keys", concurrencyKey: "b" });
    const { id } = await mill.enqueue(plain, {}, { queue: "keys", concurrencyKey: "b" });
    const { summary } = await mill.explain(id);
    expect(summary).toContain('2nd in line of key "b" in queue "keys", behind 1 job, the first ');
    expect(summary).toContain("The queue's concurrency keys take turns.");
  });
});

describe("a job whose queue has limits", () => {
  test("waits for a place in the queue", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill, "one");
    const ids = await mill.enqueueMany(plain, [1, 2, 3], { queue: "narrow" });
    const queue = await limit(mill, "narrow", "concurrency = 2, max_in_flight = 5");
    expect(await claimCareful(mill, worker, queue)).toEqual(ids.slice(0, 2));
    const why = await mill.explain(ids[2] as string);
    expect(why).toMatchObject({
      because: "QUEUE_FULL",
      facts: {
        running: 2,
        limit: 2,
        holders: [
          { job_id: ids[0], worker: "one", since: expect.any(String) },
          { job_id: ids[1], worker: "one", since: expect.any(String) },
        ],
      },
    });
    expect(why.summary).toMatch(
      sentence(`Queue "narrow" is full: 2 of 2 jobs running, the longest ${ids[0]} since <T>.`),
    );
    expect(others(why)).toEqual([]);
  });

  test("waits for a limit of its queue to be raised from nothing", async () => {
    await using mill = await file.open([plain]);
    await StoreWorker.register(mill);
    const { id } = await mill.enqueue(plain, {}, { queue: "closed" });
    await limit(mill, "closed", "concurrency = 0");
    expect(await mill.explain(id)).toMatchObject({
      because: "QUEUE_FULL",
      summary: 'Queue "closed" may run no jobs: its concurrency is 0.',
      whatNext: "Raise the queue's concurrency.",
    });
  });

  test("waits for a place under its concurrency key: the jobs that have them are named, five at most", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const options = { queue: "tenants", concurrencyKey: "acme" };
    const ids = await mill.enqueueMany(plain, [1, 2, 3, 4, 5, 6, 7], options);
    const queue = await limit(mill, "tenants", "key_concurrency = 3");
    expect(await claimCareful(mill, worker, queue)).toEqual(ids.slice(0, 3));
    expect(await mill.explain(ids[3] as string)).toMatchObject({
      because: "KEY_FULL",
      summary: `Concurrency key "acme" has 3 of 3 jobs running: ${ids.slice(0, 3).join(", ")}.`,
      also: [],
    });
    await mill.db.query(sql`update millrace.queue_policies set key_concurrency = 6`);
    await mill.db.query(sql`
      insert into millrace.leases (id, queue, worker, job_ids, attempts, key)
      select n, ${queue}::int, ${worker.id}, array[gen_random_uuid()], '{1}', case when n <= 3 then 'acme' else '' end from generate_series(1, 9) n`);
    const why = await mill.explain(ids[6] as string);
    expect(why.summary).toMatch(
      /^Concurrency key "acme" has 6 of 6 jobs running: \S+, \S+, \S+, \S+, \S+ and 1 more\.$/,
    );
    // Another key is not held up, and neither is a job without one.
    const { id: other } = await mill.enqueue(plain, {}, { queue: "tenants", concurrencyKey: "b" });
    expect((await mill.explain(other)).because).toBe("IN_LINE");
    const { id: without } = await mill.enqueue(plain, {}, { queue: "tenants" });
    expect((await mill.explain(without)).because).toBe("IN_LINE");
  });

  test("waits for the rate limit of its queue, which frees at a known time", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const ids = await mill.enqueueMany(plain, [1, 2, 3], { queue: "rated" });
    const queue = await limit(mill, "rated", "rate_max = 2, rate_per_ms = 3600000");
    expect(await claimCareful(mill, worker, queue)).toHaveLength(2);
    const why = await mill.explain(ids[2] as string);
    expect(why).toMatchObject({ because: "RATE_LIMITED", facts: { used: 2, limit: 2, perMs: 3_600_000 } });
    expect(why.summary).toMatch(
      sentence('The rate limit of queue "rated" is used up: 2 of 2 starts per 60 min. It frees at <T> (<A>).'),
    );
    const frees = (why.facts["freesAt"] as Date).getTime() - (await standingOf(mill, ids[2] as string)).now.getTime();
    expect(frees).toBeGreaterThan(3_500_000);
    expect(frees).toBeLessThanOrEqual(3_640_000);
  });

  test("waits for the rate limit of its key", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const ids = await mill.enqueueMany(plain, [1, 2], { queue: "rated", concurrencyKey: "acme" });
    const queue = await limit(mill, "rated", "key_rate_max = 1, key_rate_per_ms = 60000");
    expect(await claimCareful(mill, worker, queue)).toHaveLength(1);
    expect(await mill.explain(ids[1] as string)).toMatchObject({
      because: "KEY_RATE_LIMITED",
      summary: expect.stringContaining('The rate limit of key "acme" is used up: 1 of 1 start per 60 s.'),
    });
  });

  test("waits for the attempts of its queue, and then for storm control, which tells its reason", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const ids = await mill.enqueueMany(plain, [1, 2, 3], { queue: "storm" });
    const queue = await limit(mill, "storm", "max_attempts_per_minute = 2, throttle_delay_ms = 60000");
    expect(await claimCareful(mill, worker, queue)).toHaveLength(2);
    const last = ids[2] as string;
    expect(await mill.explain(last)).toMatchObject({
      because: "ATTEMPTS_LIMITED",
      summary: expect.stringContaining(
        'The rate limit of attempts of queue "storm" is used up: 2 of 2 starts per 60 s.',
      ),
    });
    expect(await claimCareful(mill, worker, queue)).toEqual([]);
    const why = await mill.explain(last);
    expect(why).toMatchObject({ because: "THROTTLED", facts: { reasonCode: "RETRY_RATE_EXCEEDED" } });
    expect(why.summary).toMatch(sentence('Storm control holds queue "storm" until <T> (<A>): RETRY_RATE_EXCEEDED.'));
    expect(others(why)).toEqual(["ATTEMPTS_LIMITED"]);
  });

  test("is in line like any other while there is room", async () => {
    await using mill = await file.open([plain]);
    await StoreWorker.register(mill);
    const { id } = await mill.enqueue(plain, {}, { queue: "roomy", concurrencyKey: "k" });
    await limit(
      mill,
      "roomy",
      "concurrency = 5, key_concurrency = 5, rate_max = 5, rate_per_ms = 1000, key_rate_max = 5, key_rate_per_ms = 1000, max_attempts_per_minute = 5",
    );
    const why = await mill.explain(id);
    expect([why.because, others(why)]).toEqual(["IN_LINE", []]);
  });
});

describe("a job that is not due", () => {
  test("was asked to run later", async () => {
    await using mill = await file.open([plain]);
    const { id } = await mill.enqueue(plain, {}, { delay: "1h" });
    const why = await mill.explain(id);
    expect(why).toMatchObject({ status: "delayed", because: "NOT_DUE", nextRunAt: expect.any(Date) });
    expect(why.summary).toMatch(sentence("Not due until <T> (in 60 min), as its enqueue asked at <T>."));
    expect(others(why)).toEqual(["NO_WORKER"]);
  });

  test.each([
    ["failed", "FLAKY"],
    ["timed_out", "TIMEOUT"],
  ] as const)("waits for its retry after it %s", async (outcome, code) => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const { id } = await mill.enqueue(plain, {}, { maxAttempts: 5 });
    const claim = await worker.claim(1);
    await worker.settle(claim, { [id]: { next: "retry", outcome, code, message: "It broke.", delayMs: 600_000 } });
    const why = await mill.explain(id);
    expect(why).toMatchObject({
      because: "RETRY_SCHEDULED",
      attempts: 1,
      failedAttempts: 1,
      lastError: { errorCode: code, errorMessage: "It broke." },
      facts: { errorCode: code, attempt: 2, maxAttempts: 5 },
      also: [],
    });
    expect(why.summary).toMatch(sentence(`Retry scheduled after ${code}: attempt 2 of 5 is due at <T> (in 10 min).`));
  });

  test("keeps its reason when it is only moved within its line", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const { id } = await mill.enqueue(plain, {});
    await worker.settle(await worker.claim(1), { [id]: { next: "retry", code: "FLAKY", delayMs: 600_000 } });
    const { id: asked } = await mill.enqueue(plain, {}, { delay: "1h" });
    await mill.db.query(sql`
      insert into millrace.operations (job_id, action, by, run_at) select job_id, 'reprioritise', 'ada', run_at from millrace.pending`);
    expect((await mill.explain(id)).because).toBe("RETRY_SCHEDULED");
    expect((await mill.explain(asked)).because).toBe("NOT_DUE");
  });

  test("was put off by its task", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const { id } = await mill.enqueue(plain, {});
    await worker.settle(await worker.claim(1), { [id]: { next: "again", delayMs: 600_000 } });
    const why = await mill.explain(id);
    expect(why).toMatchObject({ because: "SNOOZED", attempts: 0 });
    expect(why.summary).toMatch(sentence("Not due until <T> (in 10 min): the task put it off at <T>."));
  });

  test("was put there by an operator", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const { id } = await mill.enqueue(plain, {});
    await worker.settle(await worker.claim(1), { [id]: { next: "retry", code: "FLAKY", delayMs: 600_000 } });
    await moveTo(mill, id, "1 hour");
    const why = await mill.explain(id);
    expect(why).toMatchObject({
      because: "RESCHEDULED",
      facts: { action: "reschedule", by: "ada", reason: "too early" },
    });
    expect(why.summary).toMatch(
      sentence('Not due until <T> (in 60 min): moved there by "reschedule" by ada because too early at <T>.'),
    );
  });

  test("is blocked, and by whom when somebody did it", async () => {
    await using mill = await file.open([plain]);
    const { id } = await mill.enqueue(plain, {});
    await mill.db.query(sql`update millrace.jobs set run_at = 'infinity'`);
    await mill.db.query(sql`update millrace.pending set run_at = 'infinity'`);
    expect(await mill.explain(id)).toMatchObject({
      status: "blocked",
      because: "BLOCKED",
      summary: "Blocked: it has no due time until what it waits for is done.",
      nextRunAt: null,
    });
    const { id: held } = await mill.enqueue(plain, {});
    await moveTo(mill, held, "infinity");
    expect((await mill.explain(held)).summary).toMatch(
      sentence(
        'Blocked: it has no due time until what it waits for is done, since "reschedule" by ada because too early at <T>.',
      ),
    );
  });
});

describe("a job that runs", () => {
  test("is told with its worker, the last beat, and when it is taken back without one", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill, "w7");
    const { id } = await mill.enqueue(plain, {}, { maxAttempts: 3 });
    await worker.claim(1);
    await mill.db.query(sql`update millrace.workers set beat_at = now() - interval '4 seconds'`);
    const why = await mill.explain(id);
    expect(why).toMatchObject({ status: "active", because: "RUNNING", also: [], attempts: 1, failedAttempts: 0 });
    expect(why.summary).toMatch(
      sentence("Runs on worker w7 on host here, attempt 1 of 3 since <T> (<A>), last beat 4 s ago."),
    );
    expect(why.whatNext).toMatch(
      sentence("It ends when the task does. If the worker does not beat until <T>, the job is taken back."),
    );
    expect(why.facts).toMatchObject({
      worker: "w7",
      host: "here",
      pid: 1,
      leaseJobs: 1,
      reclaimedAt: expect.any(Date),
    });
  });

  test("on a worker nobody knows any more is told without its host", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill, "w7");
    const { id } = await mill.enqueue(plain, {});
    await worker.claim(1);
    await mill.db.query(sql`delete from millrace.workers`);
    const why = await mill.explain(id);
    expect(why.summary).toMatch(sentence("Runs on worker unknown, attempt 1 of 25 since <T> (<A>)."));
    expect(why.facts).toMatchObject({ host: null });
  });

  test("in a batch may not have started", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill);
    const ids = await mill.enqueueMany(plain, [1, 2, 3]);
    const claim = await worker.claim(3);
    await worker.settle(claim, { [ids[0] as string]: succeeded });
    const { summary } = await mill.explain(ids[2] as string);
    expect(summary).toContain("Its batch has 2 jobs left, so it may not have started yet.");
  });

  test("is being cancelled, or ignores that", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill, "w");
    const { id } = await mill.enqueue(plain, {});
    await worker.claim(1);
    await mill.db.query(
      sql`insert into millrace.cancel_requests (job_id, by, reason) values (${id}::uuid, 'ada', 'a mistake')`,
    );
    let why = await mill.explain(id);
    expect([why.because, others(why)]).toEqual(["CANCEL_ASKED", ["RUNNING"]]);
    expect(why.summary).toMatch(
      sentence(
        "Runs on worker w on host here, attempt 1 of 25 since <T> (<A>); cancel was asked for by ada because a mistake at <T> (<A>).",
      ),
    );
    await mill.db.query(sql`update millrace.cancel_requests set ignored_at = now()`);
    why = await mill.explain(id);
    expect(why.because).toBe("CANCEL_IGNORED");
    expect(why.summary).toMatch(/, and the task ignores it since .*\.$/);
    expect(why.whatNext).toBe(
      `Recycle its worker: \`millrace workers recycle ${worker.id}\`, or POST /api/workers/${worker.id}/recycle; only its end ends this run. Then let the task listen to its signal.`,
    );
  });

  test.each([
    ["its task's timeout", {}, "60 s"],
    ["its own", { timeout: "90s" }, "90 s"],
  ] as const)("is overdue by %s", async (_, options, timeout) => {
    await using mill = await file.open([quick]);
    const worker = await StoreWorker.register(mill);
    const { id } = await mill.enqueue(quick, {}, options);
    await worker.claim(1, "quick");
    const claimedAgo = async (seconds: number): Promise<Explanation> => {
      await mill.db.query(sql`update millrace.leases set claimed_at = now() - ${seconds}::int * interval '1 second'`);
      return mill.explain(id);
    };
    expect((await claimedAgo(Number.parseInt(timeout))).because).toBe("RUNNING");
    const why = await claimedAgo(Number.parseInt(timeout) + 6);
    expect([why.because, others(why)]).toEqual(["OVERDUE", ["RUNNING"]]);
    expect(why.summary).toContain(`longer than its timeout of ${timeout}, so the task ignores its signal.`);
  });

  test("is about to be taken back from a worker that is silent or stopped", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill, "w");
    const { id } = await mill.enqueue(plain, {});
    await worker.claim(1);
    await worker.die();
    let why = await mill.explain(id);
    expect([why.because, others(why)]).toEqual(["WORKER_SILENT", ["RUNNING"]]);
    expect(why.summary).toMatch(
      sentence("Its worker w on host here is silent, last beat 60 min ago: the job is about to be taken back from it."),
    );
    await mill.db.query(sql`update millrace.workers set beat_at = now()`);
    await worker.signOff();
    why = await mill.explain(id);
    expect(why.summary).toMatch(/^Its worker w on host here is stopped, /);
  });
});

describe("a job that is over", () => {
  test("succeeded: where, how fast, and at which attempt", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill, "w");
    const { id } = await mill.enqueue(plain, {});
    await worker.settle(await worker.claim(1), { [id]: { next: "retry", code: "FIRST", delayMs: 0 } });
    await worker.close(await worker.claim(1));
    const why = await mill.explain(id);
    expect(why).toMatchObject({
      status: "completed",
      because: "COMPLETED",
      attempts: 2,
      failedAttempts: 1,
      suggestedAction: null,
      whatNext: "Nothing: it is done.",
      facts: { worker: "w", tookMs: 1, attempt: 2 },
    });
    expect(why.summary).toMatch(sentence("Succeeded after 2 attempts on worker w in 1 ms at <T> (<A>)."));
  });

  test("was archived, and is known even when its history is gone", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill, "w");
    const { id } = await mill.enqueue(plain, {});
    await worker.close(await worker.claim(1));
    await archive(mill, id);
    const why = await mill.explain(id);
    expect(why).toMatchObject({ status: "completed", because: "ARCHIVED", facts: { archivedAt: expect.any(Date) } });
    expect(why.summary).toMatch(
      sentence("Succeeded after 1 attempt on worker w in 1 ms at <T> (<A>); archived at <T> (<A>)."),
    );
    await mill.db.query(sql`delete from millrace.settled`);
    expect((await mill.explain(id)).summary).toMatch(sentence("Succeeded after 1 attempt; archived at <T> (<A>)."));
  });

  test("was given up: why, after how many attempts, with which error", async () => {
    await using mill = await file.open([plain]);
    const worker = await StoreWorker.register(mill, "w");
    const { id } = await mill.enqueue(plain, {}, { maxAttempts: 2 });
    const failure = { next: "retry", code: "CARD_DECLINED", message: "No money.", delayMs: 0 } as const;
    await worker.settle(await worker.claim(1), { [id]: failure });
    await worker.settle(await worker.claim(1), { [id]: failure });
    const why = await mill.explain(id);
    expect(why).toMatchObject({
      status: "failed",
      because: "GAVE_UP",
      attempts: 2,
      failedAttempts: 2,
      deadLetterReason: "MAX_ATTEMPTS_EXCEEDED",
      nextRunAt: null,
      suggestedAction:
        "CARD_DECLINED comes from the task itself: read the error message, fix the cause, then retry the job if it was given up.",
    });
    expect(why.summary).toMatch(
      sentence("Gave up at <T> (<A>) after 2 attempts: MAX_ATTEMPTS_EXCEEDED. Last error CARD_DECLINED: No money."),
    );
  });

  test("killed its workers", async () => {
    await using mill = await file.open([plain]);
    const { id } = await mill.enqueue(plain, {});
    for (let i = 0; i < 3; i += 1) {
      const worker = await StoreWorker.register(mill);
      await (i === 0 ? worker.claim(1) : worker.claimSuspect());
      await worker.die();
      await reapNow(mill);
    }
    const why = await mill.explain(id);
    expect(why).toMatchObject({ because: "GAVE_UP", attempts: 3, failedAttempts: 3, deadLetterReason: "POISON" });
    expect(why.suggestedAction).toContain("killed its worker each time");
  });

  test("was cancelled: by whom and why", async () => {
    await using mill = await file.open([plain]);
    const { id } = await mill.enqueue(plain, {});
    await mill.db.query(sql`delete from millrace.pending`);
    await mill.db.query(sql`
      insert into millrace.attempts (job_id, queue, attempt, outcome, error_message) values (${id}::uuid, 1, 1, 'cancelled', 'No need.')`);
    expect((await mill.explain(id)).summary).toMatch(sentence("Cancelled at <T> (<A>): No need."));
    await mill.db.query(
      sql`insert into millrace.operations (job_id, action, by, reason) values (${id}::uuid, 'cancel', 'ada', 'obsolete'), (${id}::uuid, 'replay', 'bob', null)`,
    );
    expect(await mill.explain(id)).toMatchObject({
      status: "cancelled",
      because: "CANCELLED",
      attempts: 0,
      summary: expect.stringMatching(sentence("Cancelled by ada at <T> (<A>) because obsolete.")),
    });
  });
});

test("a job that moves while it is looked at is no error", async () => {
  await using mill = await file.open([plain]);
  const { id } = await mill.enqueue(plain, {});
  await mill.db.query(sql`delete from millrace.pending`);
  const moving = { because: "MOVING", whatNext: "Ask again." };
  expect(await mill.explain(id)).toMatchObject(moving);
  const job = (await mill.job(id)) as Job;
  const standing = await standingOf(mill, id);
  expect(explain({ job: { ...job, status: "active" }, standing })).toMatchObject(moving);
});

test("every reason is in the reference", () => {
  const page = readFileSync(new URL("../../docs/reference/http.md", import.meta.url), "utf8");
  expect(becauses.filter((because) => !page.includes(`\`${because}\``))).toEqual([]);
});

test.each(["018f0000-0000-7000-8000-000000000000", "no id"])("there is no job %s to explain", async (id) => {
  await using mill = await file.open();
  await expect(mill.explain(id)).rejects.toMatchObject({ code: "JOB_NOT_FOUND" });
});

test("looking writes nothing: a transaction that may only read is enough", async () => {
  await using mill = await file.open([plain]);
  const { id } = await mill.enqueue(plain, {});
  await mill.db.lend(async (tx) => {
    await tx.query("set transaction read only", []);
    const db = { ...mill.db, ...mill.db.adopt(tx) };
    expect((await explainJob(db, id, [])).jobId).toBe(id);
    expect((await timelineOfJob(db, id)).jobId).toBe(id);
  });
});

async function standingOf(mill: Millrace, id: string) {
  return (await readStanding(mill.db, id)) as NonNullable<Awaited<ReturnType<typeof readStanding>>>;
}

/** Moves a waiting job as an operator's reschedule does. */
async function moveTo(mill: Millrace, id: string, when: string): Promise<void> {
  const at = when === "infinity" ? sql`'infinity'::timestamptz` : sql`now() + ${when}::interval`;
  await mill.db.query(sql`
    with moved as (update millrace.pending set run_at = ${at} where job_id = ${id}::uuid returning run_at)
    insert into millrace.operations (job_id, action, by, reason, run_at) select ${id}::uuid, 'reschedule', 'ada', 'too early', run_at from moved`);
}

async function archive(mill: Millrace, id: string): Promise<void> {
  await mill.db.query(sql`
    with gone as (delete from millrace.jobs where id = ${id}::uuid returning *)
    insert into millrace.jobs_archive (id, queue, task, priority, max_attempts, run_at, created_at, replay_of, key, input, options, tags)
    select id, queue, task, priority, max_attempts, run_at, created_at, replay_of, key, input, options, tags from gone`);
}
