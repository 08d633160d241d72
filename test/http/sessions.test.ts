/** Sessions of browsers: how long they last, how their id changes, who ends them, and what other sites cannot do with them. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { Millrace } from "millrace";
import { maintain } from "../../src/app/maintenance.ts";
import type { SignInSettings } from "../../src/access/sign-in.ts";
import { silent } from "../../src/core/log.ts";
import { createApi } from "../../src/http/api.ts";
import { Sql, sql } from "../../src/db/sql.ts";
import { Browser } from "../support/browser.ts";
import { useDatabase } from "../support/engine.ts";
import { type RealProvider, client, realProvider } from "../support/identity-providers.ts";
import { recorder } from "./caller.ts";

const file = useDatabase();
const here = "http://localhost:3003";
const ada = { sub: "ada-1", email: "ada@example.org", email_verified: true, name: "Ada" };
const grace = { sub: "grace-1", email: "grace@example.org", email_verified: true, name: "Grace" };
const token = "0123456789abcdef";

let mill: Millrace;
let provider: RealProvider;
beforeAll(async () => {
  mill = await file.open([]);
  provider = await realProvider([`${here}/auth/callback`]);
});
afterAll(async () => {
  await provider[Symbol.asyncDispose]();
  await mill.close();
});
beforeEach(async () => {
  await mill.db.query(sql`delete from millrace.sessions`);
  await mill.db.query(sql`delete from millrace.sign_ins`);
});

function apiOf(trustMachine = false): ReturnType<typeof createApi> {
  const signIn: SignInSettings = {
    issuer: provider.issuer,
    ...client,
    origin: here,
    roleClaim: undefined,
    defaultRole: "operator",
    admins: new Set(["grace@example.org"]),
    idleMs: 1_800_000,
    absoluteMs: 43_200_000,
  };
  const givenTokens = [{ token, role: "viewer", name: "ci" }] as const;
  return createApi(mill, { log: recorder(), trustMachine, signIn, givenTokens });
}
async function signedIn(person = ada, browser = new Browser(apiOf(), here)): Promise<Browser> {
  provider.person = person;
  browser.jars.delete(provider.issuer); // signed out there
  expect((await browser.visit("/auth/login", /3003\/$/)).status).toBe(302);
  return browser;
}
const idOf = (browser: Browser): string => browser.cookies().get("millrace_session") ?? "";
const holding = (id: string): Browser => {
  const browser = new Browser(apiOf(), here);
  browser.cookies().set("millrace_session", id);
  return browser;
};
const status = async (browser: Browser): Promise<number> => (await browser.ask("/api/queue/stats")).status;
/** As if so much time had passed for every session, but for when it ends. */
const pass = (column: "last_seen_at" | "rotated_at" | "expires_at", interval: string): Promise<unknown> =>
  mill.db.query(new Sql([`update millrace.sessions set ${column} = ${column} - interval '${interval}'`], []));
const sessionsFor = async (browser: Browser): Promise<Record<string, unknown>[]> =>
  (await browser.ask("/api/sessions")).body["items"] as Record<string, unknown>[];
const change = { headers: { "sec-fetch-site": "same-origin", "x-millrace-csrf": "1" } };

