/**
 * How it goes: nothing to strangers, and to those who may know, within 100 ms, whatever the database does. The status is 200 always: a
 * server that can say that the database is away is alive.
 */
import { accepts } from "hono/accepts";
import { z } from "zod";
import { type Addresses, nobody } from "../access/addresses.ts";
import type { Millrace } from "../app/millrace.ts";
import { describeMs } from "../core/duration.ts";
import type { QueueStats } from "../jobs/stats-store.ts";
import type { WorkerInfo } from "../jobs/registry-store.ts";
import { type Pulse, readPulse } from "../schedules/pulse-store.ts";
import { within } from "./deadline.ts";
import { type Endpoints, endpoint } from "./endpoint.ts";
import type { ApiContext } from "./env.ts";
import { Gauge, type Reading } from "./gauge.ts";
import type { Gate } from "./gate.ts";

/** For finding out who asks and for all checks together: the answer is to be there within 100 ms, also in a process that is busy. */
const budgetMs = 60;
/** What is due for longer is fired by nobody. */
const lateMs = 30_000;

const alive = { status: "ok" } as const;
/** Probes may add what they like. */
const anyQuery = z.looseObject({});
export const aliveAnswer = z.strictObject({ status: z.literal("ok") });

const reasons = ["database_unreachable", "no_workers", "scheduler_unreachable"] as const;
const service = z.object({ ok: z.boolean(), detail: z.string().optional() });
const healthAnswer = z
  .object({
    status: z.enum(["ok", "degraded"]).describe("Degraded: there are issues."),
    ok: z.boolean(),
    services: z.object({ database: service, worker: service, scheduler: service }),
    worker: z.object({ ok: z.boolean() }),
    queue: z
      .object({
        queued: z.int().nullable(),
        active: z.int().nullable(),
        max_concurrent: z.int().nullable(),
      })
      .describe("Jobs that wait, jobs that run, and jobs that can run at once. Null: not known in time."),
    ingestion: z.object({
      sources: z.object({}),
      issues: z.array(
        z.object({
          source: z.string(),
          operation: z.string(),
          reason: z.enum(reasons),
          last_error: z.string(),
        }),
      ),
    }),
  })
  .meta({ id: "Health" });

type Health = z.infer<typeof healthAnswer>;

/** The draft on health for HTTP APIs: who asks for its media type gets its word. */
const healthType = "application/health+json";
const namedHealth = healthAnswer.extend({ status: z.enum(["ok", "warn"]).describe("Warn: there are issues.") }).meta({
  id: "NamedHealth",
});
export const named = (schema: z.ZodType) => ({ contentType: healthType, about: "How it goes.", schema });

/** As JSON; as health+json where `Accept` says so. */
export function sayHealth<Body extends { readonly status: string }>(c: ApiContext, body: Body): Response {
  c.header("Vary", "Accept");
  const plain = "application/json";
  if (accepts(c, { header: "Accept", supports: [plain, healthType], default: plain }) === plain) return c.json(body);
  const status = body.status === "degraded" ? "warn" : body.status;
  return c.body(JSON.stringify({ ...body, status }), 200, { "Content-Type": healthType });
}
type Service = Health["services"]["database"];

interface HealthOptions {
  readonly gate: Pick<Gate, "known" | "addressOf">;
  /** Who may know without credentials. Default: nobody. */
  readonly allowlist?: Addresses | undefined;
}

