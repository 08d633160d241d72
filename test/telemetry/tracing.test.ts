/** Spans, with an exporter in memory. */
import { SpanKind, SpanStatusCode, context, createTraceState, trace } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import {
  BasicTracerProvider,
  InMemorySpanExporter,
  type ReadableSpan,
  SimpleSpanProcessor,
} from "@opentelemetry/sdk-trace-base";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { type Millrace, NonRetryableError, task } from "millrace";
import { sql } from "../../src/db/sql.ts";
import { loadTracing } from "../../src/telemetry/tracing.ts";
import { recorder } from "../http/caller.ts";
import { useDatabase } from "../support/engine.ts";

const file = useDatabase();
const patience = { timeout: 20_000, interval: 10 };
const exporter = new InMemorySpanExporter();

const ok = task({ name: "ok", queue: "mail", run: () => undefined });
const own = task({
  name: "own",
  queue: "mail",
  async run() {
    await new Promise((resolve) => setTimeout(resolve, 5));
    trace.getTracer("mine").startSpan("my own").end();
  },
});
const broken = task({
  name: "broken",
  queue: "mail",
  run() {
    throw new NonRetryableError("no stamps", { code: "NO_STAMPS" });
  },
});

beforeEach(() => {
  exporter.reset();
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  trace.setGlobalTracerProvider(new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }));
});
afterEach(() => {
  trace.disable();
  context.disable();
});

const spans = (name: string): ReadableSpan[] => exporter.getFinishedSpans().filter((span) => span.name === name);
const until = (name: string, count = 1) =>
  vi.waitFor(() => {
    expect(spans(name)).toHaveLength(count);
    return spans(name);
  }, patience);

const ms = ([seconds, nanos]: [number, number] = [0, 0]): number => seconds * 1e3 + nanos / 1e6;

/** Runs `work` within a span, as a request handler would. */
async function request<Result>(work: () => Promise<Result>): Promise<{ result: Result; span: ReadableSpan }> {
  return trace.getTracer("web").startActiveSpan("request", async (span) => {
    const result = await work();
    span.end();
    return { result, span: span as unknown as ReadableSpan };
  });
}

const optionsOf = async (mill: Millrace, id: string) =>
  (await mill.db.query<{ options: unknown }>(sql`select options from millrace.jobs where id = ${id}::uuid`))[0]
    ?.options;

