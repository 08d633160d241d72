/** The routes of jobs: in, out, one by one and in pages, and the two things people do to a dead one. */
import { Hono } from "hono";
import { z } from "zod";
import type { Millrace } from "../app/millrace.ts";
import type { ListOptions } from "../app/options.ts";
import { MillraceError } from "../core/errors.ts";
import type { EnqueueOptions } from "../jobs/enqueue-options.ts";
import { status } from "./bulk-view.ts";
import type { ApiContext, ApiEnv } from "./env.ts";
import { jobDetail, pageOf } from "./job-view.ts";
import {
  bodyBytes,
  duration,
  either,
  given,
  instant,
  readBody,
  readJobId,
  readOptionalBody,
  readQuery,
} from "./read.ts";

/** Our names and those of runbook 004, side by side. Ranges are the engine's to check. */
const enqueueBody = z.strictObject({
  task: z.string().nullish(),
  job_type: z.string().nullish(),
  input: z.unknown().optional(),
  payload_json: z.unknown().optional(),
  queue: z.string().nullish(),
  delay: duration.nullish(),
  runAt: instant.nullish(),
  run_at: instant.nullish(),
  priority: z.number().nullish(),
  maxAttempts: z.number().nullish(),
  max_attempts: z.number().nullish(),
  backoff: z
    .strictObject({
      type: z.enum(["exponential", "fixed"]).exactOptional(),
      delay: duration.exactOptional(),
      max: duration.exactOptional(),
      jitter: z.number().exactOptional(),
    })
    .nullish(),
  timeout: duration.nullish(),
  idempotencyKey: z.string().nullish(),
  tags: z.array(z.string()).nullish(),
  concurrencyKey: z.string().nullish(),
  concurrency_key: z.string().nullish(),
});

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
});

export function jobRoutes(mill: Millrace): Hono<ApiEnv> {
  const tasks = new Map(mill.app.tasks.map((task) => [task.name, task]));
  const maxBodyBytes = bodyBytes(mill.maxPayloadBytes);

  return new Hono<ApiEnv>()
    .post("/jobs", async (c) => {
      const body = await readBody(c, enqueueBody, maxBodyBytes);
      const name = either(body, "task", "job_type")?.trim();
      if (!name) throw new MillraceError("BAD_REQUEST", "job_type is required: the name of the task to run.");
      const input = either(body, "input", "payload_json");
      const options = enqueueOptions(c, body);
      const task = tasks.get(name);
      // A task this app knows brings its queue, its attempts and its schema; any other is for a worker elsewhere to judge.
      const { id, duplicate } =
        task === undefined
          ? await mill.enqueue(name, input, options)
          : await mill.enqueue(task, input as never, options);
      return c.json({ job_id: id, id, duplicate });
    })
    .get("/jobs", async (c) => c.json(pageOf(await mill.jobs(listOptions(readQuery(c, listQuery))))))
    .get("/jobs/:id", async (c) => {
      const id = readJobId(c);
      const job = await mill.job(id);
      if (job === undefined) throw new MillraceError("JOB_NOT_FOUND", `There is no job ${id}.`);
      return c.json(jobDetail(job));
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
  const { queue, delay, priority, backoff, timeout, tags } = body;
  const runAt = either(body, "runAt", "run_at");
  const maxAttempts = either(body, "maxAttempts", "max_attempts");
  const concurrencyKey = either(body, "concurrencyKey", "concurrency_key");
  const header = c.req.header("idempotency-key");
  if (header !== undefined && body.idempotencyKey && header !== body.idempotencyKey)
    throw new MillraceError("BAD_REQUEST", "The Idempotency-Key header and idempotencyKey name two different keys.");
  const idempotencyKey = header ?? body.idempotencyKey;
  return given({ queue, delay, runAt, priority, maxAttempts, backoff, timeout, idempotencyKey, tags, concurrencyKey });
}

function listOptions(query: z.infer<typeof listQuery>): ListOptions {
  const { queue, status: of, tag, limit } = query;
  return given({
    queue,
    status: of,
    tag,
    limit,
    task: either(query, "task", "job_type"),
    after: either(query, "after", "cursor"),
  });
}
