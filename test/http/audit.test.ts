/** What requests leave in the audit, and how it is read and verified through the API. */
import { describe, expect, test, vi } from "vitest";
import { type AuditEntry, listAudit } from "../../src/audit/audit-store.ts";
import { readAddresses } from "../../src/access/addresses.ts";
import { createApi } from "../../src/http/api.ts";
import { audited } from "../../src/http/audited.ts";
import { useDatabase } from "../support/engine.ts";
import { callerOf, recorder } from "./caller.ts";
import { MillraceError } from "../../src/core/errors.ts";
import { Hono } from "hono";
import type { ApiEnv } from "../../src/http/env.ts";

const file = useDatabase();
const token = (name: string): string => `${name}-${"x".repeat(20)}`;
const bearer = (name: string) => ({ authorization: `Bearer ${token(name)}` });

async function setUp() {
  const mill = await file.open([]);
  await mill.enqueue("any", null, { queue: "mail" });
  const log = recorder();
  const givenTokens = (["viewer", "operator", "admin"] as const).map((role) => ({
    token: token(role),
    role,
    name: `the ${role}`,
  }));
  const proxies = readAddresses("10.0.0.1");
  const api = createApi(mill, { log, givenTokens, trustMachine: true, proxies });
  /** Requests only; what the orders themselves note is told by their own tests. */
  const noted = async (): Promise<AuditEntry[]> =>
    (await listAudit(mill.db, {}, { limit: 500 })).filter(({ outcome }) => outcome !== null).toReversed();
  return { mill, log, api, call: callerOf(api), noted };
}

describe("what changes something", () => {
  test("leaves a row: who, from where, what, and what came of it; nothing of the body, the query or the headers", async () => {
    const { mill, call, noted } = await setUp();
    await using _ = mill;
    const headers = { ...bearer("operator"), "x-request-id": "r-1", "x-forwarded-for": "6.6.6.6, 192.0.2.7" };
    const secret = "hunter2-hunter2";
    await call("/api/queue/mail/pause", { json: { reason: secret }, headers, from: "10.0.0.1" });
    await call(`/api/queue/clean-all?grace=77777`, { method: "POST" });
    await call("/api/queue/nope/resume", { method: "POST" });
    await call("/api/queue/mail/pause", { json: { raeson: secret } });
    const rows = await noted();
    const machine = { by: null, actorKind: "machine", actor: null, role: "operator", address: "127.0.0.1" };
    expect(rows).toMatchObject([
      {
        action: "POST /api/queue/:name/pause",
        subject: "/api/queue/mail/pause",
        details: { status: 200 },
        outcome: "allow",
        by: "the operator",
        actorKind: "token",
        actor: "the operator",
        role: "operator",
        address: "192.0.2.7",
        requestId: "r-1",
      },
      { ...machine, action: "POST /api/queue/clean-all", subject: "/api/queue/clean-all", outcome: "allow" },
      { ...machine, outcome: "error", details: { status: 404, code: "QUEUE_NOT_FOUND" } },
      { ...machine, outcome: "error", details: { status: 400, code: "OPTION_UNKNOWN" } },
    ]);
    const kept = JSON.stringify(rows);
    for (const never of [secret, "77777", token("operator"), "6.6.6.6"]) expect(kept).not.toContain(never);
  });

  test.each([
    ["pause", "/api/queue/mail/pause", undefined],
    ["resume", "/api/queue/mail/resume", undefined],
    ["clean", "/api/queue/mail/clean?grace=0", undefined],
    ["pause", "/api/queue/pause-all", undefined],
    ["resume", "/api/queue/resume-all", undefined],
    ["clean", "/api/queue/clean-all?grace=0", undefined],
    ["policy.set", "/api/queue/mail/policy", { concurrency: 2 }],
    ["drain", "/api/drain", undefined],
    ["bulk.start", "/api/bulk", { action: "retry", all: true }],
    ["schedule.created", "/api/schedules", { name: "s", task: "any", every: "1h" }],
  ])("is an order (%s by %s) of whoever gave it, whatever name it is signed with", async (action, path, json) => {
    const { mill, call } = await setUp();
    await using _ = mill;
    const { id } = await mill.enqueue("any", null, { queue: "mail" });
    await mill.cancel(id);
    if (action === "resume") await (path.endsWith("-all") ? mill.pauseAll() : mill.pause("mail"));
    const headers = { ...bearer("operator"), "x-request-id": "r-7" };
    const method = action === "policy.set" ? "PATCH" : "POST";
    const answer = await call(path, { method, headers, json: { ...json, by: "the boss" } });
    expect([answer.status, answer.body]).toEqual([expect.toSatisfy((status) => status < 300), answer.body]);
    const orders = (await listAudit(mill.db, { action }, { limit: 10 })).filter(({ requestId }) => requestId !== null);
    expect(orders).toMatchObject([
      {
        by: "the boss",
        actor: "the operator",
        actorKind: "token",
        role: "operator",
        requestId: "r-7",
        address: "127.0.0.1",
        outcome: null,
      },
    ]);
    expect(await call("/api/audit/verify", { headers: bearer("admin") })).toMatchObject({ body: { whole: true } });
  });

  test("is an order by its caller, where no name is given, and says why", async () => {
    const { mill, call } = await setUp();
    await using _ = mill;
    const order = (verb: string) =>
      call(`/api/queue/mail/${verb}`, { json: { reason: `${verb}, for a deploy` }, headers: bearer("operator") });
    const { id } = await mill.enqueue("any", null, { queue: "mail" });
    await mill.cancel(id);
    for (const verb of ["pause", "resume", "clean?grace=0"]) expect((await order(verb)).status).toBe(200);
    const orders = (await listAudit(mill.db, {}, { limit: 10 })).filter(({ outcome }) => outcome === null).toReversed();
    expect(orders).toMatchObject([
      { action: "pause", by: "the operator", details: { reason: "pause, for a deploy" } },
      { action: "resume", by: "the operator", details: { reason: "resume, for a deploy" } },
      { action: "clean", by: "the operator", details: { cancelled: 1, reason: "clean?grace=0, for a deploy" } },
    ]);
  });

  test.each(["pause", "resume", "clean", "pause-all", "resume-all", "clean-all"])(
    "is not done where its body has a field that nobody knows: %s",
    async (verb) => {
      const { mill, call } = await setUp();
      await using _ = mill;
      const path = verb.endsWith("-all") ? `/api/queue/${verb}` : `/api/queue/mail/${verb}`;
      expect(await call(path, { json: { bogus: 1 } })).toMatchObject({ status: 400, body: { code: "OPTION_UNKNOWN" } });
    },
  );

  test("leaves none when it only reads, or brings work", async () => {
    const { mill, call, noted } = await setUp();
    await using _ = mill;
    expect((await call("/api/queue/stats")).status).toBe(200);
    expect((await call("/api/audit", { headers: bearer("admin") })).status).toBe(200);
    expect((await call("/jobs", { json: { task: "any" } })).status).toBe(200);
    expect(await noted()).toEqual([]);
  });

  test("is a row of the program when that asks itself", async () => {
    const { mill, api, noted } = await setUp();
    await using _ = mill;
    await api.request("/api/queue/mail/pause", { method: "POST" }, { inProcess: true });
    expect(await noted()).toMatchObject([{ actorKind: "program", role: "admin", address: null, outcome: "allow" }]);
  });

  test("is answered as it was when the row cannot be written, and the log says so", async () => {
    const { mill, call, log } = await setUp();
    await using _ = mill;
    await mill.db.script("alter table millrace.audit add constraint full_ check (outcome is null) not valid");
    const answer = await call("/api/queue/mail/pause", { method: "POST", headers: { "x-request-id": "r-2" } });
    expect(answer).toMatchObject({ status: 200, body: { changed: true } });
    expect(log.lines.filter(({ level }) => level === "error")).toMatchObject([
      { message: "audit.failed", fields: { request_id: "r-2", action: "POST /api/queue/:name/pause", status: 200 } },
    ]);
  });
});

