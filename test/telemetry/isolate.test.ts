/** The trace of a run inside the thread or process that the task runs in. */
import { context, createTraceState, trace } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import {
  BasicTracerProvider,
  InMemorySpanExporter,
  type ReadableSpan,
  SimpleSpanProcessor,
} from "@opentelemetry/sdk-trace-base";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { type Millrace, task } from "millrace";
import { loadWithin } from "../../src/telemetry/trace-context.ts";
import { recorder } from "../http/caller.ts";
import { useDatabase } from "../support/engine.ts";
import type { Seen } from "./handlers/bare.ts";

// Threads and processes start in a second or several, on a machine that may be busy.
vi.setConfig({ testTimeout: 60_000 });
const patience = { timeout: 40_000, interval: 10 };
const outside = {
  traceId: "0af7651916cd43dd8448eb211c80319c",
  spanId: "b7ad6b7169203331",
  traceFlags: 1,
  traceState: createTraceState("vendor=x"),
};

const file = useDatabase();
const exporter = new InMemorySpanExporter();

beforeEach(() => {
  exporter.reset();
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  trace.setGlobalTracerProvider(new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }));
});
afterEach(() => {
  trace.disable();
  context.disable();
});

const look = (kind: "thread" | "process", handler: "traced" | "bare") =>
  task({
    name: "look",
    isolate: { in: kind, size: 1 },
    run: new URL(`./handlers/${handler}.ts`, import.meta.url),
  });

const seen = (mill: Millrace, id: string) => mill.waitUntilFinished(id, { within: "40s" }) as Promise<Seen>;

/** The span of the run of a job, as the worker made it. */
const spanOf = (id: string): Promise<ReadableSpan> =>
  vi.waitFor(() => {
    const named = exporter
      .getFinishedSpans()
      .find((span) => span.name === "process look" && span.attributes["messaging.message.id"] === id);
    expect(named).toBeDefined();
    return named as ReadableSpan;
  }, patience);

describe.each(["thread", "process"] as const)("in a %s", (kind) => {
  test("the run's span is active, one job after another, and spans made there are its children", async () => {
    const traced = look(kind, "traced");
    await using mill = await file.open([traced]);
    const first = await context.with(trace.setSpanContext(context.active(), outside), () => mill.enqueue(traced, null));
    const second = await mill.enqueue(traced, null);
    mill.work();

    const [one, two] = [await seen(mill, first.id), await seen(mill, second.id)];
    const [spanOne, spanTwo] = [(await spanOf(first.id)).spanContext(), (await spanOf(second.id)).spanContext()];
    expect(one).toEqual({
      active: { traceId: outside.traceId, spanId: spanOne.spanId, flags: 1, state: "vendor=x" },
      own: { traceId: outside.traceId, parent: spanOne.spanId },
    });
    expect(two).toEqual({
      active: { traceId: spanTwo.traceId, spanId: spanTwo.spanId, flags: 1 },
      own: { traceId: spanTwo.traceId, parent: spanTwo.spanId },
    });
    expect(spanTwo.traceId).not.toBe(outside.traceId);
  });

  test("a trace that is not sampled is handed over as that", async () => {
    const traced = look(kind, "traced");
    await using mill = await file.open([traced]);
    const quiet = { ...outside, traceFlags: 0 };
    const { id } = await context.with(trace.setSpanContext(context.active(), quiet), () => mill.enqueue(traced, null));
    mill.work();
    expect(await seen(mill, id)).toMatchObject({
      active: { traceId: outside.traceId, flags: 0 },
      own: { traceId: outside.traceId },
    });
  });

  test("without a context manager of its own nothing is active, and the task runs all the same", async () => {
    const bare = look(kind, "bare");
    await using mill = await file.open([bare]);
    const { id } = await mill.enqueue(bare, null);
    mill.work();
    expect(await seen(mill, id)).toEqual({ own: { traceId: "00000000000000000000000000000000" } });
    await spanOf(id);
  });

  test("nothing is handed over with telemetry: false", async () => {
    const traced = look(kind, "traced");
    await using mill = await file.open([traced], { telemetry: false });
    const { id } = await mill.enqueue(traced, null);
    mill.work();
    const { active, own } = await seen(mill, id);
    expect(active).toBeUndefined();
    expect(own).toEqual({ traceId: expect.stringMatching(/[1-9a-f]/) as string });
  });
});

test("what is no trace is left out, and the work is done", async () => {
  const log = recorder();
  const within = await loadWithin(log);
  const inside = (traceparent: string) =>
    within?.({ traceparent }, () => [trace.getActiveSpan()?.spanContext().spanId]);
  expect(inside("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")).toEqual(["b7ad6b7169203331"]);
  expect(inside("nonsense")).toEqual([undefined]);
  expect(inside("00-00000000000000000000000000000000-b7ad6b7169203331-01")).toEqual([undefined]);
  expect(log.lines).toEqual([]);
});
