/** What a job is enqueued with, by itself or as one of several: our names and those of runbook 004, side by side. */
import { z } from "zod";
import type { Millrace } from "../app/millrace.ts";
import { type ErrorCode, MillraceError } from "../core/errors.ts";
import type { EnqueueOptions } from "../jobs/enqueue-options.ts";
import type { AnyTask } from "../jobs/task.ts";
import { status } from "./bulk-view.ts";
import type { ApiContext } from "./env.ts";
import { duration, either, given, instant } from "./read.ts";
import { signature, signed } from "./signature.ts";

export const nameErrors: readonly ErrorCode[] = ["QUEUE_NAME_INVALID", "TASK_NAME_INVALID"];
/** What enqueueing can end with, beside a body that is too long. */
export const enqueueErrors: readonly ErrorCode[] = [
  ...nameErrors,
  "BAD_PAYLOAD",
  "INPUT_NOT_STORABLE",
  "ENQUEUE_RATE_EXCEEDED",
];

/** Ranges are the engine's to check. */
export const jobFields = {
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
  tags: z.array(z.string()).nullish(),
  concurrencyKey: z.string().nullish(),
  concurrency_key: z.string().nullish(),
  by: signature.by,
};

/** What one job by itself may say about others under its key. */
export const keyFields = {
  idempotencyKey: z.string().nullish(),
  unique: z.strictObject({ key: z.string(), while: z.array(status).nullish(), within: duration.nullish() }).nullish(),
  debounce: z
    .strictObject({ key: z.string(), wait: duration, maxWait: duration.nullish(), max_wait: duration.nullish() })
    .nullish(),
  throttle: z.strictObject({ key: z.string(), per: duration }).nullish(),
};

const jobBody = z.strictObject(jobFields);
const keyBody = z.strictObject(keyFields);

/** Where nobody is named as the one who enqueues, it is the caller. */
export function jobOptions(c: ApiContext, body: z.infer<typeof jobBody>): Omit<EnqueueOptions, "tx"> {
  const { queue, delay, priority, backoff, timeout, tags } = body;
  const runAt = either(body, "runAt", "run_at");
  const maxAttempts = either(body, "maxAttempts", "max_attempts");
  const concurrencyKey = either(body, "concurrencyKey", "concurrency_key");
  const { by } = signed(c, body);
  return given({ queue, delay, runAt, priority, maxAttempts, backoff, timeout, tags, concurrencyKey, by });
}

export function keyOptions({ unique, debounce, throttle }: z.infer<typeof keyBody>): EnqueueOptions {
  return given({
    unique: unique && { key: unique.key, ...given({ while: unique.while, within: unique.within }) },
    debounce: debounce && {
      key: debounce.key,
      wait: debounce.wait,
      ...given({ maxWait: either(debounce, "maxWait", "max_wait") }),
    },
    throttle,
  });
}

/**
 * The tasks of a server's app by name. A task it knows brings its queue, its attempts and its schema; any other is for a worker
 * elsewhere to judge, and stays a name.
 */
export function taskReader(
  mill: Millrace,
): (body: { task?: string | null | undefined; job_type?: string | null | undefined }) => AnyTask | string {
  const tasks = new Map(mill.app.tasks.map((task) => [task.name, task]));
  return (body) => {
    const name = either(body, "task", "job_type")?.trim();
    if (!name) throw new MillraceError("BAD_REQUEST", "job_type is required: the name of the task to run.");
    return tasks.get(name) ?? name;
  };
}