describe("what is refused", () => {
  test("leaves a row, whatever it asked for", async () => {
    const { mill, call, noted } = await setUp();
    await using _ = mill;
    await call("/jobs", { headers: bearer("nobody"), from: "192.0.2.9" });
    await call("/api/queue/mail/pause", { method: "POST", headers: bearer("viewer") });
    await call("/api/audit", { headers: bearer("operator") });
    await call("/no%00where%0A", { headers: bearer("nobody"), from: "192.0.2.9" });
    const rows = await noted();
    expect(rows).toMatchObject([
      {
        action: "GET /jobs",
        actorKind: null,
        role: null,
        address: "192.0.2.9",
        details: { status: 401, code: "UNAUTHORIZED" },
      },
      {
        action: "POST /api/queue/:name/pause",
        actor: "the viewer",
        role: "viewer",
        details: { status: 403, code: "FORBIDDEN" },
      },
      { action: "GET /api/audit", actor: "the operator", details: { status: 403 } },
      { action: "GET unmatched", details: { status: 401 } },
    ]);
    expect(rows.map(({ outcome }) => outcome)).toEqual(["deny", "deny", "deny", "deny"]);
    expect(JSON.stringify(rows)).not.toContain(token("nobody"));
  });

  test("as the gate refuses who guesses, which a right token does not", async () => {
    const { mill, call, noted } = await setUp();
    await using _ = mill;
    for (let i = 0; i < 11; i += 1) await call("/jobs", { headers: bearer(`guess-${i}`) });
    expect((await call("/jobs", { headers: bearer("admin") })).status).toBe(200);
    expect((await noted()).at(-1)).toMatchObject({
      details: { status: 429, code: "TOO_MANY_REQUESTS" },
      outcome: "deny",
    });
  });

  test("is written twenty times in any second, and the rest is counted into the next row", async () => {
    await using mill = await file.open([]);
    let now = 5_000;
    const log = recorder();
    const api = new Hono<ApiEnv>()
      .use(audited({ db: mill.db, endpoints: [], addressOf: () => undefined, log, now: () => now }))
      .onError((_, c) => c.body(null, 401))
      .get("/", () => {
        throw new MillraceError("UNAUTHORIZED", "No.");
      });
    const ask = async (times: number) => {
      for (let i = 0; i < times; i += 1) expect((await api.request("/")).status).toBe(401);
    };
    const rows = async () => (await listAudit(mill.db, {}, { limit: 500 })).map(({ details }) => details);
    const plain = { status: 401, code: "UNAUTHORIZED" };

    await ask(15);
    now += 900;
    await ask(10); // five of them
    expect(await rows()).toHaveLength(20);
    now += 200; // the first fifteen are over a second ago, the five are not
    await ask(16);
    expect(await rows()).toHaveLength(35);
    expect((await rows())[14]).toEqual({ ...plain, more_denied: 5 });
    now += 2_000;
    await mill.db.script("alter table millrace.audit add constraint full_ check (id < 36)");
    await ask(3);
    await mill.db.script("alter table millrace.audit drop constraint full_");
    await ask(1);
    expect((await rows())[0]).toEqual({ ...plain, more_denied: 4 }); // one that was too many, and three that could not be written
    expect(log.lines).toHaveLength(3);
  });
});

