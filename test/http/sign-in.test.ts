/** People sign in at an identity provider: the whole way, and every way that does not lead in. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { Millrace } from "millrace";
import type { SignInSettings } from "../../src/access/sign-in.ts";
import { createApi } from "../../src/http/api.ts";
import { sql } from "../../src/db/sql.ts";
import { Browser, type Page } from "../support/browser.ts";
import { useDatabase } from "../support/engine.ts";
import { type Liar, type RealProvider, client, liar, realProvider } from "../support/identity-providers.ts";
import { createApi as contracted, recorder } from "./caller.ts";

const file = useDatabase();
const here = "http://localhost:3003";
const there = "https://millrace.example";
const ada = { sub: "ada-1", email: "Ada@Example.org", email_verified: true, name: "Ada Lovelace" };

let mill: Millrace;
let provider: RealProvider;
beforeAll(async () => {
  mill = await file.open([]);
  provider = await realProvider([`${here}/auth/callback`, `${there}/auth/callback`]);
});
afterAll(async () => {
  await provider[Symbol.asyncDispose]();
  await mill.close();
});
beforeEach(async () => {
  provider.person = ada;
  await mill.db.query(sql`delete from millrace.sessions`);
});

const settings = (more: Partial<SignInSettings> = {}): SignInSettings => ({
  issuer: provider.issuer,
  ...client,
  origin: here,
  roleClaim: undefined,
  defaultRole: "viewer",
  admins: new Set(),
  idleMs: 1_800_000,
  absoluteMs: 43_200_000,
  ...more,
});
function browserOf(more: Partial<SignInSettings> = {}, log = recorder()): Browser {
  const signIn = settings(more);
  return new Browser(createApi(mill, { log, trustMachine: false, signIn }), signIn.origin);
}
/** All that is kept, as text. */
async function everything(): Promise<string> {
  const rows = await mill.db.query<{ text: string }>(sql`
    select row_to_json(s)::text as text from millrace.sessions s union all select row_to_json(s)::text from millrace.sign_ins s
    union all select row_to_json(a)::text from millrace.audit a`);
  return rows.map(({ text }) => text).join();
}
const me = (browser: Browser): Promise<Page> => browser.ask("/auth/session");

