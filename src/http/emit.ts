/** The route by which events come in that runs wait for. */
import { Hono } from "hono";
import { z } from "zod";
import type { Millrace } from "../app/millrace.ts";
import type { ApiEnv } from "./env.ts";
import { bodyBytes, given, readBody } from "./read.ts";

const eventBody = z.strictObject({ event: z.string(), payload: z.unknown().optional(), by: z.string().nullish() });

export function emitRoutes(mill: Millrace): Hono<ApiEnv> {
  const maxBodyBytes = bodyBytes(mill.maxPayloadBytes);
  return new Hono<ApiEnv>().post("/events", async (c) => {
    const { event, payload, by } = await readBody(c, eventBody, maxBodyBytes);
    const { duplicate, woken } = await mill.emit(event, payload ?? null, given({ by }));
    return c.json({ event, duplicate, woken });
  });
}
