/** The operations on queue policies, and what these decided. */
import { z } from "zod";
import type { Millrace } from "../app/millrace.ts";
import { MillraceError } from "../core/errors.ts";
import type { Policy, PolicyChanges } from "../jobs/policy.ts";
import { type Endpoints, endpoint } from "./endpoint.ts";
import { given } from "./read.ts";
import { signed } from "./signature.ts";

const duration = z.union([z.number(), z.string()]);
const limit = z.number().nullable().optional();
const rate = z.strictObject({ max: z.number(), per: duration }).nullable().optional();
const by = z.string().max(200).optional();
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
  by,
});
const decisionsQuery = z.strictObject({
  queue: z.string().optional(),
  limit: z.coerce.number().int().min(1).max(500).optional(),
});
const queueParams = z.strictObject({ name: z.string() });

const most = z.int().min(0).nullable();
const starts = z.object({ max: z.int().min(1), per_ms: z.number().min(1) }).nullable();
const policyAnswer = z
  .object({
    queue: z.string(),
    concurrency: most,
    key_concurrency: most,
    rate: starts,
    key_rate: starts,
    max_in_flight: most,
    max_attempts_per_minute: most,
    throttle_delay_ms: z.int(),
    max_payload_bytes: most,
    max_enqueue_per_minute: most,
    priority: z.int().nullable(),
    keep_completed_ms: z.number().nullable(),
    keep_failed_ms: z.number().nullable(),
    updated_at: z.iso.datetime(),
    updated_by: z.string().nullable(),
  })
  .meta({ id: "Policy", description: "Null: no limit." });
const decision = { id: z.string(), queue: z.string(), decision: z.string(), reason_code: z.string() };
const policyDecision = z
  .object({ ...decision, job_id: z.uuid(), at: z.iso.datetime(), details: z.unknown() })
  .meta({ id: "PolicyDecision" });
const ingestDecision = z
  .object({ ...decision, details_json: z.unknown(), created_at: z.iso.datetime() })
  .meta({ id: "IngestDecision" });

export function policyEndpoints(mill: Millrace): Endpoints {
  const { policies } = mill;
  const noPolicy = (queue: string) => new MillraceError("POLICY_NOT_FOUND", `Queue "${queue}" has no policy.`);

  return [
    endpoint("Limits", "GET /api/policies", {
      summary: "The policies of all queues that have one",
      role: "viewer",
      answers: { 200: z.object({ items: z.array(policyAnswer) }).meta({ id: "PolicyList" }) },
      handle: async () => ({ items: (await policies.list()).map(view) }),
    }),
    endpoint("Limits", "GET /api/queue/:name/policy", {
      summary: "The policy of one queue",
      role: "viewer",
      params: queueParams,
      answers: { 200: policyAnswer },
      errors: ["QUEUE_NOT_FOUND", "QUEUE_NAME_INVALID", "POLICY_NOT_FOUND"],
      async handle({ params: { name } }) {
        const policy = await policies.get(name);
        if (policy === undefined) throw noPolicy(name);
        return view(policy);
      },
    }),
    endpoint("Limits", "PATCH /api/queue/:name/policy", {
      summary: "Change what is named of a policy and leave the rest; null takes a limit away",
      role: "operator",
      params: queueParams,
      body: changesBody,
      answers: { 200: policyAnswer },
      errors: ["QUEUE_NAME_INVALID", "POLICY_NOT_FOUND"],
      async handle({ c, params, body: { by: who, ...changes } }) {
        return view(await policies.set(params.name, changesOf(changes), signed(c, { by: who })));
      },
    }),
    endpoint("Limits", "DELETE /api/queue/:name/policy", {
      summary: "Take every limit of a queue away",
      role: "operator",
      params: queueParams,
      query: z.strictObject({ by }),
      answers: { 204: null },
      errors: ["QUEUE_NOT_FOUND", "QUEUE_NAME_INVALID", "POLICY_NOT_FOUND"],
      async handle({ c, params: { name }, query }) {
        if (!(await policies.remove(name, signed(c, query)))) throw noPolicy(name);
      },
    }),
    endpoint("Limits", "GET /api/queue/:name/decisions", {
      summary: "What storm control decided about a queue, newest first",
      role: "viewer",
      params: queueParams,
      query: decisionsQuery.omit({ queue: true }),
      answers: { 200: z.object({ items: z.array(policyDecision) }) },
      errors: ["QUEUE_NOT_FOUND", "QUEUE_NAME_INVALID"],
      handle: async ({ params, query }) => ({ items: await policies.decisions(params.name, given(query)) }),
    }),
    endpoint("Limits", "GET /ingest/decisions", {
      summary: "What queues did not let in, newest first",
      role: "viewer",
      query: decisionsQuery,
      answers: { 200: z.array(ingestDecision) },
      errors: ["QUEUE_NAME_INVALID"],
      handle: ({ query }) => policies.denials(given(query)),
    }),
  ];
}

const camel = (name: string): string => name.replaceAll(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
const snake = (name: string): string => name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

function changesOf(body: object): PolicyChanges {
  return Object.fromEntries(Object.entries(body).map(([name, value]) => [camel(name), value]));
}

function view({ rate: overall, keyRate, ...rest }: Policy): Record<string, unknown> {
  const plain = Object.fromEntries(Object.entries(rest).map(([name, value]) => [snake(name), value]));
  const window = (one: Policy["rate"]) => one && { max: one.max, per_ms: one.perMs };
  return { ...plain, rate: window(overall), key_rate: window(keyRate) };
}
