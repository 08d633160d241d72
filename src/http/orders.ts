/** What people tell single jobs to do: cancel, put elsewhere in line, replay. */
import { z } from "zod";
import type { Millrace } from "../app/millrace.ts";
import { durationMs } from "../core/duration.ts";
import { MillraceError } from "../core/errors.ts";
import { unlessStopping } from "./deadline.ts";
import { type Endpoints, endpoint } from "./endpoint.ts";
import { enqueueErrors } from "./job-fields.ts";
import { jobItem, jobItemSchema } from "./job-view.ts";
import { bodyBytes, duration, either, given, instant, jobIdParams } from "./read.ts";
import { signature, signed } from "./signature.ts";

/** Where a job goes, under our names and those of runbook 004. */
export const placement = {
  queue: z.string().nullish(),
  priority: z.number().nullish(),
  delay: duration.nullish(),
  runAt: instant.nullish(),
  run_at: instant.nullish(),
};

const cancelBody = z.strictObject({
  ...signature,
  wait: duration.nullish().describe("For a running task to end; default 5 s; 60 s are taken for anything longer."),
});
const changeBody = z.strictObject({ ...signature, ...placement });
const replayBody = changeBody.extend({ input: z.unknown().optional(), payload_json: z.unknown().optional() });

const ended = z.enum(["cancelled", "completed", "failed"]);
const cancelled = {
  job_id: z.uuid(),
  id: z.uuid(),
  ignored: z.boolean().describe("Its task was asked to end and does not listen."),
};

/** A server keeps no request longer than this, whatever it says. */
export const longestWaitMs = 60_000;

/** `stopping`: nobody is to wait any longer. */
export function orderEndpoints(mill: Millrace, stopping: AbortSignal | undefined): Endpoints {
  return [
    endpoint("Jobs", "POST /jobs/:id/cancel", {
      summary: "Cancel a job, also one that runs",
      about:
        "200: it has ended, as `status` says; `completed` when the cancel came too late. 202: its task was asked to end and had not within `wait`.",
      role: "operator",
      params: jobIdParams,
      body: cancelBody,
      bodyOptional: true,
      answers: {
        200: z.object({ ...cancelled, status: ended }),
        202: z.object({ ...cancelled, status: z.literal("cancelling") }),
      },
      errors: ["JOB_NOT_FOUND", "JOB_STATE", "STOPPING"],
      async handle({ c, params: { id }, body }) {
        const { wait } = body;
        const longest = c.env?.inProcess ? Number.POSITIVE_INFINITY : longestWaitMs;
        const within = wait === undefined || wait === null ? wait : Math.min(durationMs(wait, "wait"), longest);
        const cancelling = mill.cancel(id, { ...signed(c, body), ...given({ within }) });
        const { status, ignored } = await unlessStopping(stopping, cancelling);
        return c.json({ job_id: id, id, status, ignored }, status === "cancelling" ? 202 : 200);
      },
    }),
    endpoint("Jobs", "PATCH /jobs/:id", {
      summary: "Give a job that waits another time, priority or queue",
      role: "operator",
      params: jobIdParams,
      body: changeBody,
      answers: { 200: jobItemSchema.extend({ job_id: z.uuid() }) },
      errors: ["JOB_NOT_FOUND", "JOB_STATE", "QUEUE_NAME_INVALID", "ENQUEUE_RATE_EXCEEDED"],
      async handle({ c, params: { id }, body }) {
        const { queue, priority, delay } = body;
        const runAt = either(body, "runAt", "run_at");
        await mill.change(id, { ...signed(c, body), ...given({ queue, priority, delay, runAt }) });
        const job = await mill.job(id);
        if (job === undefined) throw new MillraceError("JOB_NOT_FOUND", `There is no job ${id}.`);
        return { job_id: id, ...jobItem(job) };
      },
    }),
    endpoint("Jobs", "POST /jobs/:id/replay", {
      summary: "Make a new job like an old one, whatever became of that",
      role: "operator",
      params: jobIdParams,
      body: replayBody,
      bodyOptional: true,
      maxBodyBytes: bodyBytes(mill.maxPayloadBytes),
      answers: {
        200: z
          .object({ new_job_id: z.uuid(), replay_of_job_id: z.uuid(), job_id: z.uuid() })
          .meta({ id: "ReplayedJob" }),
      },
      errors: ["JOB_NOT_FOUND", ...enqueueErrors],
      async handle({ c, params: { id }, body }) {
        const { queue, priority, delay } = body;
        const runAt = either(body, "runAt", "run_at");
        const input = either(body, "input", "payload_json");
        const changes = { ...signed(c, body), ...given({ queue, priority, delay, runAt }) };
        // null is an input too
        const fresh = await mill.replay(
          id,
          "input" in body || "payload_json" in body ? { ...changes, input } : changes,
        );
        return { new_job_id: fresh.id, replay_of_job_id: id, job_id: fresh.id };
      },
    }),
  ];
}
