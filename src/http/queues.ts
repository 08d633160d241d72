/** The routes of queues: counts, and the pause, resume and clean of runbook 002, for one queue and for all. */
import { Hono } from "hono";
import { z } from "zod";
import type { Millrace } from "../app/millrace.ts";
import { MillraceError } from "../core/errors.ts";
import { checkedName } from "../core/options.ts";
import type { Cleaned } from "../jobs/control-store.ts";
import type { ApiEnv } from "./env.ts";
import { given, readOptionalBody, readQuery } from "./read.ts";

const storable = z.string().regex(/^[^\0]*$/, "expected a text without NUL characters");
const pauseBody = z.strictObject({
  reason: storable.max(1_000).nullish(),
  by: storable.max(200).nullish(),
});
/** `grace` in milliseconds: jobs that ended more recently stay. */
const cleanQuery = z.strictObject({ grace: z.coerce.number().int().min(0).default(86_400_000) });

const maxBodyBytes = 65_536;

export function queueRoutes(mill: Millrace): Hono<ApiEnv> {
  const existing = async (name: string): Promise<string> => {
    if ((await mill.names.queues.find(checkedName(name, "queue"))) !== undefined) return name;
    throw new MillraceError("QUEUE_NOT_FOUND", `There is no queue "${name}".`);
  };
  const everyQueue = async (): Promise<string[]> => (await mill.stats()).map(({ name }) => name);

  return new Hono<ApiEnv>()
    .get("/api/queue/stats", async (c) => c.json(stats(await mill.stats())))
    .get("/api/queue/:name/stats", async (c) => c.json(stats(await mill.stats(await existing(c.req.param("name"))))))
    .post("/api/queue/:name/pause", async (c) => {
      const options = given(await readOptionalBody(c, pauseBody, maxBodyBytes));
      const queue = await existing(c.req.param("name"));
      const changed = await mill.pause(queue, options);
      const message = `Queue ${queue} ${changed ? "is paused: nothing of it starts" : "was paused already"}.`;
      return c.json({ success: true, message, queue, changed });
    })
    .post("/api/queue/:name/resume", async (c) => {
      const queue = await existing(c.req.param("name"));
      const changed = await mill.resume(queue);
      const message = `Queue ${queue} ${changed ? "runs again" : "was not paused"}.`;
      return c.json({ success: true, message, queue, changed });
    })
    .post("/api/queue/:name/clean", async (c) => {
      const { grace } = readQuery(c, cleanQuery);
      const queue = await existing(c.req.param("name"));
      const cleaned = await mill.clean(queue, grace);
      const message = `Removed ${wordsOf(cleaned)} jobs of queue ${queue}.`;
      return c.json({ success: true, message, queue, ...cleaned });
    })
    .post("/api/queue/pause-all", async (c) => {
      const options = given(await readOptionalBody(c, pauseBody, maxBodyBytes));
      const queues = await everyQueue();
      const changed = await where(queues, (queue) => mill.pause(queue, options));
      return c.json({ success: true, message: `${queues.length} queues are paused.`, queues, changed });
    })
    .post("/api/queue/resume-all", async (c) => {
      const queues = await everyQueue();
      const changed = await where(queues, (queue) => mill.resume(queue));
      return c.json({ success: true, message: `${queues.length} queues run.`, queues, changed });
    })
    .post("/api/queue/clean-all", async (c) => {
      const { grace } = readQuery(c, cleanQuery);
      const queues = await everyQueue();
      const total = { completed: 0, failed: 0, cancelled: 0 };
      for (const queue of queues) {
        const { completed, failed, cancelled } = await mill.clean(queue, grace);
        total.completed += completed;
        total.failed += failed;
        total.cancelled += cancelled;
      }
      const message = `Removed ${wordsOf(total)} jobs of ${queues.length} queues.`;
      return c.json({ success: true, message, queues, ...total });
    });
}

function wordsOf({ completed, failed, cancelled }: Cleaned): string {
  return `${completed} completed, ${failed} failed and ${cancelled} cancelled`;
}

function stats<Stats>(counts: Stats): { success: true; stats: Stats; timestamp: string } {
  return { success: true, stats: counts, timestamp: new Date().toISOString() };
}

/** The queues for which `change` changed something, one after the other. */
async function where(queues: readonly string[], change: (queue: string) => Promise<boolean>): Promise<string[]> {
  const changed: string[] = [];
  for (const queue of queues) if (await change(queue)) changed.push(queue);
  return changed;
}
