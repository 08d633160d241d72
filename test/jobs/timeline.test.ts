/** The timeline of a job: everything that happened, read from where it happened, in order. */
import { describe, expect, test } from "vitest";
import { type Millrace, type Timeline, errorCodes, task } from "millrace";
import { suggestedAction } from "../../src/core/errors.ts";
import type { Job } from "../../src/jobs/read-store.ts";
import { timelineOf } from "../../src/jobs/timeline.ts";
import type { HistoryRow } from "../../src/jobs/timeline-store.ts";
import { sql } from "../../src/db/sql.ts";
import { useDatabase } from "../support/engine.ts";
import { StoreWorker, reapNow } from "../support/store-worker.ts";

const file = useDatabase();
const plain = task({ name: "plain", run: () => undefined });

const kinds = ({ story }: Timeline): string[] => story.map(({ kind }) => kind);
const statuses = ({ attempts }: Timeline): unknown[] => attempts.map(({ attempt, status }) => [attempt, status]);
const summaries = ({ story }: Timeline): string[] =>
  story.map(({ summary }) =>
    summary.replaceAll(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ/g, "<T>").replaceAll(/after \d+ ms/g, "after <N> ms"),
  );

test("a job that only waits was enqueued, and that is all", async () => {
  await using mill = await file.open([plain]);
  const { id } = await mill.enqueue(plain, {}, { queue: "mail" });
  const job = (await mill.job(id)) as Job;
  expect(await mill.timeline(id)).toEqual({
    jobId: id,
    status: "waiting",
    queue: "mail",
    task: "plain",
    runAt: job.runAt,
    nextRunAt: job.runAt,
    lastWorker: null,
    lastError: null,
    deadLetterReason: null,
    suggestedAction: null,
    attempts: [],
    story: [
      {
        kind: "Enqueued",
        at: job.createdAt,
        summary: 'Enqueued in queue "mail" for task "plain".',
        queue: "mail",
        priority: 0,
        task: "plain",
        runAt: job.runAt,
        replayOf: null,
        by: null,
        reason: null,
        schedule: null,
        needs: null,
        neededBy: null,
      },
    ],
    resultBytes: null,
    note: null,
  });
});

test("a long life is told from the first attempt to the last, with what people did in between", async () => {
  await using mill = await file.open([plain]);
  const worker = await StoreWorker.register(mill, "w");
  const { id } = await mill.enqueue(plain, {}, { maxAttempts: 2, delay: "1h" });
  await mill.promote(id, { by: "ada" });
  await worker.settle(await worker.claim(1), { [id]: { next: "again", delayMs: 0 } });
  const failure = { next: "retry", code: "TIMEOUT", message: "too slow", outcome: "timed_out", delayMs: 0 } as const;
  await worker.settle(await worker.claim(1), { [id]: failure });
  await worker.settle(await worker.claim(1), { [id]: { next: "retry", code: "NO_FUNDS", message: "Empty." } });
  let told = await mill.timeline(id);
  expect(told).toMatchObject({
    status: "failed",
    deadLetterReason: "MAX_ATTEMPTS_EXCEEDED",
    lastError: { errorCode: "NO_FUNDS", errorMessage: "Empty." },
    suggestedAction: suggestedAction("NO_FUNDS"),
    lastWorker: "w",
    nextRunAt: null,
  });
  expect(summaries(told)).toEqual([
    'Enqueued in queue "default" for task "plain", to run at <T>.',
    'Operator action "promote" by ada.',
    "Attempt 1 was put off on worker w after <N> ms. Due again at <T>.",
    "Attempt 1 took too long on worker w after <N> ms: TIMEOUT: too slow. Due again at <T>.",
    "Attempt 2 failed on worker w after <N> ms: NO_FUNDS: Empty.",
    "Given up, a dead letter: MAX_ATTEMPTS_EXCEEDED, after attempt 2 with NO_FUNDS.",
  ]);
  expect(told.attempts[1]).toEqual({
    id: expect.stringMatching(/^attempt-\d+$/),
    attempt: 1,
    status: "timed_out",
    startedAt: expect.any(Date),
    finishedAt: expect.any(Date),
    tookMs: expect.any(Number),
    worker: "w",
    errorCode: "TIMEOUT",
    errorMessage: "too slow",
    suggestedAction: errorCodes.TIMEOUT.action,
    retryAt: expect.any(Date),
  });

  await mill.retry(id, { by: "ada" });
  const claim = await worker.claim(1);
  told = await mill.timeline(id);
  expect(told.attempts.at(-1)).toMatchObject({ attempt: 3, status: "running", finishedAt: null, tookMs: null });
  expect(summaries(told).at(-1)).toBe("Attempt 3 runs on worker w.");
  await worker.close(claim);
  told = await mill.timeline(id);
  expect(statuses(told)).toEqual([
    [1, "snoozed"],
    [1, "timed_out"],
    [2, "failed"],
    [3, "succeeded"],
  ]);
  expect(told).toMatchObject({ status: "completed", suggestedAction: null, deadLetterReason: null });
  expect(told.attempts.at(-1)).toMatchObject({ tookMs: 1, worker: "w", errorCode: null });
  expect(kinds(told)).not.toContain("DeadLettered");
});

