/** Tells the span that is active in its thread or process, and one that it makes there. */
import { setImmediate as turnOfTheLoop } from "node:timers/promises";
import { trace } from "@opentelemetry/api";
import type { ReadableSpan } from "@opentelemetry/sdk-trace-base";

export interface Seen {
  readonly active?: {
    readonly traceId: string;
    readonly spanId: string;
    readonly flags: number;
    readonly state?: string;
  };
  readonly own: { readonly traceId: string; readonly parent?: string };
}

export default async function look(): Promise<Seen> {
  await turnOfTheLoop();
  const active = trace.getActiveSpan()?.spanContext();
  const own = trace.getTracer("mine").startSpan("my own");
  own.end();
  const parent = (own as unknown as Partial<ReadableSpan>).parentSpanContext?.spanId;
  const state = active?.traceState?.serialize();
  return {
    ...(active && {
      active: {
        traceId: active.traceId,
        spanId: active.spanId,
        flags: active.traceFlags,
        ...(state === undefined ? {} : { state }),
      },
    }),
    own: {
      traceId: own.spanContext().traceId,
      ...(parent === undefined ? {} : { parent }),
    },
  };
}
