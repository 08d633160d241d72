import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { defaultText, readConfig, unknownVariables, variables } from "../../src/app/config.ts";

describe("the environment", () => {
  test("without anything set gives the defaults", () => {
    expect(readConfig({})).toEqual(
      Object.fromEntries(Object.entries(variables).map(([key, { default: usual }]) => [key, usual])),
    );
    expect(readConfig({})).toMatchObject({
      schema: "millrace",
      poolSize: 10,
      migrate: true,
      ports: [3003],
      host: "127.0.0.1",
    });
  });

  test.each<[string, string, string, unknown]>([
    ["DATABASE_URL", "postgres://u:p@h/db", "databaseUrl", "postgres://u:p@h/db"],
    ["MILLRACE_POOLER", "yes", "pooler", true],
    ["MILLRACE_POOLER", "OFF", "pooler", false],
    ["MILLRACE_MIGRATE_ON_STARTUP", "0", "migrate", false],
    ["MILLRACE_SCHEMA", "My_Schema1", "schema", "My_Schema1"],
    ["MILLRACE_DB_MAX_CONNECTIONS", "500", "poolSize", 500],
    ["MILLRACE_DB_MAX_CONNECTIONS", " 2 ", "poolSize", 2],
    ["MILLRACE_PORTS", "3001, 3003,0", "ports", [3001, 3003, 0]],
    ["MILLRACE_QUEUE", " mail , ai-analysis", "queues", ["mail", "ai-analysis"]],
    ["WORKER_MAX_CONCURRENT_TASKS", "50", "concurrency", 50],
    ["MILLRACE_LEASE_SECONDS", "3600", "leaseSeconds", 3_600],
    ["MILLRACE_REAP_INTERVAL_MS", "250", "reapIntervalMs", 250],
    ["MILLRACE_MAX_PAYLOAD_BYTES", "1", "maxPayloadBytes", 1],
    ["MILLRACE_LOG_LEVEL", "silent", "logLevel", "silent"],
    ["DISK_HEALTH_THRESHOLD", "0.98", "diskThreshold", 0.98],
    ["DISK_HEALTH_THRESHOLD", "1", "diskThreshold", 1],
  ])("%s=%s is read", (name, text, key, value) => {
    expect(readConfig({ [name]: text })).toEqual({ ...readConfig({}), [key]: value });
  });

  test.each([
    ["MILLRACE_DB_MAX_CONNECTIONS", "1", "whole number 2 to 500"],
    ["MILLRACE_DB_MAX_CONNECTIONS", "501", "whole number 2 to 500"],
    ["MILLRACE_DB_MAX_CONNECTIONS", "10.5", "whole number 2 to 500"],
    ["MILLRACE_DB_MAX_CONNECTIONS", "-10", "whole number 2 to 500"],
    ["MILLRACE_DB_MAX_CONNECTIONS", "1e2", "whole number 2 to 500"],
    ["MILLRACE_DB_MAX_CONNECTIONS", "ten", "whole number 2 to 500"],
    ["MILLRACE_POOLER", "maybe", "1, true, yes, on or 0, false, no, off"],
    ["MILLRACE_SCHEMA", "my-schema", "identifier, 48 characters at most"],
    ["MILLRACE_SCHEMA", "x".repeat(49), "identifier, 48 characters at most"],
    ["MILLRACE_PORTS", "65536", "comma-separated ports, 0 to 65535"],
    ["MILLRACE_PORTS", "3001,,3003", "comma-separated ports, 0 to 65535"],
    ["PORT", "http", "comma-separated ports, 0 to 65535"],
    ["MILLRACE_QUEUE", "a,,b", "comma-separated list"],
    ["MILLRACE_QUEUE", " , ", "comma-separated list"],
    ["DATABASE_URL", "  ", "text"],
    ["MILLRACE_LOG_LEVEL", "verbose", "debug, info, warn, error or silent"],
    ["PGFLOW_LEASE_SECONDS", "0", "whole number 1 to 3600"],
    ["DISK_HEALTH_THRESHOLD", "0", "number above 0, 1 at most"],
    ["DISK_HEALTH_THRESHOLD", "98", "number above 0, 1 at most"],
    ["DISK_HEALTH_THRESHOLD", "98%", "number above 0, 1 at most"],
    ["DISK_HEALTH_THRESHOLD", "0x1", "number above 0, 1 at most"],
  ])("%s=%s stops with one sentence that says what is allowed", (name, text, allowed) => {
    expect(() => readConfig({ [name]: text })).toThrow(
      expect.objectContaining({
        code: "CONFIG_INVALID",
        message: `${name}=${text} is not allowed: it must be ${allowed}.`,
      }),
    );
  });

  test.each<[string, string[], string[]]>([
    [
      "10.0.0.0/8, 192.168.1.5 ,::1",
      ["10.9.9.9", "192.168.1.5", "::ffff:10.0.0.1", "::1"],
      ["192.168.1.6", "11.0.0.1"],
    ],
    ['["fd00::/8","127.0.0.1"]', ["fd12::1", "127.0.0.1"], ["fe80::1", "127.0.0.2"]],
  ])("HEALTH_ALLOWLIST=%s is a set of addresses", (text, within, without) => {
    const { healthAllowlist } = readConfig({ HEALTH_ALLOWLIST: text });
    expect(within.filter((address) => !healthAllowlist?.has(address))).toEqual([]);
    expect(without.filter((address) => healthAllowlist?.has(address))).toEqual([]);
  });

  test.each([
    ["10.0.0.0/8,queue.example,::1", ', because of "queue.example"'],
    ["10.0.0.0/33", ', because of "10.0.0.0/33"'],
    ["10.0.0.1,", ', because of ""'],
    ['["10.0.0.1","*"]', ', because of "*"'],
    ['["10.0.0.1"', ""],
    ["[1]", ""],
  ])("HEALTH_ALLOWLIST=%s stops, and names what is wrong", (text, why) => {
    const allowed = "addresses and CIDRs, separated by commas or as a JSON array";
    expect(() => readConfig({ HEALTH_ALLOWLIST: text })).toThrow(
      expect.objectContaining({
        code: "CONFIG_INVALID",
        message: `HEALTH_ALLOWLIST=${text} is not allowed${why}: it must be ${allowed}.`,
      }),
    );
  });

  test("counts the first name that is set, and an empty one as not set", () => {
    const names = variables.workerName.names;
    expect(names).toEqual(["MILLRACE_WORKER_ID", "PGFLOW_WORKER_ID", "WORKER_ID"]);
    expect(readConfig({ WORKER_ID: "c", PGFLOW_WORKER_ID: "b" }).workerName).toBe("b");
    expect(readConfig({ WORKER_ID: "c", MILLRACE_WORKER_ID: "" }).workerName).toBe("c");
    expect(readConfig({ MILLRACE_WORKER_ID: "" }).workerName).toBeUndefined();
  });

  test("has no two variables of one name, and no default that would not be allowed", () => {
    const names = Object.values(variables).flatMap(({ names: all }) => [...all]);
    expect(new Set(names).size).toBe(names.length);
    for (const variable of Object.values(variables)) {
      const [name] = variable.names;
      expect(() => readConfig({ [name as string]: defaultText(variable) })).not.toThrow();
    }
  });
});

