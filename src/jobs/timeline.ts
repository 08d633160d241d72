/** The timeline of a job: its history as attempts, and as a story in the order in which it happened. Pure. */
import { suggestedAction } from "../core/errors.ts";
import { progressText } from "../core/progress.ts";
import type { StoredSchedule } from "./enqueue-store.ts";
import type { Job, JobStatus } from "./read-store.ts";
import { byWhom, instant } from "./sentences.ts";
import { attemptSentence, changed, flowSentence, lateSentence, operationSentence } from "./timeline-sentences.ts";
import { type HistoryRow, stepsMax } from "./timeline-store.ts";

export const attemptStatuses = ["running", "succeeded", "failed", "timed_out", "lost", "cancelled", "snoozed"] as const;

/** One run of the job by one worker, over or not. */
export interface Attempt {
  readonly id: string;
  /** From 1. A snooze, and a loss among other jobs, uses none up: the next one has the same number. */
  readonly attempt: number;
  readonly status: (typeof attemptStatuses)[number];
  readonly startedAt: Date | null;
  readonly finishedAt: Date | null;
  /** Milliseconds; null while it runs, and when nobody knows. */
  readonly tookMs: number | null;
  readonly worker: string | null;
  readonly errorCode: string | null;
  readonly errorMessage: string | null;
  readonly suggestedAction: string | null;
  /** When the job was due again because of it. */
  readonly retryAt: Date | null;
}

interface Told<Kind extends string> {
  readonly kind: Kind;
  readonly at: Date;
  /** The entry as a sentence. */
  readonly summary: string;
}

/** The jobs on one side of a job in its flow: how many, counted up to 10 000, and the first 20. */
export interface Kin<Item> {
  readonly count: number;
  readonly first: readonly Item[];
}

interface Change<Value> {
  readonly from: Value;
  readonly to: Value;
}

export interface Changes {
  readonly queue?: Change<string>;
  readonly priority?: Change<number>;
  readonly runAt?: Change<Date>;
}

/** What happened, newest last. An attempt stands where it ended, or, while it runs, where it began. */
export type StoryEntry =
  | (Told<"Enqueued"> & {
      /** As it was enqueued, wherever it was put since. */
      readonly queue: string;
      readonly priority: number;
      readonly task: string;
      readonly runAt: Date | null;
      readonly replayOf: string | null;
      /** Who enqueued or replayed it, or ran its schedule, and why; null: nobody said so. */
      readonly by: string | null;
      readonly reason: string | null;
      /** The schedule whose tick it stands for. */
      readonly schedule: { readonly name: string; readonly at: Date; readonly runId: string } | null;
      /** Of a job of a flow: those it waits for, or did, and those that wait for it. Null: none. */
      readonly needs: Kin<{ readonly name: string; readonly id: string }> | null;
      readonly neededBy: Kin<string> | null;
    })
  /** Stands where it was done, or, while it is not, where it began. */
  | (Told<"Step"> & {
      /** From 1. */
      readonly place: number;
      readonly name: string;
      readonly stepKind: "run" | "sleep" | "event";
      readonly attempt: number;
      readonly startedAt: Date | null;
      readonly finishedAt: Date | null;
      readonly until: Date | null;
      readonly event: string | null;
    })
  | (Told<"PolicyDecision"> & {
      readonly id: string;
      readonly decision: string;
      readonly reasonCode: string;
      readonly details: unknown;
    })
  | (Told<"Attempt"> & Attempt)
  /** The result of a worker that had lost the job: recorded, not applied. */
  | (Told<"LateResult"> & Attempt)
  | (Told<"DeadLettered"> & { readonly reason: string; readonly errorCode: string; readonly attempt: number })
  | (Told<"CancelRequested"> & {
      readonly by: string | null;
      readonly reason: string | null;
      readonly ignoredAt: Date | null;
    })
  | (Told<"Operation"> & {
      readonly id: string;
      readonly action: string;
      readonly by: string | null;
      readonly reason: string | null;
      readonly runAt: Date | null;
      /** Of an order that put it elsewhere: what was another before. Null: it puts nothing elsewhere, or was given before this was kept. */
      readonly changes: Changes | null;
    })
  /** The newest mark only. */
  | (Told<"Progress"> & { readonly progress: unknown; readonly attempt: number })
  | (Told<"Replayed"> & { readonly jobId: string })
  | Told<"Archived">;

