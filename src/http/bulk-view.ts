/** Bulk operations as the API takes and shows them: in snake_case. */
import { z } from "zod";
import type { BulkFilter, BulkPreview } from "../app/bulk.ts";
import type { BulkOperation } from "../jobs/bulk-store.ts";
import { type JobStatus, jobStatuses } from "../jobs/read-store.ts";
import { duration, either, given } from "./read.ts";

const statusAliases: Readonly<Record<string, JobStatus>> = {
  queued: "waiting",
  running: "active",
  succeeded: "completed",
  dlq: "failed",
  scheduled: "delayed",
  canceled: "cancelled",
};

/** A status, under our name or one of those that others use. */
export const status = z
  .string()
  .transform((word) => statusAliases[word] ?? word)
  .pipe(z.enum(jobStatuses));

/** What finds dead letters. */
export const deadLetterFilter = {
  queue: z.string().nullish(),
  task: z.string().nullish(),
  job_type: z.string().nullish(),
  tag: z.string().nullish(),
  error_code: z.string().nullish(),
  reason: z.string().nullish(),
  older_than: duration.nullish(),
};
export const bulkFilter = z.strictObject({
  ...deadLetterFilter,
  status: status.nullish(),
  ids: z.array(z.string()).nullish(),
});

/** What all that start an operation have. */
export const pace = {
  preview: z.boolean().nullish(),
  all: z.boolean().nullish(),
  per_second: z.number().nullish(),
  by: z.string().nullish(),
};

export function filterOf(fields: Partial<z.infer<typeof bulkFilter>>): BulkFilter {
  const { status: of, queue, tag, error_code: errorCode, reason, older_than: olderThan, ids } = fields;
  return given({ status: of, queue, tag, errorCode, reason, olderThan, ids, task: either(fields, "task", "job_type") });
}

export function bulkView(bulk: BulkOperation) {
  const { filter, options } = bulk;
  const { moreThanExpected = false, queueId: _, runAt, delayMs, ...rest } = options;
  const { errorCode, olderThanMs, ...conditions } = filter;
  return {
    id: bulk.id,
    action: bulk.action,
    filter: { ...conditions, ...given({ error_code: errorCode, older_than: olderThanMs }) },
    options: { ...rest, ...given({ run_at: runAt, delay: delayMs }) },
    status: bulk.status,
    expected: bulk.expected,
    more_than_expected: moreThanExpected,
    looked_at: bulk.lookedAt,
    changed: bulk.changed,
    per_second: bulk.perSecond,
    created_at: bulk.createdAt,
    created_by: bulk.createdBy,
    started_at: bulk.startedAt,
    finished_at: bulk.finishedAt,
    stop_asked_at: bulk.stopAskedAt,
    error: bulk.error,
  };
}

function previewView({ action, expected, moreThanExpected }: BulkPreview) {
  return { preview: true as const, action, expected, more_than_expected: moreThanExpected };
}

/** A preview, or the operation that was begun. */
export function begunView(begun: BulkPreview | BulkOperation) {
  return "id" in begun ? bulkView(begun) : previewView(begun);
}
