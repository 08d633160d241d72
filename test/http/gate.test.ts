/** Who is let in, as whom, and how often. */
import { beforeAll, describe, expect, test } from "vitest";
import type { Millrace } from "millrace";
import { readAddresses } from "../../src/access/addresses.ts";
import { defaultRateLimits } from "../../src/access/rate-limits.ts";
import { Tokens } from "../../src/access/tokens.ts";
import { createApi } from "../../src/http/api.ts";
import { useDatabase } from "../support/engine.ts";
import { type Caller, callerOf, recorder } from "./caller.ts";
import type { Document } from "./contract.ts";

const file = useDatabase();
let mill: Millrace;
const token = { viewer: "", operator: "", admin: "" };
beforeAll(async () => {
  mill = await file.open([]);
  const tokens = new Tokens(mill.db, []);
  for (const role of ["viewer", "operator", "admin"] as const)
    token[role] = (await tokens.create({ name: `the ${role}`, role })).token;
  return () => mill.close();
});
const bearer = (text: string): { headers: Record<string, string>; from: string } => ({
  headers: { authorization: `Bearer ${text}` },
  from: "192.0.2.9",
});
const apiOf = (options: Partial<Parameters<typeof createApi>[1]> = {}): Caller =>
  callerOf(createApi(mill, { log: recorder(), trustMachine: false, ...options }));

describe("a token", () => {
  test("lets in from anywhere, under its name, by either header", async () => {
    const call = apiOf();
    expect((await call("/api/queue/stats", bearer(token.viewer))).status).toBe(200);
    expect((await call("/api/queue/stats", { headers: { "x-api-key": token.viewer } })).status).toBe(200);
    const { body } = await call("/api/tokens", { ...bearer(token.admin), json: { name: "made" } });
    expect(body).toMatchObject({ name: "made", role: "viewer", created_by: "the admin" });
    const listed = await call<{ items: object[] }>("/api/tokens", bearer(token.admin));
    expect(JSON.stringify(listed.body)).not.toContain((body["token"] as string).slice(-43));
    expect(
      (await call(`/api/tokens/${body["id"] as string}`, { ...bearer(token.admin), method: "DELETE" })).status,
    ).toBe(204);
    expect((await call("/api/queue/stats", bearer(body["token"] as string))).status).toBe(401);
  });

  test("that is wrong is refused, also on a machine that would be trusted without", async () => {
    const call = apiOf({ trustMachine: true });
    for (const headers of [
      { authorization: "Bearer nonsense" },
      { authorization: "Basic YTpi" },
      { "x-api-key": "x" },
    ]) {
      const { status, body } = await call("/api/queue/stats", { headers });
      expect([status, body["code"]]).toEqual([401, "UNAUTHORIZED"]);
    }
    expect((await call("/api/queue/stats")).status).toBe(200);
  });

  test("in the address is none", async () => {
    expect((await apiOf()(`/api/queue/stats?token=${token.admin}`)).status).toBe(401);
  });

  test("is asked for on this machine too, unless that is trusted", async () => {
    const { status, body } = await apiOf()("/api/queue/stats");
    expect([status, body["detail"]]).toEqual([401, "This API asks for a token."]);
  });
});

describe("a role", () => {
  test("is what each endpoint says that it takes: those below are refused, and nobody else", async () => {
    const call = apiOf();
    const { paths } = (await call<Document>("/openapi.json")).body;
    const endpoints = Object.entries(paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, one]) => ({ method: method.toUpperCase(), path, needed: one["x-role"] })),
    );
    const ladder = ["public", "viewer", "operator", "admin"];
    expect(endpoints.length).toBeGreaterThan(80);
    expect(new Set(endpoints.map(({ needed }) => needed))).toEqual(new Set(ladder));

    for (const role of ["nobody", "viewer", "operator", "admin"] as const) {
      const refused: string[] = [];
      const expected: string[] = [];
      for (const { method, path, needed } of endpoints) {
        // A parameter that nobody knows: whoever may call it gets no further than that, and nothing is done.
        const to = `${path.replaceAll(/\{\w+\}/g, "x")}?nonsense=1`;
        const from = role === "nobody" ? { from: "192.0.2.9" } : bearer(token[role]);
        const { status, body } = await call(to, { method, ...from });
        if (status === 401 || status === 403) refused.push(`${method} ${path} ${status} ${body["code"] as string}`);
        const reached = role === "nobody" ? 0 : ladder.indexOf(role);
        const refusal = role === "nobody" ? "401 UNAUTHORIZED" : "403 FORBIDDEN";
        if (reached < ladder.indexOf(needed)) expected.push(`${method} ${path} ${refusal}`);
      }
      expect([role, ...refused]).toEqual([role, ...expected]);
    }
  });

  test("of a trusted machine is operator", async () => {
    const call = apiOf({ trustMachine: true });
    expect((await call("/api/queue/pause-all", { method: "POST" })).status).toBe(200);
    expect((await call("/api/queue/resume-all", { method: "POST" })).status).toBe(200);
    expect((await call("/api/tokens")).status).toBe(403);
  });
});

