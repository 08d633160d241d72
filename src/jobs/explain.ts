/** Why a job is where it is, and what would move it: one sentence each, with the facts they are made of. Pure. */
import { describeMs } from "../core/duration.ts";
import { progressText } from "../core/progress.ts";
import type { Observation, Standing, Stopped } from "./explain-store.ts";
import { drained, paused, whyItWaits, withoutWorker } from "./explain-waiting.ts";
import { blocked, changedCode, debounced, dependencyFailed, released, suspended } from "./explain-composed.ts";
import type { Job, JobStatus } from "./read-store.ts";
import { away, byWhom, instant, many, when } from "./sentences.ts";
import { adviceFor } from "./timeline.ts";

/** The reasons there are, for programs. */
export const becauses = [
  // it is not due
  "NOT_DUE",
  "RETRY_SCHEDULED",
  "SNOOZED",
  "RESCHEDULED",
  "DEBOUNCED",
  "RELEASED",
  "STEP_SLEEPS",
  "STEP_WAITS",
  "BLOCKED",
  // it is due and does not run
  "SYSTEM_DRAINED",
  "QUEUE_PAUSED",
  "NO_WORKER",
  "WORKERS_DRAINING",
  "SUSPECT",
  "THROTTLED",
  "QUEUE_FULL",
  "KEY_FULL",
  "RATE_LIMITED",
  "ATTEMPTS_LIMITED",
  "KEY_RATE_LIMITED",
  "IN_LINE",
  // it runs
  "RUNNING",
  "CANCEL_ASKED",
  "CANCEL_IGNORED",
  "OVERDUE",
  "WORKER_SILENT",
  // it is over
  "COMPLETED",
  "ARCHIVED",
  "GAVE_UP",
  "CANCELLED",
  "STOPPED",
  // it moved while this was read
  "MOVING",
] as const;
export type Because = (typeof becauses)[number];

export interface Reason {
  readonly because: Because;
  /** Why, in a sentence. */
  readonly summary: string;
  /** What would move it, in a sentence. */
  readonly whatNext: string;
  /** What the sentences are made of; which facts depends on `because`. */
  readonly facts: Readonly<Record<string, unknown>>;
}

export interface Explanation extends Reason {
  readonly jobId: string;
  readonly status: JobStatus;
  readonly queue: string;
  readonly task: string;
  /** What else holds it; empty when clearing the first reason away is enough. */
  readonly also: readonly Pick<Reason, "because" | "summary">[];
  /** Begun, the one that runs included; a snooze, or a loss among other jobs, is none. */
  readonly attempts: number;
  readonly failedAttempts: number;
  /** When it is due, while it waits. */
  readonly nextRunAt: Date | null;
  readonly lastError: { readonly errorCode: string; readonly errorMessage: string | null } | null;
  readonly deadLetterReason: string | null;
  readonly suggestedAction: string | null;
}

/** `taskTimeoutMs`: the task's own, where its code is at hand. */
export function explain(seen: Observation, taskTimeoutMs?: number): Explanation {
  const { job, standing } = seen;
  const [reason = moving(), ...others] = reasonsOf(seen, taskTimeoutMs);
  const { errorCode, errorMessage } = standing;
  return {
    jobId: job.id,
    status: job.status,
    queue: job.queue,
    task: job.task,
    ...reason,
    also: others.map(({ because, summary }) => ({ because, summary })),
    attempts: attemptsOf(seen),
    failedAttempts: standing.failed,
    nextRunAt: job.status === "waiting" || job.status === "delayed" ? job.runAt : null,
    lastError: errorCode === null ? null : { errorCode, errorMessage },
    deadLetterReason: job.deadLetterReason,
    suggestedAction: adviceFor(job),
  };
}

function attemptsOf({ job, standing }: Observation): number {
  return standing.ended + (job.status === "active" || job.status === "completed" ? 1 : 0);
}

function reasonsOf(seen: Observation, taskTimeoutMs: number | undefined): Reason[] {
  const { job, standing } = seen;
  if (seen.stopped !== undefined) return [stopped(seen, seen.stopped)];
  switch (job.status) {
    case "waiting":
      return standing.waits ? whyItWaits(seen) : [];
    case "delayed":
      return [notDue(seen), drained(seen), paused(seen), seen.serving && withoutWorker(seen, seen.serving)].filter(
        (reason) => reason !== undefined,
      );
    case "blocked":
      return [blocked(seen)];
    case "active":
      return standing.claimedAt === null ? [] : running(job, standing, standing.claimedAt, taskTimeoutMs);
    case "completed":
      return [completed(seen)];
    case "failed":
      return [gaveUp(seen)];
    case "cancelled":
      return [cancelled(job, standing)];
  }
}

