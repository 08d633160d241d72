/** Events: what is told, when, and that nothing is told but by reading. */
import { describe, expect, test, vi } from "vitest";
import { type EventStream, type Millrace, type MillraceEvent, schedule, task } from "millrace";
import { sql } from "../../src/db/sql.ts";
import { recorder } from "../http/caller.ts";
import { gate, tally, useDatabase } from "../support/engine.ts";

const file = useDatabase();
const patience = { timeout: 20_000, interval: 10 };

const ok = task({ name: "ok", queue: "mail", run: () => undefined });
const broken = task({
  name: "broken",
  queue: "mail",
  maxAttempts: 2,
  backoff: { delay: "1ms", jitter: 0 },
  run() {
    throw new Error("no stamps");
  },
});

/** Collects everything a stream tells, until it ends. */
function collect(stream: EventStream) {
  const heard: MillraceEvent[] = [];
  const over = (async () => {
    for await (const event of stream) heard.push(event);
  })();
  const types = () => heard.map(({ type }) => type);
  const of = <Type extends MillraceEvent["type"]>(type: Type) => heard.filter((event) => event.type === type);
  return {
    heard,
    over,
    types,
    of,
    until: (...wanted: MillraceEvent["type"][]) =>
      vi.waitFor(() => expect(types()).toEqual(expect.arrayContaining(wanted)), patience),
    count: (type: MillraceEvent["type"], n: number) => vi.waitFor(() => expect(of(type).length).toBe(n), patience),
  };
}

async function follow(mill: Millrace, options: Parameters<Millrace["events"]>[0] = {}) {
  const stream = mill.events(options);
  await stream.ready;
  return { stream, ...collect(stream) };
}