describe("guessing", () => {
  // Tokens have 256 random bits. To keep out right ones, too, protected nothing, and let anybody lock out all who share an address.
  test("is stopped after ten tries from one address, for wrong tokens of that address alone", async () => {
    const call = apiOf();
    const tries = [];
    for (let n = 0; n < 12; n += 1) tries.push(await call("/jobs", bearer(`mr_guess_${n}`)));
    expect(tries.map(({ status }) => status)).toEqual([...Array.from({ length: 10 }, () => 401), 429, 429]);
    expect(Number(tries[11]?.headers.get("retry-after"))).toBeGreaterThan(0);
    expect((await call("/jobs", bearer(token.admin))).status).toBe(200);
    expect((await call("/jobs", bearer("mr_guess_13"))).status).toBe(429);
    expect((await call("/jobs", { ...bearer("mr_guess_14"), from: "192.0.2.10" })).status).toBe(401);
    expect((await call("/health", { from: "192.0.2.9" })).status).toBe(200);
  });

  test("is not what another scheme than Bearer does", async () => {
    const call = apiOf();
    const basic = { headers: { authorization: "Basic YTpi" }, from: "192.0.2.9" };
    for (let n = 0; n < 12; n += 1)
      expect(await call("/jobs", basic)).toMatchObject({
        status: 401,
        body: { detail: expect.stringContaining("Bearer <token>") },
      });
    expect((await call("/jobs", bearer("mr_guess"))).status).toBe(401);
  });

  test("from version 6 is counted by the network of 64 bits", async () => {
    const call = apiOf();
    const from = (address: string) => ({ ...bearer("mr_guess"), from: address });
    for (let n = 0; n < 11; n += 1) await call("/jobs", from(`2001:db8:0:7::${n}`));
    expect((await call("/jobs", from("2001:db8::7:1:2:3:4"))).status).toBe(429);
    expect((await call("/jobs", from("2001:db8:0:8::1"))).status).toBe(401);
  });

  test("behind a trusted proxy is counted by the address that the proxy tells, and by the socket otherwise", async () => {
    const call = apiOf({ proxies: readAddresses("192.0.2.0/24") });
    const from = (forwarded: string): Parameters<Caller>[1] => ({
      headers: { authorization: "Bearer wrong", "x-forwarded-for": forwarded },
      from: "192.0.2.9",
    });
    for (let n = 0; n < 11; n += 1) await call("/jobs", from(`198.51.100.${n}, 203.0.113.7, 192.0.2.8`));
    expect((await call("/jobs", from("203.0.113.7"))).status).toBe(429);
    expect((await call("/jobs", from("203.0.113.8"))).status).toBe(401);

    const direct = apiOf();
    for (let n = 0; n < 11; n += 1) await direct("/jobs", from(`198.51.100.${n}`));
    expect((await direct("/jobs", from("198.51.100.99"))).status).toBe(429);
  });
});

test("who asks too often waits; it is told how much is left, and others are let in", async () => {
  const call = apiOf({ rateLimits: { ...defaultRateLimits, api: 3, ops: 0 } });
  const first = await call("/api/queue/stats", bearer(token.viewer));
  expect(first.headers.get("ratelimit-policy")).toBe('"api";q=3;w=60');
  expect(first.headers.get("ratelimit")).toMatch(/^"api";r=2;t=\d+$/);
  for (let n = 0; n < 2; n += 1) await call("/api/queue/stats", bearer(token.viewer));
  const refused = await call("/api/queue/stats", bearer(token.viewer));
  expect([refused.status, refused.body["code"]]).toEqual([429, "TOO_MANY_REQUESTS"]);
  expect(Number(refused.headers.get("retry-after"))).toBeGreaterThan(0);
  expect((await call("/api/queue/stats", bearer(token.operator))).status).toBe(200);
  expect(
    (await call("/api/queue/resume-all", { method: "POST", ...bearer(token.operator) })).headers.get("ratelimit"),
  ).toBeNull();
});

test("a caller's share is its own, whatever others are called", async () => {
  const givenTokens = [{ token: "0123456789abcdef", role: "viewer", name: "192.0.2.9" }] as const;
  const call = apiOf({ givenTokens, rateLimits: { ...defaultRateLimits, api: 1 } });
  const session = () => call("/auth/session", { from: "192.0.2.9" }); // counted by address
  expect([(await session()).status, (await session()).status]).toEqual([200, 429]);
  expect((await call("/jobs", bearer("0123456789abcdef"))).status).toBe(200);
});

test("what is for anybody is limited by address, and health probes are not", async () => {
  const call = apiOf({ rateLimits: { ...defaultRateLimits, public: 2 } });
  const ask = async (path: string, from: string) => (await call(path, { from })).status;
  expect([await ask("/openapi.json", "192.0.2.1"), await ask("/openapi.json", "192.0.2.1")]).toEqual([200, 200]);
  expect(await ask("/openapi.json", "192.0.2.1")).toBe(429);
  expect(await ask("/openapi.json", "192.0.2.2")).toBe(200);
  for (const path of ["/livez", "/health", "/api/health"])
    for (let n = 0; n < 4; n += 1) expect(await ask(path, "192.0.2.1")).toBe(200);
  for (let n = 0; n < 4; n += 1) expect([200, 503]).toContain(await ask("/readyz", "192.0.2.1"));
});
