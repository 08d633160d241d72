/** Workers as the API and the command line show them. */
import type { Drained, WorkerInfo } from "../jobs/registry-store.ts";

/** `drained`: since when, and by whom, the whole system is; null when it is not. */
export function workersView(workers: readonly WorkerInfo[], drained: Drained | null) {
  return { workers: workers.map(workerItem), drained };
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