describe("signing in", () => {
  test("leads to the provider, back, and to where one wanted to go; then one is known", async () => {
    const browser = browserOf();
    expect((await browser.ask("/api/queue/stats")).status).toBe(401);
    const leaving = await browser.ask("/auth/login?return_to=/jobs%3Fqueue%3Dmail%23top");
    const sent = new URL(leaving.headers.get("location") ?? "");
    expect(sent.origin).toBe(provider.issuer);
    expect(Object.fromEntries(sent.searchParams)).toMatchObject({
      response_type: "code",
      client_id: "millrace",
      redirect_uri: `${here}/auth/callback`,
      scope: "openid email profile",
      code_challenge_method: "S256",
      code_challenge: expect.stringMatching(/^[\w-]{43}$/),
      state: expect.stringMatching(/^[\w-]{43}$/),
      nonce: expect.stringMatching(/^[\w-]{43}$/),
    });
    const back = await browser.visit(sent, /\/jobs/);
    expect(back.url.href).toBe(`${here}/jobs?queue=mail#top`);
    expect(back.headers.get("cache-control")).toBe("no-store");
    expect(back.headers.get("referrer-policy")).toBe("no-referrer");
    expect((await browser.ask("/api/queue/stats")).status).toBe(200);
    expect((await me(browser)).body).toEqual({
      kind: "user",
      name: "Ada Lovelace",
      email: "Ada@Example.org",
      email_verified: true,
      role: "viewer",
      expires_at: expect.stringMatching(/^\d{4}-/),
      sign_in: true,
    });
    expect([...browser.cookies().keys()]).toEqual(["millrace_session"]);
  });

  test("sets cookies that scripts do not see, and over https only this very host over https", async () => {
    const plain = browserOf();
    await plain.visit("/auth/login", /3003\/$/);
    const safe = browserOf({ origin: there });
    await safe.visit("/auth/login", /example\/$/);
    const lines = [...plain.set, ...safe.set].map((line) => line.replace(/=[\w-]{43}/, "=x"));
    expect(lines).toEqual([
      "millrace_sign_in=x; Max-Age=600; Path=/; HttpOnly; SameSite=Lax",
      "millrace_sign_in=; Max-Age=0; Path=/; HttpOnly; SameSite=Lax",
      "millrace_session=x; Path=/; HttpOnly; SameSite=Lax",
      "__Host-millrace_sign_in=x; Max-Age=600; Path=/; HttpOnly; Secure; SameSite=Lax",
      "__Host-millrace_sign_in=; Max-Age=0; Path=/; HttpOnly; Secure; SameSite=Lax",
      "__Host-millrace_session=x; Path=/; HttpOnly; Secure; SameSite=Lax",
    ]);
    safe.cookies().set("millrace_session", safe.cookies().get("__Host-millrace_session") ?? "");
    safe.cookies().delete("__Host-millrace_session");
    expect((await safe.ask("/api/queue/stats")).status).toBe(401);
  });

  test("keeps no token, and of ids and secrets only hashes", async () => {
    const browser = browserOf();
    const { url } = await browser.visit("/auth/login", /auth\/callback/);
    const code = url.searchParams.get("code") ?? "";
    const before = await everything();
    const secret = browser.cookies().get("millrace_sign_in") ?? "";
    await browser.ask(url);
    const session = browser.cookies().get("millrace_session") ?? "";
    const kept = before + (await everything());
    expect(kept).toContain("ada-1");
    for (const word of [code, secret, session, url.searchParams.get("state") ?? "", "eyJ"]) {
      expect(word).not.toBe("");
      expect(kept).not.toContain(word);
    }
  });

  test("is on record, with who and in which role", async () => {
    await browserOf({ defaultRole: "operator" }).visit("/auth/login", /3003\/$/);
    const [row] = await mill.db.query(
      sql`select by, action, subject, details from millrace.audit where action = 'session.create' order by id desc limit 1`,
    );
    expect(row).toEqual({
      by: "Ada@Example.org",
      action: "session.create",
      subject: expect.stringMatching(/^session:[\da-f-]{36}$/),
      details: { issuer: provider.issuer, sub: "ada-1", role: "operator" },
    });
  });

  test.each([
    "//evil.example",
    "/\\evil.example",
    "https://evil.example/",
    "javascript:alert(1)",
    "/\t/evil.example",
    "\\/evil.example",
    "jobs",
    "/auth/login",
    "/x/../auth/logout",
    `/${"x".repeat(2_001)}`,
  ])("with return_to=%j is refused", async (path) => {
    const { status, body, headers } = await browserOf().ask(`/auth/login?return_to=${encodeURIComponent(path)}`);
    expect([status, body["code"], headers.get("location")]).toEqual([400, "BAD_REQUEST", null]);
  });

  test("goes to a path of ours even where that looks like a host", async () => {
    const back = await browserOf().visit(`/auth/login?return_to=${encodeURIComponent("/..//evil.example/")}`, /evil/);
    expect(back.headers.get("location")).toBe(`${here}//evil.example/`);
  });
});

