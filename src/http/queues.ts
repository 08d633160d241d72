/** The operations on queues: counts, and the pause, resume and clean of runbook 002, for one queue and for all. */
import { z } from "zod";
import { maintenanceQueue } from "../app/built-in.ts";
import type { Millrace } from "../app/millrace.ts";
import { checkedName } from "../core/options.ts";
import type { Cleaned } from "../jobs/control-store.ts";
import type { QueueStats } from "../jobs/stats-store.ts";
import type { Shared } from "../metrics/shared.ts";
import { type Endpoints, endpoint } from "./endpoint.ts";
import { signature, signed } from "./signature.ts";

const queueParams = z.strictObject({ name: z.string() });
const why = z.strictObject(signature);
/** `grace` in milliseconds: jobs that ended more recently stay. */
const cleanQuery = z.strictObject({ grace: z.coerce.number().int().min(0).default(86_400_000) });

const count = z.int().min(0);
const queueStats = z
  .object({
    name: z.string(),
    waiting: count,
    active: count,
    completed: count,
    failed: count,
    delayed: count,
    total: count.describe("The sum of the others."),
    paused: z.boolean(),
  })
  .meta({ id: "QueueStats" });
const statsAnswer = z
  .object({ success: z.literal(true), stats: z.array(queueStats), timestamp: z.iso.datetime() })
  .meta({ id: "QueueStatsList" });
const done = { success: z.literal(true), message: z.string() };
const changed = z.object({ ...done, queue: z.string(), changed: z.boolean() });
const allChanged = z.object({ ...done, queues: z.array(z.string()), changed: z.array(z.string()) });
const cleaned = { completed: count, failed: count, cancelled: count };

/** `counts`: of every queue, for all who ask. */
export function queueEndpoints(mill: Millrace, counts: Shared<Counts>): Endpoints {
  const existing = async (name: string): Promise<string> => {
    await mill.names.queues.existing(checkedName(name, "queue"));
    return name;
  };
  const everyQueue = async (): Promise<string[]> => (await mill.stats()).map(({ name }) => name);

  return [
    endpoint("Queues", "GET /api/queue/stats", {
      summary: "Counts of every queue",
      about:
        "Where many ask, they share counts that are at most two tenths of a second old, by `timestamp`; what was changed through this server is in them.",
      role: "viewer",
      answers: { 200: statsAnswer },
      handle: () => counts.read(),
    }),
    endpoint("Queues", "GET /api/queue/:name/stats", {
      summary: "Counts of one queue",
      role: "viewer",
      params: queueParams,
      answers: { 200: statsAnswer },
      errors: ["QUEUE_NOT_FOUND", "QUEUE_NAME_INVALID"],
      handle: async ({ params }) => countQueues(mill, await existing(params.name)),
    }),
    endpoint("Queues", "POST /api/queue/:name/pause", {
      summary: "Let nothing of a queue start, on any worker",
      role: "operator",
      params: queueParams,
      body: why,
      bodyOptional: true,
      answers: { 200: changed },
      errors: ["QUEUE_NOT_FOUND", "QUEUE_NAME_INVALID"],
      async handle({ c, params, body }) {
        const queue = await existing(params.name);
        const was = await mill.pause(queue, signed(c, body));
        const message = `Queue ${queue} ${was ? "is paused: nothing of it starts" : "was paused already"}.`;
        return { success: true, message, queue, changed: was };
      },
    }),
    endpoint("Queues", "POST /api/queue/:name/resume", {
      summary: "Let a paused queue run again",
      role: "operator",
      params: queueParams,
      body: why,
      bodyOptional: true,
      answers: { 200: changed },
      errors: ["QUEUE_NOT_FOUND", "QUEUE_NAME_INVALID"],
      async handle({ c, params, body }) {
        const queue = await existing(params.name);
        const was = await mill.resume(queue, signed(c, body));
        const message = `Queue ${queue} ${was ? "runs again" : "was not paused"}.`;
        return { success: true, message, queue, changed: was };
      },
    }),
    endpoint("Queues", "POST /api/queue/:name/clean", {
      summary: "Remove jobs of a queue that ended longer ago than `grace`",
      role: "operator",
      params: queueParams,
      query: cleanQuery,
      body: why,
      bodyOptional: true,
      answers: { 200: z.object({ ...done, queue: z.string(), ...cleaned }) },
      errors: ["QUEUE_NOT_FOUND", "QUEUE_NAME_INVALID"],
      async handle({ c, params, query, body }) {
        const queue = await existing(params.name);
        const gone = await mill.clean(queue, query.grace, signed(c, body));
        return { success: true, message: `Removed ${wordsOf(gone)} jobs of queue ${queue}.`, queue, ...gone };
      },
    }),
    endpoint("Queues", "POST /api/queue/pause-all", {
      summary: "Pause every queue but `maintenance`",
      about: "Bulk operations and upkeep go on. `changed`: those that were not paused before.",
      role: "operator",
      body: why,
      bodyOptional: true,
      answers: { 200: allChanged },
      async handle({ c, body }) {
        const changed = await mill.pauseAll(signed(c, body));
        const queues = (await everyQueue()).filter((name) => name !== maintenanceQueue);
        return { success: true, message: `${queues.length} queues are paused.`, queues, changed };
      },
    }),
    endpoint("Queues", "POST /api/queue/resume-all", {
      summary: "Let the queues run again that pause-all paused",
      about: "What was paused by itself stays so, and is in `still_paused`: resume it by its name.",
      role: "operator",
      body: why,
      bodyOptional: true,
      answers: { 200: allChanged.extend({ still_paused: z.array(z.string()) }) },
      async handle({ c, body }) {
        const changed = await mill.resumeAll(signed(c, body));
        const all = await mill.stats();
        const queues = all.map(({ name }) => name);
        const still = all.filter(({ paused }) => paused).map(({ name }) => name);
        const but =
          still.length === 0 ? "" : `, and ${still.join(", ")} ${still.length === 1 ? "stays" : "stay"} paused`;
        const message = `${queues.length - still.length} queues run${but}.`;
        return { success: true, message, queues, changed, still_paused: still };
      },
    }),
    endpoint("Queues", "POST /api/queue/clean-all", {
      summary: "Remove jobs of every queue that ended longer ago than `grace`",
      role: "operator",
      query: cleanQuery,
      body: why,
      bodyOptional: true,
      answers: { 200: z.object({ ...done, queues: z.array(z.string()), ...cleaned }) },
      async handle({ c, query, body }) {
        const queues = await everyQueue();
        const total = { completed: 0, failed: 0, cancelled: 0 };
        for (const queue of queues) {
          const { completed, failed, cancelled } = await mill.clean(queue, query.grace, signed(c, body));
          total.completed += completed;
          total.failed += failed;
          total.cancelled += cancelled;
        }
        return {
          success: true,
          message: `Removed ${wordsOf(total)} jobs of ${queues.length} queues.`,
          queues,
          ...total,
        };
      },
    }),
  ];
}

function wordsOf({ completed, failed, cancelled }: Cleaned): string {
  return `${completed} completed, ${failed} failed and ${cancelled} cancelled`;
}

export interface Counts {
  readonly success: true;
  readonly stats: readonly QueueStats[];
  /** When they were asked for. */
  readonly timestamp: string;
}

/** Of every queue, or of one. */
export async function countQueues(mill: Millrace, queue?: string): Promise<Counts> {
  const timestamp = new Date().toISOString();
  return { success: true, stats: await mill.stats(queue), timestamp };
}
