/** Secrets planted wherever a caller or an operator can put one: none comes out again, in an answer, the log, the audit or the metrics. */
import { beforeAll, expect, test } from "vitest";
import { type Millrace, task } from "millrace";
import { Tokens } from "../../src/access/tokens.ts";
import { sql } from "../../src/db/sql.ts";
import { useDatabase } from "../support/engine.ts";
import { callerOf, createApi, recorder } from "./caller.ts";

const planted = "hunter2-swordfish-opensesame";
const envToken = `env-${planted}-1`;

const file = useDatabase();
let mill: Millrace;
let made: string;
const log = recorder();
let call: ReturnType<typeof callerOf>;
const answers: string[] = [];
beforeAll(async () => {
  mill = await file.open([task({ name: "plain", run: () => undefined })], { log });
  made = (await new Tokens(mill.db, []).create({ name: "made", role: "admin" })).token;
  const givenTokens = [{ token: envToken, role: "admin", name: "env" }] as const;
  const asked = callerOf(createApi(mill, { log, givenTokens, trustMachine: false }));
  call = async (path, options) => {
    const answer = await asked<never>(path, options);
    answers.push(JSON.stringify([answer.body, [...answer.headers]]));
    return answer;
  };
  return () => mill.close();
});

test.each<[string, string, Parameters<typeof call>[1]]>([
  ["a right token", "/api/tokens", { headers: { authorization: `Bearer ${envToken}` } }],
  ["a wrong token", "/jobs", { headers: { authorization: `Bearer ${planted}` } }],
  ["a token in another scheme", "/jobs", { headers: { authorization: `Basic ${btoa(planted)}` } }],
  ["an API key", "/jobs", { headers: { "x-api-key": planted } }],
  ["a token in the address", `/jobs?token=${planted}`, {}],
  ["a token in the address of a caller who may", `/jobs?token=${planted}`, { headers: { "x-api-key": envToken } }],
  ["a cookie", "/jobs", { headers: { cookie: `__Host-millrace_session=${planted}; millrace_session=${planted}` } }],
  [
    "a body that is no JSON",
    "/jobs",
    { method: "POST", headers: { "x-api-key": envToken, "content-type": "application/json" }, body: `{"${planted}` },
  ],
  ["a body of a refused caller", "/jobs", { method: "POST", json: { task: "plain", input: planted } }],
  [
    "a body of another type",
    "/jobs",
    { method: "POST", headers: { "x-api-key": envToken, "content-type": "text/plain" }, body: planted },
  ],
  ["a sign-in that came back", `/auth/callback?code=${planted}&state=${planted}`, {}],
])("%s", async (_, path, options) => {
  await call(path, options);
  expect(answers.at(-1)).not.toContain(btoa(planted));
  expect(answers.at(-1)).not.toContain(planted);
});

test("nothing of them is in the log, the audit or the metrics, and nothing of a token that was made", async () => {
  await call("/api/tokens", { headers: { authorization: `Bearer ${made}` } });
  await call("/api/queue/pause-all", { method: "POST", headers: { authorization: `Bearer ${made}` } });
  const metrics = await call("/metrics/prom", { headers: { "x-api-key": envToken } });
  const audit = await mill.db.query(sql`select * from millrace.audit`);
  const tokens = await mill.db.query(sql`select id, name, role, encode(hash, 'hex') from millrace.api_tokens`);
  const written = JSON.stringify([log.lines, audit, tokens, metrics.body], (_key, value: unknown) =>
    value instanceof Error
      ? Object.fromEntries(Reflect.ownKeys(value).map((name) => [name, Reflect.get(value, name)]))
      : value,
  );
  expect(log.lines.length).toBeGreaterThan(10);
  expect(audit.length).toBeGreaterThan(3);
  const secret = made.slice(-43);
  for (const hidden of [planted, btoa(planted), envToken, made, secret]) expect(written).not.toContain(hidden);
  expect(answers.join()).not.toContain(secret);
});
