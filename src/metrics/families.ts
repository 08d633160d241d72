/**
 * Every metric that is read from the database: the same from every process, so take `max` of it, never `sum`. Names are completed with
 * the prefix. docs/reference/metrics.md says the same; a test compares.
 */
import { durationBucketsMs } from "../jobs/totals-store.ts";
import type { Snapshot } from "./snapshot.ts";

interface Sample {
  readonly labels: Readonly<Record<string, string | number>>;
  readonly value: number;
  /** Behind the name: `_bucket`, `_sum`, `_count` of a histogram. */
  readonly suffix?: string;
}

export interface Family {
  readonly name: string;
  readonly type: "counter" | "gauge" | "histogram";
  readonly labels: readonly string[];
  readonly help: string;
  readonly samples: (snapshot: Snapshot) => Sample[];
}

const reasons = ["NON_RETRYABLE", "MAX_ATTEMPTS_EXCEEDED", "POISON", "DEPENDENCY_FAILED"] as const;
const outcomes = ["succeeded", "failed", "timed_out", "lost", "cancelled", "snoozed"] as const;
const denials = ["PAYLOAD_TOO_LARGE", "ENQUEUE_RATE_EXCEEDED"] as const;
const throttles = ["IN_FLIGHT_EXCEEDED", "RETRY_RATE_EXCEEDED"] as const;

const perQueue =
  (value: (queue: Snapshot["queues"][number]) => number | null) =>
  ({ queues }: Snapshot): Sample[] =>
    queues.flatMap((state) => {
      const number = value(state);
      return number === null ? [] : [{ labels: { queue: state.queue }, value: number }];
    });

const one =
  (value: (snapshot: Snapshot) => number | null) =>
  (snapshot: Snapshot): Sample[] => {
    const number = value(snapshot);
    return number === null ? [] : [{ labels: {}, value: number }];
  };

const each =
  (label: string, values: (snapshot: Snapshot) => Readonly<Record<string, number>>) =>
  (snapshot: Snapshot): Sample[] =>
    Object.entries(values(snapshot)).map(([key, value]) => ({ labels: { [label]: key }, value }));

/** What happened, per queue. A queue starts with 0 for every label that is known, so that the first event is an increase. */
const counted =
  (parts: readonly { kind: string; labels: readonly string[]; as: (label: string) => Record<string, string> }[]) =>
  ({ queues, totals }: Snapshot): Sample[] =>
    parts.flatMap(({ kind, labels, as }) => {
      const found = new Map(queues.map(({ queue }) => [queue, new Map(labels.map((label) => [label, 0]))]));
      for (const { queue, kind: own, label, n } of totals) {
        if (own !== kind) continue;
        const here = found.get(queue) ?? new Map<string, number>();
        found.set(queue, here.set(label, n));
      }
      return [...found].flatMap(([queue, values]) =>
        [...values].map(([label, value]) => ({ labels: { queue, ...as(label) }, value })),
      );
    });

/** Jobs that ended: successes, dead letters of whatever reason, cancels. */
function finished({ queues, totals }: Snapshot): Sample[] {
  const names = new Set([...queues.map(({ queue }) => queue), ...totals.map(({ queue }) => queue)]);
  const sums = new Map([...names].map((queue) => [queue, { completed: 0, failed: 0, cancelled: 0 }]));
  for (const { queue, kind, label, n } of totals) {
    const sum = sums.get(queue);
    if (sum === undefined) continue;
    if (kind === "attempt" && label === "succeeded") sum.completed += n;
    else if (kind === "dead") sum.failed += n;
    else if (kind === "cancelled") sum.cancelled += n;
  }
  return [...sums].flatMap(([queue, sum]) =>
    Object.entries(sum).map(([outcome, value]) => ({ labels: { queue, outcome }, value })),
  );
}

function durations({ queues, durations: rows }: Snapshot): Sample[] {
  const none = () => ({ tookMs: 0, buckets: Array.from({ length: durationBucketsMs.length + 1 }, () => 0) });
  const sums = new Map(queues.map(({ queue }) => [queue, none()]));
  for (const { queue, tookMs, buckets } of rows) {
    const sum = sums.get(queue) ?? none();
    sum.tookMs += tookMs;
    sum.buckets = sum.buckets.map((n, place) => n + (buckets[place] ?? 0));
    sums.set(queue, sum);
  }
  return [...sums].flatMap(([queue, { tookMs, buckets }]) => {
    let count = 0;
    const lines = buckets.map((n, place): Sample => {
      const end = durationBucketsMs[place];
      return {
        suffix: "_bucket",
        labels: { queue, le: end === undefined ? "+Inf" : end / 1_000 },
        value: (count += n),
      };
    });
    return [
      ...lines,
      { suffix: "_sum", labels: { queue }, value: tookMs / 1_000 },
      { suffix: "_count", labels: { queue }, value: count },
    ];
  });
}

const gauge = (name: string, labels: readonly string[], help: string, samples: Family["samples"]): Family => ({
  name,
  type: "gauge",
  labels,
  help,
  samples,
});
const counter = (name: string, labels: readonly string[], help: string, samples: Family["samples"]): Family => ({
  name,
  type: "counter",
  labels,
  help,
  samples,
});

