/**
 * Spans for jobs, by the messaging conventions of OpenTelemetry: `send <queue>` around enqueueing, `wait <queue>` from when a job is due
 * until it starts, `process <task>` around a run. On where `@opentelemetry/api` is installed and a tracer provider is registered;
 * otherwise nothing is made, and a job stays what it was.
 */
import type { Context, Span, Tracer } from "@opentelemetry/api";
import type { Log } from "../core/log.ts";
import { type Api, type StoredTrace, loadApi, readTrace, writeTrace } from "./trace-context.ts";

/** What a run is about. */
export interface RunFacts {
  readonly id: string;
  readonly task: string;
  readonly queue: string;
  readonly attempt: number;
  readonly worker: string;
  /** Milliseconds since its worker claimed it. */
  readonly heldMs: number;
  /** Of one with a trace: milliseconds from its enqueue until it was due, and from then until it was claimed. */
  readonly delayMs: number;
  readonly waitedMs: number;
  readonly trace: StoredTrace | undefined;
}

/** What became of a run; undefined code: no error. */
export interface RunEnd {
  readonly outcome: string;
  readonly code?: string | undefined;
  readonly message?: string | undefined;
  readonly thrown?: unknown;
}

export interface RunSpan {
  /** For a thread or process that runs the task. */
  readonly trace: StoredTrace | undefined;
  /** Runs `work` within the span: spans that it makes are its children. */
  within<Result>(work: () => Result): Result;
  end(how: RunEnd): void;
}

interface Loading {
  readonly version: string;
  readonly log: Log;
  readonly now: () => number;
}

/** Undefined when the package is not there, or cannot be loaded. */
export function loadTracing(
  { version, log, now }: Loading,
  load?: () => Promise<unknown>,
): Promise<Tracing | undefined> {
  return loadApi(log, (api) => new Tracing(api, version, now), load);
}

const system = { "messaging.system": "millrace" } as const;

export class Tracing {
  readonly #api: Api;
  readonly #now: () => number;
  readonly #tracer: Tracer;
  /** What stands in for a provider until one is registered. */
  readonly #nobody: unknown;

  /** @internal Whoever uses our types may not have those of OpenTelemetry. */
  constructor(api: Api, version: string, now: () => number) {
    this.#api = api;
    this.#now = now;
    this.#tracer = api.trace.getTracer("millrace", version);
    this.#nobody = new api.ProxyTracerProvider().getDelegate();
  }

  /** Whether somebody takes spans. */
  get on(): boolean {
    const provider = this.#api.trace.getTracerProvider() as { getDelegate?: () => unknown };
    return provider.getDelegate === undefined || provider.getDelegate() !== this.#nobody;
  }

  /** The active span, as a job keeps it. */
  get active(): StoredTrace | undefined {
    return writeTrace(this.#api, this.#api.trace.getActiveSpan()?.spanContext());
  }

  /**
   * Runs `work` within a span `send <queue>`, if it is part of a trace; `sent` tells the ids of its jobs. What stands outside of every
   * trace begins none, so that its jobs stay plain.
   */
  async send<Result>(
    queue: string | undefined,
    work: () => Promise<Result>,
    sent: (result: Result) => readonly string[],
  ): Promise<Result> {
    if (this.active === undefined || !this.on) return work();
    const { SpanKind, SpanStatusCode, context, trace } = this.#api;
    const span = this.#tracer.startSpan(queue === undefined ? "send" : `send ${queue}`, {
      kind: SpanKind.PRODUCER,
      attributes: {
        ...system,
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        ...(queue === undefined ? {} : { "messaging.destination.name": queue }),
      },
    });
    try {
      const result = await context.with(trace.setSpan(context.active(), span), work);
      const [id = "", ...more] = sent(result);
      if (more.length === 0) span.setAttribute("messaging.message.id", id);
      else span.setAttribute("messaging.batch.message_count", more.length + 1);
      return result;
    } catch (error) {
      const { code, name, message } = error as { code?: string; name?: string; message?: string };
      span.setAttribute("error.type", code ?? name ?? "_OTHER");
      span.recordException(error as Error);
      span.setStatus({ code: SpanStatusCode.ERROR, ...(message === undefined ? {} : { message }) });
      throw error;
    } finally {
      span.end();
    }
  }

  /**
   * A span `process <task>`, within the trace the job was enqueued in, and one that tells how it waited; a trace of its own for a job
   * without one.
   */
  process(facts: RunFacts): RunSpan {
    const { id, task, queue, attempt, worker, heldMs, trace: stored } = facts;
    const { ROOT_CONTEXT, SpanKind, context, trace } = this.#api;
    const sender = stored === undefined ? undefined : readTrace(this.#api, stored);
    // Never what happens to be active here: a run may be started from the end of another.
    const parent = sender === undefined ? ROOT_CONTEXT : trace.setSpanContext(ROOT_CONTEXT, sender);
    if (sender !== undefined) this.#wait(facts, parent);
    const span = this.#tracer.startSpan(
      `process ${task}`,
      {
        kind: SpanKind.CONSUMER,
        links: sender === undefined ? [] : [{ context: sender }],
        attributes: {
          ...system,
          "messaging.operation.name": "process",
          "messaging.operation.type": "process",
          "messaging.destination.name": queue,
          "messaging.message.id": id,
          "millrace.task": task,
          "millrace.attempt": attempt,
          "millrace.worker": worker,
          // since it was enqueued, by the clock of whoever did; and of that, since it was claimed
          "millrace.waited_ms": Math.max(
            0,
            Math.round(this.#now() - Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16)),
          ),
          "millrace.held_ms": Math.max(0, Math.round(heldMs)),
        },
      },
      parent,
    );
    const active: Context = trace.setSpan(parent, span);
    const api = this.#api;
    return {
      get trace() {
        return writeTrace(api, span.spanContext());
      },
      within: (work) => context.with(active, work),
      end: (how) => this.#end(span, how),
    };
  }

  /** Told when it is over: until then nobody knows of it but the database. */
  #wait({ id, task, queue, attempt, heldMs, waitedMs, delayMs }: RunFacts, sender: Context): void {
    const end = this.#now();
    // Dates: some SDKs take a number of before this process began for one of performance.now().
    const startTime = new Date(end - Math.max(0, waitedMs + heldMs));
    const attributes = {
      ...system,
      "messaging.operation.name": "wait",
      "messaging.destination.name": queue,
      "messaging.message.id": id,
      "millrace.task": task,
      "millrace.attempt": attempt,
      "millrace.delay_ms": Math.round(delayMs),
    };
    this.#tracer.startSpan(`wait ${queue}`, { startTime, attributes }, sender).end(new Date(end));
  }

  #end(span: Span, { outcome, code, message, thrown }: RunEnd): void {
    span.setAttribute("millrace.outcome", outcome);
    if (outcome === "failed" || outcome === "timed_out") {
      span.setAttribute("error.type", code ?? "UNKNOWN");
      if (thrown instanceof Error) span.recordException(thrown);
      const { ERROR } = this.#api.SpanStatusCode;
      span.setStatus({ code: ERROR, ...(message === undefined ? {} : { message }) });
    }
    span.end();
  }
}
