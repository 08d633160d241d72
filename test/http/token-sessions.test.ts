/** Browsers of people who have a token: how they get in without keeping it, and for how long. */
import { beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { Millrace } from "millrace";
import { defaultSessions } from "../../src/access/sessions.ts";
import { type GivenToken, Tokens } from "../../src/access/tokens.ts";
import { listAudit } from "../../src/audit/audit-store.ts";
import { Sql, sql } from "../../src/db/sql.ts";
import { type ApiOptions, createApi } from "../../src/http/api.ts";
import { Browser, type Page } from "../support/browser.ts";
import { useDatabase } from "../support/engine.ts";
import { createApi as contracted, recorder } from "./caller.ts";

const file = useDatabase();
const here = "http://localhost:3003";
const given: GivenToken = { token: "a-secret-of-the-environment", role: "operator", name: "ci" };
const ours = { "sec-fetch-site": "same-origin" };
const json = { "content-type": "application/json" };

let mill: Millrace;
beforeAll(async () => {
  mill = await file.open([]);
  await mill.enqueue("x", 1, { queue: "mail" });
  return () => mill.close();
});
beforeEach(async () => {
  await mill.db.query(sql`delete from millrace.sessions`);
});

const apiOf = (options: Partial<ApiOptions> = {}): ReturnType<typeof createApi> =>
  contracted(mill, { log: recorder(), trustMachine: false, givenTokens: [given], ...options });
const browserOf = (options?: Partial<ApiOptions>): Browser => new Browser(apiOf(options), here);
const show = (browser: Browser, token: string, headers: Record<string, string> = { ...ours, ...json }): Promise<Page> =>
  browser.ask("/auth/token", { method: "POST", headers, body: JSON.stringify({ token }) });
async function signedIn(token = given.token, browser = browserOf()): Promise<Browser> {
  expect((await show(browser, token)).status).toBe(204);
  return browser;
}
const idOf = (browser: Browser): string => browser.cookies().get("millrace_session") ?? "";
function holding(id: string, options?: Partial<ApiOptions>): Browser {
  const browser = browserOf(options);
  browser.cookies().set("millrace_session", id);
  return browser;
}
const status = async (browser: Browser): Promise<number> => (await browser.ask("/api/queue/stats")).status;
const pause = (
  browser: Browser,
  headers: Record<string, string> = { ...ours, "x-millrace-csrf": "1" },
): Promise<Page> => browser.ask("/api/queue/mail/pause", { method: "POST", headers });
const pass = (column: "last_seen_at" | "rotated_at" | "expires_at", interval: string): Promise<unknown> =>
  mill.db.query(new Sql([`update millrace.sessions set ${column} = ${column} - interval '${interval}'`], []));
const made = (role: "viewer" | "operator" | "admin", name: string = role) =>
  new Tokens(mill.db, []).create({ name, role });

describe("a token shown by a browser", () => {
  test("opens a session that may what the token may, under its name; the token itself is kept nowhere", async () => {
    const viewer = await made("viewer", "the viewer");
    const browser = await signedIn(viewer.token);
    expect((await browser.ask("/auth/session")).body).toMatchObject({
      kind: "token",
      name: "the viewer",
      email: null,
      role: "viewer",
      expires_at: expect.stringMatching(/Z$/),
      sign_in: false,
    });
    expect([await status(browser), (await pause(browser)).body["code"]]).toEqual([200, "FORBIDDEN"]);
    await pause(await signedIn());
    const rows = await listAudit(mill.db, {}, { limit: 5 });
    expect(rows.map(({ action, by, outcome, actorKind }) => [action, by, outcome, actorKind])).toEqual([
      ["POST /api/queue/:name/pause", "ci", "allow", "token"],
      ["pause", "ci", null, "token"],
      ["POST /auth/token", "ci", "allow", "token"],
      ["session.create", "ci", null, null],
      ["POST /api/queue/:name/pause", "the viewer", "deny", "token"],
    ]);
    const kept = await mill.db.query<{ text: string }>(sql`
      select row_to_json(s)::text as text from millrace.sessions s union all select row_to_json(a)::text from millrace.audit a`);
    const text = kept.map((row) => row.text).join();
    expect(text).toContain(viewer.id);
    for (const secret of [given.token, viewer.token.slice(-43), idOf(browser)]) expect(text).not.toContain(secret);
    await mill.resume("mail");
  });

  test("sets a cookie that scripts do not see, and over https only this very host over https", async () => {
    const plain = await signedIn();
    const sessions = { ...defaultSessions, origin: "https://millrace.example" };
    const safe = new Browser(apiOf({ sessions }), sessions.origin);
    await signedIn(given.token, safe);
    expect([...plain.set, ...safe.set].map((line) => line.replace(/=[\w-]{43}/, "=x"))).toEqual([
      "millrace_session=x; Path=/; HttpOnly; SameSite=Lax",
      "__Host-millrace_session=x; Path=/; HttpOnly; Secure; SameSite=Lax",
    ]);
  });

  test("that is wrong opens none; guessing is stopped after ten tries, by header and by page together, and is on record", async () => {
    const browser = browserOf();
    const wrong = async (): Promise<Page> => show(browser, "mr_nonsense");
    expect((await wrong()).body).toMatchObject({ code: "UNAUTHORIZED", detail: expect.stringContaining("unknown") });
    for (let n = 0; n < 9; n += 1) await browser.ask("/jobs", { headers: { authorization: "Bearer wrong" } });
    expect((await wrong()).status).toBe(429);
    expect(browser.cookies().size).toBe(0);
    const rows = await listAudit(mill.db, { action: "POST /auth/token" }, { limit: 2 });
    expect(rows.map(({ outcome, address }) => [outcome, address])).toEqual(Array(2).fill(["deny", "192.0.2.9"]));
    await show(browser, given.token); // the right one is let in all the same
    expect(browser.cookies().size).toBe(1);
  });

  test.each<[string, Record<string, string>, string]>([
    ["of another site", { "sec-fetch-site": "cross-site", ...json }, "CSRF_REFUSED"],
    ["of a neighbour", { "sec-fetch-site": "same-site", ...json }, "CSRF_REFUSED"],
    ["of another origin, in an old browser", { origin: "http://evil.example", ...json }, "CSRF_REFUSED"],
    ["of nobody knows where", json, "CSRF_REFUSED"],
    ["of a form", { ...ours, "content-type": "text/plain" }, "UNSUPPORTED_MEDIA_TYPE"],
  ])("by a page %s opens none", async (_, headers, code) => {
    const browser = browserOf();
    expect((await show(browser, given.token, headers)).body["code"]).toBe(code);
    expect(browser.cookies().size).toBe(0);
  });

  test("by our page in an old browser opens one, wherever it found us", async () => {
    expect((await show(browserOf(), given.token, { origin: here, ...json })).status).toBe(204);
  });
});

describe("its session", () => {
  test("ends with the token: revoked, expired, gone from the environment, or another one under the same name", async () => {
    const revoked = await made("viewer");
    const api = apiOf();
    const browser = await signedIn(revoked.token, new Browser(api, here));
    expect(await status(browser)).toBe(200);
    const admin = await made("admin");
    await browser.ask(`/api/tokens/${revoked.id}`, {
      method: "DELETE",
      headers: { authorization: `Bearer ${admin.token}` },
    });
    expect(await status(browser)).toBe(401);

    const expired = await made("viewer");
    const late = await signedIn(expired.token);
    await mill.db.query(sql`update millrace.api_tokens set expires_at = now() where id = ${expired.id}`);
    expect(await status(holding(idOf(late)))).toBe(401);

    const id = idOf(await signedIn());
    expect(await status(holding(id))).toBe(200);
    expect(await status(holding(id, { givenTokens: [] }))).toBe(401);
    expect(await status(holding(id, { givenTokens: [{ ...given, token: "another-of-the-environment" }] }))).toBe(401);
    const others = [
      { token: "x".repeat(20), role: "admin", name: "first" },
      { ...given, role: "viewer" },
    ] as const;
    const lowered = holding(id, { givenTokens: others });
    expect((await lowered.ask("/auth/session")).body).toMatchObject({ name: "ci", role: "viewer" });
  });

  test("ends unused after half an hour, and after twelve hours however much it is used", async () => {
    const browser = await signedIn();
    await pass("last_seen_at", "29 minutes");
    expect(await status(browser)).toBe(200);
    await pass("last_seen_at", "31 minutes");
    expect(await status(browser)).toBe(401);
    const other = await signedIn();
    await pass("expires_at", "11 hours 59 minutes");
    expect(await status(other)).toBe(200);
    await pass("expires_at", "1 minute");
    expect(await status(other)).toBe(401);
    const short = await signedIn(given.token, browserOf({ sessions: { ...defaultSessions, idleMs: 60_000 } }));
    await pass("last_seen_at", "61 seconds");
    expect(await status(short)).toBe(401);
  });

  test("gets another id with each sign-in and in use; the one before lets nobody in", async () => {
    const browser = await signedIn();
    const first = idOf(browser);
    await signedIn(given.token, browser);
    expect([idOf(browser) === first, await status(holding(first))]).toEqual([false, 401]);
    const second = idOf(browser);
    await pass("rotated_at", "16 minutes");
    expect(await status(browser)).toBe(200);
    expect(idOf(browser)).not.toBe(second);
    await pass("rotated_at", "31 seconds");
    expect([await status(holding(second)), await status(browser)]).toEqual([401, 200]);
  });

  test("changes nothing for pages of other sites", async () => {
    const browser = await signedIn();
    for (const headers of [
      { "sec-fetch-site": "cross-site", "x-millrace-csrf": "1" },
      ours,
      { "x-millrace-csrf": "1" },
    ])
      expect((await pause(browser, headers)).body["code"]).toBe("CSRF_REFUSED");
    const put = (headers: Record<string, string>): Promise<Page> =>
      browser.ask("/admin/queues/api/queues/mail/pause", { method: "PUT", headers });
    expect((await put({ "sec-fetch-site": "cross-site" })).body["code"]).toBe("CSRF_REFUSED");
    expect(await mill.stats("mail")).toMatchObject([{ paused: false }]);
    expect((await put(ours)).status).toBe(200);
    const [row] = await mill.db.query(sql`select paused_by as by from millrace.queues where name = 'mail'`);
    expect(row).toEqual({ by: "ci" });
    await mill.resume("mail");
  });

  test("is listed for its holder and for admins, and is ended by signing out or by an admin", async () => {
    const [one, two] = [await signedIn(), await signedIn()];
    const admin = await signedIn((await made("admin", "boss")).token);
    const listed = async (browser: Browser) =>
      (await browser.ask("/api/sessions")).body["items"] as { id: string; name: string; role: string }[];
    expect((await listed(one)).map(({ name }) => name)).toEqual(["ci", "ci"]);
    expect((await listed(admin)).map(({ name, role }) => `${name} ${role}`)).toEqual([
      "boss admin",
      "ci operator",
      "ci operator",
    ]);
    const out = await one.ask("/auth/logout", { method: "POST", headers: { ...ours, "x-millrace-csrf": "1" } });
    expect([out.status, one.cookies().size, await status(two)]).toEqual([204, 0, 200]);
    const [left] = await listed(two);
    await admin.ask(`/api/sessions/${left?.id ?? ""}`, { method: "DELETE", headers: ours });
    expect(await status(two)).toBe(401);
  });

  test("goes by its token's role where OPS_ADMIN_EMAILS keeps people out", async () => {
    const browser = await signedIn(
      given.token,
      browserOf({ sessions: { ...defaultSessions, admins: new Set(["ada@example.org"]) } }),
    );
    expect((await browser.ask("/api/ops/queues")).status).toBe(200);
  });
});

describe("who opens something without a session", () => {
  const html = { accept: "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8" };
  test("is asked for a token on a page, which brings everything along; programs get a problem", async () => {
    const browser = browserOf();
    for (const path of ["/", "/jobs?queue=mail", "/admin/queues"]) {
      const { status: code, headers, body } = await browser.ask(path, { headers: html });
      expect([code, headers.get("content-type")]).toEqual([401, "text/html; charset=utf-8"]);
      expect(headers.get("cache-control")).toBe("no-store");
      expect(headers.get("www-authenticate")).toContain("Bearer");
      expect(headers.get("content-security-policy")).toMatch(/^default-src 'none'.*frame-ancestors 'none'$/);
      expect(body["text"]).toMatch(/Sign in with a token/);
      expect(body["text"]).not.toMatch(/<link|<img|\bsrc=|@import|url\(/);
    }
    const programs: Record<string, string>[] = [
      {},
      { accept: "*/*" },
      { accept: "application/json, text/html;q=0.5" },
      { accept: "text/html;q=0" },
    ];
    for (const headers of programs) {
      const answer = await browser.ask("/jobs", { headers });
      expect([answer.status, answer.body["code"]]).toEqual([401, "UNAUTHORIZED"]);
    }
    const change = await browser.ask("/api/queue/mail/pause", { method: "POST", headers: html });
    expect([change.status, change.body["code"]]).toEqual([401, "UNAUTHORIZED"]);
  });

  test("with a wrong token in a header is told so, and not asked to sign in instead", async () => {
    const wrong = await browserOf().ask("/jobs", { headers: { ...html, authorization: "Bearer <i>wrong" } });
    expect([wrong.status, wrong.body["text"]]).toEqual([401, expect.stringContaining("unknown, revoked or expired")]);
    expect(wrong.body["text"]).not.toContain("<form");
  });
});
