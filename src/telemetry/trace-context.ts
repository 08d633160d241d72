/** Spans as W3C Trace Context: what a job keeps of the span it was enqueued in, and what a thread or process is told of its run's. */
import type { SpanContext } from "@opentelemetry/api";
import type { Log } from "../core/log.ts";

/** @internal Whoever uses our types may not have those of OpenTelemetry. */
export type Api = typeof import("@opentelemetry/api");

export interface StoredTrace {
  readonly traceparent: string;
  readonly tracestate?: string;
}

/** Runs `work` as if the span of that trace were active here: spans that it makes are its children, where somebody takes them. */
export type Within = <Result>(trace: StoredTrace, work: () => Result) => Result;

/** Undefined when the package is not there, or cannot be loaded. */
export function loadWithin(log: Pick<Log, "warn">): Promise<Within | undefined> {
  return loadApi(log, (api): Within => {
    const { ROOT_CONTEXT, context, trace } = api;
    return (stored, work) => {
      const span = readTrace(api, stored);
      return span === undefined ? work() : context.with(trace.setSpanContext(ROOT_CONTEXT, span), work);
    };
  });
}

/** @internal What `use` makes of the package. Undefined when it is not there, or cannot be loaded. */
export async function loadApi<Use>(
  log: Pick<Log, "warn">,
  use: (api: Api) => Use,
  load: () => Promise<unknown> = () => import("@opentelemetry/api"),
): Promise<Use | undefined> {
  try {
    return use((await load()) as Api);
  } catch (error) {
    // Most have no use for it.
    if (/^(ERR_)?MODULE_NOT_FOUND$/.test(String((error as { code?: unknown }).code))) return undefined;
    log.warn({ err: error }, "@opentelemetry/api could not be loaded; there are no spans");
    return undefined;
  }
}

/** @internal */
export function writeTrace(api: Api, span: SpanContext | undefined): StoredTrace | undefined {
  if (span === undefined || !api.isSpanContextValid(span)) return undefined;
  const state = span.traceState?.serialize();
  const flags = span.traceFlags.toString(16).padStart(2, "0");
  const traceparent = `00-${span.traceId}-${span.spanId}-${flags}`;
  return state ? { traceparent, tracestate: state } : { traceparent };
}

/** @internal */
export function readTrace(api: Api, { traceparent, tracestate }: StoredTrace): SpanContext | undefined {
  const [, traceId = "", spanId = "", flags = "0"] =
    /^[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$/.exec(traceparent) ?? [];
  const span: SpanContext = {
    traceId,
    spanId,
    traceFlags: Number.parseInt(flags, 16),
    isRemote: true,
    ...(tracestate === undefined ? {} : { traceState: api.createTraceState(tracestate) }),
  };
  return api.isSpanContextValid(span) ? span : undefined;
}
