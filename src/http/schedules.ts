/** The operations on schedules: make, change, pause, run, look ahead and look back. */
import { z } from "zod";
import type { Millrace } from "../app/millrace.ts";
import type { ErrorCode } from "../core/errors.ts";
import type { ScheduleOptions } from "../schedules/definition.ts";
import { runStatuses } from "../schedules/runs-store.ts";
import type { ScheduleChanges } from "../schedules/schedules.ts";
import { type Endpoint, type Endpoints, endpoint } from "./endpoint.ts";
import { bodyBytes, given, storable } from "./read.ts";
import { runAnswer, runView, scheduleAnswer, scheduleView } from "./schedule-view.ts";
import { signature, signed } from "./signature.ts";

const { by } = signature;
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
const nameParams = z.strictObject({ name: z.string() });
const createBody = z
  .strictObject({ name: z.string(), ...fields, task: z.string(), paused: z.boolean().optional(), by })
  .meta({ id: "NewSchedule" });
const previewBody = z.strictObject({
  cron: z.string().optional(),
  every: duration.optional(),
  zone: z.string().optional(),
  count: z.number().optional(),
});
export const listQuery = z.strictObject({
  limit: z.coerce.number().int().min(1).max(1_000).optional(),
  after: storable.optional(),
});
const runsQuery = z.strictObject({
  limit: z.coerce.number().int().min(1).max(500).optional(),
  before: z.string().optional(),
  status: z.enum(runStatuses).optional(),
});
const previewQuery = z.strictObject({ count: z.coerce.number().int().min(1).max(100).optional() });

const next = z.string().nullable().describe("For the page that follows; null on the last one.");
const toggled = z.object({ success: z.literal(true), message: z.string(), name: z.string(), changed: z.boolean() });
const ticks = z.object({
  items: z.array(
    z
      .object({
        at: z.iso.datetime(),
        local: z.string().describe("On the wall of its zone."),
        remark: z.string().nullable().describe("What daylight saving time does to it."),
      })
      .meta({ id: "PreviewedTick" }),
  ),
});

/** What a definition can be refused for. */
const invalid: readonly ErrorCode[] = [
  "SCHEDULE_INVALID",
  "TASK_NAME_INVALID",
  "QUEUE_NAME_INVALID",
  "INPUT_NOT_STORABLE",
  "BAD_PAYLOAD",
];
/** `SCHEDULE_INVALID`: what cannot be the name of one. */
export const missing: readonly ErrorCode[] = ["SCHEDULE_NOT_FOUND", "SCHEDULE_INVALID"];
export const runErrors: readonly ErrorCode[] = [...missing, "SCHEDULE_BUSY", "ENQUEUE_RATE_EXCEEDED"];

