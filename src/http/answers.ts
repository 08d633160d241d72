/** The routes that answer questions about one job: what happened to it, and why it is where it is. */
import { Hono } from "hono";
import type { Millrace } from "../app/millrace.ts";
import { explanationView, timelineView } from "./answers-view.ts";
import type { ApiEnv } from "./env.ts";
import { readJobId } from "./read.ts";

export function answerRoutes(mill: Millrace): Hono<ApiEnv> {
  return new Hono<ApiEnv>()
    .get("/jobs/:id/timeline", async (c) => c.json(timelineView(await mill.timeline(readJobId(c)))))
    .get("/jobs/:id/explain", async (c) => c.json(explanationView(await mill.explain(readJobId(c)))));
}
