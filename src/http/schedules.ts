/** The routes of schedules: make, change, pause, run, look ahead and look back. */
import { Hono } from "hono";
import { z } from "zod";
import type { Millrace } from "../app/millrace.ts";
import type { ScheduleOptions } from "../schedules/definition.ts";
import { runStatuses } from "../schedules/runs-store.ts";
import type { ScheduleChanges } from "../schedules/schedules.ts";
import type { ApiContext, ApiEnv } from "./env.ts";
import { bodyBytes, given, readBody, readOptionalBody, readQuery } from "./read.ts";
import { runView, scheduleView } from "./schedule-view.ts";

/** Who and why. */
export const signature = { by: z.string().nullish(), reason: z.string().nullish() };

const duration = z.union([z.number(), z.string()]);
/** Words, ranges and patterns are the engine's to check. Null: back to what the code says, or to the default. */
const fields = {
  task: z.string().optional(),
  cron: z.string().nullable().optional(),
  every: duration.nullable().optional(),
  zone: z.string().nullable().optional(),
  input: z.unknown().optional(),
  queue: z.string().nullable().optional(),
  priority: z.number().nullable().optional(),
  max_attempts: z.number().nullable().optional(),
  backoff: z
    .strictObject({
      type: z.string().optional(),
      delay: duration.optional(),
      max: duration.optional(),
      jitter: z.number().optional(),
    })
    .nullable()
    .optional(),
  timeout: duration.nullable().optional(),
  tags: z.array(z.string()).nullable().optional(),
  concurrency_key: z.string().nullable().optional(),
  overlap: z.string().nullable().optional(),
  concurrency: z.number().nullable().optional(),
  catch_up: z.string().nullable().optional(),
  jitter: duration.nullable().optional(),
  start_grace: duration.nullable().optional(),
  run_grace: duration.nullable().optional(),
};
const createBody = z.strictObject({
  name: z.string(),
  ...fields,
  task: z.string(),
  paused: z.boolean().optional(),
  by: z.string().nullish(),
});
const changeBody = z.strictObject({ ...fields, by: z.string().nullish() });
const byBody = z.strictObject({ by: z.string().nullish() });
const whyBody = z.strictObject(signature);
const runBody = z.strictObject({ ...signature, input: z.unknown().optional() });
const previewBody = z.strictObject({
  cron: z.string().optional(),
  every: duration.optional(),
  zone: z.string().optional(),
  count: z.number().optional(),
});
const listQuery = z.strictObject({
  limit: z.coerce.number().int().min(1).max(1_000).optional(),
  after: z.string().optional(),
});
const runsQuery = z.strictObject({
  limit: z.coerce.number().int().min(1).max(500).optional(),
  before: z.string().optional(),
  status: z.enum(runStatuses).optional(),
});
const previewQuery = z.strictObject({ count: z.coerce.number().int().min(1).max(100).optional() });
const byQuery = z.strictObject({ by: z.string().optional() });

const maxBodyBytes = 65_536;

export function scheduleRoutes(mill: Millrace): Hono<ApiEnv> {
  const { schedules } = mill;
  const longest = bodyBytes(mill.maxPayloadBytes);

  return new Hono<ApiEnv>()
    .get("/api/schedules", async (c) => {
      const { limit = 100, after } = readQuery(c, listQuery);
      const found = await schedules.list({ limit, ...given({ after }) });
      const next = found.length === limit ? (found.at(-1)?.name ?? null) : null;
      return c.json({ items: found.map(scheduleView), next });
    })
    .post("/api/schedules", async (c) => {
      const { by, ...body } = await readBody(c, createBody, longest);
      const made = await schedules.create(camelCased(body) as unknown as ScheduleOptions, given({ by }));
      return c.json(scheduleView(made), 201);
    })
    .post("/api/schedules/preview", async (c) => {
      const { count, ...what } = await readBody(c, previewBody, maxBodyBytes);
      const timing = given(what) as Parameters<typeof schedules.preview>[0];
      return c.json({ items: await schedules.preview(timing, given({ count })) });
    })
    .get("/api/schedules/:name", async (c) => c.json(scheduleView(await schedules.get(c.req.param("name")))))
    .patch("/api/schedules/:name", async (c) => {
      const { by, ...body } = await readBody(c, changeBody, longest);
      const changes = camelCased(body) as ScheduleChanges;
      return c.json(scheduleView(await schedules.update(c.req.param("name"), changes, given({ by }))));
    })
    .delete("/api/schedules/:name", async (c) => {
      await schedules.delete(c.req.param("name"), given(readQuery(c, byQuery)));
      return c.body(null, 204);
    })
    .post("/api/schedules/:name/pause", async (c) => {
      const name = c.req.param("name");
      const changed = await schedules.pause(name, given(await readOptionalBody(c, whyBody, maxBodyBytes)));
      const message = `Schedule ${name} ${changed ? "is paused" : "was paused already"}.`;
      return c.json({ success: true, message, name, changed });
    })
    .post("/api/schedules/:name/resume", async (c) => {
      const name = c.req.param("name");
      const changed = await schedules.resume(name, given(await readOptionalBody(c, byBody, maxBodyBytes)));
      const message = `Schedule ${name} ${changed ? "goes on with its next tick" : "was not paused"}.`;
      return c.json({ success: true, message, name, changed });
    })
    .post("/api/schedules/:name/reset", async (c) => {
      const options = given(await readOptionalBody(c, byBody, maxBodyBytes));
      return c.json(scheduleView(await schedules.reset(c.req.param("name"), options)));
    })
    .post("/api/schedules/:name/run", async (c) => {
      const body = await readOptionalBody(c, runBody, longest);
      const { by, reason } = body;
      const order = { ...given({ by, reason }), ...("input" in body ? { input: body.input } : {}) };
      const { runId, status, jobId } = await schedules.runNow(c.req.param("name"), order);
      return c.json({ run_id: runId, status, job_id: jobId }, 202);
    })
    .get("/api/schedules/:name/runs", (c) => runRoute(mill, c))
    .get("/api/schedules/:name/preview", async (c) =>
      c.json({ items: await schedules.preview(c.req.param("name"), given(readQuery(c, previewQuery))) }),
    );
}

/** The history of the schedule in the path. */
export async function runRoute({ schedules }: Millrace, c: ApiContext): Promise<Response> {
  const { limit = 100, ...rest } = readQuery(c, runsQuery);
  const found = await schedules.runs(c.req.param("name") ?? "", { limit, ...given(rest) });
  const next = found.length === limit ? (found.at(-1)?.id ?? null) : null;
  return c.json({ items: found.map(runView), next });
}

/** The first floor of names only: an input is spelt as its task wants it. */
function camelCased(body: object): Record<string, unknown> {
  const camel = (name: string): string => name.replaceAll(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
  return Object.fromEntries(Object.entries(body).map(([name, value]) => [camel(name), value]));
}