/** Its job goes well all the same, or will when a worker takes it: there is nothing left to do. */
function stopped({ standing: { now } }: Observation, { at, by, lookedAt, changed }: Stopped): Reason {
  return {
    because: "STOPPED",
    summary: `The bulk operation was stopped at ${when(at, now)}${byWhom(by, null)}: it had looked at ${many(lookedAt, "job")} and changed ${changed}.`,
    whatNext: "Nothing: what was done stays done. Begin another one for the rest.",
    facts: { stoppedAt: at, stoppedBy: by, lookedAt, changed },
  };
}

function moving(): Reason {
  return {
    because: "MOVING",
    summary: "It was moving this very moment.",
    whatNext: "Ask again.",
    facts: {},
  };
}

function notDue(seen: Observation): Reason {
  const { job, standing, step } = seen;
  const { now, movedBy, movedAt, moverCode, moverName, moverReason } = standing;
  const due = job.runAt ?? now;
  const until = `Not due until ${when(due, now)}`;
  const itself = "Nothing: it runs by itself then. Promote it to run it now.";
  const facts = { dueAt: due, since: movedAt };
  if (movedBy === null || movedAt === null) {
    const summary = `${until}, as its enqueue asked at ${instant(job.createdAt)}.`;
    return { because: "NOT_DUE", summary, whatNext: itself, facts: { dueAt: due, since: job.createdAt } };
  }
  if (movedBy === "release") return released(until, movedAt, facts);
  if (movedBy === "debounce") return debounced(until, movedAt, facts);
  if (movedBy === "snoozed" && step !== undefined) return suspended(step, due, now);
  if (movedBy === "snoozed")
    return {
      because: "SNOOZED",
      summary: `${until}: the task put it off at ${instant(movedAt)}.`,
      whatNext: itself,
      facts,
    };
  if (movedBy === "failed" || movedBy === "timed_out" || movedBy === "lost") {
    const code = moverCode ?? "UNKNOWN";
    return {
      because: "RETRY_SCHEDULED",
      summary: `Retry scheduled after ${code}: attempt ${job.attempt} of ${job.maxAttempts} is due at ${when(due, now)}.`,
      whatNext: itself,
      facts: { ...facts, errorCode: code, attempt: job.attempt, maxAttempts: job.maxAttempts },
    };
  }
  return {
    because: "RESCHEDULED",
    summary: `${until}: moved there by "${movedBy}"${byWhom(moverName, moverReason)} at ${instant(movedAt)}.`,
    whatNext: itself,
    facts: { ...facts, action: movedBy, by: moverName, reason: moverReason },
  };
}

/** How long a task may go on after its timeout before it is called hung. */
const hungAfterMs = 5_000;

function running(job: Job, standing: Standing, claimedAt: Date, taskTimeoutMs: number | undefined): Reason[] {
  const { now, workerId, host, pid, beatAt, leaseEndsAt, leaseJobs, workerEnded } = standing;
  const worker = job.worker ?? "unknown";
  const { progress, progressAt } = markSince(job, claimedAt);
  const facts = {
    worker,
    host,
    pid,
    since: claimedAt,
    beatAt,
    reclaimedAt: leaseEndsAt,
    leaseJobs,
    progress,
    progressAt,
  };
  const who = `worker ${worker}${host === null ? "" : ` on host ${host}`}`;
  const since = `attempt ${job.attempt} of ${job.maxAttempts} since ${when(claimedAt, now)}`;
  const beat = beatAt === null ? "" : `, last beat ${away(beatAt, now)}`;
  const others = (leaseJobs ?? 1) > 1 ? ` Its batch has ${leaseJobs} jobs left, so it may not have started yet.` : "";
  const reclaim =
    leaseEndsAt === null ? "" : ` If the worker does not beat until ${instant(leaseEndsAt)}, the job is taken back.`;
  const far = progressAt === null ? "" : ` It said ${progressText(progress)} at ${when(progressAt, now)}.`;
  const reasons: Reason[] = [];
  if (workerEnded !== null || (leaseEndsAt !== null && leaseEndsAt < now)) {
    reasons.push({
      because: "WORKER_SILENT",
      summary: `Its ${who} is ${workerEnded === "stopped" ? "stopped" : "silent"}${beat}: the job is about to be taken back from it.`,
      whatNext: "Any live worker takes it back within seconds, and it is run again. Start a worker if there is none.",
      facts,
    });
  }
  const order =
    workerId === null ? "" : `: \`millrace workers recycle ${workerId}\`, or POST /api/workers/${workerId}/recycle`;
  const { cancelAskedAt, cancelAskedBy, cancelReason, cancelIgnoredAt } = standing;
  if (cancelAskedAt !== null) {
    const asked = `cancel was asked for${byWhom(cancelAskedBy, cancelReason)} at ${when(cancelAskedAt, now)}`;
    const cancelFacts = { ...facts, cancelAskedAt, cancelAskedBy, cancelReason, cancelIgnoredAt };
    reasons.push(
      cancelIgnoredAt === null
        ? {
            because: "CANCEL_ASKED",
            summary: `Runs on ${who}, ${since}; ${asked}.`,
            whatNext: "Its signal is aborted; it is cancelled as soon as the task ends.",
            facts: cancelFacts,
          }
        : {
            because: "CANCEL_IGNORED",
            summary: `Runs on ${who}, ${since}; ${asked}, and the task ignores it since ${when(cancelIgnoredAt, now)}.`,
            whatNext: `Recycle its worker${order}; only its end ends this run. Then let the task listen to its signal.`,
            facts: cancelFacts,
          },
    );
  }
  const timeoutMs = standing.timeoutMs ?? taskTimeoutMs ?? 0;
  if (timeoutMs > 0 && now.getTime() - claimedAt.getTime() > timeoutMs + hungAfterMs) {
    reasons.push({
      because: "OVERDUE",
      summary: `Runs on ${who}, ${since}${beat}: longer than its timeout of ${describeMs(timeoutMs)}, so the task ignores its signal.`,
      whatNext: "Let the task listen to its signal. The job keeps its place until the task ends or its worker does.",
      facts: { ...facts, timeoutMs },
    });
  }
  reasons.push({
    because: "RUNNING",
    summary: `Runs on ${who}, ${since}${beat}.${far}${others}`,
    whatNext: `It ends when the task does.${reclaim}`,
    facts,
  });
  return reasons;
}

