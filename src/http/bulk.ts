/** Bulk operations: begin one or count what it would change, watch it, stop it. */
import { z } from "zod";
import type { Millrace } from "../app/millrace.ts";
import { bulkActions } from "../jobs/bulk-walk-store.ts";
import { answerBegun, begunAnswers, bulkFilter, bulkSchema, bulkView, filterOf, pace } from "./bulk-view.ts";
import { type Endpoints, endpoint } from "./endpoint.ts";
import { nameErrors } from "./job-fields.ts";
import { placement } from "./orders.ts";
import { either, given } from "./read.ts";
import { signature, signed } from "./signature.ts";
import { text } from "./wire.ts";

const bulkBody = z.strictObject({
  action: z.enum(bulkActions),
  filter: bulkFilter.nullish(),
  ...pace,
  ...signature,
  ...placement,
});
const listQuery = z.strictObject({
  limit: z.coerce.number().int().min(1).max(500).optional(),
  after: z.string().optional(),
});
const params = z.strictObject({ id: z.string() });

/** Ten thousand ids, and the rest of the body. */
const maxBodyBytes = 500_000;

export function bulkEndpoints(mill: Millrace): Endpoints {
  return [
    endpoint("Bulk operations", "POST /api/bulk", {
      summary: "Do one thing to many jobs, or with `preview` only count them",
      role: "operator",
      body: bulkBody,
      maxBodyBytes,
      answers: begunAnswers,
      errors: ["FILTER_TOO_WIDE", "QUEUE_NOT_FOUND", "TASK_NOT_FOUND", ...nameErrors],
      async handle({ c, body }) {
        const { action, preview, all, per_second: perSecond, queue, priority, delay } = body;
        const runAt = either(body, "runAt", "run_at");
        const options = given({ dryRun: preview, all, perSecond, queue, priority, delay, runAt });
        const begun = await mill.bulk(action, filterOf(body.filter ?? {}), { ...options, ...signed(c, body) });
        return answerBegun(c, begun);
      },
    }),
    endpoint("Bulk operations", "GET /api/bulk", {
      summary: "Bulk operations, newest first",
      role: "viewer",
      query: listQuery,
      answers: {
        200: z.object({ items: z.array(bulkSchema), next: text.nullable() }).meta({ id: "BulkOperationPage" }),
      },
      async handle({ query: { limit = 100, after } }) {
        const found = await mill.bulkOperations(given({ limit, after }));
        return { items: found.map(bulkView), next: found.length === limit ? (found.at(-1)?.id ?? null) : null };
      },
    }),
    endpoint("Bulk operations", "GET /api/bulk/:id", {
      summary: "How far a bulk operation is",
      role: "viewer",
      params,
      answers: { 200: bulkSchema },
      errors: ["BULK_NOT_FOUND"],
      handle: async ({ params: { id } }) => bulkView(await mill.bulkOperation(id)),
    }),
    endpoint("Bulk operations", "POST /api/bulk/:id/stop", {
      summary: "Stop a bulk operation behind the batch it is at; what was done stays done",
      role: "operator",
      params,
      body: z.strictObject({ by: signature.by }),
      bodyOptional: true,
      answers: { 200: bulkSchema },
      errors: ["BULK_NOT_FOUND"],
      handle: async ({ c, params: { id }, body }) => bulkView(await mill.stopBulk(id, signed(c, body))),
    }),
  ];
}
