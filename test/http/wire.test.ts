import { schedule, task } from "millrace";
import { expect, test } from "vitest";
import type { z } from "zod";
import { sql } from "../../src/db/sql.ts";
import { createApi } from "../../src/http/api.ts";
import type { Endpoints } from "../../src/http/endpoint.ts";
import { policyEndpoints } from "../../src/http/policies.ts";
import { schedulerEndpoints } from "../../src/http/scheduler.ts";
import { scheduleEndpoints } from "../../src/http/schedules.ts";
import { timeText } from "../../src/http/wire.ts";
import { workerEndpoints } from "../../src/http/workers.ts";
import { gate, tally, useDatabase } from "../support/engine.ts";
import { callerOf, recorder } from "./caller.ts";

const file = useDatabase();

test("times are written as JSON writes dates", () => {
  const instants = [
    0, 1, 999, 1_000, -1, -1_000, 1_790_000_000_007, 1_790_000_000_070, 1_790_000_000_700, 8.64e15, -8.64e15,
  ];
  for (const ms of [...instants, ...instants.toReversed()]) {
    const at = new Date(ms);
    expect(timeText(at)).toBe(at.toJSON());
  }
  expect(timeText(null)).toBeNull();
});

test("policies, schedules and workers answer exactly what their endpoints say", async () => {
  const held = tally<string>();
  const letGo = gate();
  const hold = task({
    name: "hold",
    async run({ id }) {
      held.add(id);
      await letGo.opened;
    },
  });
  const coded = schedule({ name: "coded", task: hold, cron: "0 0 1 1 *", backoff: { delay: "1s" }, tags: ["a"] });
  await using mill = await file.open([hold], { maxPayloadBytes: 1_000 }, [coded]);
  mill.work();
  await mill.enqueue(hold, null);
  await held.reached(1);
  const call = callerOf(createApi(mill, { log: recorder(), trustMachine: true }));
  const endpoints: Endpoints = [
    ...policyEndpoints(mill),
    ...scheduleEndpoints(mill),
    ...schedulerEndpoints(mill),
    ...workerEndpoints(mill),
  ];
  const asked = new Set<string>();

  /** Calls an operation, and sees that its answer is what the schema has: nothing is missing, and nothing is there that it does not name. */
  const ask = async (route: string, path: string, json?: object): Promise<Record<string, unknown>> => {
    const endpoint = endpoints.find((one) => `${one.method} ${one.path}` === route);
    asked.add(route);
    const { status, body } = await call(path, { method: route.split(" ")[0] as string, ...(json ? { json } : {}) });
    expect(Object.keys(endpoint?.answers ?? {}), `${route}: ${JSON.stringify(body)}`).toContain(String(status));
    const answer = endpoint?.answers[status] as z.ZodType | null;
    if (answer === null) expect(body).toBe("");
    else expect(answer.parse(body)).toEqual(body);
    return body;
  };

  const all = {
    concurrency: 1,
    rate: { max: 1, per: "1s" },
    key_rate: { max: 1, per: 500 },
    keep_failed: "1d",
    by: "ada",
  };
  await ask("PATCH /api/queue/:name/policy", "/api/queue/mail/policy", all);
  await ask("GET /api/queue/:name/policy", "/api/queue/mail/policy");
  await ask("GET /api/policies", "/api/policies");
  const [queue] = await mill.db.query<{ id: number }>(sql`select id from millrace.queues where name = 'mail'`);
  await mill.db.query(sql`
    insert into millrace.policy_decisions (queue, job_id, decision, reason_code, details)
    values (${queue?.id ?? 0}, gen_random_uuid(), 'THROTTLE', 'MAX_IN_FLIGHT', '{"a":1}')`);
  expect(await ask("GET /api/queue/:name/decisions", "/api/queue/mail/decisions")).toMatchObject({ items: [{}] });
  await call("/jobs", { json: { task: "hold", input: "x".repeat(2_000) } });
  expect(await ask("GET /ingest/decisions", "/ingest/decisions")).toHaveLength(1);
  await ask("DELETE /api/queue/:name/policy", "/api/queue/mail/policy");

  const made = { name: "made", task: "hold", every: "1h", input: { maxX: 1 }, overlap: "allow", run_grace: "1s" };
  await ask("POST /api/schedules", "/api/schedules", made);
  await ask("PATCH /api/schedules/:name", "/api/schedules/coded", { cron: "0 1 1 1 *" });
  await ask("POST /api/schedules/:name/run", "/api/schedules/made/run", { input: 1, reason: "test" });
  const { config_id: id } = await ask("POST /scheduler/run", "/scheduler/run", { job_id: "made" });
  await ask("POST /scheduler/toggle", "/scheduler/toggle", {
    config_id: id,
    action: "pause",
    reason: "test",
    by: "ada",
  });
  await ask("GET /api/schedules", "/api/schedules?limit=1");
  await ask("GET /scheduler/jobs", "/scheduler/jobs");
  await ask("GET /api/schedules/:name", "/api/schedules/made");
  expect(await ask("GET /api/schedules/:name/runs", "/api/schedules/made/runs")).toMatchObject({ items: [{}, {}] });
  await ask("GET /scheduler/jobs/:name/runs", "/scheduler/jobs/made/runs?limit=1");
  await ask("POST /api/schedules/:name/resume", "/api/schedules/made/resume");
  await ask("POST /api/schedules/:name/pause", "/api/schedules/made/pause", {});
  await ask("GET /api/schedules/:name/preview", "/api/schedules/coded/preview");
  await ask("POST /api/schedules/preview", "/api/schedules/preview", { cron: "30 2 * * *", zone: "Europe/Berlin" });
  await ask("POST /api/schedules/:name/reset", "/api/schedules/coded/reset");
  await ask("DELETE /api/schedules/:name", "/api/schedules/made?by=ada");

  const { workers } = (await ask("GET /api/workers", "/api/workers")) as { workers: { id: number }[] };
  const one = workers[0]?.id;
  await ask("POST /api/workers/:id/drain", `/api/workers/${one}/drain`);
  await ask("POST /api/workers/:id/resume", `/api/workers/${one}/resume`, { by: "ada" });
  await ask("PATCH /api/workers/:id", `/api/workers/${one}`, { concurrency: 2 });
  await ask("POST /api/drain/scheduling", "/api/drain/scheduling", { by: "ada" });
  await ask("POST /api/drain/scheduling/resume", "/api/drain/scheduling/resume");
  await ask("POST /api/drain", "/api/drain", { by: "ada" });
  await ask("GET /api/workers", "/api/workers");
  await ask("POST /api/drain/resume", "/api/drain/resume");
  await ask("POST /api/workers/:id/recycle", `/api/workers/${one}/recycle`);
  letGo.open();

  expect(endpoints.map(({ method, path }) => `${method} ${path}`).filter((route) => !asked.has(route))).toEqual([]);
});

