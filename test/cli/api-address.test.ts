import { expect, test } from "vitest";
import { readConfig } from "../../src/app/config.ts";
import { type ApiAddress, apiAddress, trustsMachine } from "../../src/cli/api-address.ts";

const address = (env: Record<string, string>) => apiAddress(readConfig(env));

test("without MILLRACE_ADMIN_ADDR the API listens where MILLRACE_HOST and MILLRACE_PORTS say", () => {
  expect(address({})).toEqual({ host: "127.0.0.1", ports: [3003] });
  expect(address({ MILLRACE_HOST: "::1", MILLRACE_PORTS: "3001,3003" })).toEqual({ host: "::1", ports: [3001, 3003] });
});

test.for<[string, { host: string; ports: number[] } | undefined]>([
  ["off", undefined],
  ["0", undefined],
  ["False", undefined],
  ["none", undefined],
  ["localhost:4000", { host: "localhost", ports: [4000] }],
  [":4000", { host: "127.0.0.1", ports: [4000] }],
  ["[::1]:4000", { host: "[::1]", ports: [4000] }],
])("MILLRACE_ADMIN_ADDR=%s", ([text, expected]) => {
  expect(address({ PGFLOW_ADMIN_ADDR: text })).toEqual(expected);
});

test.for(["localhost", "localhost:99999", "::1:4000", "on"])("MILLRACE_ADMIN_ADDR=%s is refused", (text) => {
  expect(() => address({ MILLRACE_ADMIN_ADDR: text })).toThrow("it must be host:port, such as 127.0.0.1:3003, or off");
});

const trusts = (env: Record<string, string>): boolean => {
  const config = readConfig(env);
  return trustsMachine(config, apiAddress(config) as ApiAddress);
};

test("programs on this machine are trusted while nobody else is to come", () => {
  expect(trusts({})).toBe(true);
  for (const host of ["::1", "[::1]", "localhost", "127.0.0.9"]) expect(trusts({ MILLRACE_HOST: host })).toBe(true);
  expect(trusts({ API_TOKENS: "ci:operator:0123456789abcdef" })).toBe(true);
});

test.for([
  { DATABASE_URL: "postgres://localhost/app" },
  { MILLRACE_PUBLIC_URL: "https://millrace.example.com" },
  { OIDC_ISSUER: "https://id.example.com" },
  { MILLRACE_TRUST_PROXY: "127.0.0.1" },
  { MILLRACE_HOST: "0.0.0.0" },
  { MILLRACE_HOST: "::" },
  { MILLRACE_ADMIN_ADDR: "0.0.0.0:3003" },
])("with %j they are not: strangers may come by a proxy on it", (env) => {
  expect(trusts(env as Record<string, string>)).toBe(false);
});
