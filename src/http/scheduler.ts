/** The operations runbook 001 names: what is scheduled, one run now, pause and resume. A schedule is `job_id`, its name, or `config_id`. */
import { z } from "zod";
import type { Millrace } from "../app/millrace.ts";
import { MillraceError } from "../core/errors.ts";
import { type Endpoints, endpoint } from "./endpoint.ts";
import { given } from "./read.ts";
import { schedulerJobAnswer, schedulerJobView } from "./schedule-view.ts";
import { listQuery, missing, runErrors, runsEndpoint } from "./schedules.ts";
import { signature, signed } from "./signature.ts";

const which = z.strictObject({ job_id: z.string().nullish(), config_id: z.int().min(1).max(2_147_483_647).nullish() });

export function schedulerEndpoints(mill: Millrace): Endpoints {
  const { schedules } = mill;

  /** Throws `BAD_REQUEST`, `SCHEDULE_NOT_FOUND`. */
  const nameOf = async (body: z.infer<typeof which>): Promise<string> => {
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

  return [
    endpoint("Schedules", "GET /scheduler/jobs", {
      summary: "Schedules under the names of runbook 001",
      role: "viewer",
      query: listQuery,
      answers: { 200: z.array(schedulerJobAnswer) },
      async handle({ query }) {
        return (await schedules.list({ limit: 1_000, ...given(query) })).map(schedulerJobView);
      },
    }),
    runsEndpoint(mill, "GET /scheduler/jobs/:name/runs"),
    endpoint("Schedules", "POST /scheduler/run", {
      summary: "One run of a schedule now, by its name or its number",
      role: "operator",
      body: which.extend(signature),
      answers: {
        202: z.object({
          queued: z.literal(true),
          job_id: z.string(),
          config_id: z.int(),
          run_id: z.string(),
          status: z.enum(["fired", "queued"]),
          enqueued_job_id: z.uuid().nullable(),
        }),
      },
      errors: runErrors,
      async handle({ c, body: { by, reason, ...body } }) {
        const name = await nameOf(body);
        const { id } = await schedules.get(name);
        const run = await schedules.runNow(name, signed(c, { by, reason }));
        if (run.jobId !== null) c.header("Location", `/jobs/${run.jobId}`);
        const about = { run_id: run.runId, status: run.status, enqueued_job_id: run.jobId };
        return { queued: true, job_id: name, config_id: id, ...about };
      },
    }),
    endpoint("Schedules", "POST /scheduler/toggle", {
      summary: "Pause or resume a schedule, by its name or its number",
      role: "operator",
      body: which.extend({ action: z.enum(["pause", "resume"]), ...signature }),
      answers: {
        200: z.object({ ok: z.literal(true), job_id: z.string(), paused: z.boolean(), changed: z.boolean() }),
      },
      errors: missing,
      async handle({ c, body: { by, reason, action, ...body } }) {
        const name = await nameOf(body);
        const changed =
          action === "pause"
            ? await schedules.pause(name, signed(c, { by, reason }))
            : await schedules.resume(name, signed(c, { by }));
        return { ok: true, job_id: name, paused: action === "pause", changed };
      },
    }),
  ];
}
