/** `/metrics` as runbook 004 reads it and as Prometheus does, and the ratios of runbook 003. */
import { afterEach, describe, expect, test, vi } from "vitest";
import { task } from "millrace";
import { createApi as create } from "../../src/http/api.ts";
import { wantsText } from "../../src/http/metrics.ts";
import { valuesOf } from "../metrics/scrape.ts";
import { useDatabase } from "../support/engine.ts";
import { StoreWorker, succeeded } from "../support/store-worker.ts";
import { callerOf, createApi, recorder } from "./caller.ts";

const file = useDatabase();
afterEach(() => void vi.useRealTimers());
const plain = task({ name: "plain", run: () => undefined });

/** Of ten jobs three have succeeded, one will be tried again, one was given up; a replay of that one has not run. */
async function setUp() {
  const mill = await file.open([plain]);
  const worker = await StoreWorker.register(mill);
  const ids = await mill.enqueueMany(
    plain,
    Array.from({ length: 10 }, (_, n) => n),
  );
  const [a = "", b = "", c = "", d = "", e = ""] = ids;
  const again = { outcome: "failed", next: "retry", delayMs: 3_600_000, tookMs: 1 } as const;
  await worker.settle(await worker.claim(5), {
    [a]: succeeded,
    [b]: succeeded,
    [c]: succeeded,
    [d]: again,
    [e]: { next: "dead" },
  });
  await mill.replay(e);
  return { mill, call: callerOf(createApi(mill, { log: recorder() })) };
}

describe("GET /metrics", () => {
  test("gives rates of the last minute per queue, and of one", async () => {
    const { mill, call } = await setUp();
    await using _ = mill;
    const { status, headers, body } = await call<{ now_utc: string; queues: Record<string, unknown>[] }>("/metrics");
    expect([status, headers.get("vary")]).toEqual([200, "Accept"]);
    expect(Object.keys(body)).toEqual(["now_utc", "queues"]);
    expect(body.now_utc).toMatch(/^\d{4}-.*Z$/);
    expect(body.queues).toEqual([
      {
        at: expect.stringMatching(/^\d{4}-.*Z$/),
        queue: "default",
        runnable_queue_depth: 6,
        jobs_per_sec: 5 / 60,
        success_rate: 3 / 5,
        retry_rate: 1 / 5,
        mean_latency_ms: expect.any(Number),
      },
    ]);
    expect((await call<{ queues: unknown[] }>("/metrics?queue=default")).body.queues).toHaveLength(1);
    expect(await call("/metrics?queue=nowhere")).toMatchObject({ status: 404, body: { code: "QUEUE_NOT_FOUND" } });
    expect((await call("/metrics?queues=default")).status).toBe(400);
  });

  test("shares the rates of every queue for a second, but for what was changed through this server", async () => {
    const { mill, call } = await setUp();
    await using _ = mill;
    vi.useFakeTimers({ toFake: ["performance"] });
    const depth = async (query = ""): Promise<unknown> => {
      const { body } = await call<{ queues: { runnable_queue_depth: number }[] }>(`/metrics${query}`);
      return body.queues[0]?.runnable_queue_depth;
    };
    expect(await depth()).toBe(6);
    await mill.enqueue(plain, 11); // by another process, say
    vi.advanceTimersByTime(999);
    expect(await depth()).toBe(6);
    expect(await depth("?queue=default")).toBe(7);
    expect((await call("/jobs", { json: { task: "plain", input: 12 } })).status).toBe(200);
    expect(await depth()).toBe(8);
  });

  test("gives 0 for a queue in which nothing happened", async () => {
    await using mill = await file.open([plain]);
    const { body } = await callerOf(createApi(mill, { log: recorder() }))("/metrics");
    const idle = { runnable_queue_depth: 0, jobs_per_sec: 0, success_rate: 0, retry_rate: 0, mean_latency_ms: 0 };
    expect(body).toMatchObject({ queues: [{ queue: "default", ...idle }] });
  });

  test.each<[string | undefined, boolean]>([
    [undefined, false],
    ["*/*", false],
    ["application/json", false],
    ["application/json, text/plain, */*", false],
    ["text/html,application/xhtml+xml,*/*;q=0.8", false],
    ["text/plain", true],
    ["Text/Plain; version=0.0.4", true],
    ["application/json;q=0.1,text/plain", true],
    ["text/plain;q=0", false],
    ["text/plain;q=nonsense", false],
    ["application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1", true],
    [",;,q=1", false],
  ])("asked with Accept: %s gives Prometheus text: %s", async (accept, text) => {
    expect(wantsText(accept)).toBe(text);
  });

  test("gives Prometheus what it asks for, as /metrics/prom does always, and only to this machine", async () => {
    const { mill, call } = await setUp();
    await using _ = mill;
    for (const [path, headers] of [
      ["/metrics", { accept: "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5" }],
      ["/metrics/prom", { accept: "application/json" }],
    ] as const) {
      const { status, headers: given, body } = await call<string>(path, { headers });
      expect([status, given.get("content-type")]).toEqual([200, "text/plain; version=0.0.4; charset=utf-8"]);
      expect(body).toContain("# TYPE millrace_queue_jobs gauge");
      expect((await call(path, { headers, from: "192.0.2.1" })).status).toBe(401);
    }
  });
});