describe("opening something without a session, where people sign in", () => {
  const html = { accept: "text/html,application/xhtml+xml,*/*;q=0.8" };
  const opened = (): Browser =>
    new Browser(contracted(mill, { log: recorder(), trustMachine: false, signIn: settings() }), here);
  test.each([
    ["/", "/"],
    ["/admin/queues/queue/mail?status=failed", "/admin/queues/queue/mail?status=failed"],
    ["/jobs?queue=a%26b&limit=5", "/jobs?queue=a%26b&limit=5"],
    ["/%2F%2Fevil.example", "/%2F%2Fevil.example"],
    ["/%5Cevil.example", "/%5Cevil.example"],
    ["/jobs?next=https://evil.example/", "/jobs?next=https://evil.example/"],
    [`${here}//evil.example/x`, null],
    [`${here}/\\evil.example/x`, null],
    [`${here}/${"x".repeat(2_001)}`, null],
  ])("%s leads to the sign-in, and from there nowhere but here", async (address, returnTo) => {
    const { status, headers } = await opened().ask(address, { headers: html });
    const sent = new URL(headers.get("location") ?? "");
    expect([status, sent.origin, sent.pathname]).toEqual([303, here, "/auth/login"]);
    expect(headers.get("cache-control")).toBe("no-store");
    expect(sent.searchParams.get("return_to")).toBe(returnTo);
    const browser = browserOf();
    const back = await browser.visit(sent, /3003\/(?!auth)/);
    expect([back.status, back.headers.get("location")]).toEqual([302, new URL(returnTo ?? "/", here).href]);
    expect((await me(browser)).body["kind"]).toBe("user");
  });

  test("is on record as the refusal it is", async () => {
    await opened().ask("/jobs", { headers: html });
    const [row] = await mill.db.query(
      sql`select action, outcome, details from millrace.audit order by id desc limit 1`,
    );
    expect(row).toEqual({ action: "GET /jobs", outcome: "deny", details: { status: 303, code: "UNAUTHORIZED" } });
  });

  test("is so also when the session is over; not for programs, nor for who shows a token", async () => {
    const browser = opened();
    browser.cookies().set("millrace_session", "x".repeat(43));
    expect((await browser.ask("/", { headers: html })).status).toBe(303);
    expect((await browser.ask("/", { headers: { accept: "application/json" } })).body["code"]).toBe("UNAUTHORIZED");
    expect((await browser.ask("/api/queue/pause-all", { method: "POST", headers: html })).status).toBe(403);
    const wrong = await opened().ask("/", { headers: { ...html, authorization: "Bearer wrong" } });
    expect([wrong.status, wrong.headers.get("content-type")]).toEqual([401, "text/html; charset=utf-8"]);
  });

  test("and refused there is a page, of the same status, with nothing in it that others wrote", async () => {
    const browser = opened();
    const query = "code=1&state=%3Cscript%3Ealert(1)%3C/script%3E&error_description=%3Cb%3Ex";
    const headers = { ...html, "x-request-id": "<i>r" };
    const { status, headers: sent, body } = await browser.ask(`/auth/callback?${query}`, { headers });
    expect([status, sent.get("content-type")]).toEqual([400, "text/html; charset=utf-8"]);
    expect(sent.get("content-security-policy")).toMatch(
      /^default-src 'none'; style-src 'sha256-[^;]+; base-uri 'none'/,
    );
    expect(body["text"]).toContain("SIGN_IN_INVALID");
    expect(body["text"]).toContain('href="/auth/login"');
    expect(body["text"]).not.toMatch(/alert|<b>|<i>|<script/);
    const [row] = await mill.db.query(
      sql`select action, outcome, details from millrace.audit order by id desc limit 1`,
    );
    expect(row).toEqual({
      action: "GET /auth/callback",
      outcome: "deny",
      details: { status: 400, code: "SIGN_IN_INVALID" },
    });
  });
});

