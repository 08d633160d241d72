/** Millrace's own upkeep of its tables, as a job: archive, prune, and what goes by age (docs/reference/retention.md). */
import { sweepAnswers } from "../access/kept-answers-store.ts";
import { sweepSessions } from "../access/sessions-store.ts";
import { sweepTokens } from "../access/tokens-store.ts";
import type { Log } from "../core/log.ts";
import type { Database } from "../db/database.ts";
import { cleanCompleted, cleanFailed } from "../jobs/control-store.ts";
import { archive, keptPerQueue, prune, pruneCancelled, sweepUp, trimSnoozes } from "../jobs/maintenance-store.ts";
import { type AnyTask, task } from "../jobs/task.ts";
import { type Schedule, schedule } from "../schedules/definition.ts";
import { sweepRuns } from "../schedules/runs-store.ts";

/** Times in ms. */
export interface MaintenanceSettings {
  /** 0: never. */
  readonly everyMs: number;
  /** After their end, successes leave `jobs`. */
  readonly archiveAfterMs: number;
  /** After that, they are deleted. */
  readonly pruneAfterMs: number;
  /** Dead letters are deleted after so long, unless the queue's policy says otherwise. */
  readonly keepFailedMs: number;
}

const maintenanceTask = "millrace.maintenance";
const dayMs = 86_400_000;
const auditMs = 400 * dayMs;
/** As long as a step may wait for an event. */
const eventsMs = 400 * dayMs;
/** One run works no longer than this; what is left is for the next. */
const budgetMs = 45_000;

export interface Maintained {
  readonly archived: number;
  readonly pruned: number;
  readonly cleaned: number;
}

export function maintenance(db: Database, settings: MaintenanceSettings): AnyTask {
  return task({
    name: maintenanceTask,
    queue: "maintenance",
    maxAttempts: 3,
    timeout: "5m",
    run: async ({ log, signal }) => void (await maintain(db, settings, log, signal)),
  });
}

/** How often it comes, as one of Millrace's own schedules; one at a time, and the next one to come makes up for those that were missed. */
export function maintenanceSchedule({ everyMs }: MaintenanceSettings): Schedule {
  return schedule({
    name: maintenanceTask,
    task: maintenanceTask,
    queue: "maintenance",
    every: everyMs,
    maxAttempts: 3,
    runGrace: "10m",
  });
}

export async function maintain(
  db: Database,
  { archiveAfterMs, pruneAfterMs, keepFailedMs }: MaintenanceSettings,
  log: Log,
  signal: AbortSignal,
): Promise<Maintained> {
  const until = performance.now() + budgetMs;
  const goOn = (): boolean => !signal.aborted && performance.now() < until;
  const keptMs = archiveAfterMs + pruneAfterMs;

  let archived = 0;
  for (let more = true; more && goOn();) {
    const step = await archive(db, archiveAfterMs);
    archived += step.jobs;
    ({ more } = step);
  }
  let pruned = 0;
  let attempts = 0;
  let policyDecisions = 0;
  for (const step of [() => prune(db, keptMs), () => pruneCancelled(db, keptMs)]) {
    for (let more = true; more && goOn();) {
      const gone = await step();
      pruned += gone.jobs;
      attempts += gone.attempts;
      policyDecisions += gone.policyDecisions;
      ({ more } = gone);
    }
  }
  let cleaned = 0;
  for (const { queue, completedMs, failedMs } of await keptPerQueue(db)) {
    if (!goOn()) break;
    if (completedMs !== null) cleaned += await cleanCompleted(db, queue, completedMs);
    cleaned += await cleanFailed(db, queue, failedMs ?? keepFailedMs);
  }
  const ages = { decisionsMs: pruneAfterMs, auditMs, workersMs: Math.max(keptMs, keepFailedMs) + dayMs, eventsMs };
  while (goOn() && (await sweepUp(db, ages)) > 0);
  while (goOn() && (await sweepRuns(db, keptMs)) > 0);
  while (goOn() && (await sweepSessions(db)) > 0);
  while (goOn() && (await sweepTokens(db, auditMs)) > 0);
  while (goOn() && (await trimSnoozes(db)) > 0);
  while (goOn() && (await sweepAnswers(db)) > 0);

  if (archived > 0) log.info({ archived }, `[maintenance] archived ${archived} succeeded jobs`);
  if (pruned + cleaned > 0)
    log.info(
      { jobs: pruned + cleaned, attempts, policy_decisions: policyDecisions },
      `[maintenance] deleted jobs=${pruned + cleaned} attempts=${attempts} policy_decisions=${policyDecisions}`,
    );
  return { archived, pruned, cleaned };
}
