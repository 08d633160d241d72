/** Timelines and explanations as the API shows them: in snake_case, under our names and under those of runbook 004. */
import { z } from "zod";
import { type Because, type Explanation, becauses } from "../jobs/explain.ts";
import { type LogLine, logLevels } from "../jobs/notes-store.ts";
import { type Attempt, type StoryEntry, type Timeline, attemptStatuses } from "../jobs/timeline.ts";
import { jobStatus, progress } from "./job-view.ts";
import { snakeCased } from "./snake-case.ts";
import { attemptNumber, count, text, time } from "./wire.ts";

const ms = count.nullable().describe("Milliseconds; null while it runs, and when nobody knows.");
const attempt = {
  id: text,
  attempt: attemptNumber,
  attempt_no: attemptNumber.describe("The same as `attempt`."),
  status: z.enum(attemptStatuses),
  started_at: time.nullable(),
  finished_at: time.nullable(),
  took_ms: ms,
  latency_ms: ms.describe("The same as `took_ms`."),
  worker: text.nullable(),
  worker_id: text.nullable().describe("The same as `worker`."),
  error_code: text.nullable(),
  error_message: text.nullable(),
  suggested_action: text.nullable(),
  retry_at: time.nullable().describe("When the job was due again because of it."),
};
const attemptSchema = z.object(attempt).meta({ id: "Attempt", description: "One run of a job by one worker." });

const told = { at: time, summary: text.describe("The entry as a sentence.") };
const kin = <Item extends z.ZodType>(item: Item) =>
  z.object({ count: count.describe("Counted up to 10 000."), first: z.array(item).describe("Twenty at most.") });
const change = <Value extends z.ZodType>(value: Value) => z.object({ from: value, to: value });
const storyEntry = z
  .discriminatedUnion("kind", [
    z.object({
      kind: z.literal("Enqueued"),
      ...told,
      queue: text.describe("As it was enqueued, wherever it was put since."),
      priority: z.int(),
      task: text,
      run_at: time.nullable(),
      replay_of: z.uuid().nullable(),
      by: text.nullable().describe("Who enqueued or replayed it, or ran its schedule."),
      reason: text.nullable(),
      schedule: z.object({ name: text, at: time, run_id: text }).nullable().describe("Whose tick it stands for."),
      needs: kin(z.object({ name: text, id: z.uuid() }))
        .nullable()
        .describe("The jobs that it waits for, or did."),
      needed_by: kin(z.uuid()).nullable().describe("The jobs that wait for it."),
    }),
    z.object({
      kind: z.literal("Step"),
      ...told,
      place: z.int().min(1),
      name: text,
      step_kind: z.enum(["run", "sleep", "event"]),
      attempt: attemptNumber,
      started_at: time.nullable(),
      finished_at: time.nullable(),
      until: time.nullable(),
      event: text.nullable(),
    }),
    z.object({
      kind: z.literal("PolicyDecision"),
      ...told,
      id: text,
      decision: text,
      reason_code: text,
      details: z.unknown().describe("The limits and the counts; which depends on `reason_code`."),
      details_json: z.unknown().describe("The same as `details`."),
    }),
    z.object({ kind: z.literal("Attempt"), ...told, ...attempt }),
    z.object({ kind: z.literal("LateResult"), ...told, ...attempt }).describe("Recorded, not applied."),
    z.object({ kind: z.literal("DeadLettered"), ...told, reason: text, error_code: text, attempt: count }),
    z.object({
      kind: z.literal("CancelRequested"),
      ...told,
      by: text.nullable(),
      reason: text.nullable(),
      ignored_at: time.nullable(),
    }),
    z.object({
      kind: z.literal("Operation"),
      ...told,
      id: text,
      action: text,
      by: text.nullable(),
      reason: text.nullable(),
      run_at: time.nullable(),
      changes: z
        .object({ queue: change(text), priority: change(z.int()), run_at: change(time) })
        .partial()
        .nullable()
        .describe("Of an order that put it elsewhere: what was another before."),
    }),
    z.object({ kind: z.literal("Progress"), ...told, progress, attempt: attemptNumber }),
    z.object({ kind: z.literal("Replayed"), ...told, job_id: z.uuid() }),
    z.object({ kind: z.literal("Archived"), ...told }),
  ])
  .meta({ id: "StoryEntry" });