describe("a job enqueued within a span", () => {
  test("is sent, processed and worked on in one trace", async () => {
    await using mill = await file.open([own]);
    const { result: job, span: root } = await request(() => mill.enqueue(own, null));
    mill.work({ name: "one" });
    const [process] = await until("process own");
    const [mine] = await until("my own");
    const [send] = spans("send mail");
    expect(send).toMatchObject({
      kind: SpanKind.PRODUCER,
      parentSpanContext: { spanId: root.spanContext().spanId },
      attributes: {
        "messaging.system": "millrace",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": "mail",
        "messaging.message.id": job.id,
      },
    });
    expect(process).toMatchObject({
      kind: SpanKind.CONSUMER,
      parentSpanContext: { spanId: send?.spanContext().spanId },
      links: [{ context: { spanId: send?.spanContext().spanId } }],
      status: { code: SpanStatusCode.UNSET },
      attributes: {
        "messaging.system": "millrace",
        "messaging.operation.type": "process",
        "messaging.destination.name": "mail",
        "messaging.message.id": job.id,
        "millrace.task": "own",
        "millrace.attempt": 1,
        "millrace.worker": "one",
        "millrace.outcome": "succeeded",
        "millrace.waited_ms": expect.any(Number) as number,
      },
    });
    const [wait] = spans("wait mail");
    expect(wait).toMatchObject({
      kind: SpanKind.INTERNAL,
      parentSpanContext: { spanId: send?.spanContext().spanId },
      status: { code: SpanStatusCode.UNSET },
      attributes: {
        "messaging.system": "millrace",
        "messaging.operation.name": "wait",
        "messaging.destination.name": "mail",
        "messaging.message.id": job.id,
        "millrace.task": "own",
        "millrace.attempt": 1,
        "millrace.delay_ms": 0,
      },
    });
    expect(ms(wait?.endTime)).toBeLessThanOrEqual(ms(process?.startTime) + 1);
    expect(mine?.parentSpanContext?.spanId).toBe(process?.spanContext().spanId);
    expect(new Set(exporter.getFinishedSpans().map((span) => span.spanContext().traceId)).size).toBe(1);
  });

  test("keeps its tracestate, and each attempt is a span of its own with its error", async () => {
    const twice = task({
      name: "twice",
      backoff: { delay: "1ms", jitter: 0 },
      run({ attempt }) {
        if (attempt === 1) throw new Error("not yet");
      },
    });
    await using mill = await file.open([twice]);
    const outside = {
      traceId: "0af7651916cd43dd8448eb211c80319c",
      spanId: "b7ad6b7169203331",
      traceFlags: 1,
      traceState: createTraceState("vendor=x"),
    };
    const { id } = await context.with(trace.setSpanContext(context.active(), outside), () => mill.enqueue(twice, null));
    expect(await optionsOf(mill, id)).toEqual({
      trace: {
        traceparent: expect.stringMatching(/^00-0af7651916cd43dd8448eb211c80319c-[0-9a-f]{16}-01$/) as string,
        tracestate: "vendor=x",
      },
    });
    mill.work();
    const [first, second] = await until("process twice", 2);
    expect(first).toMatchObject({
      attributes: { "error.type": "UNKNOWN", "millrace.attempt": 1, "millrace.outcome": "failed" },
      status: { code: SpanStatusCode.ERROR, message: "not yet" },
      events: [{ name: "exception" }],
    });
    expect(second).toMatchObject({ attributes: { "millrace.attempt": 2, "millrace.outcome": "succeeded" } });
    expect(second?.spanContext()).toMatchObject({ traceId: outside.traceId });
    const [once, again] = await until("wait default", 2);
    expect(once).toMatchObject({ attributes: { "millrace.attempt": 1, "millrace.delay_ms": 0 } });
    expect(again).toMatchObject({ attributes: { "millrace.attempt": 2 } });
    expect(again?.attributes["millrace.delay_ms"]).toBeGreaterThan(0);
    expect(second?.spanContext().traceState?.serialize()).toBe("vendor=x");
    const replay = await mill.replay(id);
    expect(await optionsOf(mill, replay.id)).toBeNull();
  });

  test("fails with its error's code", async () => {
    await using mill = await file.open([broken]);
    await mill.enqueue(broken, null);
    mill.work();
    const [process] = await until("process broken");
    expect(process).toMatchObject({
      attributes: { "error.type": "NO_STAMPS" },
      status: { code: SpanStatusCode.ERROR, message: "no stamps" },
    });
  });

  test("with others, by enqueueMany, a batch or a flow, shares one span of sending", async () => {
    await using mill = await file.open([ok]);
    const { result: ids } = await request(() => mill.enqueueMany(ok, [1, 2, 3]));
    await request(() =>
      mill.enqueueFlow({ jobs: { a: { task: ok, input: 1 }, b: { task: ok, input: 2, after: ["a"] } } }),
    );
    const [many] = spans("send mail");
    const [flow] = spans("send");
    expect(many?.attributes["messaging.batch.message_count"]).toBe(3);
    expect(flow?.attributes["messaging.batch.message_count"]).toBe(2);
    mill.work();
    const processed = await until("process ok", 5);
    expect(processed.filter((span) => ids.includes(String(span.attributes["messaging.message.id"])))).toHaveLength(3);
    const parents = processed.map((span) => span.parentSpanContext?.spanId);
    expect(parents.filter((id) => id === many?.spanContext().spanId)).toHaveLength(3);
    expect(parents.filter((id) => id === flow?.spanContext().spanId)).toHaveLength(2);
  });

  test("that cannot be enqueued leaves its error with the span", async () => {
    await using mill = await file.open([ok]);
    await request(() => mill.enqueue(ok, null, { priority: 1e9 }).catch(() => undefined));
    expect(spans("send mail")[0]).toMatchObject({
      attributes: { "error.type": "OPTION_INVALID" },
      status: { code: SpanStatusCode.ERROR },
    });
  });
});

