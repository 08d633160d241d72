/** `GET /api/ops/queues`: what runbook 000 looks at first, under its names. */
import { z } from "zod";
import type { Millrace } from "../app/millrace.ts";
import { countBlocked } from "../jobs/dependencies-store.ts";
import type { Drained, WorkerInfo } from "../jobs/registry-store.ts";
import { readPulse } from "../schedules/pulse-store.ts";
import { type Endpoints, endpoint } from "./endpoint.ts";
import { Gauge } from "./gauge.ts";
import { schedulerOf } from "./health.ts";
import { drainedAnswer } from "./worker-view.ts";

const limitMs = 2_000;

const warnings = ["no_workers", "scheduler_unreachable", "database_unreachable"] as const;
const count = z.int().min(0);
const opsAnswer = z
  .object({
    status: z
      .enum(["online", "degraded", "offline"])
      .describe("Degraded: there are warnings. Offline: the database does not answer."),
    queues: z.array(
      z.object({
        name: z.string(),
        size: count.describe("Jobs that could start now."),
        deferred: count.describe("Jobs that wait for other jobs."),
        scheduled: count.describe("Jobs whose time has not come."),
        started: count,
        failed: count.describe("Dead letters."),
      }),
    ),
    workers: z.array(
      z.object({
        id: z.int(),
        name: z.string(),
        state: z.enum(["running", "idle", "draining", "lost"]),
        queues: z.array(z.string()).describe("`*`: every queue."),
        current_job_id: z.uuid().nullable().describe("Of the jobs that it runs, the one it has held longest."),
        job_ids: z.array(z.uuid()).describe("The hundred it has held longest."),
      }),
    ),
    scheduler: z.object({
      scheduled_jobs: count.nullable().describe("Schedules that fire: neither paused nor retired."),
      healthy: z.boolean(),
      stopped: drainedAnswer.describe("Since when no schedule fires, while workers go on; null when they do."),
    }),
    vault: z.null(),
    warnings: z.array(z.enum(warnings)),
    error: z.string().optional().describe("Why it is offline."),
    checked_at: z.iso.datetime(),
  })
  .meta({ id: "OpsQueues" });

type Answer = z.infer<typeof opsAnswer>;
/** As the endpoint gives it: times are written as they leave. */
type Ops = Omit<Answer, "scheduler"> & {
  scheduler: Omit<Answer["scheduler"], "stopped"> & { stopped: Drained | null };
};

export function opsEndpoints(mill: Millrace): Endpoints {
  const gauge = new Gauge(() => lookAt(mill));
  return [
    endpoint("Health", "GET /api/ops/queues", {
      summary: "Queues, workers and schedules at a glance, under the names of runbook 000",
      about: "What is read is shared for two seconds; a database that does not answer within two is `offline`.",
      role: "viewer",
      routeClass: "ops",
      answers: { 200: opsAnswer },
      async handle() {
        const reading = await gauge.read(performance.now() + limitMs);
        return reading.ok ? reading.value : offline(reading.reason);
      },
    }),
  ];
}

async function lookAt(mill: Millrace): Promise<Ops> {
  const [stats, blocked, all, pulse, stopped] = await Promise.all([
    mill.stats(),
    countBlocked(mill.db),
    mill.workers(),
    readPulse(mill.db),
    mill.registry.schedulingStopped(),
  ]);
  const deferredIn = new Map(blocked.map(({ queue, jobs }) => [queue, jobs]));
  const workers = all.filter(({ state }) => state !== "stopped");
  const live = workers.filter(({ state }) => state !== "lost").length;
  const healthy = schedulerOf(pulse, live).ok;
  const found: Ops["warnings"] = [
    ...(live === 0 ? (["no_workers"] as const) : []),
    ...(healthy ? [] : (["scheduler_unreachable"] as const)),
  ];
  return {
    status: found.length === 0 ? "online" : "degraded",
    queues: stats.map(({ name, waiting, delayed, active, failed }) => {
      const deferred = Math.min(deferredIn.get(name) ?? 0, delayed); // counted a moment apart
      return { name, size: waiting, deferred, scheduled: delayed - deferred, started: active, failed };
    }),
    workers: workers.map(workerItem),
    scheduler: { scheduled_jobs: pulse.scheduled, healthy, stopped },
    vault: null,
    warnings: found,
    checked_at: new Date().toISOString(),
  };
}

function offline(why: string): Ops {
  return {
    status: "offline",
    queues: [],
    workers: [],
    scheduler: { scheduled_jobs: null, healthy: false, stopped: null },
    vault: null,
    warnings: ["database_unreachable"],
    error: `The database did not answer: ${why}.`,
    checked_at: new Date().toISOString(),
  };
}

function workerItem({ id, name, state, queues, jobs }: WorkerInfo): Ops["workers"][number] {
  const ids = jobs.map((job) => job.id);
  return {
    id,
    name,
    state: state as Exclude<WorkerInfo["state"], "stopped">,
    queues: queues ?? ["*"],
    current_job_id: ids[0] ?? null,
    job_ids: ids,
  };
}
