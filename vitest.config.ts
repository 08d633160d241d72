import { configDefaults, defineConfig } from "vitest/config";

// Every test file runs on both backends, but for these: they touch no database, or one of their own, so once is enough …
const once = [
  "test/tidy.test.ts",
  "test/core/**",
  "test/isolate/options.test.ts",
  "test/schedules/{ticks,plan}.test.ts",
  "test/events/{id-line,types}.test.ts",
  "test/cli/{usage,arguments,api-address}.test.ts",
  "test/client/types.test.ts",
  "test/testing/**",
  "test/examples/invoices.test.ts",
  "test/board/page.test.ts",
];
// … and these start several processes on one database, which only a server can hold.
const serverOnly = ["test/postgres/**"];

const shared = {
  pool: "forks" as const,
  maxWorkers: "100%", // vitest would leave one core alone: half of a machine that has two
  // Long enough for a machine that has other things to do: only a test that hangs gets here.
  testTimeout: 60_000,
  hookTimeout: 120_000,
  expect: { poll: { timeout: 20_000 } },
};

export default defineConfig({
  test: {
    ...shared,
    globalSetup: ["test/support/setup-build.ts"],
    projects: [project("pglite", serverOnly), project("postgres", once)],
  },
});

function project(backend: "pglite" | "postgres", exclude: string[]) {
  return {
    resolve: { tsconfigPaths: true }, // `millrace` is src/index.ts, as in tsconfig.json
    test: {
      ...shared,
      name: backend,
      include: ["test/**/*.test.ts", "test/**/*.test.tsx"],
      exclude: [...configDefaults.exclude, ...exclude],
      // Maintenance is a job like any other, and tests count jobs; its own test asks for it.
      env: { MILLRACE_TEST_BACKEND: backend, MAINTENANCE_INTERVAL_SECS: "0" },
      globalSetup: [`test/support/setup-${backend}.ts`],
    },
  };
}
