/** The operations on jobs: in, out, one by one and in pages, and the two things people do to a dead one. */
import { z } from "zod";
import type { Millrace } from "../app/millrace.ts";
import type { ListOptions } from "../app/options.ts";
import { MillraceError } from "../core/errors.ts";
import type { EnqueueOptions } from "../jobs/enqueue-options.ts";
import { findJobDetail } from "../jobs/read-store.ts";
import { status } from "./bulk-view.ts";
import { type Endpoints, endpoint } from "./endpoint.ts";
import type { ApiContext } from "./env.ts";
import { enqueueErrors, jobFields, jobOptions, keyFields, keyOptions, nameErrors, taskReader } from "./job-fields.ts";
import { jobDetail, jobDetailSchema, jobPageSchema, pageOf } from "./job-view.ts";
import { bodyBytes, either, fromJson, given, instant, jobIdParams } from "./read.ts";
import { signature, signed } from "./signature.ts";
import { success } from "./wire.ts";

const enqueueBody = z.strictObject({ ...jobFields, ...keyFields }).meta({ id: "NewJob" });
const listQuery = z.strictObject({
  queue: z.string().optional(),
  task: z.string().optional(),
  job_type: z.string().optional(),
  tag: z.string().optional(),
  limit: z.coerce.number().int().min(1).max(500).optional(),
  after: z.string().optional(),
  cursor: z.string().optional(),
  status: status.optional(),
  input: z.string().optional().describe("JSON that the job's input contains."),
  search: z.string().optional().describe("A text somewhere in the job's input."),
  created_after: instant.optional(),
  created_before: instant.optional(),
});
const retried = z.object({ ...success, job_id: z.uuid(), id: z.uuid() });
const enqueued = z
  .object({
    job_id: z.uuid(),
    id: z.uuid(),
    duplicate: z.boolean().describe("There was a job under its key: this is its id."),
  })
  .meta({ id: "EnqueuedJob" });

export function jobEndpoints(mill: Millrace): Endpoints {
  const taskOf = taskReader(mill);

  return [
    endpoint("Jobs", "POST /jobs", {
      summary: "Enqueue a job",
      about:
        "`task` (or `job_type`) names what runs, `input` (or `payload_json`) is what it gets. Asked again with the same `idempotencyKey`, it is answered with the first job.",
      role: "operator",
      routeClass: "enqueue",
      headers: z.strictObject({ "Idempotency-Key": z.string().optional().describe("The same as `idempotencyKey`.") }),
      kept: "never", // the job itself remembers its key
      body: enqueueBody,
      maxBodyBytes: bodyBytes(mill.maxPayloadBytes),
      answers: { 200: enqueued },
      errors: enqueueErrors,
      async handle({ c, body }) {
        const task = taskOf(body);
        const input = either(body, "input", "payload_json");
        const options = enqueueOptions(c, body);
        const { id, duplicate } =
          typeof task === "string"
            ? await mill.enqueue(task, input, options)
            : await mill.enqueue(task, input as never, options);
        return { job_id: id, id, duplicate };
      },
    }),
    endpoint("Jobs", "GET /jobs", {
      summary: "Jobs, newest first, by what they have in common",
      role: "viewer",
      query: listQuery,
      answers: { 200: jobPageSchema },
      errors: nameErrors,
      handle: async ({ query }) => pageOf(await mill.leanJobs(listOptions(query))),
    }),
    endpoint("Jobs", "GET /jobs/:id", {
      summary: "One job, with its input, its result and its last error",
      role: "viewer",
      params: jobIdParams,
      answers: { 200: jobDetailSchema },
      errors: ["JOB_NOT_FOUND"],
      async handle({ params: { id } }) {
        const found = await findJobDetail(mill.db, id);
        if (found === undefined) throw new MillraceError("JOB_NOT_FOUND", `There is no job ${id}.`);
        const { job, result, needs } = found;
        return {
          ...jobDetail(job),
          ...(result === undefined ? {} : { result }),
          ...(needs.total === 0 ? {} : { dependencies: needs }),
        };
      },
    }),
    endpoint("Jobs", "POST /jobs/:id/retry", {
      summary: "Run a job again that was given up: the same job, one more attempt",
      role: "operator",
      params: jobIdParams,
      body: z.strictObject(signature),
      bodyOptional: true,
      answers: { 200: retried },
      errors: ["JOB_NOT_FOUND", "JOB_STATE"],
      async handle({ c, params: { id }, body }) {
        await mill.retry(id, signed(c, body));
        return { success: true, message: `Job ${id} waits to run again.`, job_id: id, id };
      },
    }),
    endpoint("Jobs", "DELETE /jobs/:id", {
      summary: "Remove a job that does not run, with its history",
      role: "operator",
      params: jobIdParams,
      answers: { 204: null },
      errors: ["JOB_NOT_FOUND", "JOB_STATE"],
      async handle({ params: { id } }) {
        await mill.remove(id);
      },
    }),
  ];
}

function enqueueOptions(c: ApiContext, body: z.infer<typeof enqueueBody>): EnqueueOptions {
  const header = c.req.header("idempotency-key");
  if (header !== undefined && body.idempotencyKey && header !== body.idempotencyKey)
    throw new MillraceError("BAD_REQUEST", "The Idempotency-Key header and idempotencyKey name two different keys.");
  const idempotencyKey = header ?? body.idempotencyKey;
  return { ...jobOptions(c, body), ...keyOptions(body), ...given({ idempotencyKey }) };
}

function listOptions(query: z.infer<typeof listQuery>): ListOptions {
  const { queue, status: of, tag, limit, search } = query;
  return given({
    queue,
    status: of,
    tag,
    limit,
    search,
    input: query.input === undefined ? undefined : fromJson(query.input, "input"),
    createdAfter: query.created_after,
    createdBefore: query.created_before,
    task: either(query, "task", "job_type"),
    after: either(query, "after", "cursor"),
  });
}
