import { type Millrace, schedule, task } from "millrace";
import { afterEach, describe, expect, test, vi } from "vitest";
import { readAddresses } from "../../src/access/addresses.ts";
import { sql } from "../../src/db/sql.ts";
import { type ApiOptions, createApi } from "../../src/http/api.ts";
import { gate, tally, useDatabase } from "../support/engine.ts";
import { type Caller, callerOf, recorder } from "./caller.ts";
import { millraceOn } from "./millrace-on.ts";

const file = useDatabase();
const viewer = { token: "a-token-of-a-viewer", role: "viewer", name: "probe" } as const;
const asViewer = { authorization: `Bearer ${viewer.token}` };
const elsewhere = "203.0.113.7";

function apiOf(mill: Millrace, options: Partial<ApiOptions> = {}) {
  return callerOf(createApi(mill, { log: recorder(), trustMachine: true, givenTokens: [viewer], ...options }));
}

interface Health {
  readonly status: string;
  readonly ok: boolean;
  readonly services: Record<"database" | "worker" | "scheduler", { ok: boolean; detail?: string }>;
  readonly worker: { readonly ok: boolean };
  readonly queue: Record<"queued" | "active" | "max_concurrent", number | null>;
  readonly ingestion: { readonly sources: object; readonly issues: readonly { source: string; reason: string }[] };
}

/** How it goes, as soon as the database has answered: here it may be slower than the budget. */
function known(call: Caller, path = "/health", how: Parameters<Caller>[1] = {}) {
  return vi.waitFor(
    async () => {
      const answer = await call<Health>(path, how);
      expect(answer.body.services.database).toEqual({ ok: true });
      expect(answer.body.queue.queued).not.toBeNull();
      return answer;
    },
    { timeout: 20_000, interval: 20 },
  );
}

/** The same Millrace on a database that answers as `query` does. */
function onDatabase(mill: Millrace, query: () => Promise<never>): Millrace {
  return millraceOn({ ...mill.db, query });
}

/** A worker that holds one job, with two more behind it, and a schedule of the code. */
async function atWork() {
  const held = tally<string>();
  const letGo = gate();
  const hold = task({
    name: "hold",
    async run({ id }) {
      held.add(id);
      await letGo.opened;
    },
  });
  const daily = schedule({ name: "daily", task: hold, cron: "0 0 1 1 *" });
  const mill = await file.open([hold], {}, [daily]);
  const { id } = await mill.enqueue(hold, null);
  await mill.enqueue("nobodys", null);
  const worker = mill.work({ name: "one", concurrency: 3 });
  await held.reached(1);
  return { mill, worker, job: id, letGo };
}

afterEach(() => void vi.useRealTimers());