describe("the role", () => {
  test.each<[string, object, Partial<SignInSettings>, string]>([
    ["is the default without a claim", {}, { defaultRole: "operator" }, "operator"],
    ["is the claim's", { groups: "operator" }, { roleClaim: "groups" }, "operator"],
    ["is the highest of several", { groups: ["x", "admin", "viewer"] }, { roleClaim: "groups" }, "admin"],
    [
      "is found inside a claim",
      { realm_access: { roles: ["operator"] } },
      { roleClaim: "realm_access.roles" },
      "operator",
    ],
    ["is the default when the claim names none", { groups: ["Admins"] }, { roleClaim: "groups" }, "viewer"],
    ["is admin for a listed e-mail", {}, { admins: new Set(["ada@example.org"]) }, "admin"],
    ["of a listed one needs no default", {}, { admins: new Set(["ada@example.org"]), defaultRole: null }, "admin"],
    [
      "is not raised by an e-mail that is not verified",
      { email_verified: false },
      { admins: new Set(["ada@example.org"]) },
      "viewer",
    ],
    [
      "is not raised by one that only looks alike",
      { email: "ada@example.or\u{13d}" },
      { admins: new Set(["ada@example.orl"]) },
      "viewer",
    ],
  ])("%s", async (_, claims, more, role) => {
    provider.person = { ...ada, ...claims };
    const browser = browserOf(more);
    await browser.visit("/auth/login", /3003\/$/);
    expect((await me(browser)).body["role"]).toBe(role);
    expect((await browser.ask("/api/tokens")).status).toBe(role === "admin" ? 200 : 403);
  });

  test("none: one stays out", async () => {
    const browser = browserOf({ defaultRole: null, roleClaim: "groups", admins: new Set(["grace@example.org"]) });
    const { status, body } = await browser.visit("/auth/login");
    expect([status, body["code"]]).toEqual([403, "SIGN_IN_REFUSED"]);
    expect(browser.cookies().has("millrace_session")).toBe(false);
    expect((await me(browser)).body["kind"]).toBeNull();
  });

  test("of who is taken from the list goes with the next start", async () => {
    const admins = new Set(["ada@example.org"]);
    const first = browserOf({ admins, defaultRole: null });
    await first.visit("/auth/login", /3003\/$/);
    const later = browserOf({ defaultRole: null });
    later.jars.set(here, first.cookies());
    expect((await later.ask("/api/queue/stats")).status).toBe(401);
    const restored = browserOf({ admins });
    restored.jars.set(here, first.cookies());
    expect((await restored.ask("/api/tokens")).status).toBe(200);
  });

  test("OPS_ADMIN_EMAILS keeps other people from /api/ops/queues, whatever their role", async () => {
    const more = { defaultRole: "admin", admins: new Set(["grace@example.org"]) } as const;
    const browser = browserOf(more);
    expect((await browser.ask("/api/ops/queues")).status).toBe(401);
    await browser.visit("/auth/login", /3003\/$/);
    const { status, body } = await browser.ask("/api/ops/queues");
    expect([status, body["detail"]]).toEqual([403, "Admin access required for operations diagnostics"]);
    expect((await browser.ask("/api/queue/stats")).status).toBe(200);
    for (const allowed of [browserOf({ admins: new Set(["ada@example.org"]) }), browserOf()]) {
      await allowed.visit("/auth/login", /3003\/$/);
      expect((await allowed.ask("/api/ops/queues")).status).not.toBe(403);
    }
  });
});

