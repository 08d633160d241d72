import { createHash } from "node:crypto";
import { expect, onTestFinished, test, vi } from "vitest";
import { useDatabase } from "../support/engine.ts";
import { callerOf, createApi, recorder } from "./caller.ts";

const file = useDatabase();

test("the page at / brings everything with it and lets nothing else in", async () => {
  await using mill = await file.open();
  const call = callerOf(createApi(mill, { log: recorder() }));
  const { status, headers, body } = await call<string>("/");

  expect(status).toBe(200);
  expect(headers.get("content-type")).toMatch(/^text\/html/);
  expect(body).toContain("The console comes later");
  expect(body).not.toMatch(/<link|<img|\bsrc=|@import|url\(/);
  const policy = headers.get("content-security-policy") ?? "";
  expect(policy).toContain("default-src 'none'");
  for (const tag of ["style", "script"]) {
    const text = new RegExp(`<${tag}>([^]*?)</${tag}>`).exec(body)?.[1] ?? "";
    expect(policy).toContain(`${tag}-src 'sha256-${createHash("sha256").update(text).digest("base64")}'`);
  }
});

test("the document at /openapi.json is made once, and not sent again to whoever has it", async () => {
  await using mill = await file.open();
  const call = callerOf(createApi(mill, { log: recorder() }));
  const from = "203.0.113.7";
  const { headers } = await call("/openapi.json", { from });
  const etag = headers.get("etag") ?? "";
  expect(etag).toMatch(/^"[\w-]{43}"$/);
  expect(headers.get("content-type")).toBe("application/json");

  const stringify = vi.spyOn(JSON, "stringify");
  onTestFinished(() => stringify.mockRestore());
  for (const held of [etag, `W/${etag}`, `"other", ${etag}`, "*"]) {
    const again = await call("/openapi.json", { from, headers: { "if-none-match": held } });
    expect([again.status, again.body, again.headers.get("etag")]).toEqual([304, "", etag]);
  }
  const whole = await call("/openapi.json", { from, headers: { "if-none-match": '"another"' } });
  expect([whole.status, whole.headers.get("etag")]).toEqual([200, etag]);
  expect(stringify.mock.calls.filter(([value]) => (value as { openapi?: string } | null)?.openapi)).toEqual([]);
});

test("every link of the page leads somewhere", async () => {
  await using mill = await file.open();
  const call = callerOf(createApi(mill, { log: recorder() }));
  const { body } = await call<string>("/");
  const links = [...body.matchAll(/href="([^"]+)"/g)].map(([, href = ""]) => href);

  expect(links.length).toBeGreaterThan(3);
  // 503: the disk of this machine may be too full for /health/test.
  for (const link of links) expect([200, 503]).toContain((await call(link)).status);
});