test("who is not named by `by` is the caller, in the audit", async () => {
  await using mill = await file.open();
  const token = { token: "a-token-of-an-operator", role: "operator", name: "nightly" } as const;
  const call = callerOf(createApi(mill, { log: recorder(), givenTokens: [token] }));
  const headers = { authorization: `Bearer ${token.token}` };
  await call("/api/queue/mail/policy", { method: "PATCH", headers, json: { concurrency: 1 } });
  await call("/api/schedules", { headers, json: { name: "made", task: "t", every: "1h" } });
  await call("/api/schedules/made/pause", { headers, json: { by: "ada" } });
  await call("/api/drain", { method: "POST", headers });
  // the orders themselves; their requests have rows of their own
  const orders = sql`select by, subject from millrace.audit where action not like '% /%' order by id`;
  expect(await mill.db.query(orders)).toEqual([
    { by: "nightly", subject: "queue:mail" },
    { by: "nightly", subject: "schedule:made" },
    { by: "ada", subject: "schedule:made" },
    { by: "nightly", subject: "system" },
  ]);
});

test("viewers read and change nothing; the page and the document are for whom they are for", async () => {
  await using mill = await file.open();
  const token = { token: "a-token-of-a-viewer", role: "viewer", name: "watcher" } as const;
  const call = callerOf(createApi(mill, { log: recorder(), givenTokens: [token], trustMachine: false }));
  const headers = { authorization: `Bearer ${token.token}` };
  for (const path of ["/", "/api/policies", "/api/schedules", "/scheduler/jobs", "/api/workers", "/ingest/decisions"]) {
    expect(await call(path, { headers })).toMatchObject({ status: 200 });
    expect(await call(path)).toMatchObject({ status: 401 });
  }
  const preview = await call("/api/schedules/preview", { headers, json: { every: "1h" } });
  expect(preview.status).toBe(200);
  for (const path of ["/api/schedules", "/api/schedules/x/run", "/scheduler/run", "/api/drain", "/api/workers/1/drain"])
    expect(await call(path, { headers, json: {} })).toMatchObject({ status: 403, body: { code: "FORBIDDEN" } });
  const document = await call<{ paths: Record<string, object> }>("/openapi.json?any=1", { from: "203.0.113.7" });
  expect(document.status).toBe(200);
  expect(Object.keys(document.body.paths)).toEqual(
    expect.arrayContaining(["/health", "/readyz", "/events", "/api/ops/queues", "/api/schedules/{name}/runs", "/"]),
  );
});