export const families: readonly Family[] = [
  gauge("queue_jobs", ["queue", "state"], "Jobs that have not ended, by where they are.", ({ queues }) =>
    queues.flatMap(({ queue, runnable, delayed, blocked, active }) =>
      Object.entries({ runnable, delayed, blocked, active }).map(([state, value]) => ({
        labels: { queue, state },
        value,
      })),
    ),
  ),
  gauge(
    "queue_oldest_runnable_timestamp_seconds",
    ["queue"],
    "When the job that has waited longest became runnable; absent while none waits.",
    perQueue(({ oldest }) => oldest),
  ),
  gauge(
    "queue_paused",
    ["queue"],
    "Whether the queue is paused.",
    perQueue(({ paused }) => Number(paused)),
  ),
  gauge(
    "queue_concurrency_limit",
    ["queue"],
    "Jobs that may run at once; absent without a limit.",
    perQueue(({ concurrency }) => concurrency),
  ),
  gauge(
    "jobs_lease_expired",
    ["queue"],
    "Running jobs whose worker does not beat.",
    perQueue(({ expired }) => expired),
  ),
  gauge("dead_letters", ["queue", "reason"], "Dead letters there are.", ({ queues, deadLetters }) => {
    const found = new Map(queues.map(({ queue }) => [queue, new Map<string, number>(reasons.map((r) => [r, 0]))]));
    for (const { queue, reason, n } of deadLetters) found.get(queue)?.set(reason, n);
    return [...found].flatMap(([queue, values]) =>
      [...values].map(([reason, value]) => ({ labels: { queue, reason }, value })),
    );
  }),
  counter(
    "enqueue_decisions_total",
    ["queue", "decision", "reason"],
    "Jobs that were let in, and that were not and why.",
    counted([
      { kind: "enqueued", labels: [""], as: () => ({ decision: "accepted", reason: "" }) },
      { kind: "denied", labels: denials, as: (reason) => ({ decision: "denied", reason }) },
    ]),
  ),
  counter(
    "policy_decisions_total",
    ["queue", "decision", "reason"],
    "How often storm control held a queue, and why.",
    counted([{ kind: "policy", labels: throttles, as: (reason) => ({ decision: "throttled", reason }) }]),
  ),
  counter("jobs_finished_total", ["queue", "outcome"], "Jobs that ended.", finished),
  counter(
    "job_attempts_total",
    ["queue", "outcome"],
    "Attempts that ended.",
    counted([{ kind: "attempt", labels: outcomes, as: (outcome) => ({ outcome }) }]),
  ),
  counter(
    "job_retries_total",
    ["queue"],
    "Attempts that went wrong and are followed by another.",
    counted([{ kind: "retry", labels: [""], as: () => ({}) }]),
  ),
  counter(
    "job_late_results_total",
    ["queue"],
    "Results that came after their lease was gone and changed nothing.",
    counted([{ kind: "late", labels: [""], as: () => ({}) }]),
  ),
  counter(
    "dead_letters_entered_total",
    ["queue", "reason"],
    "Jobs that were given up.",
    counted([{ kind: "dead", labels: reasons, as: (reason) => ({ reason }) }]),
  ),
  {
    name: "job_duration_seconds",
    type: "histogram",
    labels: ["queue"],
    help: "How long successful attempts took.",
    samples: durations,
  },
  gauge(
    "counted_until_timestamp_seconds",
    [],
    "Up to when the counters of jobs are counted.",
    one(({ system }) => system.countedUntil),
  ),
  gauge(
    "workers",
    ["state"],
    "Workers that have not stopped.",
    each("state", ({ system: { working, draining, silent } }) => ({ working, draining, silent })),
  ),
  gauge(
    "worker_slots",
    [],
    "Jobs that all workers can run at once.",
    one(({ system }) => system.slots),
  ),
  gauge(
    "worker_lease_seconds",
    [],
    "The shortest lease of a worker; absent without workers.",
    one(({ system }) => system.leaseSeconds),
  ),
  gauge(
    "system_drained",
    [],
    "Whether the system is drained.",
    one(({ system }) => Number(system.drained)),
  ),
  gauge(
    "schedules",
    ["state"],
    "Schedules there are.",
    each("state", ({ scheduleStates: { enabled, paused, retired } }) => ({ enabled, paused, retired })),
  ),
  gauge(
    "schedules_late",
    [],
    "Schedules that should have fired more than a minute ago.",
    one(({ scheduleStates }) => scheduleStates.late),
  ),
  gauge(
    "schedules_without_next_run",
    [],
    "Schedules that are neither paused nor retired and will never fire.",
    one(({ scheduleStates }) => scheduleStates.withoutNext),
  ),
  gauge(
    "scheduler_last_beat_timestamp_seconds",
    [],
    "When a scheduler last said that it lives; absent before the first did.",
    one(({ scheduleStates }) => scheduleStates.lastBeat),
  ),
  gauge(
    "schedule_next_run_timestamp_seconds",
    ["schedule"],
    "When the schedule fires next; absent while it is paused.",
    ({ schedules }) =>
      schedules.flatMap(({ schedule, next }) => (next === null ? [] : [{ labels: { schedule }, value: next }])),
  ),
  gauge(
    "schedule_consecutive_failures",
    ["schedule"],
    "Runs that failed since the last that completed.",
    ({ schedules }) => schedules.map(({ schedule, failures }) => ({ labels: { schedule }, value: failures })),
  ),
  gauge(
    "database_size_bytes",
    [],
    "Size of the database.",
    one(({ server }) => server.sizeBytes),
  ),
  gauge(
    "database_connections",
    [],
    "Connections of clients to the server.",
    one(({ server }) => server.connections),
  ),
  gauge(
    "database_connections_max",
    [],
    "Connections the server takes.",
    one(({ server }) => server.connectionsMax),
  ),
  gauge(
    "database_longest_transaction_seconds",
    [],
    "Age of the oldest transaction in this database.",
    one(({ server }) => server.longestTransactionSeconds),
  ),
  gauge(
    "database_dead_rows",
    ["table"],
    "Rows that vacuum has still to remove, as the server estimates them.",
    each("table", ({ server }) => server.deadRows),
  ),
];
