import { createHash } from "node:crypto";
import { expect, test } from "vitest";
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

test("every link of the page leads somewhere", async () => {
  await using mill = await file.open();
  const call = callerOf(createApi(mill, { log: recorder() }));
  const { body } = await call<string>("/");
  const links = [...body.matchAll(/href="([^"]+)"/g)].map(([, href = ""]) => href);

  expect(links.length).toBeGreaterThan(3);
  // 503: the disk of this machine may be too full for /health/test.
  for (const link of links) expect([200, 503]).toContain((await call(link)).status);
});