describe("does not lead in:", () => {
  const callback = async (browser: Browser): Promise<URL> => (await browser.visit("/auth/login", /auth\/callback/)).url;
  const refused = async (browser: Browser, url: URL, code: string): Promise<Page> => {
    browser.cookies().delete("millrace_session");
    const page = await browser.ask(url);
    expect([page.body["code"], browser.cookies().has("millrace_session")]).toEqual([code, false]);
    return page;
  };

  test("an answer that was used before", async () => {
    const browser = browserOf();
    const url = await callback(browser);
    const cookies = new Map(browser.cookies());
    expect((await browser.ask(url)).status).toBe(302);
    await refused(browser, url, "SIGN_IN_INVALID");
    for (const [name, value] of cookies) browser.cookies().set(name, value);
    await refused(browser, url, "SIGN_IN_INVALID");
  });

  test("an answer that is used twice at once: one of both", async () => {
    const browser = browserOf();
    const url = await callback(browser);
    const pages = await Promise.all([browser.ask(url), browser.ask(url)]);
    expect(pages.map(({ status }) => status).toSorted()).toEqual([302, 400]);
  });

  test("another browser's answer, and it uses nothing up", async () => {
    const [mine, theirs] = [browserOf(), browserOf()];
    const [url, foreign] = [await callback(mine), await callback(theirs)];
    await refused(mine, foreign, "SIGN_IN_INVALID");
    expect((await mine.ask(url)).status).toBe(302);
    expect((await theirs.ask(foreign)).status).toBe(302);
    await refused(new Browser(createApi(mill, { log: recorder(), signIn: settings() }), here), url, "SIGN_IN_INVALID");
  });

  test("an answer without, with an empty, or with another state", async () => {
    const browser = browserOf();
    const url = await callback(browser);
    for (const state of [undefined, "", "x".repeat(43)]) {
      const wrong = new URL(url);
      if (state === undefined) wrong.searchParams.delete("state");
      else wrong.searchParams.set("state", state);
      expect((await refused(browser, wrong, "SIGN_IN_INVALID")).status).toBe(400);
    }
  });

  test("an answer after ten minutes", async () => {
    const browser = browserOf();
    const url = await callback(browser);
    await mill.db.query(sql`update millrace.sign_ins set expires_at = expires_at - interval '10 minutes'`);
    await refused(browser, url, "SIGN_IN_INVALID");
  });

  test("a code that is not the provider's", async () => {
    const browser = browserOf();
    const url = await callback(browser);
    url.searchParams.set("code", "made-up");
    await refused(browser, url, "SIGN_IN_INVALID");
  });

  test("cancelling at the provider", async () => {
    provider.person = undefined;
    const { status, body } = await browserOf().visit("/auth/login");
    expect([status, body["code"], body["detail"]]).toEqual([
      403,
      "SIGN_IN_REFUSED",
      "The identity provider did not sign you in: access_denied.",
    ]);
  });

  test("a client that the provider does not take", async () => {
    const log = recorder();
    const browser = browserOf({ clientSecret: "wrong" }, log);
    const url = await callback(browser);
    expect((await refused(browser, url, "SIGN_IN_UNAVAILABLE")).status).toBe(503);
    expect(JSON.stringify(log.lines)).not.toContain(url.searchParams.get("code"));
  });

  test("a server without a provider, which says so", async () => {
    const browser = new Browser(createApi(mill, { log: recorder(), trustMachine: false }), here);
    for (const path of ["/auth/login", "/auth/callback?code=1&state=2"])
      expect((await browser.ask(path)).body["code"]).toBe("SIGN_IN_NOT_CONFIGURED");
    expect((await me(browser)).body).toMatchObject({ kind: null, sign_in: false });
  });
});

