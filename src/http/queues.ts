/** The operations on queues: counts, and the pause, resume and clean of runbook 002, for one queue and for all. */
import { z } from "zod";
import type { Millrace } from "../app/millrace.ts";
import { MillraceError } from "../core/errors.ts";
import { checkedName } from "../core/options.ts";
import type { Cleaned } from "../jobs/control-store.ts";
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

export function queueEndpoints(mill: Millrace): Endpoints {
  const existing = async (name: string): Promise<string> => {
    if ((await mill.names.queues.find(checkedName(name, "queue"))) !== undefined) return name;
    throw new MillraceError("QUEUE_NOT_FOUND", `There is no queue "${name}".`);
  };
  const everyQueue = async (): Promise<string[]> => (await mill.stats()).map(({ name }) => name);

  return [
    endpoint("Queues", "GET /api/queue/stats", {
      summary: "Counts of every queue",
      role: "viewer",
      answers: { 200: statsAnswer },
      handle: async () => stats(await mill.stats()),
    }),
    endpoint("Queues", "GET /api/queue/:name/stats", {
      summary: "Counts of one queue",
      role: "viewer",
      params: queueParams,
      answers: { 200: statsAnswer },
      errors: ["QUEUE_NOT_FOUND", "QUEUE_NAME_INVALID"],
      handle: async ({ params }) => stats(await mill.stats(await existing(params.name))),
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
      summary: "Pause every queue",
      role: "operator",
      body: why,
      bodyOptional: true,
      answers: { 200: allChanged },
      async handle({ c, body }) {
        const queues = await everyQueue();
        const were = await where(queues, (queue) => mill.pause(queue, signed(c, body)));
        return { success: true, message: `${queues.length} queues are paused.`, queues, changed: were };
      },
    }),
    endpoint("Queues", "POST /api/queue/resume-all", {
      summary: "Let every paused queue run again",
      role: "operator",
      body: why,
      bodyOptional: true,
      answers: { 200: allChanged },
      async handle({ c, body }) {
        const queues = await everyQueue();
        const were = await where(queues, (queue) => mill.resume(queue, signed(c, body)));
        return { success: true, message: `${queues.length} queues run.`, queues, changed: were };
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

function stats<Stats>(counts: Stats): { success: true; stats: Stats; timestamp: string } {
  return { success: true, stats: counts, timestamp: new Date().toISOString() };
}

/** The queues for which `change` changed something, one after the other. */
async function where(queues: readonly string[], change: (queue: string) => Promise<boolean>): Promise<string[]> {
  const changedOnes: string[] = [];
  for (const queue of queues) if (await change(queue)) changedOnes.push(queue);
  return changedOnes;
}