describe("GET /health", () => {
  test.each(["/health", "/api/health"])("%s says how it goes to whoever may know", async (path) => {
    const { mill, letGo } = await atWork();
    await using _ = mill;
    const full = {
      status: "ok",
      ok: true,
      services: { database: { ok: true }, worker: { ok: true, detail: "1 at work." }, scheduler: { ok: true } },
      worker: { ok: true },
      queue: { queued: 1, active: 1, max_concurrent: 3 },
      ingestion: { sources: {}, issues: [] },
    };
    const allowlist = readAddresses("10.0.0.0/8, ::1") as NonNullable<ReturnType<typeof readAddresses>>;
    const call = apiOf(mill, { healthAllowlist: allowlist });

    const health = await known(call, path, { from: elsewhere, headers: asViewer });
    expect(health).toMatchObject({ status: 200, body: full });
    expect(health.headers.get("cache-control")).toBe("no-store");
    expect((await known(call, path)).body).toEqual(full);
    expect((await known(call, path, { from: "10.1.2.3" })).body).toEqual(full);
    expect((await call(`${path}?whatever=1`, { from: "10.1.2.3" })).status).toBe(200);
    letGo.open();
  });

  test.each<[string, object]>([
    ["nobody", {}],
    ["a wrong token", { authorization: "Bearer mr_0123456789ab_0000000000000000000000000000000000000000000" }],
    ["one who says to be on this machine", { host: "127.0.0.1", "x-forwarded-for": "10.0.0.1" }],
  ])("says no more than that it answers to %s", async (_, headers) => {
    await using mill = await file.open();
    const allowlist = readAddresses("10.0.0.0/8") as NonNullable<ReturnType<typeof readAddresses>>;
    const call = apiOf(mill, { healthAllowlist: allowlist });
    const { status, body } = await call("/health", { from: elsewhere, headers: { ...headers } });
    expect({ status, body }).toEqual({ status: 200, body: { status: "ok" } });
  });

  test("is degraded without a worker, and without a scheduler for what is scheduled", async () => {
    await using mill = await file.open();
    await mill.schedules.create({ name: "hourly", task: "anything", every: "1h" });
    const { status, body } = await known(apiOf(mill));
    expect(status).toBe(200);
    expect(body).toMatchObject({
      status: "degraded",
      ok: false,
      services: { database: { ok: true }, worker: { ok: false }, scheduler: { ok: false } },
      worker: { ok: false },
      queue: { queued: 0, active: 0, max_concurrent: 0 },
      ingestion: {
        issues: [
          { source: "worker", operation: "health", reason: "no_workers", last_error: "No worker lives." },
          { source: "scheduler", reason: "scheduler_unreachable" },
        ],
      },
    });
  });

  test("tells a scheduler that is gone from one that has nothing to do or may do nothing", async () => {
    const daily = schedule({ name: "daily", task: "anything", cron: "0 0 1 1 *" });
    await using mill = await file.open([], {}, [daily]);
    await using beside = await file.open([], { schema: mill.db.schema, scheduler: false });
    await beside.work().ready();
    const scheduler = async () => (await known(apiOf(mill))).body.services.scheduler;
    expect(await scheduler()).toEqual({ ok: true });
    await mill.db.query(sql`update millrace.schedule_versions set beat_at = now() - interval '2 minutes'`);
    expect(await scheduler()).toMatchObject({ ok: false, detail: expect.stringContaining("for a minute") });
    await mill.db.query(sql`update millrace.schedule_versions set beat_at = now()`);
    await mill.db.query(sql`update millrace.schedules set due_at = now() - interval '5 minutes'`);
    expect(await scheduler()).toMatchObject({ ok: false, detail: expect.stringContaining("fired by nobody") });
    await mill.drain();
    expect(await scheduler()).toEqual({ ok: true });
    await mill.schedules.pause("daily");
    expect(await scheduler()).toEqual({ ok: true, detail: "Nothing is scheduled." });
  });

  test("answers within 100 ms while the database hangs, and asks it once", async () => {
    await using mill = await file.open();
    const asked = vi.fn<() => Promise<never>>(() => new Promise(() => {}));
    const call = apiOf(onDatabase(mill, asked));
    const token = "mr_0123456789ab_0000000000000000000000000000000000000000000";
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
    const asking = Array.from({ length: 20 }, () => call<Health>("/health", { from: elsewhere, headers: asViewer }));
    // Its token is in the database: who that is cannot be found out.
    const unknown = call("/health", { from: elsewhere, headers: { "x-api-key": token } });
    await vi.waitFor(() => expect(asked).toHaveBeenCalledTimes(4));
    await vi.advanceTimersByTimeAsync(60);
    const answers = await Promise.all(asking);
    expect(await unknown).toMatchObject({ status: 200, body: { status: "ok" } });
    expect(asked).toHaveBeenCalledTimes(4);
    for (const { status, body } of answers) {
      expect(status).toBe(200);
      expect(body).toMatchObject({
        status: "degraded",
        services: {
          database: { ok: false, detail: expect.stringMatching(/no answer within \d+ ms\.$/) },
          worker: { ok: false },
          scheduler: { ok: false },
        },
        queue: { queued: null, active: null, max_concurrent: null },
        ingestion: { issues: [{ source: "database", reason: "database_unreachable" }] },
      });
    }
    expect((await call("/health", { from: elsewhere })).body).toEqual({ status: "ok" });
  });

  test("is degraded, not an error, when the database fails, whoever asks", async () => {
    await using mill = await file.open();
    const call = apiOf(onDatabase(mill, () => Promise.reject(new Error("connection refused"))));
    expect(await call("/health")).toMatchObject({
      status: 200,
      body: { status: "degraded", services: { database: { detail: expect.stringContaining("connection refused") } } },
    });
    const token = "mr_0123456789ab_0000000000000000000000000000000000000000000";
    const { status, body } = await call("/health", { from: elsewhere, headers: { "x-api-key": token } });
    expect({ status, body }).toEqual({ status: 200, body: { status: "ok" } });
  });

  test("shares what it has read for two seconds", async () => {
    await using mill = await file.open();
    const query = vi.spyOn(mill.db, "query");
    const call = apiOf(mill);
    const first = await known(call);
    const asked = query.mock.calls.length;
    expect(asked).toBeGreaterThan(0);
    await mill.enqueue("anything", null);
    const enqueued = query.mock.calls.length;
    expect((await call("/health")).body).toEqual(first.body);
    expect(query.mock.calls.length).toBe(enqueued);
    vi.spyOn(performance, "now").mockReturnValue(performance.now() + 2_001);
    await vi.waitFor(async () => expect((await call<Health>("/health")).body.queue.queued).toBe(1), 20_000);
    vi.restoreAllMocks();
  });
});

