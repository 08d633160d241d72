/** Timelines and explanations as the API shows them: in snake_case, under our names and under those of runbook 004. */
import type { Explanation } from "../jobs/explain.ts";
import type { Attempt, StoryEntry, Timeline } from "../jobs/timeline.ts";
import type { LogLine } from "../jobs/notes-store.ts";
import { snakeCased } from "./snake-case.ts";

function attemptView(attempt: Attempt) {
  const view = snakeCased(attempt);
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

/** `next`: the `after` of the page that follows; null when there was no more. */
export function logsView(items: readonly LogLine[], limit: number) {
  return { items, next: items.length === limit ? (items.at(-1)?.n ?? null) : null };
}

export function explanationView(explanation: Explanation) {
  const view = snakeCased(explanation);
  const { progress } = explanation.facts; // the task's own names
  const facts = progress === undefined ? view.facts : { ...view.facts, progress };
  return { ...view, facts, job_type: view.task, dlq_reason_code: view.dead_letter_reason };
}
