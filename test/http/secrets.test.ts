/** Secrets planted wherever a caller or an operator can put one: none comes out again, in an answer, the log, the audit or the metrics. */
import { beforeAll, expect, test } from "vitest";
import { z } from "zod";
import { type Millrace, defineApp, millrace, task } from "millrace";
import { Sessions } from "../../src/access/sessions.ts";
import type { SignInSettings } from "../../src/access/sign-in.ts";
import { Tokens } from "../../src/access/tokens.ts";
import { sql } from "../../src/db/sql.ts";
import { useDatabase } from "../support/engine.ts";
import { callerOf, createApi, recorder } from "./caller.ts";

const planted = "hunter2-swordfish-opensesame";
const envToken = `env-${planted}-1`;
const origin = "http://localhost:3003";
const signIn: SignInSettings = {
  issuer: "http://127.0.0.1:1", // nobody there, so that it fails with the secret in hand
  clientId: "millrace",
  clientSecret: `client-${planted}`,
  origin,
  roleClaim: undefined,
  defaultRole: "viewer",
  admins: new Set(),
  idleMs: 1_800_000,
  absoluteMs: 43_200_000,
};
const ada = { issuer: signIn.issuer, sub: "ada-1", email: "ada@example.org", emailVerified: true, name: "Ada" };

const file = useDatabase();
let mill: Millrace;
let made: string;
let session: string;
const log = recorder();
let call: ReturnType<typeof callerOf>;
const answers: string[] = [];
beforeAll(async () => {
  const strict = task({ name: "strict", input: z.object({ n: z.number().max(7) }), run: () => undefined });
  mill = await file.open([task({ name: "plain", run: () => undefined }), strict], { log });
  made = (await new Tokens(mill.db, []).create({ name: "made", role: "admin" })).token;
  session = await new Sessions(mill.db, new Tokens(mill.db, []), signIn).open(ada, "admin", undefined);
  const givenTokens = [{ token: envToken, role: "admin", name: "env" }] as const;
  const asked = callerOf(createApi(mill, { log, givenTokens, trustMachine: false, signIn }));
  call = async (path, options) => {
    const answer = await asked<never>(path, options);
    answers.push(JSON.stringify([answer.body, [...answer.headers]]));
    return answer;
  };
  return () => mill.close();
});

/** Everything that must be nowhere. */
const hidden = () => [planted, btoa(planted), envToken, made, made.slice(-43), session];
const hiddenIn = (text: string): string[] => hidden().filter((one) => text.includes(one));
/** As JSON, errors with all that they carry. */
const written = (value: unknown): string =>
  JSON.stringify(value, (_key, inner: unknown) =>
    inner instanceof Error
      ? Object.fromEntries(Reflect.ownKeys(inner).map((name) => [name, Reflect.get(inner, name)]))
      : inner,
  );

const known = { "x-api-key": envToken };
test.each<[string, number, string, () => Parameters<typeof call>[1]]>([
  ["a right token", 200, "/api/tokens", () => ({ headers: { authorization: `Bearer ${envToken}` } })],
  ["a wrong token", 401, "/jobs", () => ({ headers: { authorization: `Bearer ${planted}` } })],
  ["a token in another scheme", 401, "/jobs", () => ({ headers: { authorization: `Basic ${btoa(planted)}` } })],
  ["an API key", 401, "/jobs", () => ({ headers: { "x-api-key": planted } })],
  ["a token in the address", 401, `/jobs?token=${planted}`, () => ({})],
  ["a token in the address of a caller who may", 400, `/jobs?token=${planted}`, () => ({ headers: known })],
  ["a cookie that is none of ours", 401, "/jobs", () => ({ headers: { cookie: `millrace_session=${planted}` } })],
  ["a cookie like ours", 401, "/jobs", () => ({ headers: { cookie: `millrace_session=${planted.padEnd(43, "x")}` } })],
  ["a live session", 200, "/api/sessions", () => ({ headers: { cookie: `millrace_session=${session}` } })],
  [
    "a live session that says who it is",
    200,
    "/auth/session",
    () => ({ headers: { cookie: `millrace_session=${session}` } }),
  ],
  [
    "a live session that steers",
    200,
    "/api/queue/pause-all",
    () => ({ json: {}, headers: { cookie: `millrace_session=${session}`, origin } }),
  ],
  [
    "a body that is no JSON",
    400,
    "/jobs",
    () => ({ method: "POST", headers: { ...known, "content-type": "application/json" }, body: `{"${planted}` }),
  ],
  ["a body of a refused caller", 401, "/jobs", () => ({ json: { task: "plain", input: planted } })],
  [
    "a body of another type",
    415,
    "/jobs",
    () => ({ method: "POST", headers: { ...known, "content-type": "text/plain" }, body: planted }),
  ],
  [
    "an input that its task refuses",
    422,
    "/jobs",
    () => ({ headers: known, json: { task: "strict", input: { n: planted } } }),
  ],
  [
    "an input that cannot be stored",
    422,
    "/jobs",
    () => ({ headers: known, json: { task: "plain", input: `${planted}\0` } }),
  ],
  [
    "a key of a request",
    200,
    "/api/queue/resume-all",
    () => ({ method: "POST", headers: { ...known, "idempotency-key": planted } }),
  ],
  [
    "a key of a job",
    200,
    "/jobs",
    () => ({ json: { task: "plain" }, headers: { ...known, "idempotency-key": planted } }),
  ],
  ["a sign-in that came back", 400, `/auth/callback?code=${planted}&state=${planted}`, () => ({})],
  ["the client's secret, with a provider that is away", 503, "/auth/login", () => ({})],
])("%s", async (_, status, path, options) => {
  expect((await call(path, options())).status).toBe(status);
  expect(hiddenIn(answers.at(-1) as string)).toEqual([]);
});

test("the password of a database that is away", async () => {
  const databaseUrl = `postgres://millrace:${planted}@127.0.0.1:1/millrace?connect_timeout=1`;
  const failed = await millrace(defineApp({ tasks: [] }), { databaseUrl, log }).catch((error: unknown) => error);
  expect(failed).toMatchObject({ code: "DATABASE_UNREACHABLE" });
  log.error({ err: failed }, "planted.failed");
  expect(hiddenIn(written(failed) + String((failed as Error).stack))).toEqual([]);
});

test("nothing of them is in the log, the audit or the metrics, and nothing of a token that was made", async () => {
  await call("/api/tokens", { headers: { authorization: `Bearer ${made}` } });
  await call("/api/queue/pause-all", { method: "POST", headers: { authorization: `Bearer ${made}` } });
  const metrics = await call("/metrics/prom", { headers: known });
  const audit = await mill.db.query(sql`select * from millrace.audit`);
  const tokens = await mill.db.query(sql`select id, name, role, encode(hash, 'hex') from millrace.api_tokens`);
  const sessions = await mill.db.query(sql`select s::text from millrace.sessions s`);
  const kept = await mill.db.query(sql`select k::text from millrace.kept_answers k`);
  expect(log.lines.length).toBeGreaterThan(20);
  expect([audit.length > 10, sessions.length, kept.length]).toEqual([true, 1, 1]);
  expect(hiddenIn(written([log.lines, audit, tokens, sessions, kept, metrics.body]))).toEqual([]);
  expect(hiddenIn(answers.join())).toEqual([]);
});

test("one that came out would be noticed, also deep in an error", () => {
  for (const secret of hidden()) {
    const cause = Object.assign(new Error("No."), { sent: { headers: [secret] } });
    expect(hiddenIn(written([{ fields: { err: new Error("It failed.", { cause }) } }]))).toContain(secret);
  }
});
