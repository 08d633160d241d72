/** Schedules over HTTP: our own routes, and those that runbook 001 names, exactly as it calls them. */
import { schedule, task } from "millrace";
import { describe, expect, test } from "vitest";
import { useDatabase } from "../support/engine.ts";
import { callerOf, createApi, recorder } from "./caller.ts";

const file = useDatabase();
const rank = task({ name: "ingest-rank", queue: "ingest", run: () => undefined });
const ingestRank = schedule({
  name: "ingest_rank",
  task: rank,
  cron: "*/30 * * * *",
  input: { maxX: 50 } as never,
  overlap: "allow",
});

async function setUp() {
  const mill = await file.open([rank], {}, [ingestRank]);
  return { mill, call: callerOf(createApi(mill, { log: recorder() })) };
}

describe("runbook 001", () => {
  test("sees paused jobs and missing next runs at /scheduler/jobs", async () => {
    const { mill, call } = await setUp();
    await using _ = mill;
    const { status, body } = await call<Record<string, unknown>[]>("/scheduler/jobs");
    expect(status).toBe(200);
    expect(body).toEqual([
      {
        config_id: expect.any(Number),
        job_id: "ingest_rank",
        name: "ingest_rank",
        task: "ingest-rank",
        queue: "ingest",
        cron: "*/30 * * * *",
        every_ms: null,
        zone: "UTC",
        enabled: true,
        paused: false,
        paused_at: null,
        paused_by: null,
        paused_reason: null,
        retired_at: null,
        next_run: expect.stringMatching(/:[03]0:00\.000Z$/),
        last_run: null,
        priority: 0,
        overlap: "allow",
        concurrency_limit: 1,
        active: 0,
        queued: 0,
        overdue: 0,
        trouble: null,
        parameters: { maxX: 50 },
        created_at: expect.any(String),
        updated_at: expect.any(String),
      },
    ]);
  });

  test("runs a job by hand with the body it shows, or with config_id", async () => {
    const { mill, call } = await setUp();
    await using _ = mill;
    const headers = { authorization: "Bearer token", "content-type": "application/json" };
    const ran = await call("/scheduler/run", { method: "POST", headers, body: '{"job_id": "ingest_rank"}' });
    expect(ran).toMatchObject({ status: 202, body: { queued: true, job_id: "ingest_rank", status: "fired" } });
    const { config_id: id, enqueued_job_id: job } = ran.body as { config_id: number; enqueued_job_id: string };
    expect(await mill.job(job)).toMatchObject({ task: "ingest-rank", queue: "ingest", input: { maxX: 50 } });
    expect(await call("/scheduler/run", { json: { config_id: id } })).toMatchObject({ status: 202 });
    expect((await call("/scheduler/jobs/ingest_rank/runs")).body).toMatchObject({
      items: [
        { status: "fired", cause: "manual" },
        { job_id: job, late_ms: 0 },
      ],
      next: null,
    });
  });

  test("pauses a job with the payload it shows, and resumes it", async () => {
    const { mill, call } = await setUp();
    await using _ = mill;
    const paused = await call("/scheduler/toggle", { json: { job_id: "ingest_rank", action: "pause" } });
    expect(paused).toMatchObject({
      status: 200,
      body: { ok: true, job_id: "ingest_rank", paused: true, changed: true },
    });
    expect((await call("/scheduler/jobs")).body).toMatchObject([{ paused: true, enabled: false, next_run: null }]);
    // Its fourth step works all the same.
    expect(await call("/scheduler/run", { json: { job_id: "ingest_rank" } })).toMatchObject({ status: 202 });
    expect(await call("/scheduler/toggle", { json: { job_id: "ingest_rank", action: "resume" } })).toMatchObject({
      body: { ok: true, paused: false },
    });
    expect((await call("/scheduler/jobs")).body).toMatchObject([{ paused: false, next_run: expect.any(String) }]);
  });

  test.each<[string, object, number, string]>([
    ["/scheduler/run", { job_id: "nobody" }, 404, "SCHEDULE_NOT_FOUND"],
    ["/scheduler/run", { config_id: 999_999 }, 404, "SCHEDULE_NOT_FOUND"],
    ["/scheduler/run", {}, 400, "BAD_REQUEST"],
    ["/scheduler/run", { job: "ingest_rank" }, 400, "OPTION_UNKNOWN"],
    ["/scheduler/toggle", { job_id: "ingest_rank" }, 400, "BAD_REQUEST"],
    ["/scheduler/toggle", { job_id: "ingest_rank", action: "stop" }, 400, "BAD_REQUEST"],
  ])("POST %s %j is %i %s", async (path, json, status, code) => {
    const { mill, call } = await setUp();
    await using _ = mill;
    expect(await call(path, { json })).toMatchObject({ status, body: { code } });
  });
});