test("a lost attempt, and the late result of the worker that had lost it", async () => {
  await using mill = await file.open([plain]);
  const worker = await StoreWorker.register(mill, "slow");
  const { id } = await mill.enqueue(plain, {});
  const claim = await worker.claim(1);
  await worker.die();
  await reapNow(mill);
  await worker.settle(claim, { [id]: { next: "retry", code: "TOO_LATE", message: "x" } });
  const told = await mill.timeline(id);
  expect(kinds(told)).toEqual(["Enqueued", "Attempt", "LateResult"]);
  expect(statuses(told)).toEqual([[1, "lost"]]);
  expect(told.lastError).toMatchObject({ errorCode: "WORKER_LOST" });
  expect(summaries(told)[1]).toMatch(
    /^Attempt 1 was lost with its worker on worker slow: WORKER_LOST: The worker died/,
  );
  expect(summaries(told)[2]).toBe(
    "A late result of attempt 1 from worker slow: it failed with TOO_LATE. The job was no longer its; nothing was applied.",
  );
});

test("what storm control decided, and that somebody wants it to end", async () => {
  await using mill = await file.open([plain]);
  const worker = await StoreWorker.register(mill);
  const { id } = await mill.enqueue(plain, {});
  await mill.db.query(sql`
    insert into millrace.policy_decisions (queue, job_id, decision, reason_code, details)
    select queue, id, 'THROTTLED', 'IN_FLIGHT_EXCEEDED', '{"in_flight": 3, "mixedCase": 1}' from millrace.jobs`);
  await worker.claim(1);
  await mill.db.query(sql`
    insert into millrace.cancel_requests (job_id, at, by, reason, ignored_at)
    values (${id}::uuid, now() + interval '1 second', 'ada', 'wrong input.', now() + interval '2 seconds')`);
  const { story } = await mill.timeline(id);
  expect(story.slice(1)).toEqual([
    {
      kind: "PolicyDecision",
      at: expect.any(Date),
      id: expect.any(String),
      decision: "THROTTLED",
      reasonCode: "IN_FLIGHT_EXCEEDED",
      details: { in_flight: 3, mixedCase: 1 },
      summary: "Storm control: THROTTLED, IN_FLIGHT_EXCEEDED.",
    },
    expect.objectContaining({ kind: "Attempt", status: "running" }),
    {
      kind: "CancelRequested",
      at: expect.any(Date),
      by: "ada",
      reason: "wrong input.",
      ignoredAt: expect.any(Date),
      summary: expect.stringMatching(/^Cancel asked for by ada because wrong input\. The task ignores it since .*Z\.$/),
    },
  ]);
});

test("a cancel that waits for its task is told once, and so is one that is over", async () => {
  await using mill = await file.open([plain]);
  const worker = await StoreWorker.register(mill);
  const { id } = await mill.enqueue(plain, {});
  await worker.claim(1);
  await mill.db.query(sql`
    with asked as (insert into millrace.cancel_requests (job_id, by) values (${id}::uuid, 'ada'))
    insert into millrace.operations (job_id, action, by) values (${id}::uuid, 'cancel', 'ada')`);
  expect(kinds(await mill.timeline(id))).toEqual(["Enqueued", "Attempt", "CancelRequested"]);
  await mill.db.query(sql`delete from millrace.cancel_requests`);
  expect(kinds(await mill.timeline(id))).toEqual(["Enqueued", "Attempt", "Operation"]);
});

