/** The routes runbook 001 names: what is scheduled, one run now, pause and resume. A schedule is `job_id`, its name, or `config_id`. */
import { Hono } from "hono";
import { z } from "zod";
import type { Millrace } from "../app/millrace.ts";
import { MillraceError } from "../core/errors.ts";
import type { ApiEnv } from "./env.ts";
import { given, readBody, readQuery } from "./read.ts";
import { schedulerJobView } from "./schedule-view.ts";
import { runRoute, signature } from "./schedules.ts";

const which = { job_id: z.string().nullish(), config_id: z.number().int().nullish() };
const runBody = z.strictObject({ ...which, ...signature });
const toggleBody = z.strictObject({ ...which, action: z.enum(["pause", "resume"]), ...signature });
const listQuery = z.strictObject({
  limit: z.coerce.number().int().min(1).max(1_000).optional(),
  after: z.string().optional(),
});

const maxBodyBytes = 65_536;

export function schedulerRoutes(mill: Millrace): Hono<ApiEnv> {
  const { schedules } = mill;

  /** Throws `BAD_REQUEST`, `SCHEDULE_NOT_FOUND`. */
  const nameOf = async (body: z.infer<typeof runBody>): Promise<string> => {
    const { job_id: name, config_id: id } = given(body);
    const byId = id === undefined ? undefined : await schedules.nameOf(id);
    if (name !== undefined && byId !== undefined && name !== byId)
      throw new MillraceError(
        "BAD_REQUEST",
        `config_id ${id} is schedule "${byId}", not "${name}": give one of the two.`,
      );
    const found = name ?? byId;
    if (found !== undefined) return found;
    throw new MillraceError("BAD_REQUEST", "job_id: expected the name of a schedule, or its config_id.");
  };

  return new Hono<ApiEnv>()
    .get("/scheduler/jobs", async (c) => {
      const found = await schedules.list({ limit: 1_000, ...given(readQuery(c, listQuery)) });
      return c.json(found.map(schedulerJobView));
    })
    .get("/scheduler/jobs/:name/runs", (c) => runRoute(mill, c))
    .post("/scheduler/run", async (c) => {
      const { by, reason, ...body } = await readBody(c, runBody, maxBodyBytes);
      const name = await nameOf(body);
      const { id } = await schedules.get(name);
      const run = await schedules.runNow(name, given({ by, reason }));
      const about = { job_id: name, config_id: id, run_id: run.runId, status: run.status, enqueued_job_id: run.jobId };
      return c.json({ queued: true, ...about }, 202);
    })
    .post("/scheduler/toggle", async (c) => {
      const { by, reason, action, ...body } = await readBody(c, toggleBody, maxBodyBytes);
      const name = await nameOf(body);
      const options = given({ by, reason });
      const changed =
        action === "pause" ? await schedules.pause(name, options) : await schedules.resume(name, given({ by }));
      return c.json({ ok: true, job_id: name, paused: action === "pause", changed });
    });
}