describe("/api/schedules", () => {
  test("makes, shows, changes, pauses and deletes a schedule", async () => {
    const { mill, call } = await setUp();
    await using _ = mill;
    const made = await call("/api/schedules", {
      json: {
        name: "nightly",
        task: "ingest-rank",
        cron: "30 2 * * *",
        zone: "Europe/Berlin",
        input: { keepMe: 1 },
        by: "ada",
        start_grace: "5m",
      },
    });
    expect(made).toMatchObject({
      status: 201,
      body: {
        name: "nightly",
        source: "operator",
        queue: "ingest",
        created_by: "ada",
        start_grace_ms: 300_000,
        input: { keepMe: 1 },
      },
    });
    expect(await call("/api/schedules/nightly")).toMatchObject({ status: 200, body: made.body });
    expect(
      await call("/api/schedules/nightly", { method: "PATCH", json: { every: "10m", run_grace: 5_000, by: "bob" } }),
    ).toMatchObject({
      status: 200,
      body: { cron: null, every_ms: 600_000, run_grace_ms: 5_000, updated_by: "bob" },
    });
    expect(await call("/api/schedules/nightly/pause", { json: { by: "ada", reason: "loud" } })).toMatchObject({
      body: { success: true, changed: true },
    });
    expect((await call("/api/schedules/nightly")).body).toMatchObject({
      next_at: null,
      paused: { by: "ada", reason: "loud" },
    });
    expect(await call("/api/schedules/nightly/resume", { method: "POST" })).toMatchObject({ body: { changed: true } });
    expect(await call("/api/schedules/nightly/run", { json: { input: 7 } })).toMatchObject({
      status: 202,
      body: { status: "fired" },
    });
    expect(await call("/api/schedules/nightly/run", { method: "POST" })).toMatchObject({
      status: 409,
      body: { code: "SCHEDULE_BUSY" },
    });
    expect((await call("/api/schedules/nightly/runs?status=fired")).body).toMatchObject({
      items: [{ cause: "manual" }],
    });
    const list = await call<{ items: { name: string }[] }>("/api/schedules?limit=1");
    expect(list.body).toMatchObject({ items: [{ name: "ingest_rank" }], next: "ingest_rank" });
    expect((await call("/api/schedules?limit=5&after=ingest_rank")).body).toMatchObject({
      items: [{ name: "nightly" }],
      next: null,
    });
    expect(await call("/api/schedules/nightly", { method: "DELETE" })).toMatchObject({ status: 204 });
    expect(await call("/api/schedules/nightly")).toMatchObject({ status: 404, body: { code: "SCHEDULE_NOT_FOUND" } });
    expect(await call("/api/schedules/ingest_rank", { method: "DELETE" })).toMatchObject({
      status: 409,
      body: { code: "SCHEDULE_IN_CODE" },
    });
  });

  test("resets what was changed of a schedule in code", async () => {
    const { mill, call } = await setUp();
    await using _ = mill;
    await call("/api/schedules/ingest_rank", { method: "PATCH", json: { every: "1h" } });
    expect((await call("/api/schedules/ingest_rank")).body).toMatchObject({ edited: ["every"] });
    expect(await call("/api/schedules/ingest_rank/reset", { method: "POST" })).toMatchObject({
      status: 200,
      body: { cron: "*/30 * * * *", every_ms: null, edited: [] },
    });
  });

  test("looks ahead, of a schedule and of a pattern", async () => {
    const { mill, call } = await setUp();
    await using _ = mill;
    const { body } = await call<{ items: object[] }>("/api/schedules/ingest_rank/preview?count=3");
    expect(body.items).toHaveLength(3);
    const pattern = { cron: "0 8 * * *", zone: "Europe/Berlin", count: 1 };
    expect((await call("/api/schedules/preview", { json: pattern })).body).toMatchObject({
      items: [{ at: expect.any(String), local: expect.stringMatching(/ 08:00:00 \+0[12]:00$/) }],
    });
  });

  test.each<[string, object, number, string]>([
    ["a bad pattern", { cron: "61 * * * *" }, 400, "SCHEDULE_INVALID"],
    ["a bad zone", { cron: "@daily", zone: "Mars" }, 400, "SCHEDULE_INVALID"],
    ["an unknown field", { cron: "@daily", zonne: "UTC" }, 400, "OPTION_UNKNOWN"],
    ["a number for a pattern", { cron: 5 }, 400, "BAD_REQUEST"],
    ["a taken name", { name: "ingest_rank", every: "1m" }, 409, "SCHEDULE_EXISTS"],
  ])("refuses %s, and makes nothing", async (_, body, status, code) => {
    const { mill, call } = await setUp();
    await using _mill = mill;
    expect(await call("/api/schedules", { json: { name: "one", task: "t", ...body } })).toMatchObject({
      status,
      body: { code },
    });
    expect(await mill.schedules.list()).toHaveLength(1);
  });
});