test("a replay names its origin, and the origin its replays, archived or not", async () => {
  await using mill = await file.open([plain]);
  const { id: origin } = await mill.enqueue(plain, {});
  const { id: first } = await mill.enqueue(plain, {});
  const { id: second } = await mill.enqueue(plain, {});
  await mill.db.query(sql`update millrace.jobs set replay_of = ${origin}::uuid where id <> ${origin}::uuid`);
  await archive(mill, second);
  const { story } = await mill.timeline(origin);
  expect(story.slice(1).map((entry) => entry.kind === "Replayed" && entry.jobId)).toEqual([first, second]);
  const [enqueued] = (await mill.timeline(first)).story;
  expect(enqueued).toMatchObject({ kind: "Enqueued", replayOf: origin });
  expect(enqueued?.summary).toContain(`a replay of ${origin}`);
});

test.each([
  [9_999, "9999 jobs need it."],
  [10_000, "10000 jobs or more need it."],
])("of %i jobs that need one, the timeline says how far they were counted", (count, told) => {
  const body = { queue: "default", priority: 0, needed_by: { count, first: [] } };
  const row: HistoryRow = { told: "enqueued", at: new Date(), atUs: 0, id: "1", body };
  expect(timelineOf({ lastErrorCode: null } as Job, [row]).story[0]?.summary).toContain(told);
});

describe("a job that was put elsewhere", () => {
  test("was enqueued where it was enqueued, and each order says what it changed", async () => {
    await using mill = await file.open([plain]);
    const { id } = await mill.enqueue(plain, {}, { delay: "1h", priority: 1 });
    const due = (await mill.job(id))?.runAt;
    await mill.change(id, { queue: "newq", priority: 5, by: "ada", reason: "in a hurry" });
    await mill.move(id, "third");
    await mill.reschedule(id, "2h");
    await mill.move(id, "third");
    const told = await mill.timeline(id);
    expect(told.queue).toBe("third");
    expect(summaries(told)).toEqual([
      'Enqueued in queue "default" with priority 1 for task "plain", to run at <T>.',
      'Operator action "change" by ada because in a hurry, from queue "default" to "newq", from priority 1 to 5.',
      'Operator action "move", from queue "newq" to "third".',
      'Operator action "reschedule", due at <T>.',
      'Operator action "move".',
    ]);
    expect(told.story[0]).toMatchObject({ queue: "default", priority: 1 });
    expect(told.story.slice(1).map((entry) => entry.kind === "Operation" && entry.changes)).toEqual([
      { queue: { from: "default", to: "newq" }, priority: { from: 1, to: 5 } },
      { queue: { from: "newq", to: "third" } },
      { runAt: { from: due, to: (await mill.job(id))?.runAt } },
      {},
    ]);
  });

  test("by a bulk operation tells it too", async () => {
    await using mill = await file.open([plain]);
    const { id } = await mill.enqueue(plain, {}, { queue: "held" });
    await using worker = mill.work({ queues: ["maintenance"] });
    const move = await mill.bulk("move", { queue: "held" }, { queue: "newq", by: "ada" });
    await mill.waitUntilFinished(move.id);
    const raise = await mill.bulk("reprioritise", { ids: [id] }, { priority: 7 });
    await mill.waitUntilFinished(raise.id);
    await worker.stop();
    expect(summaries(await mill.timeline(id))).toEqual([
      'Enqueued in queue "held" for task "plain".',
      'Operator action "move" by ada, from queue "held" to "newq".',
      'Operator action "reprioritise", from priority 0 to 7.',
    ]);
  });

  test("before orders said what they changed, tells its time as they did", () => {
    const at = new Date("2027-01-01T00:00:00Z");
    const body = { action: "move", run_at: "2027-01-01T01:00:00Z", details: null };
    const row: HistoryRow = { told: "operation", at, atUs: 0, id: "1", body };
    expect(timelineOf({ lastErrorCode: null } as Job, [row]).story[0]).toMatchObject({
      changes: null,
      summary: 'Operator action "move", due at 2027-01-01T01:00:00Z.',
    });
  });
});

