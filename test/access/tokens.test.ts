/** Tokens: what is kept of them, and whom they let in. */
import { createHash } from "node:crypto";
import { beforeAll, describe, expect, test } from "vitest";
import type { Millrace } from "millrace";
import { readRateLimits } from "../../src/access/rate-limits.ts";
import { Tokens, readGivenTokens } from "../../src/access/tokens.ts";
import { sql } from "../../src/db/sql.ts";
import { useDatabase } from "../support/engine.ts";

const file = useDatabase();
let mill: Millrace;
let tokens: Tokens;
beforeAll(async () => {
  mill = await file.open([]);
  tokens = new Tokens(mill.db, []);
  return () => mill.close();
});

test("a token lets its holder in, and nothing of it but a hash is kept", async () => {
  const { token, id } = await tokens.create({ name: "ada", role: "operator", by: "root" });
  expect(token).toMatch(/^mr_[0-9a-f]{12}_[\w-]{43}$/);
  expect(await tokens.callerOf(token)).toEqual({ kind: "token", name: "ada", role: "operator" });
  const [row] = await mill.db.query<{ row: string }>(
    sql`select row_to_json(t)::text as row from millrace.api_tokens t where id = ${id}`,
  );
  const secret = token.slice(-43);
  expect(row?.row).not.toContain(secret);
  expect(row?.row).toContain(createHash("sha256").update(secret).digest("hex"));
  expect(await tokens.list()).toMatchObject([
    { id, name: "ada", role: "operator", createdBy: "root", revokedAt: null },
  ]);
  expect(JSON.stringify(await tokens.list())).not.toContain(secret);
  expect((await tokens.list())[0]?.lastUsedAt).toBeInstanceOf(Date);
});

test("a wrong, a shortened, another's and a foreign token let nobody in", async () => {
  const { token } = await tokens.create({ name: "one" });
  const { token: other } = await tokens.create({ name: "two" });
  const mixed = `${token.slice(0, 16)}${other.slice(16)}`;
  for (const wrong of [`${token}x`, token.slice(0, -1), mixed, "", "mr_", "mr_000000000000_", token.toUpperCase()])
    expect(await tokens.callerOf(wrong)).toBeUndefined();
});

test("a revoked token is refused at once here, and after five seconds at most elsewhere; one that ran out as well", async () => {
  const elsewhere = new Tokens(mill.db, []);
  const { token, id } = await tokens.create({ name: "gone" });
  await tokens.revoke(id, { by: "ada" });
  expect(await tokens.callerOf(token)).toBeUndefined();
  expect(await elsewhere.callerOf(token)).toBeUndefined();
  await expect(tokens.revoke(id)).rejects.toMatchObject({ code: "TOKEN_NOT_FOUND" });
  const { token: short } = await tokens.create({ name: "short", expiresIn: "1ms" });
  await mill.db.query(
    sql`update millrace.api_tokens set expires_at = now() - interval '1 second' where name = 'short'`,
  );
  expect(await tokens.callerOf(short)).toBeUndefined();
  const [made, gone] = await mill.db.query<{ by: string; action: string }>(
    sql`select by, action from millrace.audit where subject = ${`token:${id}`} order by id`,
  );
  expect([made, gone]).toEqual([
    { by: null, action: "token.create" },
    { by: "ada", action: "token.revoke" },
  ]);
});

test("what is no name, role or time is refused", async () => {
  await expect(tokens.create({ name: "" })).rejects.toMatchObject({ code: "OPTION_INVALID" });
  await expect(tokens.create({ name: "a", role: "root" as "admin" })).rejects.toThrow(/viewer, operator, admin/);
  await expect(tokens.create({ name: "a", expiresIn: "soon" as "1s" })).rejects.toMatchObject({
    code: "OPTION_INVALID",
  });
});

describe("API_TOKENS", () => {
  test.each([
    ["ci:operator:0123456789abcdef", [{ name: "ci", role: "operator", token: "0123456789abcdef" }]],
    [
      "a:viewer|admin:0123456789abcdef, b:viewer:fedcba:9876543210",
      [
        { name: "a", role: "admin", token: "0123456789abcdef" },
        { name: "b", role: "viewer", token: "fedcba:9876543210" },
      ],
    ],
    [
      '[{"token":"0123456789abcdef","roles":["viewer","operator"],"name":"grafana"},{"token":"fedcba9876543210","role":"viewer"}]',
      [
        { name: "grafana", role: "operator", token: "0123456789abcdef" },
        { name: "viewer", role: "viewer", token: "fedcba9876543210" },
      ],
    ],
  ])("%s", async (text, expected) => {
    const given = readGivenTokens(text) ?? [];
    expect(given).toEqual(expected);
    const both = new Tokens(mill.db, given);
    for (const { token, name, role } of given)
      expect(await both.callerOf(token)).toEqual({ kind: "token", name, role });
    expect(await both.any()).toBe(true);
  });

  test.each([
    "short:viewer:abc",
    "a:root:0123456789abcdef",
    "0123456789abcdef",
    "[",
    '[{"token":7,"role":"admin"}]',
    "[7]",
    "",
  ])("%j is not allowed", (text) => {
    expect(readGivenTokens(text)).toBeUndefined();
  });
});

test("limits by class: those that are not named stay", () => {
  expect(readRateLimits("api=10, ops=0")).toEqual({ api: 10, ops: 0, enqueue: 0, stream: 600, public: 120 });
  for (const wrong of ["", "api", "api=-1", "all=5", "api=5;ops=1", "__proto__=1"])
    expect(readRateLimits(wrong)).toBeUndefined();
});
