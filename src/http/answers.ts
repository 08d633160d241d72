/** The routes that answer questions about one job: what happened to it, and why it is where it is. */
import { Hono } from "hono";
import { z } from "zod";
import type { Millrace } from "../app/millrace.ts";
import { explanationView, logsView, timelineView } from "./answers-view.ts";
import type { ApiEnv } from "./env.ts";
import { given, readJobId, readQuery } from "./read.ts";

const logsQuery = z.strictObject({
  after: z.coerce.number().int().min(0).optional(),
  limit: z.coerce.number().int().min(1).max(1_000).optional(),
});

export function answerRoutes(mill: Millrace): Hono<ApiEnv> {
  return new Hono<ApiEnv>()
    .get("/jobs/:id/timeline", async (c) => c.json(timelineView(await mill.timeline(readJobId(c)))))
    .get("/jobs/:id/logs", async (c) => {
      const { after, limit = 200 } = readQuery(c, logsQuery);
      const items = await mill.logs(readJobId(c), given({ after, limit }));
      return c.json(logsView(items, limit));
    })
    .get("/jobs/:id/explain", async (c) => c.json(explanationView(await mill.explain(readJobId(c)))));
}
