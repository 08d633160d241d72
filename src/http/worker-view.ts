/** Workers as the API and the command line show them. */
import { z } from "zod";
import type { Drained, WorkerInfo } from "../jobs/registry-store.ts";

const time = z.iso.datetime();
const workerAnswer = z
  .object({
    id: z.int(),
    name: z.string(),
    state: z.enum(["running", "idle", "draining", "lost", "stopped"]),
    host: z.string(),
    pid: z.int(),
    version: z.string(),
    queues: z.array(z.string()).nullable().describe("Null: every queue."),
    tasks: z.array(z.string()).nullable().describe("Null: every task."),
    concurrency: z.int(),
    active: z.int().min(0),
    jobs: z
      .array(z.object({ id: z.uuid(), task: z.string(), since: time }))
      .describe("The hundred it has held longest."),
    recycling: z.boolean(),
    started_at: time,
    beat_at: time,
    beat_age_ms: z.int().min(0),
    stopped_at: time.nullable(),
  })
  .meta({ id: "Worker" });

/** Since when, and by whom, the whole system is drained; null when it is not. */
export const drainedAnswer = z.object({ since: time, by: z.string().nullable() }).nullable();
export const workersAnswer = z
  .object({
    workers: z.array(workerAnswer),
    drained: drainedAnswer,
    scheduling_stopped: drainedAnswer.describe("Since when no schedule fires, while workers go on; null when they do."),
  })
  .meta({ id: "WorkerList" });

export function workersView(
  workers: readonly WorkerInfo[],
  drained: Drained | null,
  schedulingStopped: Drained | null,
) {
  return { workers: workers.map(workerItem), drained, scheduling_stopped: schedulingStopped };
}

function workerItem(worker: WorkerInfo) {
  const { id, name, state, host, pid, version, queues, tasks, concurrency, active, recycling } = worker;
  return {
    id,
    name,
    state,
    host,
    pid,
    version,
    queues,
    tasks,
    concurrency,
    active,
    jobs: worker.jobs,
    recycling,
    started_at: worker.startedAt,
    beat_at: worker.beatAt,
    beat_age_ms: Math.round(worker.beatAgeMs),
    stopped_at: worker.stoppedAt,
  };
}
