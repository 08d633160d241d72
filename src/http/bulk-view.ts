/** Bulk operations as the API takes and shows them: in snake_case. */
import { z } from "zod";
import type { BulkFilter, BulkPreview } from "../app/bulk.ts";
import { type BulkOperation, bulkStatuses } from "../jobs/bulk-store.ts";
import { bulkActions } from "../jobs/bulk-walk-store.ts";
import { type JobStatus, jobStatuses } from "../jobs/read-store.ts";
import { jobStatus } from "./job-view.ts";
import { duration, either, given } from "./read.ts";
import type { ApiContext } from "./env.ts";
import { count, text, time } from "./wire.ts";

const statusAliases = {
  queued: "waiting",
  running: "active",
  succeeded: "completed",
  dlq: "failed",
  scheduled: "delayed",
  canceled: "cancelled",
} as const satisfies Readonly<Record<string, JobStatus>>;
const aliases = Object.keys(statusAliases) as (keyof typeof statusAliases)[];

/** A status, under our name or one of those that others use. */
export const status = z
  .enum([...jobStatuses, ...aliases])
  .transform((word): JobStatus =>
    word in statusAliases ? statusAliases[word as keyof typeof statusAliases] : (word as JobStatus),
  );

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

/** As it was checked and stored: statuses under our names, durations in milliseconds. */
const storedFilter = z.object({
  status: jobStatus.optional(),
  queue: text.optional(),
  task: text.optional(),
  tag: text.optional(),
  error_code: text.optional(),
  reason: text.optional(),
  older_than: z.number().min(0).optional().describe("Milliseconds."),
  ids: z.array(z.uuid()).optional(),
});
const storedOptions = z.object({
  priority: z.int().optional(),
  queue: text.optional(),
  run_at: time.optional(),
  delay: z.number().min(0).optional().describe("Milliseconds."),
  reason: text.optional(),
});
const bulkAction = z.enum(bulkActions);
const expected = count.describe("How many matched when it was asked for, counted up to 100 000.");
const moreThanExpected = z.boolean().describe("There were more than were counted.");

export const bulkSchema = z
  .object({
    id: z.uuid().describe("Also the id of the job that carries it out."),
    action: bulkAction,
    filter: storedFilter,
    options: storedOptions,
    status: z.enum(bulkStatuses),
    expected,
    more_than_expected: moreThanExpected,
    looked_at: count,
    changed: count.describe("The others had moved on meanwhile."),
    per_second: z.int().min(1).describe("Jobs it looks at in a second, at most."),
    created_at: time,
    created_by: text.nullable(),
    started_at: time.nullable(),
    finished_at: time.nullable(),
    stop_asked_at: time.nullable(),
    stopped_by: text.nullable().describe("Who asked it to stop, or cancelled its job."),
    error: text.nullable(),
  })
  .meta({ id: "BulkOperation" });

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
    stopped_by: bulk.stoppedBy,
    error: bulk.error,
  };
}

/** What an operation would do that was only asked about. */
const previewSchema = z
  .object({ preview: z.literal(true), action: bulkAction, expected, more_than_expected: moreThanExpected })
  .meta({ id: "BulkPreview" });

function previewView({ action, expected, moreThanExpected }: BulkPreview) {
  return { preview: true as const, action, expected, more_than_expected: moreThanExpected };
}

/** 200: only counted; 202: begun. */
export const begunAnswers = { 200: previewSchema, 202: bulkSchema };

/** A preview, or the operation that was begun. */
/** What was begun, and where it can be looked at; or what would be. */
export function answerBegun(c: ApiContext, begun: BulkPreview | BulkOperation): Response {
  if (!("id" in begun)) return c.json(previewView(begun), 200);
  return c.json(bulkView(begun), 202, { Location: `/api/bulk/${begun.id}` });
}
