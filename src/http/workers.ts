/** The operations on workers: who runs what, and the orders an operator gives to one of them or to all. */
import { z } from "zod";
import type { Millrace } from "../app/millrace.ts";
import { type Endpoints, endpoint } from "./endpoint.ts";
import { storable } from "./read.ts";
import { signed } from "./signature.ts";
import { drainedAnswer, workersAnswer, workersView } from "./worker-view.ts";

const by = storable.max(200).nullish();
const orderBody = z.strictObject({ by });
const workerParams = z.strictObject({
  id: z
    .string()
    .regex(/^\d{1,9}$/, {
      error: ({ input }) => `${JSON.stringify(String(input).slice(0, 80))} is not the id of a worker: ids are numbers`,
    })
    .transform(Number),
});

const done = { success: z.literal(true), message: z.string() };
const one = z.object({ ...done, id: z.int() });
const changedOne = one.extend({ changed: z.boolean() });
const changedAll = z.object({
  ...done,
  changed: z.array(z.int()).describe("The workers for which it changed something."),
  drained: drainedAnswer,
});

const schedulingAnswer = z.object({ ...done, changed: z.boolean(), scheduling_stopped: drainedAnswer });

export function workerEndpoints(mill: Millrace): Endpoints {
  const { registry } = mill;

  return [
    endpoint("Workers", "GET /api/workers", {
      summary: "Workers that have not stopped, and those that did within a day",
      role: "viewer",
      answers: { 200: workersAnswer },
      handle: async () => workersView(await mill.workers(), await mill.drained(), await registry.schedulingStopped()),
    }),
    endpoint("Workers", "POST /api/workers/:id/drain", {
      summary: "Let a worker claim nothing more; what runs ends",
      role: "operator",
      params: workerParams,
      body: orderBody,
      bodyOptional: true,
      answers: { 200: changedOne },
      errors: ["WORKER_NOT_FOUND"],
      async handle({ c, params: { id }, body }) {
        const changed = await registry.drain(id, signed(c, body));
        const message = `Worker ${id} ${changed ? "claims nothing more" : "drained already"}.`;
        return { success: true, message, id, changed };
      },
    }),
    endpoint("Workers", "POST /api/workers/:id/resume", {
      summary: "Let a worker claim again",
      role: "operator",
      params: workerParams,
      body: orderBody,
      bodyOptional: true,
      answers: { 200: changedOne },
      errors: ["WORKER_NOT_FOUND"],
      async handle({ c, params: { id }, body }) {
        const changed = await registry.resume(id, signed(c, body));
        const message = `Worker ${id} ${changed ? "claims again" : "did not drain"}.`;
        return { success: true, message, id, changed };
      },
    }),
    endpoint("Workers", "POST /api/workers/:id/recycle", {
      summary: "Let a worker end what runs, stop, and start anew under the command line",
      role: "operator",
      params: workerParams,
      body: orderBody,
      bodyOptional: true,
      answers: { 200: one },
      errors: ["WORKER_NOT_FOUND"],
      async handle({ c, params: { id }, body }) {
        await registry.recycle(id, signed(c, body));
        return { success: true, message: `Worker ${id} ends what runs, then stops and starts anew.`, id };
      },
    }),
    endpoint("Workers", "PATCH /api/workers/:id", {
      summary: "How many jobs a worker runs at once, until it ends",
      role: "operator",
      params: workerParams,
      body: z.strictObject({ concurrency: z.number(), by }),
      answers: { 200: one.extend({ concurrency: z.int() }) },
      errors: ["WORKER_NOT_FOUND"],
      async handle({ c, params: { id }, body: { concurrency, ...rest } }) {
        await registry.setConcurrency(id, concurrency, signed(c, rest));
        return { success: true, message: `Worker ${id} runs ${concurrency} jobs at once.`, id, concurrency };
      },
    }),
    endpoint("Workers", "POST /api/drain", {
      summary: "Let every worker claim nothing more, and those that start later",
      role: "operator",
      body: orderBody,
      bodyOptional: true,
      answers: { 200: changedAll },
      async handle({ c, body }) {
        const changed = await mill.drain(signed(c, body));
        const message = "No worker claims anything more, nor will one that starts, until /api/drain/resume.";
        return { success: true, message, changed, drained: await mill.drained() };
      },
    }),
    endpoint("Workers", "POST /api/drain/scheduling", {
      summary: "Let no schedule fire while workers go on: the first step towards empty queues",
      role: "operator",
      body: orderBody,
      bodyOptional: true,
      answers: { 200: schedulingAnswer },
      async handle({ c, body }) {
        const changed = await registry.stopScheduling(signed(c, body));
        const message = "No schedule fires until /api/drain/scheduling/resume or /api/drain/resume; workers go on.";
        return { success: true, message, changed, scheduling_stopped: await registry.schedulingStopped() };
      },
    }),
    endpoint("Workers", "POST /api/drain/scheduling/resume", {
      summary: "Let schedules fire again",
      role: "operator",
      body: orderBody,
      bodyOptional: true,
      answers: { 200: schedulingAnswer },
      async handle({ c, body }) {
        const changed = await registry.resumeScheduling(signed(c, body));
        const message = "Schedules fire again, unless the system is drained.";
        return { success: true, message, changed, scheduling_stopped: null };
      },
    }),
    endpoint("Workers", "POST /api/drain/resume", {
      summary: "Let every worker claim again, whoever drained it, and schedules fire",
      role: "operator",
      body: orderBody,
      bodyOptional: true,
      answers: { 200: changedAll },
      async handle({ c, body }) {
        const changed = await mill.undrain(signed(c, body));
        return { success: true, message: "Every worker claims again.", changed, drained: null };
      },
    }),
  ];
}