describe("a session", () => {
  test("ends when it is not used for half an hour, and each use begins that anew", async () => {
    const browser = await signedIn();
    await pass("last_seen_at", "29 minutes");
    expect(await status(browser)).toBe(200);
    await pass("last_seen_at", "29 minutes");
    expect(await status(browser)).toBe(200);
    await pass("last_seen_at", "31 minutes");
    const { status: refused, body } = await browser.ask("/api/queue/stats");
    expect([refused, body["code"], body["detail"]]).toEqual([
      401,
      "UNAUTHORIZED",
      "This session is over: sign in at /auth/login.",
    ]);
    expect((await browser.ask("/auth/session")).body["kind"]).toBeNull();
    expect((await browser.ask("/health")).status).toBe(200);
  });

  test("ends after twelve hours, however much it is used", async () => {
    const browser = await signedIn();
    const [row] = await mill.db.query<{ hours: number }>(
      sql`select extract(epoch from expires_at - created_at)::float8 / 3600 as hours from millrace.sessions`,
    );
    expect(row?.hours).toBeCloseTo(12);
    await pass("expires_at", "11 hours 59 minutes");
    expect(await status(browser)).toBe(200);
    await pass("expires_at", "1 minute");
    expect(await status(browser)).toBe(401);
  });

  test("over, or of a made-up id, is refused also on a machine that would be trusted without, and goes unnoticed without a provider", async () => {
    const trusting = (api: ReturnType<typeof createApi>, id: string): Promise<Response> =>
      Promise.resolve(
        api.request(
          `${here}/api/queue/stats`,
          { headers: { host: "localhost:3003", ...(id === "" ? {} : { cookie: `millrace_session=${id}` }) } },
          { incoming: { socket: { remoteAddress: "127.0.0.1" } } } as object,
        ),
      );
    for (const id of ["x".repeat(43), "x", "%00", "'; drop table millrace.sessions; --"])
      expect((await trusting(apiOf(true), id)).status).toBe(401);
    expect((await trusting(apiOf(true), "")).status).toBe(200);
    expect((await trusting(createApi(mill, { log: recorder(), trustMachine: true }), "x")).status).toBe(200);
  });

  test("never takes an id that the browser brought", async () => {
    const fixed = "A".repeat(43);
    const browser = new Browser(apiOf(), here);
    browser.cookies().set("millrace_session", fixed);
    await signedIn(ada, browser);
    expect(idOf(browser)).not.toBe(fixed);
    expect(await status(holding(fixed))).toBe(401);
  });

  test("is replaced when somebody signs in again: the id before lets nobody in", async () => {
    const browser = await signedIn();
    const before = idOf(browser);
    await signedIn(grace, browser);
    expect(await status(browser)).toBe(200);
    expect(await status(holding(before))).toBe(401);
    expect(await sessionsFor(browser)).toMatchObject([{ email: "grace@example.org", role: "admin" }]);
  });

  test("gets another id after a quarter of an hour; the one before is good for seconds more, and then for nobody", async () => {
    const browser = await signedIn();
    const before = idOf(browser);
    expect(await status(browser)).toBe(200);
    expect(idOf(browser)).toBe(before);
    await pass("rotated_at", "16 minutes");
    const answer = await browser.ask("/api/queue/stats");
    expect([answer.status, answer.headers.get("cache-control")]).toEqual([200, "no-store"]);
    const after = idOf(browser);
    expect(after).toMatch(/^[\w-]{43}$/);
    expect(after).not.toBe(before);
    const late = holding(before);
    expect([await status(late), idOf(late)]).toEqual([200, before]);
    await pass("rotated_at", "31 seconds");
    expect(await status(late)).toBe(401);
    expect(await status(browser)).toBe(200);
    expect(await sessionsFor(browser)).toHaveLength(1);
  });

  test("that is none is counted as a wrong token is; right ones come in all the same", async () => {
    const api = apiOf();
    const browser = await signedIn(ada, new Browser(api, here));
    const guess = new Browser(api, here);
    const tries = [];
    for (let n = 0; n < 12; n += 1) {
      guess.cookies().set("millrace_session", "0".repeat(43));
      tries.push(await status(guess));
    }
    expect(tries).toEqual([...Array.from({ length: 10 }, () => 401), 429, 429]);
    expect(await status(browser)).toBe(200);
  });

  test("gets one new id from many requests at once, none of which is refused", async () => {
    const browser = await signedIn();
    await pass("rotated_at", "16 minutes");
    const tabs = Array.from({ length: 8 }, () => holding(idOf(browser)));
    expect(await Promise.all(tabs.map(status))).toEqual(tabs.map(() => 200));
    const fresh = tabs.map(idOf).filter((id) => id !== idOf(browser));
    expect(fresh).toHaveLength(1);
    expect(await status(holding(fresh[0] ?? ""))).toBe(200);
  });

  test("is one of twenty of its person: the oldest goes", async () => {
    const first = await signedIn();
    const other = await signedIn(grace);
    await mill.db.query(sql`
      insert into millrace.sessions (hash, issuer, sub, email_verified, role, expires_at)
      select sha256(n::text::bytea), issuer, sub, false, 'viewer', expires_at
      from millrace.sessions, generate_series(1, 19) n where sub = 'ada-1'`);
    expect(await status(first)).toBe(200);
    await mill.db.query(
      sql`update millrace.sessions set created_at = created_at - interval '1 minute' where role = 'operator'`,
    );
    const newest = await signedIn();
    expect([await status(first), await status(newest), await status(other)]).toEqual([401, 200, 200]);
    expect(await sessionsFor(newest)).toHaveLength(20);
  });
});

