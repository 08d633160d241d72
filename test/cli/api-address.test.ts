import { expect, test } from "vitest";
import { readConfig } from "../../src/app/config.ts";
import { apiAddress } from "../../src/cli/api-address.ts";

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
