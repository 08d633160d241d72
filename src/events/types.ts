/** Every type of event and its fields, once. `docs/reference/events.md` has a row for each (a test compares both). */

/** What a field of an event holds, whichever event it is in. */
interface Fields {
  readonly jobId: string;
  readonly queue: string | null;
  readonly task: string | null;
  /** How many jobs this event stands for. */
  readonly count: number;
  /** The first of them. */
  readonly jobIds: readonly string[];
  /** The settled batch that it is told in. */
  readonly batch: string;
  readonly attempt: number;
  readonly outcome: string;
  /** The worker's name; null when it is not known any more. */
  readonly worker: string | null;
  readonly workerId: number;
  readonly host: string;
  readonly startedAt: Date | null;
  /** Milliseconds; of several jobs, the mean. */
  readonly tookMs: number | null;
  readonly errorCode: string | null;
  readonly errorMessage: string | null;
  /** Null: retried since. */
  readonly deadLetterReason: string | null;
  readonly retryAt: Date | null;
  readonly runAt: Date | null;
  readonly replayOf: string | null;
  readonly action: string;
  readonly by: string | null;
  readonly reason: string | null;
  readonly schedule: string;
  /** `queue:<name>`, `worker:<id>`, `schedule:<name>`, `bulk:<id>`, … */
  readonly subject: string;
  readonly details: unknown;
  readonly reasonCode: string;
  /** What was being followed from then on. */
  readonly since: Date;
}

/** The tables that tell events, in the order in which one look reads them. */
export const sources = [
  "workers",
  "jobs",
  "operations",
  "policy_decisions",
  "ingest_decisions",
  "attempts",
  "settled",
  "audit",
] as const;
export type Source = (typeof sources)[number];
/** Those that number their rows. */
export type Numbered = Exclude<Source, "jobs">;

interface TypeFacts {
  readonly from: Source | "stream";
  readonly fields: readonly (keyof Fields)[];
}

const attemptFields = ["jobId", "queue", "task", "attempt", "worker", "errorCode", "errorMessage"] as const;
const operationFields = ["jobId", "queue", "task", "action", "by", "reason", "runAt"] as const;
const auditFields = ["subject", "action", "by", "details"] as const;

