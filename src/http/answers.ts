/** Questions about one job: what happened to it, what it said, and why it is where it is. */
import { z } from "zod";
import type { Millrace } from "../app/millrace.ts";
import {
  explanationSchema,
  explanationView,
  logsSchema,
  logsView,
  timelineSchema,
  timelineView,
} from "./answers-view.ts";
import { type Endpoints, endpoint } from "./endpoint.ts";
import { given, jobIdParams } from "./read.ts";

const logsQuery = z.strictObject({
  after: z.coerce.number().int().min(0).optional(),
  limit: z.coerce.number().int().min(1).max(1_000).optional(),
});

export function answerEndpoints(mill: Millrace): Endpoints {
  return [
    endpoint("Jobs", "GET /jobs/:id/timeline", {
      summary: "Everything that happened to a job",
      role: "viewer",
      params: jobIdParams,
      answers: { 200: timelineSchema },
      errors: ["JOB_NOT_FOUND"],
      handle: async ({ params: { id } }) => timelineView(await mill.timeline(id)),
    }),
    endpoint("Jobs", "GET /jobs/:id/logs", {
      summary: "What a job's task has said with `log`",
      role: "viewer",
      params: jobIdParams,
      query: logsQuery,
      answers: { 200: logsSchema },
      errors: ["JOB_NOT_FOUND"],
      async handle({ params: { id }, query: { after, limit = 200 } }) {
        return logsView(await mill.logs(id, given({ after, limit })), limit);
      },
    }),
    endpoint("Jobs", "GET /jobs/:id/explain", {
      summary: "Why a job is where it is, and what would move it",
      role: "viewer",
      params: jobIdParams,
      answers: { 200: explanationSchema },
      errors: ["JOB_NOT_FOUND"],
      handle: async ({ params: { id } }) => explanationView(await mill.explain(id)),
    }),
  ];
}