describe("who enqueued", () => {
  const first = async (mill: Millrace, id: string): Promise<unknown> => (await mill.timeline(id)).story[0];

  test("is told of a job, of jobs together and of those of a flow, and nothing is kept where nobody says so", async () => {
    await using mill = await file.open([plain]);
    const { id } = await mill.enqueue(plain, {}, { by: "ada" });
    const [one = ""] = await mill.enqueueMany(plain, [{}], { by: "bob", timeout: "1m" });
    const { jobs } = await mill.enqueueFlow({
      jobs: { a: { task: plain, by: "cyd" }, b: { task: plain, after: ["a"], by: "dan" } },
    });
    expect(await first(mill, id)).toMatchObject({
      by: "ada",
      reason: null,
      summary: 'Enqueued by ada in queue "default" for task "plain".',
    });
    expect(await first(mill, one)).toMatchObject({ by: "bob" });
    expect(await first(mill, jobs.a)).toMatchObject({ by: "cyd" });
    expect(await first(mill, jobs.b)).toMatchObject({ by: "dan" });
    const unsigned = await mill.enqueue(plain, {});
    const [stored] = await mill.db.query(sql`select options from millrace.jobs where id = ${unsigned.id}::uuid`);
    expect(stored).toEqual({ options: null });
    await expect(mill.enqueue(plain, {}, { by: "x".repeat(201) })).rejects.toMatchObject({ code: "OPTION_INVALID" });
  });

  test("calls of different people at once all go in, by the rules of their queue", async () => {
    await using mill = await file.open([plain]);
    const names = ["ada", undefined, "bob", undefined];
    const enqueue = (queue: string): Promise<{ id: string }[]> =>
      Promise.all(names.map((by) => mill.enqueue(plain, {}, { queue, ...(by === undefined ? {} : { by }) })));
    await mill.policies.set("guarded", { maxEnqueuePerMinute: 100 });
    for (const queue of ["free", "guarded"])
      for (const [i, { id }] of (await enqueue(queue)).entries())
        expect(await first(mill, id)).toMatchObject({ queue, by: names[i] ?? null });
  });

  test("a replay says who replayed it and why, and not who enqueued its origin", async () => {
    await using mill = await file.open([plain]);
    const { id: origin } = await mill.enqueue(plain, {}, { by: "ada", timeout: "1m" });
    const { id } = await mill.replay(origin, { by: "bob", reason: "lost mail." });
    expect(await first(mill, id)).toMatchObject({
      by: "bob",
      reason: "lost mail.",
      summary: `Enqueued in queue "default" for task "plain", a replay of ${origin} by bob because lost mail.`,
    });
    const { id: unsigned } = await mill.replay(id);
    expect(await first(mill, unsigned)).toMatchObject({ by: null, reason: null, replayOf: id });
    const [stored] = await mill.db.query(sql`select options from millrace.jobs where id = ${unsigned}::uuid`);
    expect(stored).toEqual({ options: { timeout_ms: 60_000 } });
  });

  test("whoever puts a debounced job off is told too", async () => {
    await using mill = await file.open([plain]);
    const debounce = { key: "k", wait: "1h" } as const;
    const { id } = await mill.enqueue(plain, {}, { debounce, by: "ada" });
    await mill.enqueue(plain, {}, { debounce, by: "bob" });
    expect(summaries(await mill.timeline(id))).toEqual([
      'Enqueued by ada in queue "default" for task "plain", to run at <T>.',
      "Put off: enqueued again under its key by bob, due at <T>.",
    ]);
  });

  test("of a run of a schedule by hand, at once or queued behind another", async () => {
    await using mill = await file.open([plain]);
    await mill.schedules.create({ name: "s", task: plain, every: "1h", overlap: "queue" });
    const ran = await mill.schedules.runNow("s", { by: "ada", reason: "asked by mail" });
    expect(await first(mill, ran.jobId ?? "")).toMatchObject({
      by: "ada",
      summary: expect.stringMatching(
        /^Enqueued by schedule "s" for \S+, run by ada because asked by mail, in queue "default"/,
      ) as string,
    });
    await mill.schedules.runNow("s", { by: "bob" });
    await using worker = mill.work();
    await expect.poll(async () => (await mill.schedules.runs("s")).map(({ jobId }) => jobId)).not.toContain(null);
    const queued = (await mill.schedules.runs("s")).find(({ jobId }) => jobId !== ran.jobId);
    expect(await first(mill, queued?.jobId ?? "")).toMatchObject({ by: "bob", schedule: { name: "s" } });
    await worker.stop();
  });
});

