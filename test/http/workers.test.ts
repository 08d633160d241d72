import { task } from "millrace";
import { expect, test, vi } from "vitest";
import { sql } from "../../src/db/sql.ts";
import { gate, tally, useDatabase } from "../support/engine.ts";
import { callerOf, createApi, recorder } from "./caller.ts";

const file = useDatabase();

/** An API over a schema of its own, with a worker that runs one job until it is let go. */
async function setUp() {
  const started = tally<string>();
  const letGo = gate();
  const hold = task({
    name: "hold",
    async run({ id }) {
      started.add(id);
      await letGo.opened;
    },
  });
  const mill = await file.open([hold]);
  const worker = mill.work({ name: "one", concurrency: 2 });
  const { id: job } = await mill.enqueue(hold, {});
  await started.reached(1);
  const call = callerOf(createApi(mill, { log: recorder() }));
  const list = async () => (await call<{ workers: Record<string, unknown>[] }>("/api/workers")).body.workers;
  const [{ id }] = (await list()) as [{ id: number }];
  return { mill, worker, job, id, call, list, letGo };
}

test("lists workers with what they hold", async () => {
  const { mill, job, list, letGo } = await setUp();
  await using _ = mill;
  expect(await list()).toEqual([
    expect.objectContaining({
      name: "one",
      state: "running",
      pid: process.pid,
      queues: null,
      tasks: expect.arrayContaining(["hold"]),
      concurrency: 2,
      active: 1,
      jobs: [{ id: job, task: "hold", since: expect.stringMatching(/^\d{4}-.*Z$/) }],
      beat_age_ms: expect.any(Number),
      stopped_at: null,
    }),
  ]);
  letGo.open();
});

test("drains, resumes and changes the concurrency of one", async () => {
  const { mill, id, call, list, letGo } = await setUp();
  await using _ = mill;
  expect(await call(`/api/workers/${id}/drain`, { json: { by: "ada" } })).toMatchObject({
    status: 200,
    body: { changed: true, id },
  });
  expect(await call(`/api/workers/${id}/drain`, { method: "POST" })).toMatchObject({ body: { changed: false } });
  expect(await list()).toMatchObject([{ state: "draining" }]);
  expect(await call(`/api/workers/${id}/resume`, { method: "POST" })).toMatchObject({ body: { changed: true } });
  const patched = await call(`/api/workers/${id}`, { method: "PATCH", json: { concurrency: 7 } });
  expect(patched).toMatchObject({ status: 200, body: { concurrency: 7 } });
  await vi.waitFor(async () => expect(await list()).toMatchObject([{ state: "running", concurrency: 7 }]), 20_000);
  expect(await mill.db.query(sql`select by from millrace.audit order by id limit 1`)).toEqual([{ by: "ada" }]);
  letGo.open();
});

test("stops scheduling, says so wherever one looks, and takes it back", async () => {
  const { mill, call, letGo } = await setUp();
  await using _ = mill;
  letGo.open();
  const stopped = { since: expect.stringMatching(/^\d{4}-.*Z$/), by: "ada" };
  expect((await call("/api/workers")).body).toMatchObject({ scheduling_stopped: null });
  const answer = await call("/api/drain/scheduling", { json: { by: "ada" } });
  expect(answer).toMatchObject({ status: 200, body: { changed: true, scheduling_stopped: stopped } });
  expect((await call("/api/workers")).body).toMatchObject({ scheduling_stopped: stopped, drained: null });
  expect((await call("/api/ops/queues")).body).toMatchObject({ scheduler: { stopped } });
  const resumed = await call("/api/drain/scheduling/resume", { method: "POST" });
  expect(resumed.body).toMatchObject({ changed: true, scheduling_stopped: null });
  await call("/api/drain/scheduling", { method: "POST" });
  await call("/api/drain/resume", { method: "POST" });
  expect((await call("/api/workers")).body).toMatchObject({ scheduling_stopped: null });
});

test("drains and resumes all, and says by whom and since when", async () => {
  const { mill, id, call, letGo } = await setUp();
  await using _ = mill;
  const drained = { since: expect.stringMatching(/^\d{4}-.*Z$/), by: "ada" };
  expect((await call("/api/workers")).body).toMatchObject({ drained: null });
  const answer = await call("/api/drain", { json: { by: "ada" } });
  expect(answer.body).toMatchObject({ success: true, changed: [id], drained });
  expect((await call("/api/workers")).body).toMatchObject({ drained, workers: [{ state: "draining" }] });
  const resumed = await call("/api/drain/resume", { method: "POST" });
  expect(resumed.body).toMatchObject({ changed: [id], drained: null });
  expect((await call("/api/workers")).body).toMatchObject({ drained: null });
  letGo.open();
});

test("recycles one, which then stops", async () => {
  const { mill, worker, id, call, list, letGo } = await setUp();
  await using _ = mill;
  expect(await call(`/api/workers/${id}/recycle`, { method: "POST" })).toMatchObject({ status: 200, body: { id } });
  letGo.open();
  await worker.recycled;
  expect(await list()).toMatchObject([{ state: "stopped" }]);
});

test("refuses orders for nobody, and odd ones", async () => {
  const { mill, id, call, letGo } = await setUp();
  await using _ = mill;
  expect(await call("/api/workers/999999/drain", { method: "POST" })).toMatchObject({
    status: 404,
    body: { code: "WORKER_NOT_FOUND" },
  });
  expect(await call("/api/workers/one/drain", { method: "POST" })).toMatchObject({
    status: 400,
    body: { code: "BAD_REQUEST" },
  });
  expect(await call(`/api/workers/${id}`, { method: "PATCH", json: {} })).toMatchObject({
    status: 400,
    body: { code: "BAD_REQUEST" },
  });
  expect(await call(`/api/workers/${id}`, { method: "PATCH", json: { concurrency: 0 } })).toMatchObject({
    status: 400,
    body: { code: "OPTION_INVALID" },
  });
  letGo.open();
});
