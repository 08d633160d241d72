/** The routes of what people tell single jobs to do: cancel, put elsewhere in line, replay. */
import { Hono } from "hono";
import { z } from "zod";
import type { Millrace } from "../app/millrace.ts";
import { durationMs } from "../core/duration.ts";
import { jobItem } from "./job-view.ts";
import type { ApiEnv } from "./env.ts";
import { bodyBytes, duration, either, given, instant, readBody, readJobId, readOptionalBody } from "./read.ts";
import { MillraceError } from "../core/errors.ts";

/** Who and why. */
export const signature = { by: z.string().nullish(), reason: z.string().nullish() };
/** Where a job goes, under our names and those of runbook 004. */
export const placement = {
  queue: z.string().nullish(),
  priority: z.number().nullish(),
  delay: duration.nullish(),
  runAt: instant.nullish(),
  run_at: instant.nullish(),
};

const cancelBody = z.strictObject({ ...signature, wait: duration.nullish() });
const changeBody = z.strictObject({ ...signature, ...placement });
const replayBody = changeBody.extend({ input: z.unknown().optional(), payload_json: z.unknown().optional() });

const maxBodyBytes = 65_536;
/** A server keeps no request longer than this, whatever it says. */
export const longestWaitMs = 60_000;

export function orderRoutes(mill: Millrace): Hono<ApiEnv> {
  return new Hono<ApiEnv>()
    .post("/jobs/:id/cancel", async (c) => {
      const id = readJobId(c);
      const { by, reason, wait } = await readOptionalBody(c, cancelBody, maxBodyBytes);
      const longest = c.env?.inProcess ? Number.POSITIVE_INFINITY : longestWaitMs;
      const within = wait === undefined || wait === null ? wait : Math.min(durationMs(wait, "wait"), longest);
      const { status, ignored } = await mill.cancel(id, given({ by, reason, within }));
      return c.json({ job_id: id, id, status, ignored }, status === "cancelling" ? 202 : 200);
    })
    .patch("/jobs/:id", async (c) => {
      const id = readJobId(c);
      const { by, reason, queue, priority, delay, ...times } = await readBody(c, changeBody, maxBodyBytes);
      const runAt = either(times, "runAt", "run_at");
      await mill.change(id, given({ by, reason, queue, priority, delay, runAt }));
      const job = await mill.job(id);
      if (job === undefined) throw new MillraceError("JOB_NOT_FOUND", `There is no job ${id}.`);
      return c.json({ job_id: id, ...jobItem(job) });
    })
    .post("/jobs/:id/replay", async (c) => {
      const id = readJobId(c);
      const body = await readOptionalBody(c, replayBody, bodyBytes(mill.maxPayloadBytes));
      const { by, reason, queue, priority, delay } = body;
      const runAt = either(body, "runAt", "run_at");
      const input = either(body, "input", "payload_json");
      const changes = given({ by, reason, queue, priority, delay, runAt });
      // null is an input too
      const fresh = await mill.replay(id, "input" in body || "payload_json" in body ? { ...changes, input } : changes);
      return c.json({ new_job_id: fresh.id, replay_of_job_id: id, job_id: fresh.id });
    });
}