test("an archived job answers as before, and says that it is archived", async () => {
  await using mill = await file.open([plain]);
  const worker = await StoreWorker.register(mill);
  const { id } = await mill.enqueue(plain, { a: 1 }, { tags: ["x"] });
  await worker.close(await worker.claim(1));
  const job = await mill.job(id);
  const before = await mill.timeline(id);
  await archive(mill, id);
  expect(await mill.job(id)).toEqual(job);
  const after = await mill.timeline(id);
  expect({ ...after, story: after.story.slice(0, -1) }).toEqual(before);
  expect(after.story.at(-1)).toMatchObject({ kind: "Archived", summary: "Moved to the archive." });
});

test("a story of thousands is cut to the newest thousand, and says so", async () => {
  await using mill = await file.open([plain]);
  const { id } = await mill.enqueue(plain, {}, { delay: "1h" });
  const snooze = async (n: number): Promise<Timeline> => {
    await mill.db.query(sql`
      insert into millrace.attempts (job_id, queue, attempt, outcome, error_code, finished_at)
      select ${id}::uuid, 1, 1, 'snoozed', 'N' || n, now() + n * interval '1 second' from generate_series(1, ${n}::int) n`);
    return mill.timeline(id);
  };
  const short = await snooze(900);
  expect([short.story.length, short.note]).toEqual([901, null]);
  const long = await snooze(2_000);
  expect([long.story.length, long.attempts.length]).toEqual([1_001, 1_000]);
  expect(long.note).toBe("Only the newest 1000 entries are shown.");
  expect(long.story[0]?.kind).toBe("Enqueued");
  expect(long.attempts.at(-1)?.errorCode).toBe("N2000");
});

test("what happened in the same moment is told in one order: decisions before attempts", () => {
  const at = new Date(0);
  const row = (told: HistoryRow["told"], body: HistoryRow["body"] = {}): HistoryRow => ({
    told,
    at,
    atUs: 0,
    id: "1",
    body,
  });
  const job = {
    id: "x",
    queue: "q",
    task: "t",
    status: "failed",
    deadLetterReason: "POISON",
    lastErrorCode: "X",
  } as Job;
  const rows = [
    row("archived"),
    row("replay"),
    row("operation", { action: "retry", run_at: "infinity" }),
    row("dead", { reason: "POISON", error_code: "X", attempt: 1 }),
    row("attempt", { outcome: "failed", late: true, attempt: 1 }),
    row("attempt", { outcome: "failed", late: false, attempt: 1, error_code: "X" }),
    row("cancel"),
    row("decision", { decision: "THROTTLED", reason_code: "Y" }),
    row("enqueued"),
  ];
  const told = timelineOf(job, rows);
  expect(kinds(told)).toEqual([
    "Enqueued",
    "PolicyDecision",
    "CancelRequested",
    "Attempt",
    "LateResult",
    "DeadLettered",
    "Operation",
    "Replayed",
    "Archived",
  ]);
  expect(told.suggestedAction).toBe(errorCodes.POISON.action);
  expect(summaries(told)[3]).toBe("Attempt 1 failed: X.");
});

test("steps of one moment are told in their order", () => {
  const job = { id: "x", queue: "q", task: "t", status: "waiting" } as Job;
  const step = (place: number): HistoryRow => ({
    told: "step",
    at: new Date(0),
    atUs: 0,
    id: String(place),
    body: { place, name: `step ${place}`, kind: "run", attempt: 1, started_at: 0, finished_at: 0, returned: false },
  });
  const { story } = timelineOf(job, [step(2), step(0), step(1)]);
  expect(story.map((entry) => entry.kind === "Step" && entry.place)).toEqual([1, 2, 3]);
});

test("within a millisecond, microseconds decide", () => {
  const job = { id: "x", queue: "q", task: "t", status: "waiting" } as Job;
  const attempt = { at: new Date(0), id: "1", told: "attempt", body: { outcome: "snoozed", attempt: 1 } } as const;
  const promoted = { at: new Date(0), id: "1", told: "operation", body: { action: "promote" } } as const;
  const told = timelineOf(job, [
    { ...attempt, atUs: 7 },
    { ...promoted, atUs: 5 },
  ]);
  expect(kinds(told)).toEqual(["Operation", "Attempt"]);
});