const lastError = z.object({ error_code: text, error_message: text.nullable() }).nullable();
/** What both answers begin with and end with. */
const standing = {
  job_id: z.uuid(),
  status: jobStatus,
  queue: text,
  task: text,
  job_type: text.describe("The same as `task`."),
  next_run_at: time.nullable().describe("When it is due, while it waits."),
  last_error: lastError,
  dead_letter_reason: text.nullable(),
  dlq_reason_code: text.nullable().describe("The same as `dead_letter_reason`."),
  suggested_action: text.nullable(),
};

export const timelineSchema = z
  .object({
    ...standing,
    run_at: time.nullable(),
    last_worker: text.nullable(),
    last_worker_id: text.nullable().describe("The same as `last_worker`."),
    attempts: z.array(attemptSchema),
    story: z.array(storyEntry).describe("Oldest first."),
    result_bytes: count.nullable().describe("How long the result is, as JSON; null: nothing is kept."),
    note: text.nullable().describe("Says so when the story was longer than what is shown."),
  })
  .meta({ id: "Timeline" });

function attemptView(one: Attempt) {
  const view = snakeCased(one);
  return { ...view, attempt_no: view.attempt, latency_ms: view.took_ms, worker_id: view.worker };
}

function entryView(entry: StoryEntry) {
  if (entry.kind === "Attempt" || entry.kind === "LateResult")
    return { kind: entry.kind, at: entry.at, summary: entry.summary, ...attemptView(entry) };
  // The object is the task's own: its names stay as they are.
  if (entry.kind === "Progress") return { ...entry };
  if (entry.kind === "PolicyDecision") return { ...snakeCased(entry), details_json: entry.details };
  return snakeCased(entry);
}

export function timelineView(timeline: Timeline) {
  const { attempts, story, ...facts } = timeline;
  const view = snakeCased(facts);
  return {
    ...view,
    job_type: view.task,
    last_worker_id: view.last_worker,
    dlq_reason_code: view.dead_letter_reason,
    attempts: attempts.map(attemptView),
    story: story.map(entryView),
  };
}

export const logsSchema = z
  .object({
    items: z.array(
      z.object({
        n: z.int().min(1).describe("1, 2, 3 …, over all attempts of the job."),
        at: time,
        level: z.enum(logLevels),
        message: text,
        fields: z.looseObject({}).nullable().describe("What the task added: its own names."),
        attempt: attemptNumber,
        missed: count.nullable().describe("This line stands for so many that were not kept; null: it is one."),
      }),
    ),
    next: count.nullable().describe("The `after` of the page that follows; null when there was no more."),
  })
  .meta({ id: "Logs" });

export function logsView(items: readonly LogLine[], limit: number) {
  return { items, next: items.length === limit ? (items.at(-1)?.n ?? null) : null };
}

/** An explanation for these reasons, with its facts. */
const because = <const Names extends readonly [Because, ...Because[]]>(names: Names, facts: z.ZodRawShape) =>
  z.object({
    because: z.enum(names),
    summary: text.describe("Why, in a sentence."),
    what_next: text.describe("What would move it, in a sentence."),
    facts: z.object(facts),
    also: z.array(z.object({ because: z.enum(becauses), summary: text })).describe("What else holds it."),
    ...standing,
    attempts: count.describe("Begun, the one that runs included."),
    failed_attempts: count,
  });

const due = { due_at: time, since: time };
const neededJob = z.object({
  id: z.uuid(),
  name: text,
  status: jobStatus.nullable().describe("Null: it was removed."),
  dead_letter_reason: text.nullable(),
});
const workers = {
  workers_running: count,
  workers_serving: count,
  workers_leaving: count,
  last_name: text.nullable(),
  last_seen_at: time.nullable(),
};
const holders = z
  .array(z.object({ job_id: z.uuid(), worker: text.nullable(), since: z.iso.datetime({ offset: true }) }))
  .describe("Who has the places, the longest first, five at most.");