describe("a provider that lies:", () => {
  let false_: Liar;
  beforeAll(async () => {
    false_ = await liar();
    return () => false_[Symbol.asyncDispose]();
  });
  beforeEach(() => {
    Object.assign(false_, { claims: { sub: "ada-1" }, signing: "RS256", refuse: undefined });
  });
  /** Begins, and comes back as if from there. */
  async function come(browser = browserOf({ issuer: false_.issuer })): Promise<Page> {
    const sent = new URL((await browser.ask("/auth/login")).headers.get("location") ?? "");
    false_.nonce = sent.searchParams.get("nonce") ?? "";
    return browser.ask(`/auth/callback?code=any&state=${sent.searchParams.get("state")}`);
  }

  test("one that does not, for comparison, leads in", async () => {
    const browser = browserOf({ issuer: false_.issuer });
    expect((await come(browser)).status).toBe(302);
    expect((await me(browser)).body).toMatchObject({ kind: "user", name: null, email: null, email_verified: false });
    const { items } = (await browser.ask("/api/sessions")).body as { items: object[] };
    expect(items).toMatchObject([{ issuer: false_.issuer, sub: "ada-1", current: true }]);
  });

  const seconds = (more: number): number => Math.floor(Date.now() / 1_000) + more;
  test.each<[string, object]>([
    ["a token for somebody else", { claims: { sub: "ada-1", aud: "another" } }],
    ["a token for several, and not by us", { claims: { sub: "ada-1", aud: ["millrace", "another"], azp: "another" } }],
    ["a token of another issuer", { claims: { sub: "ada-1", iss: "https://evil.example" } }],
    ["a token that ran out", { claims: { sub: "ada-1", exp: seconds(-120) } }],
    ["a token without an end", { claims: { sub: "ada-1", exp: undefined } }],
    ["a token of another sign-in", { claims: { sub: "ada-1", nonce: "another" } }],
    ["a token without a nonce", { claims: { sub: "ada-1", nonce: undefined } }],
    ["nobody", { claims: {} }],
    ["somebody who is no text", { claims: { sub: 7 } }],
    ["somebody with a NUL", { claims: { sub: "a\0b" } }],
    ["somebody of 256 characters", { claims: { sub: "x".repeat(256) } }],
    ["alg none", { signing: "none" }],
    ["a signature with our own secret's kind", { signing: "HS256" }],
    ["a signature by an unknown key", { signing: "other" }],
    ["no token at all", { refuse: { status: 200, body: { access_token: "a", token_type: "Bearer" } } }],
    ["what is no JSON", { refuse: { status: 200, body: "oops" } }],
    ["a refusal of the code", { refuse: { status: 400, body: { error: "invalid_grant" } } }],
  ])("%s", async (_, lie) => {
    Object.assign(false_, lie);
    const browser = browserOf({ issuer: false_.issuer });
    const { status, body } = await come(browser);
    expect([status, body["code"]]).toEqual([400, "SIGN_IN_INVALID"]);
    expect(Object.keys(body).toSorted()).toEqual(["action", "code", "detail", "instance", "status", "title", "type"]);
    expect(JSON.stringify(body)).not.toMatch(/\balg\b|audience|nonce|claim|node_modules|\.[jt]s\b/);
    expect(browser.cookies().has("millrace_session")).toBe(false);
  });

  test.each<[string, { status: number; body: object | string }]>([
    ["is broken", { status: 500, body: "<h1>oops</h1>" }],
    ["does not know us", { status: 401, body: { error: "invalid_client" } }],
  ])("one that %s", async (_, refuse) => {
    false_.refuse = refuse;
    const { status, body, headers } = await come();
    expect([status, body["code"]]).toEqual([503, "SIGN_IN_UNAVAILABLE"]);
    expect(headers.get("retry-after")).not.toBeNull();
  });

  test("names are kept as plain text of some length, and addresses only when they are some", async () => {
    false_.claims = {
      sub: "ada-1",
      name: `A\0\n\ud800${"\u{1f600}".repeat(300)}`,
      email: "a\0@b",
      email_verified: true,
    };
    const browser = browserOf({ issuer: false_.issuer });
    expect((await come(browser)).status).toBe(302);
    const { body } = await me(browser);
    expect(body["name"]).toBe(`A\ufffd\ufffd\ufffd${"\u{1f600}".repeat(196)}`);
    expect(body["email"]).toBeNull();
  });

  test("whoever has the same address there is somebody else", async () => {
    const [one, other] = [browserOf({ issuer: false_.issuer }), browserOf({ issuer: false_.issuer })];
    false_.claims = { sub: "first", email: "ada@example.org", email_verified: true };
    await come(one);
    false_.claims = { sub: "second", email: "ada@example.org", email_verified: true };
    await come(other);
    const { items } = (await other.ask("/api/sessions")).body as { items: object[] };
    expect(items).toMatchObject([{ sub: "second" }]);
  });
});

test("a provider that is away stops nothing but signing in, is asked rarely, and is found again", async () => {
  await using away = await liar();
  await away.stop();
  const log = recorder();
  const token = "0123456789abcdef";
  const api = createApi(mill, {
    log,
    trustMachine: false,
    signIn: settings({ issuer: away.issuer }),
    givenTokens: [{ token, role: "viewer", name: "ci" }],
  });
  const browser = new Browser(api, here);
  const { status, body, headers } = await browser.ask("/auth/login");
  expect([status, body["code"]]).toEqual([503, "SIGN_IN_UNAVAILABLE"]);
  expect(headers.get("retry-after")).not.toBeNull();
  expect(log.lines.filter(({ message }) => message === "sign_in.unavailable")).toMatchObject([
    { level: "warn", fields: { issuer: away.issuer } },
  ]);
  expect((await browser.ask("/api/queue/stats", { headers: { authorization: `Bearer ${token}` } })).status).toBe(200);
  expect((await me(browser)).body).toMatchObject({ kind: null, sign_in: true });
  await away.start();
  await expect.poll(async () => (await browser.ask("/auth/login")).status, { timeout: 10_000 }).toBe(302);
  expect(away.asked["/.well-known/openid-configuration"]).toBe(1);
});
