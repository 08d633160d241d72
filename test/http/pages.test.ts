/** What people see who come with a browser: the way in and back, sessions by token, sign-out, and every refusal, in a real one. */
import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { type Millrace, task } from "millrace";
import type { Browser, Page } from "puppeteer-core";
import { afterAll, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { Tokens } from "../../src/access/tokens.ts";
import type { SignInSettings } from "../../src/access/sign-in.ts";
import { defaultSessions } from "../../src/access/sessions.ts";
import { listAudit } from "../../src/audit/audit-store.ts";
import { createApi } from "../../src/http/api.ts";
import { type Serving, serve } from "../../src/http/server.ts";
import { chromium, confirm, openChromium, picture, press, see } from "../support/chromium.ts";
import { useDatabase } from "../support/engine.ts";
import { type RealProvider, client, realProvider } from "../support/identity-providers.ts";
import { recorder } from "./caller.ts";

const file = useDatabase();
const ada = { sub: "ada-1", email: "ada@example.org", email_verified: true, name: "Ada <b>Lovelace</b>" };

let mill: Millrace;
let tokens: Tokens;
let browser: Browser;
let page: Page;
const complaints: string[] = [];

beforeAll(async () => {
  if (chromium === undefined) return;
  mill = await file.open([task({ name: "x", queue: "idle", run: () => undefined })]);
  await mill.enqueue("x", 1, { queue: "idle" });
  tokens = new Tokens(mill.db, []);
  browser = await openChromium(chromium);
});
beforeEach(async (context) => {
  if (chromium === undefined) return context.skip("there is no chromium on the PATH");
  page = await (await browser.createBrowserContext()).newPage();
  await page.setViewport({ width: 900, height: 600 });
  complaints.length = 0;
  page.on("console", (line) => line.type() === "error" && complaints.push(line.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
});
afterAll(async () => {
  await browser?.close();
  await mill?.close();
});

/** Where nobody listens: the identity provider has to know the address before the server has it. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  await new Promise((closed) => server.close(closed));
  return port;
}

interface Place extends AsyncDisposable {
  readonly origin: string;
  readonly provider: RealProvider;
}

async function served(options: Partial<Parameters<typeof createApi>[1]>, port = 0): Promise<Serving> {
  const log = recorder();
  const api = createApi(mill, { log, trustMachine: false, ...options });
  return serve(api, { host: "127.0.0.1", ports: [port], log, guarded: true });
}

async function withProvider(more: Partial<SignInSettings> = {}): Promise<Place> {
  const port = await freePort();
  const origin = `http://localhost:${port}`;
  const provider = await realProvider([`${origin}/auth/callback`]);
  provider.person = ada;
  const signIn: SignInSettings = {
    ...defaultSessions,
    issuer: provider.issuer,
    ...client,
    origin,
    roleClaim: undefined,
    defaultRole: "operator",
    ...more,
  };
  const serving = await served({ signIn }, port);
  return {
    origin,
    provider,
    async [Symbol.asyncDispose]() {
      await serving.close(0);
      await provider[Symbol.asyncDispose]();
    },
  };
}

async function open(address: string, name: string): Promise<number | undefined> {
  const answer = await page.goto(address, { waitUntil: "networkidle0" });
  await picture(page, name);
  return answer?.status();
}

test("with a token: Bull Board asks for it on the spot, works, names its holder, and is left by its menu", async () => {
  const serving = await served({});
  const [origin = ""] = serving.urls;
  try {
    const { token, id } = await tokens.create({ name: "ci of <ann>", role: "operator" });
    const board = `${origin}/admin/queues/queue/idle?status=waiting`;
    expect(await open(board, "token")).toBe(401);
    await page.type("#token", "mr_nonsense");
    await press(page, "button", "Sign in");
    await see(page, /This token is unknown, revoked or expired/);
    await picture(page, "token-wrong");
    await page.type("#token", ` ${token}`);
    await press(page, "button", "Sign in");
    await see(page, /idle/i);
    expect(page.url()).toBe(board);
    await page.waitForNetworkIdle();

    await press(page, "main button[aria-haspopup=menu]", "");
    await press(page, "[role=menuitem]", "Pause");
    await confirm(page);
    await vi.waitFor(async () => expect(await mill.stats("idle")).toMatchObject([{ paused: true }]), 10_000);
    await vi.waitFor(async () => {
      const rows = await listAudit(mill.db, { by: "ci of <ann>" }, { limit: 10 });
      expect(rows.map(({ action }) => action)).toEqual(
        expect.arrayContaining(["POST /auth/token", "session.create", "pause", "PUT /admin/queues/*"]),
      );
    }, 10_000);

    expect(await open(`${origin}/`, "home")).toBe(200);
    await see(page, /ci of <ann>, operator\. Sign out/);
    await open(board, "board");
    await press(page, "header [aria-haspopup=menu]", "");
    await picture(page, "board-menu");
    await press(page, "[role=menuitem], [role=menuitem] a", "Sign out");
    await see(page, /You are ci of <ann>, with the role operator/);
    await picture(page, "sign-out");
    await press(page, "button", "Sign out");
    await see(page, /You are not signed in/);
    await picture(page, "signed-out");
    expect(await open(board, "token-again")).toBe(401);

    await page.type("#token", token);
    await press(page, "button", "Sign in");
    await see(page, /idle/i);
    await tokens.revoke(id);
    await vi.waitFor(async () => expect((await page.goto(`${origin}/`))?.status()).toBe(401), 10_000);
  } finally {
    await serving.close(0);
  }
  // Chromium says of each 401 that it was one.
  expect(complaints.filter((line) => !line.includes("status of 401"))).toEqual([]);
});

test("with an identity provider: whatever one opens leads there and back, once", async () => {
  await using place = await withProvider();
  expect(await open(`${place.origin}/admin/queues/queue/idle?status=failed`, "signed-in")).toBe(200);
  expect(page.url()).toBe(`${place.origin}/admin/queues/queue/idle?status=failed`);
  await see(page, /idle/i);
  await open(`${place.origin}/auth/logout`, "sign-out-person");
  await see(page, /You are Ada <b>Lovelace<\/b>, with the role operator/);
  await press(page, "button", "Sign out");
  await see(page, /You are not signed in/);
  await picture(page, "signed-out-person");
  expect(complaints).toEqual([]);
});

test("found by another name of the host, it is begun where browsers should find it", async () => {
  await using place = await withProvider();
  await open(`${place.origin.replace("localhost", "127.0.0.1")}/jobs`, "other-host");
  expect(page.url()).toBe(`${place.origin}/jobs`);
});

test("every refusal of a sign-in is a page that says what to do", async () => {
  await using place = await withProvider();
  const refused = async (address: string, name: string, code: string, status: number): Promise<void> => {
    expect([name, await open(address, `refused-${name}`)]).toEqual([name, status]);
    await see(page, new RegExp(`${code}, status ${status}\\nRequest [\\w-]{10}`));
    const links = await page.$$eval("a", (all) => all.map((one) => one.getAttribute("href")));
    expect(links).toEqual(expect.arrayContaining(["/auth/token"]));
  };
  const login = `${place.origin}/auth/login?return_to=/jobs`;
  place.provider.person = undefined;
  await refused(login, "cancelled", "SIGN_IN_REFUSED", 403);
  await press(page, "a", "Try again");
  await see(page, /did not sign you in: access_denied/);
  const forged = `${place.origin}/auth/callback?code=1&state=%3Cscript%3Ealert(1)%3C%2Fscript%3E&error=%3Cb%3E`;
  await refused(forged, "state", "SIGN_IN_INVALID", 400);
  expect(await page.content()).not.toMatch(/alert\(1\)/);
  await refused(`${place.origin}/auth/login?return_to=//evil.example`, "return", "BAD_REQUEST", 400);

  await using strict = await withProvider({ defaultRole: null, admins: new Set(["grace@example.org"]) });
  await refused(`${strict.origin}/jobs`, "no-role", "SIGN_IN_REFUSED", 403);
  await see(page, /known to the identity provider, and have no role here/);

  await using gone = await withProvider({ issuer: "http://localhost:9" });
  await refused(`${gone.origin}/`, "away", "SIGN_IN_UNAVAILABLE", 503);

  const without = await served({});
  const [origin = ""] = without.urls;
  await refused(`${origin}/auth/login`, "none", "SIGN_IN_NOT_CONFIGURED", 404);
  await without.close(0);
  expect(complaints.filter((line) => !line.includes("the server responded with a status of"))).toEqual([]);
});
