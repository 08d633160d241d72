/** Jobs that come together: flows, and batches with a last job. */
import { z } from "zod";
import type { Millrace } from "../app/millrace.ts";
import type { FlowJob } from "../flows/flow.ts";
import { type Endpoints, endpoint } from "./endpoint.ts";
import { enqueueErrors, jobFields, jobOptions, taskReader } from "./job-fields.ts";
import type { ApiContext } from "./env.ts";
import { bodyBytes, either, given } from "./read.ts";
import { signature } from "./signature.ts";

const policy = z.enum(["fail", "ignore", "continue"]).nullish();
const flowJob = z
  .strictObject({ ...jobFields, after: z.array(z.string()).nullish(), onFailure: policy, on_failure: policy })
  .meta({ id: "NewFlowJob" });
const flowBody = z.strictObject({ jobs: z.record(z.string(), flowJob), by: signature.by }).meta({ id: "NewFlow" });
/** The callback may say `after` only to be told why not. */
const batchBody = z
  .strictObject({ ...jobFields, inputs: z.array(z.unknown()), callback: flowJob })
  .omit({ input: true, payload_json: true })
  .meta({ id: "NewBatch" });

const enqueuedFlow = z
  .object({ jobs: z.record(z.string(), z.uuid()).describe("The id of each job by its name.") })
  .meta({ id: "EnqueuedFlow" });
const enqueuedBatch = z
  .object({
    ids: z.array(z.uuid()),
    callback: z.uuid(),
    callback_job_id: z.uuid().describe("The same as `callback`."),
  })
  .meta({ id: "EnqueuedBatch" });

/** Many jobs in one body. Whoever has more enqueues them in parts, or in the library. */
const manyBytes = 16_000_000;

export function flowEndpoints(mill: Millrace): Endpoints {
  const taskOf = taskReader(mill);
  const maxBodyBytes = Math.max(bodyBytes(mill.maxPayloadBytes), manyBytes);

  const jobOf = (c: ApiContext, body: z.infer<typeof flowJob>, by: string | null | undefined): FlowJob => ({
    ...jobOptions(c, { ...body, by: body.by ?? by }),
    ...given({ after: body.after, onFailure: either(body, "onFailure", "on_failure") }),
    task: taskOf(body),
    input: either(body, "input", "payload_json"),
  });

  return [
    endpoint("Flows", "POST /flows", {
      summary: "Enqueue jobs that wait for each other, all of them or none",
      role: "operator",
      routeClass: "enqueue",
      body: flowBody,
      maxBodyBytes,
      answers: { 200: enqueuedFlow },
      errors: ["FLOW_INVALID", "FLOW_CYCLE", ...enqueueErrors],
      async handle({ c, body: { jobs, by } }) {
        const named = Object.entries(jobs).map(([name, job]) => [name, jobOf(c, job, by)] as const);
        return mill.enqueueFlow({ jobs: Object.fromEntries(named) });
      },
    }),
    endpoint("Flows", "POST /batches", {
      summary: "Enqueue many jobs of one task, and a last one that runs when all have ended",
      role: "operator",
      routeClass: "enqueue",
      body: batchBody,
      maxBodyBytes,
      answers: { 200: enqueuedBatch },
      errors: ["FLOW_INVALID", ...enqueueErrors],
      async handle({ c, body: { inputs, callback, ...job } }) {
        const options = { ...jobOptions(c, job), callback: jobOf(c, callback, job.by) };
        const made = await mill.enqueueBatch(taskOf(job), inputs, options);
        return { ids: made.ids, callback: made.callback, callback_job_id: made.callback };
      },
    }),
  ];
}