/** What an attempt before said is no news of this one. */
function markSince({ progress, progressAt }: Job, claimedAt: Date): Pick<Job, "progress" | "progressAt"> {
  const isNews = progressAt !== null && progressAt >= claimedAt;
  return isNews ? { progress, progressAt } : { progress: null, progressAt: null };
}

function completed(seen: Observation): Reason {
  const { job, standing } = seen;
  const { startedAt, finishedAt } = job;
  const tookMs = startedAt && finishedAt ? finishedAt.getTime() - startedAt.getTime() : null;
  const how =
    finishedAt === null || tookMs === null
      ? ""
      : ` on worker ${job.worker ?? "unknown"} in ${describeMs(tookMs)} at ${when(finishedAt, standing.now)}`;
  const { archivedAt } = standing;
  const facts = { worker: job.worker, tookMs, finishedAt, attempt: job.attempt, archivedAt };
  const summary = `Succeeded after ${many(attemptsOf(seen), "attempt")}${how}`;
  const whatNext = "Nothing: it is done.";
  if (archivedAt === null) return { because: "COMPLETED", summary: `${summary}.`, whatNext, facts };
  return {
    because: "ARCHIVED",
    summary: `${summary}; archived at ${when(archivedAt, standing.now)}.`,
    whatNext,
    facts,
  };
}

function gaveUp(seen: Observation): Reason {
  const { job, standing, needs } = seen;
  const attempts = attemptsOf(seen);
  const message = standing.errorMessage === null ? "" : `: ${standing.errorMessage.replace(/\.$/, "")}`;
  const error = standing.errorCode === null ? "" : ` Last error ${standing.errorCode}${message}.`;
  const at = job.finishedAt === null ? "" : ` at ${when(job.finishedAt, standing.now)}`;
  const facts = { reason: job.deadLetterReason, attempts, failedAt: job.finishedAt, worker: job.worker };
  if (job.deadLetterReason === "DEPENDENCY_FAILED") return dependencyFailed(needs, at, facts);
  return {
    because: "GAVE_UP",
    summary: `Gave up${at} after ${many(attempts, "attempt")}: ${job.deadLetterReason}.${error}`,
    whatNext:
      standing.errorCode === "STEP_CHANGED"
        ? changedCode
        : "It is a dead letter and is not tried again by itself. Fix the cause, then retry it.",
    facts,
  };
}

function cancelled(job: Job, { now, cancelNoted, cancelledBy: by, cancelledReason: reason }: Standing): Reason {
  const at = job.finishedAt === null ? "" : ` at ${when(job.finishedAt, now)}`;
  const why = cancelNoted ? byWhom(null, reason) : job.lastErrorMessage === null ? "" : `: ${job.lastErrorMessage}`;
  return {
    because: "CANCELLED",
    summary: `Cancelled${byWhom(by, null)}${at}${why.replace(/\.$/, "")}.`,
    whatNext: "Nothing: it is over. Enqueue it again, or replay it, if it should run after all.",
    facts: { by, reason, at: job.finishedAt },
  };
}