describe("probes", () => {
  test("livez looks at nothing", async () => {
    await using mill = await file.open();
    const asked = vi.fn<() => Promise<never>>(() => new Promise(() => {}));
    const call = apiOf(onDatabase(mill, asked));
    const { status, body } = await call("/livez", { from: elsewhere, headers: asViewer });
    expect({ status, body }).toEqual({ status: 200, body: { status: "ok" } });
    expect(asked).not.toHaveBeenCalled();
  });

  test("readyz tells strangers whether, and others why", async () => {
    await using mill = await file.open();
    const call = apiOf(mill, { diskThreshold: 1 });
    const stranger = await call("/readyz", { from: elsewhere });
    expect(stranger).toMatchObject({ status: 200 });
    expect(stranger.body).toEqual({ status: "ok" });
    expect((await call("/readyz", { from: elsewhere, headers: asViewer })).body).toMatchObject({
      checks: { database: { ok: true }, disk: { ok: true, limit_percent: 100 } },
    });

    const failing = apiOf(onDatabase(mill, () => Promise.reject(new Error("connection refused"))));
    const refused = await failing("/readyz", { from: elsewhere });
    expect(refused).toMatchObject({ status: 503, body: { code: "NOT_READY", detail: "This server is not ready." } });
    expect(refused.body).not.toHaveProperty("checks");
    expect(JSON.stringify(refused.body)).not.toContain("refused");
    expect(await failing("/readyz", { from: elsewhere, headers: asViewer })).toMatchObject({
      status: 503,
      body: { code: "NOT_READY", checks: { database: { ok: false } } },
    });
  });

  test("the disk may be as full as it was told", async () => {
    await using mill = await file.open();
    const call = apiOf(mill, { diskThreshold: 0.001 });
    expect(await call("/health/test")).toMatchObject({
      status: 503,
      body: { detail: expect.stringMatching(/^The disk is \d+ % full; 0\.1 % is too much\.$/) },
    });
    expect(await call("/health/test", { from: elsewhere })).toMatchObject({ status: 401 });
  });
});

describe("GET /api/ops/queues", () => {
  test("has the names of runbook 000", async () => {
    const { mill, job, letGo } = await atWork();
    await using _ = mill;
    await mill.enqueue("nobodys", null, { delay: "1h" });
    await mill.enqueueFlow({ jobs: { first: { task: "nobodys" }, last: { task: "nobodys", after: ["first"] } } });
    const { status, body } = await apiOf(mill)("/api/ops/queues", { from: elsewhere, headers: asViewer });
    expect(status).toBe(200);
    expect(body).toEqual({
      status: "online",
      queues: expect.arrayContaining([{ name: "default", size: 2, deferred: 1, scheduled: 1, started: 1, failed: 0 }]),
      workers: [
        { id: expect.any(Number), name: "one", state: "running", queues: ["*"], current_job_id: job, job_ids: [job] },
      ],
      scheduler: { scheduled_jobs: expect.any(Number), healthy: true, stopped: null },
      vault: null,
      warnings: [],
      checked_at: expect.stringMatching(/^\d{4}-.*Z$/),
    });
    expect((body as { scheduler: { scheduled_jobs: number } }).scheduler.scheduled_jobs).toBeGreaterThan(0);
    letGo.open();
  });

  test("is degraded without workers, and names a lost one", async () => {
    const { mill, worker, letGo } = await atWork();
    await using _ = mill;
    letGo.open();
    await worker.stop();
    expect((await apiOf(mill)("/api/ops/queues")).body).toMatchObject({
      status: "degraded",
      workers: [],
      warnings: ["no_workers", "scheduler_unreachable"],
    });
    await mill.db.query(sql`update millrace.workers set ended = 'lost'`);
    expect((await apiOf(mill)("/api/ops/queues")).body).toMatchObject({
      status: "degraded",
      workers: [{ name: "one", state: "lost" }],
    });
  });

  test("is offline when the database is", async () => {
    await using mill = await file.open();
    const call = apiOf(onDatabase(mill, () => Promise.reject(new Error("connection refused"))));
    expect(await call("/api/ops/queues")).toMatchObject({
      status: 200,
      body: {
        status: "offline",
        queues: [],
        workers: [],
        scheduler: { scheduled_jobs: null, healthy: false, stopped: null },
        warnings: ["database_unreachable"],
        error: "The database did not answer: connection refused.",
      },
    });
  });

  test("is for those who have come in", async () => {
    await using mill = await file.open();
    expect(await apiOf(mill)("/api/ops/queues", { from: elsewhere })).toMatchObject({
      status: 401,
      body: { code: "UNAUTHORIZED" },
    });
  });
});
