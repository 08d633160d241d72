/** `GET /events`: what happens, as it happens, in the format of server-sent events. */
import { z } from "zod";
import type { Millrace } from "../app/millrace.ts";
import { MillraceError } from "../core/errors.ts";
import type { EventStream } from "../events/stream.ts";
import type { MillraceEvent } from "../events/types.ts";
import { within } from "./deadline.ts";
import { type Endpoints, endpoint } from "./endpoint.ts";
import { given } from "./read.ts";
import { endless } from "./server.ts";
import { snakeCased } from "./snake-case.ts";

const eventsQuery = z.strictObject({
  queue: z.string().optional(),
  type: z.string().optional(),
  job: z.string().optional(),
  after: z.string().optional().describe("The same as `Last-Event-ID`, for clients that cannot send it."),
});
const place = z.string().optional().describe("The `id` of the last event that was read: they go on from there.");

/** Proxies close what says nothing for long, and a client that is gone is only noticed by writing to it. */
const heartbeatMs = 15_000;
/** How long a client should wait before it connects again. */
const retryMs = 2_000;

const headers = {
  "Content-Type": "text/event-stream; charset=utf-8",
  "Cache-Control": "no-store",
  // nginx would keep lines back until it has a page full of them
  "X-Accel-Buffering": "no",
};

export function eventEndpoints(mill: Millrace, beatMs = heartbeatMs): Endpoints {
  return [
    endpoint("Events", "GET /events", {
      summary: "What happens, as it happens",
      about:
        "Server-sent events. They go on from `Last-Event-ID`, or from `after`, on any server; `type` takes types separated by commas, groups as `job.*`.",
      role: "viewer",
      routeClass: "stream",
      query: eventsQuery,
      headers: z.strictObject({ "Last-Event-ID": place }),
      answers: { 200: { contentType: "text/event-stream", about: "Events, until the client or the server ends it." } },
      errors: ["QUEUE_NAME_INVALID"],
      handle({ c, query: { queue, type, job, after } }) {
        // Its body would never be read, nor ended.
        if (c.req.method === "HEAD") return c.body(null, 200, headers);
        const stream = mill.events(
          given({
            queue,
            job,
            type: type?.split(",").map((word) => word.trim()),
            after: placeOf(c.req.header(), after),
          }),
        );
        c.req.raw.signal?.addEventListener("abort", () => void stream.return(), { once: true });
        if (c.env?.outgoing) endless.set(c.env.outgoing, stream);
        return c.body(textOf(stream, beatMs), 200, headers);
      },
    }),
  ];
}

function placeOf({ "last-event-id": header }: Record<string, string>, after: string | undefined): string | undefined {
  return header === undefined || header === "" ? after : header;
}

/** Events are taken from the stream only as fast as the client reads. */
function textOf(stream: EventStream, beatMs: number): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  let place: string | undefined;
  let next: Promise<IteratorResult<MillraceEvent, undefined>> | undefined;
  /** The client's place moves on also where nothing was for it. */
  const moved = (): string => {
    if (stream.place === undefined || stream.place === place) return "";
    place = stream.place;
    return `id: ${place}\n`;
  };
  return new ReadableStream<Uint8Array>({
    async start(controller) {
      await stream.ready;
      controller.enqueue(encoder.encode(`retry: ${retryMs}\n: listening\n${moved()}\n`));
    },
    async pull(controller) {
      const write = (text: string): void => controller.enqueue(encoder.encode(text));
      next ??= stream.next();
      try {
        const result = await within(beatMs, next);
        if (result === undefined) return write(`: still here\n${moved()}\n`);
        next = undefined;
        if (result.done !== true) return write(`${moved()}${body(result.value)}\n`);
        write(ended(stream, "CLOSED"));
      } catch (error) {
        write(ended(stream, error instanceof MillraceError ? error.code : "DATABASE_UNREACHABLE"));
      }
      controller.close();
    },
    async cancel() {
      await stream.return();
    },
  });
}

function body(event: MillraceEvent): string {
  const { type, ...rest } = snakeCased(event);
  return `event: ${type}\ndata: ${JSON.stringify({ type, ...rest })}\n`;
}

/** Without a place: whoever goes on does so from the last one. */
function ended({ place }: EventStream, reason: string): string {
  const at = new Date();
  return `${body({ type: "stream.ended", id: `ended-${place ?? ""}`.slice(0, 40), at, reason })}\n`;
}
