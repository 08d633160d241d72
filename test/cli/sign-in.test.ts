/** `millrace up` where people sign in: what it takes, what it starts without, and that it listens for others then. */
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { type Place, cliPlace } from "./process.ts";

// Each test starts processes that open a database, on a machine that may be busy.
vi.setConfig({ testTimeout: 120_000 });

let place: Place;
beforeAll(async () => {
  place = await cliPlace();
  await place.write("app.ts", `import { defineApp } from "millrace"; export default defineApp({ tasks: [] });`);
});
afterAll(() => place[Symbol.asyncDispose]());

// No token of the place: who may come in is what is tested.
const everywhere = { MILLRACE_HOST: "0.0.0.0", MILLRACE_PORTS: "0", API_TOKENS: "" };
const provider = { OIDC_ISSUER: "http://localhost:1", OIDC_CLIENT_ID: "millrace" };

test("others are let near once people can sign in, though the provider is away, and nobody comes in without", async () => {
  const nobody = await place.with(everywhere).run("up");
  expect([nobody.code, nobody.stderr]).toEqual([2, expect.stringMatching(/^millrace: Nobody has credentials/)]);

  const secret = { OIDC_CLIENT_SECRET: "a secret of this test", MILLRACE_PUBLIC_URL: "https://millrace.example" };
  await using up = place.with({ ...everywhere, ...provider, ...secret }).start("up", "--json");
  const port = /"http:\/\/0\.0\.0\.0:(\d+)"/.exec(await up.says(/millrace is up/))?.[1];
  await up.says(/sign_in\.unavailable/);
  const ask = async (path: string): Promise<unknown[]> => {
    const answer = await fetch(`http://127.0.0.1:${port}${path}`, { headers: { cookie: "__Host-millrace_session=x" } });
    return [answer.status, ((await answer.json()) as { code?: string }).code];
  };
  expect(await ask("/auth/login")).toEqual([503, "SIGN_IN_UNAVAILABLE"]);
  expect(await ask("/api/queue/stats")).toEqual([401, "UNAUTHORIZED"]);
  expect(await ask("/health")).toEqual([200, undefined]);
  up.kill("SIGTERM");
  const { code, stdout } = await up.ended;
  expect(code).toBe(0);
  expect(stdout).not.toContain("a secret of this test");
});

test("half of it ends up with code 2 and the variable that is missing", async () => {
  const { code, stderr } = await place.with(provider).run("up");
  expect([code, stderr]).toEqual([
    2,
    expect.stringMatching(/^millrace: MILLRACE_PUBLIC_URL is not set: .*\n {2}CONFIG_INVALID/),
  ]);
});
