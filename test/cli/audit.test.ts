/** `millrace audit`: what was done is listed, and whether the record of it is whole is an exit code. */
import { join } from "node:path";
import { PGlite } from "@electric-sql/pglite";
import pg from "pg";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { type Place, cliPlace } from "./process.ts";

// Each test starts processes that open a database, on a machine that may be busy.
vi.setConfig({ testTimeout: 120_000 });

let place: Place;
beforeAll(async () => {
  place = await cliPlace();
  await place.json("migrate");
});
afterAll(() => place[Symbol.asyncDispose]());

/** As somebody who may do everything, and does not want to be seen. */
async function tamper(statement: string): Promise<void> {
  const text = `set session_replication_role = replica; ${statement}`;
  const url = place.env["DATABASE_URL"];
  if (url === undefined) {
    const pglite = await PGlite.create(join(place.folder, ".millrace", "data"));
    await pglite.exec(text);
    return pglite.close();
  }
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  await client.query(text);
  await client.end();
}

test("lists what was done, newest first, by pages and by conditions, and verifies it", async () => {
  expect((await place.run("audit")).stdout).toBe("Nothing in the audit.");
  expect((await place.run("audit", "verify")).stdout).toBe("The audit is whole: no rows.");
  await place.json("token", "create", "deploys", "--by", "ada");

  const { code, stdout } = await place.run("audit");
  expect(code).toBe(0);
  expect(stdout).toMatch(
    /^id +at +by +action +subject +outcome +from +details\n2 .* program +POST \/api\/tokens +.* allow .*\n1 .* ada +token\.create +token:/,
  );
  expect(await place.json("audit", "--by", "ada", "--action", "token.create")).toMatchObject({
    items: [{ id: "1", action: "token.create" }],
    next: null,
  });
  expect(await place.json("audit", "--limit", "1")).toMatchObject({ items: [{ id: "2" }], next: "2" });
  expect(await place.json("audit", "--after", "2")).toMatchObject({ items: [{ id: "1" }] });
  expect(await place.json("audit", "--subject", "/api/tokens")).toMatchObject({ items: [{ id: "2" }] });

  const whole = await place.run("audit", "verify");
  expect(whole.stdout).toMatch(/^The audit is whole: 2 rows verified, up to row 2 with hash [0-9a-f]{64}\.$/);
  expect(whole.code).toBe(0);
});

test("says what is broken, with exit code 1", async () => {
  await tamper("update millrace.audit set by = 'eve' where id = 2");
  const broken = await place.run("audit", "verify");
  expect(broken.stdout).toBe(
    "The audit is broken (changed row): Row 2 is not what its hash was made of. 1 row before it verified.",
  );
  expect(broken.code).toBe(1);
});

test.each([
  [["audit", "verfy"], /--verb must be one of list, verify/],
  [["audit", "verify", "--by", "ada"], /--by is for the list/],
  [["audit", "--limit", "0"], /--limit/],
])("%j is exit code 2", async (args, message) => {
  const { code, stderr } = await place.run(...args);
  expect(stderr).toMatch(message);
  expect(code).toBe(2);
});