describe("what to do about an error code", () => {
  test.each(Object.entries(errorCodes))("%s: the catalogue says", (code, { action }) => {
    expect(suggestedAction(code)).toBe(action);
  });

  test.each(["NO_FUNDS", "constructor", "toString"])("%s: it comes from the task", (code) => {
    expect(suggestedAction(code)).toBe(
      `${code} comes from the task itself: read the error message, fix the cause, then retry the job if it was given up.`,
    );
  });

  test("nothing when there was no error", () => expect(suggestedAction(null)).toBeNull());
});

test.each(["018f0000-0000-7000-8000-000000000000", "no id"])("there is no timeline of %s", async (id) => {
  await using mill = await file.open();
  await expect(mill.timeline(id)).rejects.toMatchObject({ code: "JOB_NOT_FOUND" });
});

async function archive(mill: Millrace, id: string): Promise<void> {
  await mill.db.query(sql`
    with gone as (delete from millrace.jobs where id = ${id}::uuid returning *)
    insert into millrace.jobs_archive (id, queue, task, priority, max_attempts, run_at, created_at, replay_of, key, input, options, tags)
    select id, queue, task, priority, max_attempts, run_at, created_at, replay_of, key, input, options, tags from gone`);
}

describe("a job of a flow", () => {
  test("says whom it needs and who needs it, that it was released, and how long its result is", async () => {
    await using mill = await file.open([plain]);
    const returns = task({ name: "returns", run: () => "four" });
    await using runs = await file.open([plain, returns], { schema: mill.db.schema });
    const { jobs } = await mill.enqueueFlow({
      jobs: {
        extract: { task: "returns" },
        left: { task: plain, after: ["extract"] },
        right: { task: plain, after: ["extract", "left"] },
      },
    });
    const worker = runs.work();
    await runs.waitUntilFinished(jobs.right);
    await worker.stop();
    const [extract, left, right] = await Promise.all(
      [jobs.extract, jobs.left, jobs.right].map((id) => mill.timeline(id)),
    );
    expect(extract).toMatchObject({ resultBytes: 6, note: null });
    expect(extract?.story[0]).toMatchObject({
      summary: 'Enqueued in queue "default" for task "returns". 2 jobs need it.',
      needs: null,
      neededBy: { count: 2, first: [jobs.left, jobs.right].toSorted() },
    });
    expect(left?.resultBytes).toBeNull();
    expect(summaries(left as Timeline).slice(0, 2)).toEqual([
      'Enqueued in queue "default" for task "plain". It needs 1 job: extract. 1 job needs it.',
      "Released by the jobs it waited for.",
    ]);
    expect(right?.story[0]).toMatchObject({
      needs: {
        count: 2,
        first: [
          { name: "extract", id: jobs.extract },
          { name: "left", id: jobs.left },
        ],
      },
      neededBy: null,
    });
  });

  test("names the first twenty of many", async () => {
    await using mill = await file.open([plain]);
    const { callback, ids } = await mill.enqueueBatch(plain, Array.from({ length: 50 }), { callback: { task: plain } });
    const [entry] = (await mill.timeline(callback)).story;
    expect(entry).toMatchObject({
      needs: { count: 50, first: ids.slice(0, 20).map((id, n) => ({ id, name: `${n + 1}` })) },
    });
    expect(entry?.summary).toMatch(/ It needs 50 jobs: 1, 2, .*, 20, …\.$/);
    const needed = await mill.enqueueFlow({
      jobs: {
        one: { task: plain },
        ...Object.fromEntries(Array.from({ length: 30 }, (_, n) => [`n${n}`, { task: plain, after: ["one"] }])),
      },
    });
    const [first] = (await mill.timeline(needed.jobs["one"] as string)).story;
    expect(first).toMatchObject({ neededBy: { count: 30 } });
    expect((first as Extract<typeof first, { kind: "Enqueued" }>).neededBy?.first).toHaveLength(20);
  });

  test("that went down with another says so, and that it waits again or was released when that was mended", async () => {
    let broken = true;
    const flaky = task({
      name: "flaky",
      maxAttempts: 1,
      run() {
        if (broken) throw new Error("not yet");
      },
    });
    await using mill = await file.open([plain, flaky]);
    const { jobs } = await mill.enqueueFlow({
      jobs: { a: { task: flaky }, z: { task: plain, delay: "1h" }, b: { task: plain, after: ["a", "z"] } },
    });
    mill.work();
    await expect(mill.waitUntilFinished(jobs.b)).rejects.toMatchObject({ code: "JOB_FAILED" });
    expect(summaries(await mill.timeline(jobs.b)).slice(1)).toEqual([
      `Not run: Job ${jobs.a} ("a"), which this one needs, has failed.`,
      "Given up, a dead letter: DEPENDENCY_FAILED, after attempt 1 with DEPENDENCY_FAILED.",
    ]);
    broken = false;
    await mill.retry(jobs.a);
    await expect.poll(async () => (await mill.job(jobs.b))?.status, { timeout: 10_000 }).toBe("blocked");
    expect(summaries(await mill.timeline(jobs.b)).at(-1)).toBe(
      "Waits for other jobs again: one of those that had failed has completed since.",
    );
  });
});