const full = { running: count, limit: count, holders };
const running = {
  worker: text,
  host: text.nullable(),
  pid: z.int().nullable(),
  since: time,
  beat_at: time.nullable(),
  reclaimed_at: time.nullable().describe("When it is taken back, unless its worker beats."),
  lease_jobs: count.nullable().describe("Jobs that its batch has left."),
  progress,
  progress_at: time.nullable(),
};
const cancel = {
  cancel_asked_at: time,
  cancel_asked_by: text.nullable(),
  cancel_reason: text.nullable(),
  cancel_ignored_at: time.nullable(),
};

export const explanationSchema = z
  .discriminatedUnion("because", [
    because(["NOT_DUE", "SNOOZED", "DEBOUNCED", "RELEASED"], due),
    because(["RETRY_SCHEDULED"], { ...due, error_code: text, attempt: attemptNumber, max_attempts: attemptNumber }),
    because(["RESCHEDULED"], { ...due, action: text, by: text.nullable(), reason: text.nullable() }),
    because(["STEP_SLEEPS", "STEP_WAITS"], { ...due, step: text, event: text.nullable() }),
    because(["BLOCKED"], {
      since: time.nullable(),
      open: count.optional(),
      total: count.optional(),
      first: z.array(neededJob).optional().describe("Of those it waits for, five at most."),
    }),
    because(["SYSTEM_DRAINED"], { drained_at: time, drained_by: text.nullable() }),
    because(["QUEUE_PAUSED"], { paused_at: time, paused_by: text.nullable(), paused_reason: text.nullable() }),
    because(["NO_WORKER", "WORKERS_DRAINING"], workers),
    because(["SUSPECT"], { losses: count }),
    because(["THROTTLED"], { throttled_until: time, reason_code: text.nullable() }),
    because(["QUEUE_FULL"], full),
    because(["KEY_FULL"], { ...full, key: text }),
    because(["RATE_LIMITED", "KEY_RATE_LIMITED", "ATTEMPTS_LIMITED"], {
      used: count,
      limit: count,
      per_ms: z.number(),
      frees_at: time.nullable(),
    }),
    because(["IN_LINE"], {
      place: z.int().min(1).nullable(),
      ahead: count.nullable(),
      more_than: count.nullable(),
      first: z.array(z.uuid()),
      per_second: z.number(),
      eta_ms: count.nullable(),
    }),
    because(["STOPPED"], { stopped_at: time, stopped_by: text.nullable(), looked_at: count, changed: count }),
    because(["RUNNING", "WORKER_SILENT"], running),
    because(["CANCEL_ASKED", "CANCEL_IGNORED"], { ...running, ...cancel }),
    because(["OVERDUE"], { ...running, timeout_ms: z.number() }),
    because(["COMPLETED", "ARCHIVED"], {
      worker: text.nullable(),
      took_ms: z.number().nullable(),
      finished_at: time.nullable(),
      attempt: attemptNumber,
      archived_at: time.nullable(),
    }),
    because(["GAVE_UP"], {
      reason: text.nullable(),
      attempts: count,
      failed_at: time.nullable(),
      worker: text.nullable(),
      needs: z.array(neededJob).optional().describe("Of those it needs, some that failed."),
    }),
    because(["CANCELLED"], { by: text.nullable(), reason: text.nullable(), at: time.nullable() }),
    because(["MOVING"], {}),
  ])
  .meta({ id: "Explanation", description: "Which `facts` there are depends on `because`." });

export function explanationView(explanation: Explanation) {
  const view = snakeCased(explanation);
  const { progress: said } = explanation.facts; // the task's own names
  const facts = said === undefined ? view.facts : { ...view.facts, progress: said };
  return { ...view, facts, job_type: view.task, dlq_reason_code: view.dead_letter_reason };
}