test("a variable that looks like ours and is not is told, with the one that may have been meant", () => {
  expect(
    unknownVariables({
      MILLRACE_SHEMA: "x",
      PGFLOW_LEASE_SECOND: "1",
      MILLRACE_COMPLETELY_ELSE: "1",
      MILLRACE_SCHEMA: "fine",
      MILLRACE_TEST_BACKEND: "x",
      MILLRACE_BENCH_JOBS: "x",
      PATH: "/bin",
    }),
  ).toEqual([
    'MILLRACE_SHEMA is set, but Millrace has no such variable. Did you mean "MILLRACE_SCHEMA"?',
    'PGFLOW_LEASE_SECOND is set, but Millrace has no such variable. Did you mean "PGFLOW_LEASE_SECONDS"?',
    expect.stringMatching(/^MILLRACE_COMPLETELY_ELSE is set, but Millrace has no such variable\./),
  ]);
});

test("docs/reference/configuration.md lists every variable with its names, default, what is allowed, and what it is for", () => {
  const page = readFileSync(join(import.meta.dirname, "../../docs/reference/configuration.md"), "utf8");
  const rows = page.split("\n").filter((line) => line.startsWith("| `"));
  const expected = Object.values(variables).map((variable) => {
    const { kind, about } = variable;
    const [name, ...aliases] = variable.names;
    const usual = defaultText(variable);
    const also = aliases.length === 0 ? "" : ` Also: ${aliases.map((alias) => `\`${alias}\``).join(", ")}.`;
    return `| \`${name}\` | ${usual === undefined ? "–" : `\`${usual}\``} | ${kind} | ${about}${also} |`;
  });
  expect(rows).toEqual(expected);
});
