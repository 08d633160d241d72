/** The routes of queue policies, and of what they decided. */
import { Hono } from "hono";
import { z } from "zod";
import type { Millrace } from "../app/millrace.ts";
import { MillraceError } from "../core/errors.ts";
import type { Policy, PolicyChanges } from "../jobs/policy.ts";
import type { ApiEnv } from "./env.ts";
import { readBody, readQuery } from "./read.ts";

const duration = z.union([z.number(), z.string()]);
const limit = z.number().nullable().optional();
const rate = z.strictObject({ max: z.number(), per: duration }).nullable().optional();
/** Ranges are the engine's to check. Null takes a limit away. */
const changesBody = z.strictObject({
  concurrency: limit,
  key_concurrency: limit,
  rate,
  key_rate: rate,
  max_in_flight: limit,
  max_attempts_per_minute: limit,
  throttle_delay: duration.optional(),
  max_payload_bytes: limit,
  max_enqueue_per_minute: limit,
  priority: limit,
  keep_completed: duration.nullable().optional(),
  keep_failed: duration.nullable().optional(),
  by: z.string().max(200).optional(),
});
const byQuery = z.strictObject({ by: z.string().max(200).optional() });
const decisionsQuery = z.strictObject({
  queue: z.string().optional(),
  limit: z.coerce.number().int().min(1).max(500).optional(),
});

const maxBodyBytes = 65_536;

export function policyRoutes(mill: Millrace): Hono<ApiEnv> {
  const { policies } = mill;
  return new Hono<ApiEnv>()
    .get("/api/policies", async (c) => c.json({ items: (await policies.list()).map(view) }))
    .get("/api/queue/:name/policy", async (c) => {
      const queue = c.req.param("name");
      const policy = await policies.get(queue);
      if (policy === undefined) throw new MillraceError("POLICY_NOT_FOUND", `Queue "${queue}" has no policy.`);
      return c.json(view(policy));
    })
    .patch("/api/queue/:name/policy", async (c) => {
      const { by, ...changes } = await readBody(c, changesBody, maxBodyBytes);
      const policy = await policies.set(c.req.param("name"), changesOf(changes), by === undefined ? {} : { by });
      return c.json(view(policy));
    })
    .delete("/api/queue/:name/policy", async (c) => {
      const { by } = readQuery(c, byQuery);
      const queue = c.req.param("name");
      if (await policies.remove(queue, by === undefined ? {} : { by })) return c.body(null, 204);
      throw new MillraceError("POLICY_NOT_FOUND", `Queue "${queue}" has no policy.`);
    })
    .get("/api/queue/:name/decisions", async (c) => {
      const { limit: most } = readQuery(c, decisionsQuery.omit({ queue: true }));
      return c.json({
        items: await policies.decisions(c.req.param("name"), most === undefined ? {} : { limit: most }),
      });
    })
    .get("/ingest/decisions", async (c) => {
      const { queue, limit: most } = readQuery(c, decisionsQuery);
      const options = { ...(queue === undefined ? {} : { queue }), ...(most === undefined ? {} : { limit: most }) };
      return c.json(await policies.denials(options));
    });
}

const camel = (name: string): string => name.replaceAll(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
const snake = (name: string): string => name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

function changesOf(body: object): PolicyChanges {
  return Object.fromEntries(Object.entries(body).map(([name, value]) => [camel(name), value]));
}

function view({ rate: overall, keyRate, ...rest }: Policy): Record<string, unknown> {
  const plain = Object.fromEntries(Object.entries(rest).map(([name, value]) => [snake(name), value]));
  const window = (given: Policy["rate"]) => given && { max: given.max, per_ms: given.perMs };
  return { ...plain, rate: window(overall), key_rate: window(keyRate) };
}