export interface Timeline {
  readonly jobId: string;
  readonly status: JobStatus;
  readonly queue: string;
  readonly task: string;
  readonly runAt: Date | null;
  /** When it is due, while it waits. */
  readonly nextRunAt: Date | null;
  readonly lastWorker: string | null;
  readonly lastError: { readonly errorCode: string; readonly errorMessage: string | null } | null;
  readonly deadLetterReason: string | null;
  readonly suggestedAction: string | null;
  readonly attempts: readonly Attempt[];
  readonly story: readonly StoryEntry[];
  /** How many bytes of JSON its task returned; null: nothing is kept. */
  readonly resultBytes: number | null;
  /** Says so when the story was longer than what is shown. */
  readonly note: string | null;
}

/** Entries of a story at most; the newest are kept, and how the job came to be. */
export const storyMax = 1_000;

/** Where times are the same. Decisions come before attempts, as runbooks expect. */
const order: Readonly<Record<StoryEntry["kind"], number>> = {
  Enqueued: 0,
  PolicyDecision: 1,
  CancelRequested: 2,
  Progress: 3,
  Step: 3,
  Attempt: 4,
  LateResult: 5,
  DeadLettered: 6,
  Operation: 7,
  Replayed: 8,
  Archived: 9,
};

export function timelineOf(job: Job, history: readonly HistoryRow[]): Timeline {
  const all = history
    .filter((row) => !repeated(row, history))
    .flatMap((row) => {
      const entry = entryOf(row, job);
      return entry === undefined ? [] : [{ atUs: row.atUs, entry }];
    })
    .sort((a, b) => a.atUs - b.atUs || order[a.entry.kind] - order[b.entry.kind] || placeOf(a.entry) - placeOf(b.entry))
    .map(({ entry }) => entry);
  const story = all.filter((entry, i) => entry.kind === "Enqueued" || i >= all.length - storyMax);
  const attempts = story.filter((entry) => entry.kind === "Attempt").map((entry) => only(entry));
  const error = attempts.findLast(({ errorCode }) => errorCode !== null);
  const result = history.find(({ told }) => told === "result");
  // A step's place is its number, so the highest one counts them all.
  const steps = Math.max(0, ...history.map(({ told, body }) => (told === "step" ? Number(body["place"]) + 1 : 0)));
  const cut = story.length < all.length || history.filter(({ told }) => told === "attempt").length >= storyMax;
  return {
    jobId: job.id,
    status: job.status,
    queue: job.queue,
    task: job.task,
    runAt: job.runAt,
    nextRunAt: job.status === "waiting" || job.status === "delayed" ? job.runAt : null,
    lastWorker: job.worker,
    lastError: error ? { errorCode: error.errorCode as string, errorMessage: error.errorMessage } : null,
    deadLetterReason: job.deadLetterReason,
    suggestedAction: adviceFor(job),
    attempts,
    story,
    resultBytes: result ? Number(result.body["bytes"]) : null,
    note: cut
      ? `Only the newest ${storyMax} entries are shown.`
      : steps > stepsMax
        ? `Only the newest ${stepsMax} of ${steps} steps are shown.`
        : null,
  };
}

/** Steps of one moment are told in their order. */
const placeOf = (entry: StoryEntry): number => (entry.kind === "Step" ? entry.place : 0);

/** A cancel of a running job is an operation and, until it is answered, a request; that tells more. */
function repeated({ told, atUs, body }: HistoryRow, history: readonly HistoryRow[]): boolean {
  if (told !== "operation" || body["action"] !== "cancel") return false;
  return history.some((other) => other.told === "cancel" && other.atUs === atUs);
}

