/** Makes events of what the tables tell. Pure. */
import type { Arrival, Arrivals } from "./arrivals-store.ts";
import type { AttemptRow, AuditRow, DecisionRow, OperationRow, SettledRow, WorkerRow } from "./events-store.ts";
import { type EventType, type MillraceEvent, auditTypes, operationTypes } from "./types.ts";

/** An event on its way. `apart`: told only to those who asked for its job; others hear of it among many. */
export interface Heard {
  readonly event: MillraceEvent;
  readonly apart?: true;
}

export function arrival({ id, at, queue, task, runAt, replayOf }: Arrival): MillraceEvent {
  return { type: "job.enqueued", id: `job-${id}`, at, jobId: id, queue, task, runAt, replayOf };
}

export function arrivals({ at, queue, task, count, named }: Arrivals): MillraceEvent {
  return { type: "jobs.enqueued", id: `jobs-${named[0]}-${count}`, at, queue, task, count, jobIds: named };
}

export function settled(row: SettledRow): Heard[] {
  const { id, at, queue, worker, count, tookMsSum, named, whole } = row;
  const batch = `settled-${id}`;
  const singles = (row.singles ?? []).map(([n, jobId, task, startedAt, tookMs]): MillraceEvent => ({
    type: "job.completed",
    id: `${batch}-${n}`,
    at,
    jobId,
    queue,
    task,
    worker,
    startedAt: new Date(startedAt),
    tookMs,
    batch,
  }));
  if (whole) return singles.map((event) => ({ event }));
  const tookMs = count === 0 ? null : Math.round(tookMsSum / count);
  return [
    { event: { type: "jobs.completed", id: batch, at, queue, worker, count, jobIds: named, tookMs, batch } },
    ...singles.map((event) => ({ event, apart: true as const })),
  ];
}

export function attempt(row: AttemptRow): MillraceEvent {
  const { at, jobId, queue, task, worker, outcome, errorCode, errorMessage, retryAt, late, deadLetterReason } = row;
  const base = {
    id: `attempt-${row.id}`,
    at,
    jobId,
    queue,
    task,
    attempt: row.attempt,
    worker,
    errorCode,
    errorMessage,
  };
  if (late) return { ...base, type: "job.late", outcome };
  if (outcome === "cancelled") return { ...base, type: "job.cancelled" };
  if (outcome === "snoozed") return { ...base, type: "job.snoozed", retryAt };
  if (retryAt === null) return { ...base, type: "job.failed", outcome, deadLetterReason };
  if (outcome === "lost") return { ...base, type: "job.lost", retryAt };
  return { ...base, type: "job.retrying", outcome, retryAt };
}

export function operation({ id, ...row }: OperationRow): MillraceEvent {
  const type = operationTypes[row.action] ?? "job.changed";
  return { ...row, type, id: `operation-${id}` } as MillraceEvent;
}

export function audited({ id: row, at, by, action, subject, details }: AuditRow): MillraceEvent {
  const colon = subject.indexOf(":");
  const [kind, name] = [subject.slice(0, colon), subject.slice(colon + 1)];
  const type: EventType = auditTypes[`${kind} ${action}`] ?? "audit.noted";
  const base = { id: `audit-${row}`, at, subject, action, by, details };
  if (type === "audit.noted") return { ...base, type };
  if (kind === "queue") return { ...base, type, queue: name } as MillraceEvent;
  if (kind === "worker") return { ...base, type, workerId: Number(name) } as MillraceEvent;
  if (kind === "schedule") return { ...base, type, schedule: name } as MillraceEvent;
  return { ...base, type } as MillraceEvent;
}

export function throttled({ id, at, queue, jobId, reasonCode, details }: DecisionRow): MillraceEvent {
  return { type: "queue.throttled", id: `decision-${id}`, at, queue, jobId: jobId ?? "", reasonCode, details };
}

export function refused({ id, at, queue, reasonCode, details }: DecisionRow): MillraceEvent {
  return { type: "job.refused", id: `refusal-${id}`, at, queue, reasonCode, details };
}

export function started({ id, name, host, startedAt }: WorkerRow): MillraceEvent {
  return { type: "worker.started", id: `worker-${id}-started`, at: startedAt, workerId: id, worker: name, host };
}

export function ended({ id, name, host, stoppedAt, ended: how }: WorkerRow): MillraceEvent {
  const type = how === "lost" ? "worker.lost" : "worker.stopped";
  return { type, id: `worker-${id}-ended`, at: stoppedAt ?? new Date(0), workerId: id, worker: name, host };
}
