/** The routes of jobs: in, out, one by one and in pages, and the two things people do to a dead one. */
import { Hono } from "hono";
import { z } from "zod";
import type { Millrace } from "../app/millrace.ts";
import type { ListOptions } from "../app/options.ts";
import { MillraceError } from "../core/errors.ts";
import { countDependencies } from "../jobs/dependencies-store.ts";
import type { EnqueueOptions } from "../jobs/enqueue-options.ts";
import { status } from "./bulk-view.ts";
import type { ApiContext, ApiEnv } from "./env.ts";
import { jobDetail, pageOf } from "./job-view.ts";
import { jobFields, jobOptions, keyFields, keyOptions, taskReader } from "./job-fields.ts";
import {
  bodyBytes,
  either,
  fromJson,
  given,
  instant,
  readBody,
  readJobId,
  readOptionalBody,
  readQuery,
} from "./read.ts";

const enqueueBody = z.strictObject({ ...jobFields, ...keyFields });

const retryBody = z.strictObject({ by: z.string().nullish(), reason: z.string().nullish() });
const listQuery = z.strictObject({
  queue: z.string().optional(),
  task: z.string().optional(),
  job_type: z.string().optional(),
  tag: z.string().optional(),
  limit: z.coerce.number().int().min(1).max(500).optional(),
  after: z.string().optional(),
  cursor: z.string().optional(),
  status: status.optional(),
  input: z.string().optional(),
  search: z.string().optional(),
  created_after: instant.optional(),
  created_before: instant.optional(),
});

export function jobRoutes(mill: Millrace): Hono<ApiEnv> {
  const taskOf = taskReader(mill);
  const maxBodyBytes = bodyBytes(mill.maxPayloadBytes);

  return new Hono<ApiEnv>()
    .post("/jobs", async (c) => {
      const body = await readBody(c, enqueueBody, maxBodyBytes);
      const task = taskOf(body);
      const input = either(body, "input", "payload_json");
      const options = enqueueOptions(c, body);
      const { id, duplicate } =
        typeof task === "string"
          ? await mill.enqueue(task, input, options)
          : await mill.enqueue(task, input as never, options);
      return c.json({ job_id: id, id, duplicate });
    })
    .get("/jobs", async (c) => c.json(pageOf(await mill.jobs(listOptions(readQuery(c, listQuery))))))
    .get("/jobs/:id", async (c) => {
      const id = readJobId(c);
      const [job, result, needs] = await Promise.all([mill.job(id), mill.result(id), countDependencies(mill.db, id)]);
      if (job === undefined) throw new MillraceError("JOB_NOT_FOUND", `There is no job ${id}.`);
      return c.json({
        ...jobDetail(job),
        ...(result === undefined ? {} : { result }),
        ...(needs.total === 0 ? {} : { dependencies: needs }),
      });
    })
    .post("/jobs/:id/retry", async (c) => {
      const id = readJobId(c);
      const { by, reason } = await readOptionalBody(c, retryBody, maxBodyBytes);
      await mill.retry(id, given({ by, reason }));
      return c.json({ success: true, message: `Job ${id} waits to run again.`, job_id: id, id });
    })
    .delete("/jobs/:id", async (c) => {
      await mill.remove(readJobId(c));
      return c.body(null, 204);
    });
}

function enqueueOptions(c: ApiContext, body: z.infer<typeof enqueueBody>): EnqueueOptions {
  const header = c.req.header("idempotency-key");
  if (header !== undefined && body.idempotencyKey && header !== body.idempotencyKey)
    throw new MillraceError("BAD_REQUEST", "The Idempotency-Key header and idempotencyKey name two different keys.");
  const idempotencyKey = header ?? body.idempotencyKey;
  return { ...jobOptions(body), ...keyOptions(body), ...given({ idempotencyKey }) };
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