/** What to do about how a job stands: about its last error, unless it went well in the end. */
export function adviceFor(job: Job): string | null {
  if (job.status === "completed") return null;
  return suggestedAction(job.deadLetterReason === "POISON" ? "POISON" : job.lastErrorCode);
}

/** Undefined: told by a field of its own. */
function entryOf({ told, at, id, body }: HistoryRow, job: Job): StoryEntry | undefined {
  const by = text(body["by"]);
  const reason = text(body["reason"]);
  switch (told) {
    case "enqueued": {
      const queue = String(body["queue"]);
      const priority = Number(body["priority"]);
      const ranked = priority === 0 ? "" : ` with priority ${priority}`;
      const replayOf = text(body["replay_of"]);
      const runAt = time(body["run_at"]);
      const later = runAt !== null && runAt > at ? `, to run at ${instant(runAt)}` : "";
      const schedule = scheduleOf(body["schedule"]);
      const asked = byWhom(by, reason);
      const copied = replayOf === null ? "" : `, a replay of ${replayOf}${asked}`;
      const needs = kinOf<{ name: string; id: string }>(body["needs"]);
      const neededBy = kinOf<string>(body["needed_by"]);
      const ticked = schedule === null ? "" : ` by schedule "${schedule.name}" for ${instant(schedule.at)},`;
      const ran = schedule !== null && asked !== "" ? ` run${asked},` : "";
      const who = schedule === null && replayOf === null ? asked : `${ticked}${ran}`;
      const flow = flowSentence(needs, neededBy);
      const summary = `Enqueued${who} in queue "${queue}"${ranked} for task "${job.task}"${later}${copied}.${flow}`;
      const facts = { queue, priority, task: job.task, runAt, replayOf, by, reason, schedule, needs, neededBy };
      return { kind: "Enqueued", at, summary, ...facts };
    }
    case "attempt": {
      const attempt = attemptOf(`attempt-${id}`, body, body["outcome"] as Attempt["status"]);
      return body["late"] === true
        ? { kind: "LateResult", at, summary: lateSentence(attempt), ...attempt }
        : { kind: "Attempt", at, summary: attemptSentence(attempt), ...attempt };
    }
    case "success":
    case "running": {
      // A batch that went well has no attempt numbers: a job ends with the number it had.
      const numbered = { attempt: job.attempt, ...body };
      const attempt = attemptOf(`${told}-${id}`, numbered, told === "running" ? "running" : "succeeded");
      return { kind: "Attempt", at, summary: attemptSentence(attempt), ...attempt };
    }
    case "decision": {
      const decision = String(body["decision"]);
      const reasonCode = String(body["reason_code"]);
      const summary = `Storm control: ${decision}, ${reasonCode}.`;
      return { kind: "PolicyDecision", at, summary, id, decision, reasonCode, details: body["details"] };
    }
    case "operation": {
      const action = String(body["action"]);
      const runAt = time(body["run_at"]);
      const changes = changesOf(body["details"]);
      const stays = changes !== null && changes.runAt === undefined;
      const due = runAt === null || runAt <= at || stays ? "" : `, due at ${instant(runAt)}`;
      const summary = operationSentence(action, by, reason, `${changed(changes)}${due}`);
      return { kind: "Operation", at, summary, id, action, by, reason, runAt, changes };
    }
    case "cancel": {
      const ignoredAt = time(body["ignored_at"]);
      const ignored = ignoredAt === null ? "" : ` The task ignores it since ${instant(ignoredAt)}.`;
      const summary = `Cancel asked for${byWhom(by, reason)}.${ignored}`;
      return { kind: "CancelRequested", at, summary, by, reason, ignoredAt };
    }
    case "dead": {
      const errorCode = String(body["error_code"]);
      const attempt = Number(body["attempt"]);
      const summary = `Given up, a dead letter: ${reason}, after attempt ${attempt} with ${errorCode}.`;
      return { kind: "DeadLettered", at, summary, reason: String(reason), errorCode, attempt };
    }
    case "progress": {
      const attempt = Number(body["attempt"]);
      const progress = body["value"];
      const summary = `Progress of attempt ${attempt}: ${progressText(progress)}.`;
      return { kind: "Progress", at, summary, progress, attempt };
    }
    case "step":
      return stepEntry(at, body);
    case "result":
      return undefined;
    case "replay":
      return { kind: "Replayed", at, summary: `Replayed as job ${id}.`, jobId: id };
    case "archived":
      return { kind: "Archived", at, summary: "Moved to the archive." };
  }
}