describe("a stream", () => {
  test("tells the life of a job, in order, with what belongs to it", async () => {
    await using mill = await file.open([ok, broken]);
    const { heard, until } = await follow(mill);
    const good = await mill.enqueue(ok, null);
    const bad = await mill.enqueue(broken, null);
    const worker = mill.work({ name: "one" });
    await until("job.completed", "job.failed");
    await worker.stop();
    await until("worker.stopped");
    expect(heard.filter((event) => "jobId" in event && event.jobId === good.id)).toMatchObject([
      { type: "job.enqueued", id: `job-${good.id}`, queue: "mail", task: "ok", replayOf: null },
      { type: "job.completed", queue: "mail", task: "ok", worker: "one", tookMs: expect.any(Number) as number },
    ]);
    expect(heard.filter((event) => "jobId" in event && event.jobId === bad.id)).toMatchObject([
      { type: "job.enqueued" },
      { type: "job.retrying", attempt: 1, errorMessage: "no stamps", retryAt: expect.any(Date) as Date },
      { type: "job.failed", attempt: 2, outcome: "failed", deadLetterReason: "MAX_ATTEMPTS_EXCEEDED" },
    ]);
    expect(heard.filter(({ type }) => type.startsWith("worker."))).toMatchObject([
      { type: "worker.started", worker: "one" },
      { type: "worker.stopped", worker: "one" },
    ]);
    expect(new Set(heard.map(({ id }) => id)).size).toBe(heard.length);
  });

  test("tells what people do to jobs, queues and workers", async () => {
    await using mill = await file.open([ok]);
    await mill.enqueue(ok, null);
    const { heard, until } = await follow(mill);
    const { id } = await mill.enqueue(ok, null, { delay: "1h" });
    await mill.reprioritise(id, 3, { by: "ada", reason: "urgent" });
    await mill.move(id, "slow");
    await mill.cancel(id, { by: "ada" });
    await mill.replay(id);
    await mill.pause("mail", { by: "ada", reason: "deploy" });
    await mill.resume("mail");
    await mill.policies.set("mail", { concurrency: 2 }, { by: "ada" });
    const worker = mill.work();
    await worker.ready();
    await mill.drain({ by: "ada" });
    await until(
      "job.reprioritised",
      "job.moved",
      "job.cancelled",
      "job.replayed",
      "queue.resumed",
      "policy.changed",
      "worker.drained",
    );
    expect(heard.find(({ type }) => type === "job.reprioritised")).toMatchObject({
      jobId: id,
      by: "ada",
      reason: "urgent",
    });
    expect(heard.find(({ type }) => type === "queue.paused")).toMatchObject({
      queue: "mail",
      by: "ada",
      details: { reason: "deploy" },
    });
    expect(heard.find(({ type }) => type === "job.cancelled")).toMatchObject({ jobId: id, queue: "slow" });
    expect(heard.find(({ type }) => type === "worker.drained")).toMatchObject({ by: "ada" });
  });

  test("tells what becomes of schedules", async () => {
    await using mill = await file.open([ok]);
    const { heard, count } = await follow(mill, { type: "schedule.*" });
    const { schedules } = mill;
    await schedules.create({ name: "nightly", task: "ok", cron: "30 2 * * *" }, { by: "ada" });
    await schedules.update("nightly", { cron: "0 3 * * *" }, { by: "ada" });
    await schedules.pause("nightly", { by: "ada", reason: "deploy" });
    await schedules.resume("nightly", { by: "bob" });
    await schedules.delete("nightly", { by: "bob" });
    await count("schedule.deleted", 1);
    const about = { subject: "schedule:nightly", schedule: "nightly" };
    expect(heard).toMatchObject([
      { type: "schedule.created", ...about, by: "ada", details: { spec: { task: "ok", cron: "30 2 * * *" } } },
      { type: "schedule.changed", ...about, action: "schedule.changed", by: "ada", details: { cron: "0 3 * * *" } },
      { type: "schedule.paused", ...about, by: "ada", details: { reason: "deploy" } },
      { type: "schedule.resumed", ...about, by: "bob" },
      { type: "schedule.deleted", ...about, by: "bob" },
    ]);
  });

  test("tells what code does to a schedule as a change of it, and by whom: nobody", async () => {
    await using mill = await file.open([ok]);
    const { heard, count } = await follow(mill, { type: "schedule.*" });
    const define = (name: string, cron: string) =>
      mill.schedules.define([{ source: "code", schedules: [schedule({ name, task: ok, cron })] }], { alone: true });
    await define("nightly", "30 2 * * *");
    await define("nightly", "0 3 * * *");
    await define("daily", "0 3 * * *");
    await count("schedule.changed", 2);
    expect(heard).toMatchObject([
      { type: "schedule.created", schedule: "nightly", by: null },
      { type: "schedule.changed", schedule: "nightly", action: "schedule.defined", by: null },
      { type: "schedule.created", schedule: "daily", by: null },
      { type: "schedule.changed", schedule: "nightly", action: "schedule.retired", by: null },
    ]);
  });

  test("takes only what matches its filter", async () => {
    await using mill = await file.open([ok]);
    const one = await mill.enqueue(ok, null);
    const inMail = await follow(mill, { queue: "mail", type: "job.*" });
    const mine = await follow(mill, { job: one.id });
    await mill.enqueue("other", null, { queue: "else" });
    await mill.enqueue(ok, null);
    const worker = mill.work({ queues: ["mail"] });
    await inMail.count("job.completed", 2);
    await mine.until("job.completed");
    await worker.stop();
    expect(new Set(inMail.types())).toEqual(new Set(["job.enqueued", "job.completed"]));
    expect(inMail.of("job.enqueued")).toHaveLength(1);
    expect(mine.heard).toMatchObject([{ type: "job.completed", jobId: one.id }]);
  });

  test("tells many at once as one, but for the job that somebody asks for", async () => {
    await using mill = await file.open([ok]);
    const all = await follow(mill);
    const ids = await mill.enqueueMany(
      ok,
      Array.from({ length: 2_500 }, () => null),
    );
    await vi.waitFor(() => {
      const singles = all.of("job.enqueued").length;
      const many = all.heard.reduce((sum, event) => sum + (event.type === "jobs.enqueued" ? event.count : 0), 0);
      expect(singles + many).toBe(2_500);
    }, patience);
    const mine = await follow(mill, { job: ids[1_234] as string });
    const worker = mill.work({ concurrency: 500 });
    await vi.waitFor(() => {
      const many = all.heard.reduce((sum, event) => sum + (event.type === "jobs.completed" ? event.count : 0), 0);
      expect(many + all.of("job.completed").length).toBe(2_500);
    }, patience);
    await mine.until("job.completed");
    await worker.stop();
    expect(mine.heard).toHaveLength(1);
  });

  test("goes on from a place, here or in another process, with nothing left out", async () => {
    await using mill = await file.open([ok]);
    const first = await follow(mill, { type: ["job.enqueued", "queue.*"] });
    const one = await mill.enqueue(ok, null);
    await first.until("job.enqueued");
    const { place } = first.stream;
    await first.stream.return();
    const two = await mill.enqueue(ok, null);
    await mill.pause("mail");
    await using other = await file.open([], { schema: mill.db.schema });
    const second = await follow(other, { type: ["job.enqueued", "queue.*"], after: place as string });
    await mill.resume("mail");
    const three = await mill.enqueue(ok, null);
    await second.until("queue.paused", "queue.resumed");
    await second.count("job.enqueued", 2);
    const enqueued = second.of("job.enqueued").map((event) => (event as { jobId: string }).jobId);
    expect(enqueued).toEqual([two.id, three.id]);
    expect(enqueued).not.toContain(one.id);
    expect(second.types()).not.toContain("stream.missed");
  });

  test("says when history since its place is gone", async () => {
    await using mill = await file.open([ok]);
    const first = await follow(mill, { type: "job.completed" });
    const worker = mill.work();
    await mill.enqueue(ok, null);
    await first.until("job.completed");
    const { place } = first.stream;
    for (const n of [2, 3]) {
      await mill.enqueue(ok, null);
      await first.count("job.completed", n);
    }
    await worker.stop();
    await mill.db.query(sql`delete from millrace.settled where id < (select max(id) from millrace.settled)`);
    const [{ n } = { n: 0 }] = await mill.db.query<{ n: number }>(
      sql`select max(id)::int - min(id)::int as n from millrace.settled`,
    );
    expect(n).toBe(0);
    const second = await follow(mill, { type: "job.completed", after: place as string });
    await second.until("stream.missed");
    expect(second.heard[0]).toMatchObject({ reason: "HISTORY_PRUNED", since: expect.any(Date) as Date });
  });

  test("begins anew, and says so, with the place of another database", async () => {
    await using mill = await file.open([ok]);
    const numbers = Buffer.from(JSON.stringify([1, Date.now() * 1_000, [[6, 999_999_999]], [], []]));
    const stream = await follow(mill, { type: "queue.*", after: numbers.toString("base64url") });
    await mill.pause("mail");
    await stream.until("queue.paused");
    expect(stream.heard[0]).toMatchObject({ type: "stream.missed", reason: "OTHER_DATABASE" });
  });

  test("refuses a filter or a place that it cannot read", async () => {
    await using mill = await file.open([ok]);
    expect(() => mill.events({ type: "job.complete" })).toThrow(/job\.completed/);
    expect(() => mill.events({ job: "7" })).toThrow(/id of a job/);
    for (const after of ["x", "W10", Buffer.from("[1,2,[[99,1]],[],[]]").toString("base64url")])
      expect(() => mill.events({ after })).toThrow(expect.objectContaining({ code: "OPTION_INVALID" }) as Error);
  });

  test("ends with what it has when the Millrace is closed", async () => {
    const mill = await file.open([ok]);
    const { over, stream } = await follow(mill);
    await mill.close();
    await over;
    expect(await stream.next()).toEqual({ value: undefined, done: true });
  });

  test("that nobody reads ends by itself, and says where to go on", async () => {
    await using mill = await file.open([ok]);
    const stream = mill.events({ type: "audit.noted" });
    await stream.ready;
    await mill.db.query(
      sql`insert into millrace.audit (action, subject) select 'test', 'test:' || n from generate_series(1, 12000) n`,
    );
    await vi.waitFor(() => expect(stream.closed).toBe(true), patience);
    await expect(stream.next()).rejects.toThrow(expect.objectContaining({ code: "EVENTS_TOO_SLOW" }) as Error);
    const again = await follow(mill, { type: "audit.noted", after: stream.place as string });
    await again.count("audit.noted", 12_000);
  });
});