test("requests are measured by template, method, class and code", async () => {
  const { mill, call } = await setUp();
  await using _ = mill;
  await call("/jobs/018f0000-0000-7000-8000-000000000001");
  await call("/jobs/018f0000-0000-7000-8000-000000000002");
  await call("/nowhere");
  await call("/health");
  await call("/jobs", { method: "PUT" });
  const { body } = await call<string>("/metrics/prom");
  expect(valuesOf(body, "http_request_duration_seconds_count")).toEqual({
    '{method="GET",route="/jobs/:id",route_class="api",code="404"}': 2,
    '{method="GET",route="unmatched",route_class="api",code="404"}': 1,
    '{method="GET",route="/health",route_class="probe",code="200"}': 1,
    '{method="PUT",route="unmatched",route_class="api",code="405"}': 1,
  });
});

test("probes, files and what waits are classes of their own, beside what tells how the API does", async () => {
  await using mill = await file.open([plain]);
  const call = callerOf(create(mill, { log: recorder(), trustMachine: true }));
  const expected = [
    ["/livez", "/livez", "probe"],
    ["/readyz", "/readyz", "probe"],
    ["/health/test", "/health/test", "probe"],
    ["/api/health", "/api/health", "probe"],
    ["/api/ops/queues", "/api/ops/queues", "ops"],
    ["/metrics", "/metrics", "ops"],
    ["/jobs/018f0000-0000-7000-8000-000000000001/wait", "/jobs/:id/wait", "stream"],
    ["/admin/queues/static/nothing.js", "/admin/queues/*", "files"],
    ["/admin/queues/api/nothing", "/admin/queues/*", "api"],
    ["/jobs", "/jobs", "api"],
  ] as const;
  for (const [path] of expected) await call(path);
  const counts = valuesOf((await call<string>("/metrics/prom")).body, "http_request_duration_seconds_count");
  const classes = Object.keys(counts).map((labels) => /route="(.*)",route_class="(.*)",code/.exec(labels)?.slice(1));
  for (const [, ...routeAndClass] of expected) expect(classes).toContainEqual(routeAndClass);
});

test("the ratios of runbook 003 are of jobs; what there is no room for is null", async () => {
  const { mill, call } = await setUp();
  await using _ = mill;
  const worker = await StoreWorker.register(mill);
  const claim = await worker.claim(6);
  const replayed = (await mill.jobs({ limit: 1 })).jobs[0]?.id ?? "";
  await worker.settle(claim, { [replayed]: succeeded });
  await mill.db.script("update millrace.workers set beat_at = now() - interval '1 hour'");
  const { body } = await call("/ops/metrics");
  expect(body).toEqual({
    windowHours: 24,
    queue: { activeRuns: 5, pendingRuns: 0, runningRuns: 5, runningWithoutHeartbeat: 5 },
    scrape: { totalRuns: null, completedRuns: null, failedRuns: null, successRate: null },
    lifecycle: { staleReconciledRuns: 0, retriesTriggered: 1, retrySuccessRate: 1 },
    callback: {
      totalEvents: null,
      completedEvents: null,
      failedEvents: null,
      failuresByType: null,
      failuresByCode: null,
    },
  });
  expect((await call("/api/ops/metrics?windowHours=1")).body).toEqual({ ...body, windowHours: 1 });
  expect((await call("/ops/metrics?windowHours=0")).status).toBe(400);
});