export function scheduleEndpoints(mill: Millrace): Endpoints {
  const { schedules } = mill;
  const maxBodyBytes = bodyBytes(mill.maxPayloadBytes);

  return [
    endpoint("Schedules", "GET /api/schedules", {
      summary: "Schedules, by name",
      role: "viewer",
      query: listQuery,
      answers: { 200: z.object({ items: z.array(scheduleAnswer), next }).meta({ id: "SchedulePage" }) },
      async handle({ query: { limit = 100, after } }) {
        const found = await schedules.list({ limit, ...given({ after }) });
        return {
          items: found.map(scheduleView),
          next: found.length === limit ? (found.at(-1)?.name ?? null) : null,
        };
      },
    }),
    endpoint("Schedules", "POST /api/schedules", {
      summary: "Make a schedule",
      role: "operator",
      body: createBody,
      maxBodyBytes,
      answers: { 201: scheduleAnswer },
      errors: [...invalid, "SCHEDULE_EXISTS"],
      async handle({ c, body: { by: who, ...body } }) {
        const made = await schedules.create(camelCased(body) as unknown as ScheduleOptions, signed(c, { by: who }));
        c.header("Location", `/api/schedules/${encodeURIComponent(made.name)}`);
        return scheduleView(made);
      },
    }),
    endpoint("Schedules", "POST /api/schedules/preview", {
      summary: "When a pattern or an interval would come",
      role: "viewer",
      routeClass: "api",
      body: previewBody,
      answers: { 200: ticks },
      errors: ["SCHEDULE_INVALID"],
      async handle({ body: { count, ...what } }) {
        const timing = given(what) as Parameters<typeof schedules.preview>[0];
        return { items: await schedules.preview(timing, given({ count })) };
      },
    }),
    endpoint("Schedules", "GET /api/schedules/:name", {
      summary: "One schedule, with what its runs do now",
      role: "viewer",
      params: nameParams,
      answers: { 200: scheduleAnswer },
      errors: missing,
      handle: async ({ params }) => scheduleView(await schedules.get(params.name)),
    }),
    endpoint("Schedules", "PATCH /api/schedules/:name", {
      summary: "Change what is named of a schedule and leave the rest",
      about: "Of a schedule that code defines, the change stays until it is reset, whatever the code says meanwhile.",
      role: "operator",
      params: nameParams,
      body: z.strictObject({ ...fields, by }).meta({ id: "ScheduleChanges" }),
      maxBodyBytes,
      answers: { 200: scheduleAnswer },
      errors: ["SCHEDULE_NOT_FOUND", ...invalid],
      async handle({ c, params, body: { by: who, ...body } }) {
        const changes = camelCased(body) as ScheduleChanges;
        return scheduleView(await schedules.update(params.name, changes, signed(c, { by: who })));
      },
    }),
    endpoint("Schedules", "DELETE /api/schedules/:name", {
      summary: "Remove a schedule with its history; its jobs stay",
      role: "operator",
      params: nameParams,
      query: z.strictObject({ by: z.string().optional() }),
      answers: { 204: null },
      errors: [...missing, "SCHEDULE_IN_CODE"],
      handle: ({ c, params, query }) => schedules.delete(params.name, signed(c, query)),
    }),
    endpoint("Schedules", "POST /api/schedules/:name/pause", {
      summary: "Let a schedule fire nothing until it is resumed",
      role: "operator",
      params: nameParams,
      body: z.strictObject(signature),
      bodyOptional: true,
      answers: { 200: toggled },
      errors: missing,
      async handle({ c, params: { name }, body }) {
        const changed = await schedules.pause(name, signed(c, body));
        const message = `Schedule ${name} ${changed ? "is paused" : "was paused already"}.`;
        return { success: true, message, name, changed };
      },
    }),
    endpoint("Schedules", "POST /api/schedules/:name/resume", {
      summary: "Let a paused schedule go on with its next tick",
      role: "operator",
      params: nameParams,
      body: z.strictObject({ by }),
      bodyOptional: true,
      answers: { 200: toggled },
      errors: missing,
      async handle({ c, params: { name }, body }) {
        const changed = await schedules.resume(name, signed(c, body));
        const message = `Schedule ${name} ${changed ? "goes on with its next tick" : "was not paused"}.`;
        return { success: true, message, name, changed };
      },
    }),
    endpoint("Schedules", "POST /api/schedules/:name/reset", {
      summary: "Take every change of operators back: what the code says holds again",
      role: "operator",
      params: nameParams,
      body: z.strictObject({ by }),
      bodyOptional: true,
      answers: { 200: scheduleAnswer },
      errors: missing,
      handle: async ({ c, params, body }) => scheduleView(await schedules.reset(params.name, signed(c, body))),
    }),
    endpoint("Schedules", "POST /api/schedules/:name/run", {
      summary: "One run now, beside the ticks, paused or not",
      role: "operator",
      params: nameParams,
      body: z.strictObject({ ...signature, input: z.unknown().optional() }),
      bodyOptional: true,
      maxBodyBytes,
      answers: {
        202: z.object({ run_id: z.string(), status: z.enum(["fired", "queued"]), job_id: z.uuid().nullable() }),
      },
      errors: [...runErrors, "INPUT_NOT_STORABLE", "BAD_PAYLOAD"],
      async handle({ c, params, body }) {
        const order = { ...signed(c, body), ...("input" in body ? { input: body.input } : {}) };
        const { runId, status, jobId } = await schedules.runNow(params.name, order);
        if (jobId !== null) c.header("Location", `/jobs/${jobId}`);
        return { run_id: runId, status, job_id: jobId };
      },
    }),
    runsEndpoint(mill, "GET /api/schedules/:name/runs"),
    endpoint("Schedules", "GET /api/schedules/:name/preview", {
      summary: "When a schedule comes next",
      role: "viewer",
      params: nameParams,
      query: previewQuery,
      answers: { 200: ticks },
      errors: missing,
      handle: async ({ params, query }) => ({ items: await schedules.preview(params.name, given(query)) }),
    }),
  ];
}

/** The history of the schedule in the path. */
export function runsEndpoint({ schedules }: Millrace, route: `GET /${string}`): Endpoint {
  return endpoint("Schedules", route, {
    summary: "What became of a schedule's ticks, newest first",
    role: "viewer",
    params: nameParams,
    query: runsQuery,
    answers: { 200: z.object({ items: z.array(runAnswer), next }).meta({ id: "ScheduleRunPage" }) },
    errors: missing,
    async handle({ params, query: { limit = 100, ...rest } }) {
      const found = await schedules.runs(params.name, { limit, ...given(rest) });
      return { items: found.map(runView), next: found.length === limit ? (found.at(-1)?.id ?? null) : null };
    },
  });
}

/** The first floor of names only: an input is spelt as its task wants it. */
function camelCased(body: object): Record<string, unknown> {
  const camel = (name: string): string => name.replaceAll(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
  return Object.fromEntries(Object.entries(body).map(([name, value]) => [camel(name), value]));
}