describe("ending", () => {
  test("by signing out is at once, for every id of the session", async () => {
    const browser = await signedIn();
    const before = idOf(browser);
    await pass("rotated_at", "16 minutes");
    await status(browser);
    const after = idOf(browser);
    const { status: done } = await browser.ask("/auth/logout", { method: "POST", ...change });
    expect(done).toBe(204);
    expect(browser.cookies().size).toBe(0);
    expect([await status(holding(before)), await status(holding(after))]).toEqual([401, 401]);
    const rows = await mill.db.query<{ by: string; details: unknown }>(
      sql`select by, details from millrace.audit where action = 'session.end' order by id desc limit 1`,
    );
    expect(rows).toEqual([{ by: "ada@example.org", details: { issuer: provider.issuer, sub: "ada-1" } }]);
  });

  test("takes a session to sign out of", async () => {
    const browser = new Browser(apiOf(), here);
    const bearer = { authorization: `Bearer ${token}` };
    for (const headers of [{}, bearer]) {
      const { status: refused } = await browser.ask("/auth/logout", { method: "POST", headers });
      expect(refused).toBe(401);
    }
  });

  test("is for one's own sessions, and as an admin for anybody's; others' are as if they were not there", async () => {
    const [mine, second, admin] = [await signedIn(), await signedIn(), await signedIn(grace)];
    const own = await sessionsFor(mine);
    expect(own.map(({ sub, current, role }) => [sub, current, role])).toEqual([
      ["ada-1", false, "operator"],
      ["ada-1", true, "operator"],
    ]);
    expect(Object.keys(own[0] ?? {}).toSorted()).toEqual([
      "created_at",
      "current",
      "email",
      "email_verified",
      "expires_at",
      "id",
      "issuer",
      "last_seen_at",
      "name",
      "role",
      "sub",
    ]);
    const all = await sessionsFor(admin);
    expect(all.map(({ email }) => email)).toEqual(["grace@example.org", "ada@example.org", "ada@example.org"]);
    const end = async (browser: Browser, id: unknown): Promise<unknown[]> => {
      const { status: ended, body } = await browser.ask(`/api/sessions/${String(id)}`, { method: "DELETE", ...change });
      return [ended, body["code"]];
    };
    expect(await end(mine, all[0]?.["id"])).toEqual([404, "SESSION_NOT_FOUND"]);
    expect(await end(mine, "nonsense")).toEqual([404, "SESSION_NOT_FOUND"]);
    expect(await end(mine, own[0]?.["id"])).toEqual([204, undefined]);
    expect([await status(second), await status(mine)]).toEqual([401, 200]);
    expect(await end(admin, own[1]?.["id"])).toEqual([204, undefined]);
    expect([await status(mine), await status(admin)]).toEqual([401, 200]);
    expect(await end(admin, own[1]?.["id"])).toEqual([404, "SESSION_NOT_FOUND"]);
  });

  test("a token that is no admin's has no sessions to see or end", async () => {
    const mine = await signedIn();
    const [session] = await sessionsFor(mine);
    const headers = { authorization: `Bearer ${token}` };
    const browser = new Browser(apiOf(), here);
    expect((await browser.ask("/api/sessions", { headers })).body).toEqual({ items: [] });
    const { status: refused } = await browser.ask(`/api/sessions/${String(session?.["id"])}`, {
      method: "DELETE",
      headers,
    });
    expect(refused).toBe(404);
    expect(await status(mine)).toBe(200);
  });
});