describe("listeners", () => {
  test("hear their type, once or for ever; what one throws reaches the log and no other", async () => {
    const log = recorder();
    await using mill = await file.open([ok], { log });
    const heard = tally<string>();
    const bad = () => {
      throw new Error("not today");
    };
    await mill.on("job.completed", bad).ready;
    const listening = mill.on("job.completed", ({ jobId, task: name }) => heard.add(`${name} ${jobId}`));
    const first = gate<string>();
    await mill.once("job.completed", ({ jobId }) => first.open(jobId)).ready;
    const one = await mill.enqueue(ok, null);
    const worker = mill.work();
    await heard.reached(1);
    expect(await first.opened).toBe(one.id);
    const two = await mill.enqueue(ok, null);
    await heard.reached(2);
    expect(heard.seen).toEqual([`ok ${one.id}`, `ok ${two.id}`]);
    expect(log.lines.filter(({ message }) => message.startsWith("a listener of events"))).toHaveLength(2);
    listening.off();
    mill.off("job.completed", bad);
    await worker.stop();
  });

  test("hear of other processes", async () => {
    await using mill = await file.open([ok]);
    await using other = await file.open([], { schema: mill.db.schema });
    const heard = gate<string>();
    await other.on("job.enqueued", ({ jobId }) => heard.open(jobId)).ready;
    const { id } = await mill.enqueue(ok, null);
    expect(await heard.opened).toBe(id);
  });

  test("cost nothing while there are none, and nothing again when the last has gone", async () => {
    await using mill = await file.open([ok]);
    let statements = 0;
    const { query, rows } = mill.db;
    const counted =
      <Ask extends (statement: never) => unknown>(ask: Ask) =>
      (statement: Parameters<Ask>[0]) => {
        statements += 1;
        return ask(statement);
      };
    Object.assign(mill.db, { query: counted(query), rows: counted(rows) });
    const listening = mill.on("job.failed", () => undefined);
    await listening.ready;
    expect(statements).toBeGreaterThan(0);
    listening.off();
    await mill.events().return();
    const idle = await vi.waitFor(async () => {
      const before = statements;
      await new Promise((resolve) => setTimeout(resolve, 600)); // silence is what is tested: longer than any pause between looks
      expect(statements).toBe(before);
      return statements;
    }, patience);
    expect(idle).toBe(statements);
  });

  test("refuse a type that does not exist", async () => {
    await using mill = await file.open([ok]);
    expect(() => mill.on("job.done" as "job.completed", () => undefined)).toThrow(/no event of type/);
    expect(() => mill.on("job.completed", undefined as never)).toThrow(/function/);
  });
});