describe("GET /api/audit", () => {
  test("is for admins: pages, newest first, by who, what and to what", async () => {
    const { mill, call } = await setUp();
    await using _ = mill;
    const headers = bearer("admin");
    for (let i = 0; i < 3; i += 1) {
      await call("/api/queue/mail/pause", { json: { by: "ada" } });
      await call("/api/queue/mail/resume", { method: "POST", headers });
    }
    interface Page {
      items: { id: string; action: string; by: string | null }[];
      next: string | null;
    }
    const get = async (query: string) => (await call<Page>(`/api/audit${query}`, { headers })).body;
    const all = await get("");
    expect(all.items.map(({ id }) => Number(id))).toEqual([12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1]);
    expect(all.next).toBeNull();
    const first = await get("?limit=7");
    expect(first.next).toBe("6");
    expect((await get(`?limit=7&after=${first.next}`)).items).toEqual(all.items.slice(7));
    expect((await get("?by=ada")).items.map(({ action }) => action)).toEqual(["pause", "pause", "pause"]);
    expect((await get("?subject=queue:mail&action=resume")).items).toHaveLength(3);
    expect((await get("?by=the admin")).items.map(({ action }) => action).slice(0, 2)).toEqual([
      "POST /api/queue/:name/resume",
      "resume",
    ]);
    expect(all.items[0]).toEqual({
      id: "12",
      at: expect.stringMatching(/Z$/),
      by: "the admin",
      action: "POST /api/queue/:name/resume",
      subject: "/api/queue/mail/resume",
      details: { status: 200 },
      actor_kind: "token",
      actor: "the admin",
      role: "admin",
      address: "127.0.0.1",
      request_id: expect.any(String),
      outcome: "allow",
      hash: expect.stringMatching(/^[0-9a-f]{64}$/),
    });
  });

  test.each(["?after=x", "?limit=0", "?who=ada", "?by=%00"])("refuses %s", async (query) => {
    const { mill, call } = await setUp();
    await using _ = mill;
    expect((await call(`/api/audit${query}`, { headers: bearer("admin") })).status).toBe(400);
  });
});

test("GET /api/audit/verify says whether it is whole, and if not, what is wrong", async () => {
  const { mill, call } = await setUp();
  await using _ = mill;
  const headers = bearer("admin");
  await call("/api/queue/mail/pause", { method: "POST" });
  const whole = await call("/api/audit/verify", { headers });
  expect(whole).toMatchObject({ status: 200, body: { whole: true, verified: 2, last: { id: 2 }, break: null } });
  await mill.db.script(
    "set session_replication_role = replica; update millrace.audit set outcome = 'deny' where id = 2; set session_replication_role = origin",
  );
  expect((await call("/api/audit/verify", { headers })).body).toEqual({
    whole: false,
    verified: 1,
    last: { id: 1, hash: expect.any(String) },
    break: { id: 2, kind: "changed row", message: "Row 2 is not what its hash was made of." },
  });
  expect((await call("/api/audit/verify", { headers: bearer("operator") })).status).toBe(403);
});

test("what requests leave is heard as events, without their address", async () => {
  const { mill, call } = await setUp();
  await using _ = mill;
  const heard: unknown[] = [];
  const listening = mill.on("audit.noted", (event) => heard.push(event));
  await listening.ready;
  await call("/api/queue/mail/pause", { method: "POST", headers: bearer("operator") });
  await vi.waitFor(() => expect(heard).toHaveLength(1), { timeout: 10_000 });
  expect(heard).toMatchObject([
    { action: "POST /api/queue/:name/pause", by: "the operator", details: { status: 200 } },
  ]);
  expect(JSON.stringify(heard)).not.toContain("127.0.0.1");
  listening.off();
});