export const eventTypes = {
  // Jobs come …
  "job.enqueued": { from: "jobs", fields: ["jobId", "queue", "task", "runAt", "replayOf"] },
  "jobs.enqueued": { from: "jobs", fields: ["queue", "task", "count", "jobIds"] },
  "job.refused": { from: "ingest_decisions", fields: ["queue", "reasonCode", "details"] },
  // … run …
  "job.completed": {
    from: "settled",
    fields: ["jobId", "queue", "task", "worker", "startedAt", "tookMs", "batch"],
  },
  "jobs.completed": { from: "settled", fields: ["queue", "worker", "count", "jobIds", "tookMs", "batch"] },
  "job.retrying": { from: "attempts", fields: [...attemptFields, "outcome", "retryAt"] },
  "job.failed": { from: "attempts", fields: [...attemptFields, "outcome", "deadLetterReason"] },
  "job.cancelled": { from: "attempts", fields: attemptFields },
  "job.snoozed": { from: "attempts", fields: [...attemptFields, "retryAt"] },
  "job.lost": { from: "attempts", fields: [...attemptFields, "retryAt"] },
  "job.late": { from: "attempts", fields: [...attemptFields, "outcome"] },
  // … and are told what to do.
  "job.retried": { from: "operations", fields: operationFields },
  "job.promoted": { from: "operations", fields: operationFields },
  "job.rescheduled": { from: "operations", fields: operationFields },
  "job.reprioritised": { from: "operations", fields: operationFields },
  "job.moved": { from: "operations", fields: operationFields },
  "job.changed": { from: "operations", fields: operationFields },
  "job.cancel_asked": { from: "operations", fields: operationFields },
  "job.replayed": { from: "operations", fields: operationFields },
  "job.released": { from: "operations", fields: operationFields },
  "job.blocked": { from: "operations", fields: operationFields },
  // Queues
  "queue.paused": { from: "audit", fields: ["queue", ...auditFields] },
  "queue.resumed": { from: "audit", fields: ["queue", ...auditFields] },
  "queue.cleaned": { from: "audit", fields: ["queue", ...auditFields] },
  "queue.throttled": { from: "policy_decisions", fields: ["queue", "jobId", "reasonCode", "details"] },
  "policy.changed": { from: "audit", fields: ["queue", ...auditFields] },
  // Workers
  "worker.started": { from: "workers", fields: ["workerId", "worker", "host"] },
  "worker.stopped": { from: "workers", fields: ["workerId", "worker", "host"] },
  "worker.lost": { from: "workers", fields: ["workerId", "worker", "host"] },
  "worker.drained": { from: "audit", fields: ["workerId", ...auditFields] },
  "worker.resumed": { from: "audit", fields: ["workerId", ...auditFields] },
  "worker.resized": { from: "audit", fields: ["workerId", ...auditFields] },
  "worker.recycled": { from: "audit", fields: ["workerId", ...auditFields] },
  // Schedules
  "schedule.created": { from: "audit", fields: ["schedule", ...auditFields] },
  "schedule.changed": { from: "audit", fields: ["schedule", ...auditFields] },
  "schedule.paused": { from: "audit", fields: ["schedule", ...auditFields] },
  "schedule.resumed": { from: "audit", fields: ["schedule", ...auditFields] },
  "schedule.deleted": { from: "audit", fields: ["schedule", ...auditFields] },
  // Many jobs at once, and whatever else people do
  "bulk.started": { from: "audit", fields: auditFields },
  "bulk.stopped": { from: "audit", fields: auditFields },
  "audit.noted": { from: "audit", fields: auditFields },
  // The stream itself
  "stream.missed": { from: "stream", fields: ["since", "reason"] },
  "stream.ended": { from: "stream", fields: ["reason"] },
} as const satisfies Readonly<Record<string, TypeFacts>>;

export type EventType = keyof typeof eventTypes;

export type EventOf<Type extends EventType> = {
  [Each in Type]: {
    readonly type: Each;
    /** The same whenever and wherever the event is told again. */
    readonly id: string;
    readonly at: Date;
  } & Pick<Fields, (typeof eventTypes)[Each]["fields"][number]>;
}[Type];

/** Something that happened. `type` says which fields it has. */
export type MillraceEvent = EventOf<EventType>;

export function isEventType(text: string): text is EventType {
  return Object.hasOwn(eventTypes, text);
}

/** What people do to jobs, by the word in `operations.action`. Words that are not here are `job.changed`. */
export const operationTypes: Readonly<Record<string, EventType>> = {
  retry: "job.retried",
  promote: "job.promoted",
  reschedule: "job.rescheduled",
  reprioritise: "job.reprioritised",
  move: "job.moved",
  cancel: "job.cancel_asked",
  replay: "job.replayed",
  release: "job.released",
  block: "job.blocked",
};

/** What people do otherwise, by the kind of `audit.subject` and `audit.action`. Whatever is not here is `audit.noted`. */
export const auditTypes: Readonly<Record<string, EventType>> = {
  "queue pause": "queue.paused",
  "queue resume": "queue.resumed",
  "queue clean": "queue.cleaned",
  "queue policy.set": "policy.changed",
  "queue policy.removed": "policy.changed",
  "worker drain": "worker.drained",
  "worker resume": "worker.resumed",
  "worker concurrency": "worker.resized",
  "worker recycle": "worker.recycled",
  "schedule schedule.created": "schedule.created",
  "schedule schedule.changed": "schedule.changed",
  "schedule schedule.defined": "schedule.changed",
  "schedule schedule.reset": "schedule.changed",
  "schedule schedule.retired": "schedule.changed",
  "schedule schedule.set_back": "schedule.changed",
  "schedule schedule.paused": "schedule.paused",
  "schedule schedule.resumed": "schedule.resumed",
  "schedule schedule.deleted": "schedule.deleted",
  "bulk bulk.start": "bulk.started",
  "bulk bulk.stop": "bulk.stopped",
};