describe("a change with a session", () => {
  const pause = "/api/queue/pause-all";
  const json = { "content-type": "application/json" };
  const custom = { "x-millrace-csrf": "1" };
  test.each<[string, Record<string, string>, string | undefined, number]>([
    ["from our page, with our header", { "sec-fetch-site": "same-origin", ...custom }, undefined, 200],
    ["from our page, with JSON", { "sec-fetch-site": "same-origin", ...json }, "{}", 200],
    ["typed by the user, with our header", { "sec-fetch-site": "none", ...custom }, undefined, 200],
    ["from our origin in an old browser", { origin: here, ...custom }, undefined, 200],
    ["from our page, without either", { "sec-fetch-site": "same-origin" }, undefined, 403],
    ["from our page, with another value", { "sec-fetch-site": "same-origin", "x-millrace-csrf": "0" }, undefined, 403],
    ["from our page, by a form", { "sec-fetch-site": "same-origin", "content-type": "text/plain" }, "{}", 403],
    [
      "from our page, as what is not quite JSON",
      { "sec-fetch-site": "same-origin", "content-type": "text/plain; application/json" },
      "{}",
      403,
    ],
    ["from another site", { "sec-fetch-site": "cross-site", ...custom, ...json }, "{}", 403],
    [
      "from another site that says our origin",
      { "sec-fetch-site": "cross-site", origin: here, ...custom },
      undefined,
      403,
    ],
    ["from a neighbour", { "sec-fetch-site": "same-site", ...custom }, undefined, 403],
    ["from another origin in an old browser", { origin: "http://localhost:3004", ...custom }, undefined, 403],
    ["from an origin that begins like ours", { origin: `${here}.evil.example`, ...custom }, undefined, 403],
    ["from no origin", { origin: "null", ...custom }, undefined, 403],
    ["from nobody knows where", { ...custom, ...json }, "{}", 403],
  ])("%s", async (_, headers, body, expected) => {
    const browser = await signedIn();
    const answer = await browser.ask(pause, { method: "POST", headers, ...(body === undefined ? {} : { body }) });
    expect(answer.status).toBe(expected);
    if (expected === 403) expect(answer.body["code"]).toBe("CSRF_REFUSED");
  });

  test("of every method is looked at; reading is not", async () => {
    const browser = await signedIn(grace);
    for (const [method, path] of [
      ["POST", "/auth/logout"],
      ["DELETE", "/api/sessions/01890000-0000-7000-8000-000000000000"],
      ["PATCH", "/jobs/01890000-0000-7000-8000-000000000000"],
      ["PUT", "/nowhere"],
      ["post", "/api/tokens"],
    ] as const)
      expect((await browser.ask(path, { method, headers: { "sec-fetch-site": "cross-site" } })).body["code"]).toBe(
        "CSRF_REFUSED",
      );
    expect((await browser.ask("/api/tokens", { headers: { "sec-fetch-site": "cross-site" } })).status).toBe(200);
  });

  test("and with a token is the token's: it falls back to no cookie, and needs no header of ours", async () => {
    const browser = await signedIn(grace);
    const ask = async (authorization: string): Promise<number> =>
      (await browser.ask("/api/queue/pause-all", { method: "POST", headers: { authorization, ...change.headers } }))
        .status;
    expect(await ask(`Bearer ${token}`)).toBe(403);
    expect(await ask("Bearer wrong")).toBe(401);
    expect(await ask("Basic YTpi")).toBe(401);
    expect(await ask("")).toBe(401);
    const plain = await browser.ask("/api/queue/stats", { headers: { authorization: `Bearer ${token}` } });
    expect(plain.status).toBe(200);
  });
});

test("who did something is known by the verified address, or by what the issuer calls them", async () => {
  const named = await signedIn(grace);
  const { body } = await named.ask("/api/tokens", {
    method: "POST",
    headers: { "sec-fetch-site": "same-origin", "content-type": "application/json" },
    body: JSON.stringify({ name: "made" }),
  });
  expect(body).toMatchObject({ created_by: "grace@example.org" });
  const unverified = await signedIn({ ...ada, email: "grace@example.org", email_verified: false });
  await unverified.ask("/auth/logout", { method: "POST", ...change });
  const [row] = await mill.db.query<{ by: string }>(
    sql`select by from millrace.audit where action = 'session.end' order by id desc limit 1`,
  );
  expect(row?.by).toBe(`${provider.issuer}#ada-1`);
});

test("maintenance removes sessions and sign-ins that are over, and no others", async () => {
  const browser = await signedIn();
  await browser.ask("/auth/login");
  await mill.db.query(sql`
    insert into millrace.sessions (hash, issuer, sub, email_verified, role, expires_at)
    select sha256(n::text::bytea), 'x', 'x', false, 'viewer', now() - interval '1 minute' from generate_series(1, 1500) n`);
  await mill.db.query(sql`
    insert into millrace.sign_ins (hash, return_to, expires_at)
    select sha256(n::text::bytea), '/', now() - interval '1 minute' from generate_series(1, 1500) n`);
  const dayMs = 86_400_000;
  const settings = { everyMs: 0, archiveAfterMs: 7 * dayMs, pruneAfterMs: 7 * dayMs, keepFailedMs: 180 * dayMs };
  await maintain(mill.db, settings, silent, new AbortController().signal);
  const [left] = await mill.db.query(sql`
    select (select count(*)::int from millrace.sessions) as sessions, (select count(*)::int from millrace.sign_ins) as sign_ins`);
  expect(left).toEqual({ sessions: 1, sign_ins: 1 });
  expect(await status(browser)).toBe(200);
});