export function healthEndpoints(mill: Millrace, { gate, allowlist = nobody }: HealthOptions): Endpoints {
  const pulse = new Gauge(() => readPulse(mill.db));
  const workers = new Gauge(() => mill.workers());
  const queues = new Gauge(() => mill.stats());

  const handle = async ({ c }: { readonly c: ApiContext }): Promise<Response> => {
    const untilMs = performance.now() + budgetMs;
    if (!allowlist.has(gate.addressOf(c)) && !(await isKnown(gate, c, budgetMs))) return sayHealth(c, alive);
    // Embedded they stand in line: the one that counts most comes last.
    const [beats, crew, counts] = await Promise.all([pulse.read(untilMs), workers.read(untilMs), queues.read(untilMs)]);
    return sayHealth(c, healthOf(beats, crew, counts));
  };

  const about =
    'Strangers get exactly `{"status":"ok"}`, and nothing is asked for them. Callers with the role viewer and addresses in HEALTH_ALLOWLIST see how it goes; a reading is shared for two seconds.';
  const definition = {
    summary: "How it goes, always with status 200",
    about,
    role: "public",
    routeClass: "probe",
    query: anyQuery,
    answers: { 200: [z.union([healthAnswer, aliveAnswer]), named(z.union([namedHealth, aliveAnswer]))] },
    handle,
  } as const;
  return [
    endpoint("Health", "GET /health", definition),
    endpoint("Health", "GET /api/health", definition),
    endpoint("Health", "GET /livez", {
      summary: "This process answers; nothing is looked at",
      role: "public",
      routeClass: "probe",
      query: anyQuery,
      answers: { 200: [aliveAnswer, named(aliveAnswer)] },
      handle: ({ c }) => sayHealth(c, alive),
    }),
  ];
}

/** Whether the caller may read. Whom the database cannot vouch for in time is a stranger. */
export async function isKnown(gate: Pick<Gate, "known">, c: ApiContext, withinMs: number): Promise<boolean> {
  try {
    return (await within(withinMs, gate.known(c))) !== undefined;
  } catch {
    return false; // the database fails: what else that means is told to those who are known without it
  }
}

function healthOf(
  beats: Reading<Pulse>,
  crew: Reading<readonly WorkerInfo[]>,
  counts: Reading<readonly QueueStats[]>,
): Health {
  const workers = crew.ok ? crew.value.filter(({ state }) => state !== "stopped" && state !== "lost") : [];
  const database = databaseOf(beats, crew);
  const worker = database.ok ? workerOf(workers) : unknown;
  const scheduler = database.ok && beats.ok ? schedulerOf(beats.value, workers.length) : unknown;
  const issues = database.ok
    ? [...issue("worker", "no_workers", worker), ...issue("scheduler", "scheduler_unreachable", scheduler)]
    : issue("database", "database_unreachable", database);
  const sum = (numbers: readonly number[]): number => numbers.reduce((all, one) => all + one, 0);
  return {
    status: issues.length === 0 ? "ok" : "degraded",
    ok: issues.length === 0,
    services: { database, worker, scheduler },
    worker: { ok: worker.ok },
    queue: {
      queued: counts.ok ? sum(counts.value.map(({ waiting }) => waiting)) : null,
      active: crew.ok ? sum(crew.value.map(({ active }) => active)) : null,
      max_concurrent: crew.ok ? sum(workers.map(({ concurrency }) => concurrency)) : null,
    },
    ingestion: { sources: {}, issues },
  };
}

const unknown: Service = { ok: false, detail: "Not known: the database has not answered." };

/** Counts may be late when there is much to count; that is no outage. */
function databaseOf(...readings: readonly Reading<unknown>[]): Service {
  const failed = readings.find((reading) => !reading.ok);
  if (failed === undefined || failed.ok) return { ok: true };
  return { ok: false, detail: `The database did not answer: ${failed.reason}.` };
}

function workerOf(live: readonly WorkerInfo[]): Service {
  if (live.length === 0) return { ok: false, detail: "No worker lives." };
  return { ok: true, detail: `${live.length} at work.` };
}

/** Schedulers live beside workers. */
export function schedulerOf(pulse: Pulse, workers: number): Service {
  if (pulse.scheduled === 0) return { ok: true, detail: "Nothing is scheduled." };
  if (workers === 0) return { ok: false, detail: "No worker lives, and so no scheduler." };
  if (pulse.lateMs > lateMs)
    return { ok: false, detail: `What is due since ${describeMs(Math.round(pulse.lateMs))} is fired by nobody.` };
  if (pulse.abandoned)
    return { ok: false, detail: "No process that defines schedules has been heard of for a minute." };
  return { ok: true };
}

function issue(source: string, reason: (typeof reasons)[number], { ok, detail = "" }: Service) {
  return ok ? [] : [{ source, operation: "health", reason, last_error: detail }];
}
