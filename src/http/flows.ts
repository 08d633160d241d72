/** The routes of jobs that come together: flows, and batches with a last job. */
import { Hono } from "hono";
import { z } from "zod";
import type { Millrace } from "../app/millrace.ts";
import type { FlowJob } from "../flows/flow.ts";
import type { ApiEnv } from "./env.ts";
import { jobFields, jobOptions, taskReader } from "./job-fields.ts";
import { bodyBytes, either, given, readBody } from "./read.ts";

const policy = z.enum(["fail", "ignore", "continue"]).nullish();
const flowJob = z.strictObject({
  ...jobFields,
  after: z.array(z.string()).nullish(),
  onFailure: policy,
  on_failure: policy,
});
const flowBody = z.strictObject({ jobs: z.record(z.string(), flowJob) });
/** The callback may say `after` only to be told why not. */
const batchBody = z
  .strictObject({ ...jobFields, inputs: z.array(z.unknown()), callback: flowJob })
  .omit({ input: true, payload_json: true });

/** Many jobs in one body. Whoever has more enqueues them in parts, or in the library. */
const manyBytes = 16_000_000;

export function flowRoutes(mill: Millrace): Hono<ApiEnv> {
  const taskOf = taskReader(mill);
  const maxBodyBytes = Math.max(bodyBytes(mill.maxPayloadBytes), manyBytes);

  const jobOf = (body: z.infer<typeof flowJob>): FlowJob => ({
    ...jobOptions(body),
    ...given({ after: body.after, onFailure: either(body, "onFailure", "on_failure") }),
    task: taskOf(body),
    input: either(body, "input", "payload_json"),
  });

  return new Hono<ApiEnv>()
    .post("/flows", async (c) => {
      const { jobs } = await readBody(c, flowBody, maxBodyBytes);
      const named = Object.entries(jobs).map(([name, job]) => [name, jobOf(job)] as const);
      return c.json(await mill.enqueueFlow({ jobs: Object.fromEntries(named) }));
    })
    .post("/batches", async (c) => {
      const { inputs, callback, ...job } = await readBody(c, batchBody, maxBodyBytes);
      const options = { ...jobOptions(job), callback: jobOf(callback) };
      const made = await mill.enqueueBatch(taskOf(job), inputs, options);
      return c.json({ ids: made.ids, callback: made.callback, callback_job_id: made.callback });
    });
}
