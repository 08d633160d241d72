/** The routes of what becomes of one job: its result, what it waits for, its steps, and waiting for its end. */
import { Hono } from "hono";
import { z } from "zod";
import type { Millrace } from "../app/millrace.ts";
import { durationMs } from "../core/duration.ts";
import { MillraceError } from "../core/errors.ts";
import { countDependencies, listDependencies } from "../jobs/dependencies-store.ts";
import type { Job } from "../jobs/read-store.ts";
import type { ApiContext, ApiEnv } from "./env.ts";
import { longestWaitMs } from "./orders.ts";
import { duration, readJobId, readQuery } from "./read.ts";
import { snakeCased } from "./snake-case.ts";

const place = z.coerce.number().int();
const pageQuery = z.strictObject({
  limit: place.min(1).max(500).default(100),
  after: place.min(0).max(2_147_483_647).default(0),
});
const waitQuery = z.strictObject({ within: z.union([z.coerce.number().min(0), duration]).default("30s") });

export function resultRoutes(mill: Millrace): Hono<ApiEnv> {
  const existing = async (c: ApiContext): Promise<Job> => {
    const id = readJobId(c);
    const job = await mill.job(id);
    if (job !== undefined) return job;
    throw new MillraceError("JOB_NOT_FOUND", `There is no job ${id}.`);
  };

  return new Hono<ApiEnv>()
    .get("/jobs/:id/result", async (c) => {
      const { id, status } = await existing(c);
      return c.json({ job_id: id, id, status, ...resultOf(await mill.result(id)) });
    })
    .get("/jobs/:id/wait", async (c) => {
      const id = readJobId(c);
      const { within } = readQuery(c, waitQuery);
      const longest = c.env?.inProcess ? Number.POSITIVE_INFINITY : longestWaitMs;
      const result = await mill.waitUntilFinished(id, { within: Math.min(durationMs(within, "within"), longest) });
      return c.json({ job_id: id, id, status: "completed" as const, ...resultOf(result) });
    })
    .get("/jobs/:id/dependencies", async (c) => {
      const { limit, after } = readQuery(c, pageQuery);
      const { id } = await existing(c);
      const items = await listDependencies(mill.db, id, limit, after);
      return c.json({
        items: items.map(snakeCased),
        next: nextOf(items, limit),
        ...(await countDependencies(mill.db, id)),
      });
    })
    .get("/jobs/:id/steps", async (c) => {
      const { limit, after } = readQuery(c, pageQuery);
      const { id } = await existing(c);
      const items = (await mill.steps(id, { limit, after })).map(({ result, ...step }) => ({
        ...snakeCased(step),
        result,
      }));
      return c.json({ items, next: nextOf(items, limit) });
    });
}

/** A task that returned nothing has no result; null is one. */
function resultOf(result: unknown): { result?: unknown } {
  return result === undefined ? {} : { result };
}

function nextOf(items: readonly { place: number }[], limit: number): string | null {
  return items.length === limit ? String(items.at(-1)?.place) : null;
}