describe("a run in steps", () => {
  test("tells each step: done, slept, waited for", async () => {
    const order = task({
      name: "order",
      async run({ step }) {
        await step.run("pay", () => 1);
        await step.sleep("nap", "20ms");
        await step.waitForEvent("paid", { event: "order.1.paid" });
        await step.waitForEvent("never", { event: "order.1.never", timeout: "10ms" });
        await step.waitForEvent("last", { event: "order.1.last" });
      },
    });
    await using mill = await file.open([order]);
    const { id } = await mill.enqueue(order, null);
    mill.work();
    const steps = async () => (await mill.timeline(id)).story.filter(({ kind }) => kind === "Step");
    await expect.poll(async () => (await steps()).length, { timeout: 10_000 }).toBe(3);
    await expect.poll(async () => (await mill.job(id))?.status, { timeout: 10_000 }).toBe("delayed");
    await mill.emit("order.1.paid", { euros: 5 }, { by: "bank" });
    await expect.poll(async () => (await steps()).length, { timeout: 10_000 }).toBe(5);
    await expect.poll(async () => (await mill.job(id))?.status, { timeout: 10_000 }).toBe("delayed");
    const told = await mill.timeline(id);
    expect(summaries(told).filter((line) => line.startsWith("Step"))).toEqual([
      'Step 1, "pay": done in attempt 1.',
      'Step 2, "nap": sleeps until <T>.',
      'Step 3, "paid": event "order.1.paid" has come.',
      'Step 4, "never": event "order.1.never" did not come in time.',
      'Step 5, "last": waits for event "order.1.last" until <T>.',
    ]);
    expect(summaries(told)).toContain('Woken by event "order.1.paid" by bank.');
    expect((await steps())[0]).toMatchObject({
      place: 1,
      name: "pay",
      stepKind: "run",
      attempt: 1,
      finishedAt: expect.any(Date),
      until: null,
      event: null,
    });
  });

  test("of very many steps tells the newest two hundred, and how many there are", async () => {
    const many = task({
      name: "many",
      async run({ step }) {
        await Promise.all(Array.from({ length: 250 }, (_, n) => step.run(`s${n}`, () => n)));
      },
    });
    await using mill = await file.open([many]);
    const job = await mill.enqueue(many, null);
    mill.work();
    await mill.waitUntilFinished(job);
    const told = await mill.timeline(job.id);
    const steps = told.story.filter(({ kind }) => kind === "Step");
    expect(steps).toHaveLength(200);
    expect(steps.every(({ summary }) => !summary.startsWith("Step 1,"))).toBe(true);
    expect(told.note).toBe("Only the newest 200 of 250 steps are shown.");
  });
});

test("a debounced job says that it was put off", async () => {
  await using mill = await file.open([plain]);
  const { id } = await mill.enqueue(plain, 1, { debounce: { key: "k", wait: "1h" } });
  await mill.enqueue(plain, 2, { debounce: { key: "k", wait: "1h" } });
  expect(summaries(await mill.timeline(id)).at(-1)).toBe("Put off: enqueued again under its key, due at <T>.");
});