function scheduleOf(stored: unknown): { name: string; at: Date; runId: string } | null {
  if (typeof stored !== "object" || stored === null) return null;
  const { name, at, run } = stored as StoredSchedule;
  return { name, at: new Date(at), runId: run };
}

function kinOf<Item>(value: unknown): Kin<Item> | null {
  const kin = value as Kin<Item> | undefined;
  return kin === undefined || kin.count === 0 ? null : kin;
}

function changesOf(stored: unknown): Changes | null {
  if (typeof stored !== "object" || stored === null) return null;
  const { run_at: moved, ...rest } = stored as Omit<Changes, "runAt"> & { run_at?: Change<string> };
  return moved === undefined ? rest : { ...rest, runAt: { from: new Date(moved.from), to: new Date(moved.to) } };
}

function stepEntry(at: Date, body: HistoryRow["body"]): StoryEntry {
  const place = Number(body["place"]) + 1;
  const name = String(body["name"]);
  const stepKind = body["kind"] as "run" | "sleep" | "event";
  const attempt = Number(body["attempt"]);
  const [until, event, finishedAt] = [time(body["until"]), text(body["event"]), time(body["finished_at"])];
  const end = until === null ? "" : ` until ${instant(until)}`;
  const what =
    stepKind === "sleep"
      ? `sleeps${end}`
      : stepKind === "run"
        ? typeof body["failure"] === "string"
          ? `threw in attempt ${attempt}, and the run went on: ${body["failure"]}`
          : `done in attempt ${attempt}`
        : finishedAt === null
          ? `waits for event "${event}"${end}`
          : body["returned"] === true
            ? `event "${event}" has come`
            : `event "${event}" did not come in time`;
  const summary = `Step ${place}, "${name}": ${what}.`;
  const startedAt = time(body["started_at"]);
  return { kind: "Step", at, summary, place, name, stepKind, attempt, startedAt, finishedAt, until, event };
}

function attemptOf(id: string, body: HistoryRow["body"], status: Attempt["status"]): Attempt {
  const startedAt = time(body["started_at"]);
  const finishedAt = time(body["finished_at"]);
  const errorCode = text(body["error_code"]);
  return {
    id,
    attempt: Number(body["attempt"]),
    status,
    startedAt,
    finishedAt,
    // Started by the worker's watch, finished by the database's.
    tookMs: startedAt && finishedAt ? Math.max(0, finishedAt.getTime() - startedAt.getTime()) : null,
    worker: text(body["worker"]),
    errorCode,
    errorMessage: text(body["error_message"]),
    suggestedAction: suggestedAction(errorCode),
    retryAt: time(body["retry_at"]),
  };
}

/** The attempt without the entry that tells it. */
function only(entry: Attempt): Attempt {
  const { id, attempt, status, startedAt, finishedAt, tookMs, worker, errorCode, errorMessage, retryAt } = entry;
  const { suggestedAction: advice } = entry;
  return {
    id,
    attempt,
    status,
    startedAt,
    finishedAt,
    tookMs,
    worker,
    errorCode,
    errorMessage,
    suggestedAction: advice,
    retryAt,
  };
}

function text(value: unknown): string | null {
  return typeof value === "string" ? value : null;
}

/** Infinity is no time. */
function time(value: unknown): Date | null {
  return typeof value === "string" && value !== "infinity" ? new Date(value) : null;
}
