/** The routes of bulk operations: begin one or count what it would change, watch it, stop it. */
import { type Context, Hono } from "hono";
import { z } from "zod";
import type { Millrace } from "../app/millrace.ts";
import { MillraceError } from "../core/errors.ts";
import { bulkActions } from "../jobs/bulk-walk-store.ts";
import { begunView, bulkFilter, bulkView, filterOf, pace } from "./bulk-view.ts";
import type { ApiEnv } from "./env.ts";
import { placement, signature } from "./orders.ts";
import { either, given, readBody, readOptionalBody, readQuery } from "./read.ts";

const bulkBody = z.strictObject({
  action: z.enum(bulkActions),
  filter: bulkFilter.nullish(),
  ...pace,
  ...signature,
  ...placement,
});
const stopBody = z.strictObject({ by: z.string().nullish() });
const listQuery = z.strictObject({
  limit: z.coerce.number().int().min(1).max(500).optional(),
  after: z.string().optional(),
});

/** Ten thousand ids, and the rest of the body. */
const maxBodyBytes = 500_000;

export function bulkRoutes(mill: Millrace): Hono<ApiEnv> {
  return new Hono<ApiEnv>()
    .post("/api/bulk", async (c) => {
      const body = await readBody(c, bulkBody, maxBodyBytes);
      const { action, preview, all, per_second: perSecond, by, reason, queue, priority, delay } = body;
      const runAt = either(body, "runAt", "run_at");
      const options = given({ dryRun: preview, all, perSecond, by, reason, queue, priority, delay, runAt });
      const begun = await mill.bulk(action, filterOf(body.filter ?? {}), options);
      return c.json(begunView(begun), "id" in begun ? 202 : 200);
    })
    .get("/api/bulk", async (c) => {
      const { limit = 100, after } = readQuery(c, listQuery);
      const found = await mill.bulkOperations(given({ limit, after }));
      return c.json({ items: found.map(bulkView), next: found.length === limit ? (found.at(-1)?.id ?? null) : null });
    })
    .get("/api/bulk/:id", async (c) => c.json(bulkView(await mill.bulkOperation(idOf(c)))))
    .post("/api/bulk/:id/stop", async (c) => {
      const { by } = await readOptionalBody(c, stopBody, maxBodyBytes);
      return c.json(bulkView(await mill.stopBulk(idOf(c), given({ by }))));
    });
}

function idOf(c: Context<ApiEnv>): string {
  const id = c.req.param("id");
  if (id !== undefined) return id;
  throw new MillraceError("BAD_REQUEST", "The path has no id.");
}
