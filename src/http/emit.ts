/** The operation by which events come in that runs wait for. */
import { z } from "zod";
import type { Millrace } from "../app/millrace.ts";
import { type Endpoints, endpoint } from "./endpoint.ts";
import { bodyBytes } from "./read.ts";
import { signature, signed } from "./signature.ts";
import { count, text } from "./wire.ts";

const emitted = z
  .object({
    event: text,
    duplicate: z.boolean().describe("It had come before: only the first of a name counts."),
    woken: count.describe("Runs that waited for it and go on."),
  })
  .meta({ id: "EmittedEvent" });

export function emitEndpoints(mill: Millrace): Endpoints {
  return [
    endpoint("Events", "POST /events", {
      summary: "Tell runs that an event has come which they wait for in a step",
      role: "operator",
      routeClass: "enqueue",
      body: z.strictObject({ event: z.string(), payload: z.unknown().optional(), by: signature.by }),
      maxBodyBytes: bodyBytes(mill.maxPayloadBytes),
      answers: { 200: emitted },
      errors: ["INPUT_NOT_STORABLE"],
      async handle({ c, body: { event, payload, by } }) {
        const { duplicate, woken } = await mill.emit(event, payload ?? null, signed(c, { by }));
        return { event, duplicate, woken };
      },
    }),
  ];
}