describe("the wait of a job", () => {
  const claims: Record<string, (mill: Millrace, id: string) => Promise<unknown>> = {
    "from a plain queue": async () => undefined,
    "from one with limits": (mill) => mill.policies.set("mail", { concurrency: 1 }),
    "after a worker was lost with it": (mill, id) =>
      mill.db.query(sql`update millrace.pending set losses = 1 where job_id = ${id}::uuid`),
  };

  test.each(Object.entries(claims))("claimed %s begins when it was due, and tells its delay", async (_, prepare) => {
    await using mill = await file.open([ok]);
    const { result: job } = await request(() => mill.enqueue(ok, null, { delay: "1h" }));
    // As if that was 65 minutes ago.
    const id = sql`${job.id}::uuid`;
    await mill.db.query(sql`update millrace.jobs set created_at = created_at - interval '65 minutes' where id = ${id}`);
    await mill.db.query(
      sql`update millrace.pending set run_at = (select created_at + interval '1 hour' from millrace.jobs where id = ${id}) where job_id = ${id}`,
    );
    await prepare(mill, job.id);
    mill.work();
    const [wait] = await until("wait mail");
    const [process] = await until("process ok");
    expect(wait?.attributes["millrace.delay_ms"]).toBe(3_600_000);
    const lasted = ms(wait?.endTime) - ms(wait?.startTime);
    expect(lasted).toBeGreaterThanOrEqual(300_000);
    expect(lasted).toBeLessThan(400_000);
    expect(Math.abs(ms(wait?.endTime) - ms(process?.startTime))).toBeLessThan(1_000);
  });

  test("of a trace that is not sampled is no span", async () => {
    await using mill = await file.open([ok]);
    const outside = { traceId: "0af7651916cd43dd8448eb211c80319c", spanId: "b7ad6b7169203331", traceFlags: 0 };
    const job = await context.with(trace.setSpanContext(context.active(), outside), () => mill.enqueue(ok, null));
    expect(await optionsOf(mill, job.id)).toMatchObject({ trace: {} });
    mill.work();
    await mill.waitUntilFinished(job);
    expect(exporter.getFinishedSpans()).toEqual([]);
  });
});

describe("without a trace", () => {
  test("a job enqueued outside of every span stays plain, and its run begins a trace", async () => {
    await using mill = await file.open([ok]);
    const { id } = await mill.enqueue(ok, null);
    expect(await optionsOf(mill, id)).toBeNull();
    mill.work();
    const [process] = await until("process ok");
    expect(process?.parentSpanContext).toBeUndefined();
    expect(exporter.getFinishedSpans()).toHaveLength(1);
  });

  test("a run is never the child of what happened to be active when it started", async () => {
    await using mill = await file.open([own]);
    await request(async () => mill.work({ concurrency: 1 }).ready());
    await mill.enqueueMany(own, [1, 2, 3]);
    for (const process of await until("process own", 3)) expect(process.parentSpanContext).toBeUndefined();
  });

  test("nothing is made with telemetry: false, nor while no provider is registered", async () => {
    await using off = await file.open([ok], { telemetry: false });
    const { result: job } = await request(() => off.enqueue(ok, null));
    expect(await optionsOf(off, job.id)).toBeNull();
    off.work();
    await off.waitUntilFinished(job);
    expect(exporter.getFinishedSpans().map(({ name }) => name)).toEqual(["request"]);

    trace.disable();
    exporter.reset();
    await using mill = await file.open([ok]);
    const outside = { traceId: "0af7651916cd43dd8448eb211c80319c", spanId: "b7ad6b7169203331", traceFlags: 1 };
    const { id } = await context.with(trace.setSpanContext(context.active(), outside), () => mill.enqueue(ok, null));
    expect(await optionsOf(mill, id)).toBeNull();
    expect(exporter.getFinishedSpans()).toEqual([]);
  });

  test("a package that is missing is no matter; one that is broken is reported", async () => {
    const log = recorder();
    const setting = { version: "1", log, now: Date.now };
    const missing = Object.assign(new Error("Cannot find package"), { code: "ERR_MODULE_NOT_FOUND" });
    expect(await loadTracing(setting, () => Promise.reject(missing))).toBeUndefined();
    expect(log.lines).toEqual([]);
    expect(await loadTracing(setting, () => Promise.reject(new SyntaxError("Unexpected token")))).toBeUndefined();
    expect(log.lines).toMatchObject([{ level: "warn" }]);
  });
});
