// Everything that must hold before a change is done: `npm run check`. One failure does not hide the next.
// With --ci the tests run first, and the last line counts every test and every check: "N passed, N failed".
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const minute = 60_000;
const ci = process.argv.includes("--ci");

const checks = [
  ["generated files are fresh", "node scripts/embed.mjs --check"],
  ["the client's types are fresh", "tsx scripts/client/generate.mjs --check"],
  ["format", "oxfmt --check"],
  ["lint", "oxlint --deny-warnings"],
  ["types", "tsc --noEmit"],
  ["nothing unused", "knip"],
  ["build", "npm run build --silent"],
  ["package", "publint --strict"],
  ["package types", "attw --pack --profile esm-only"],
];
// Prometheus's own tool says whether its rules and our metrics are right. Debian's package `prometheus` has it.
const hasPromtool = spawnSync("promtool", ["--version"]).status === 0;
if (hasPromtool) {
  checks.push(
    ["alert rules", "promtool check rules deploy/prometheus/millrace-rules.yml"],
    ["alert rules fire when they should", "promtool test rules deploy/prometheus/millrace-rules.test.yml"],
    ["metrics of a running Millrace", "node scripts/check-metrics.mjs"],
  );
}

const total = ci ? await runTests() : { passed: 0, failed: 0 };
const failures = [];
for (const [name, command] of checks) {
  console.log(`\n=== ${name}: ${command}`);
  const ok = await run(command, 5 * minute);
  total[ok ? "passed" : "failed"] += 1;
  if (!ok) failures.push(name);
}
if (!hasPromtool)
  console.log("\nSkipped: alert rules and metrics, for promtool is not here (Debian: apt-get install prometheus).");
if (failures.length > 0) console.log(`\nFailed: ${failures.join(", ")}`);
console.log(`\n${total.passed} passed, ${total.failed} failed`);
process.exit(total.failed === 0 ? 0 : 1);

/** The README's test command, with the counts read from vitest's report: a file that cannot be loaded is one failure. */
async function runTests() {
  const folder = mkdtempSync(join(tmpdir(), "millrace-check-"));
  const report = join(folder, "tests.json");
  console.log("=== tests: npm test");
  const ok = await run(`npm test -- --reporter=default --reporter=json --outputFile.json="${report}"`, 40 * minute);
  const count = { passed: 0, failed: 0 };
  try {
    const { numPassedTests, numFailedTests, testResults } = JSON.parse(readFileSync(report, "utf8"));
    const unloadable = testResults.filter((file) => file.status === "failed" && file.assertionResults.length === 0);
    count.passed = numPassedTests;
    count.failed = numFailedTests + unloadable.length;
  } catch (error) {
    console.error(`The tests left no report: ${error.message}`);
  }
  rmSync(folder, { recursive: true, force: true });
  // Leaks, unhandled errors and time-outs fail a run without failing a test.
  if (!ok && count.failed === 0) count.failed = 1;
  if (ok && count.passed === 0) count.failed += 1;
  return count;
}

function run(command, timeout) {
  return new Promise((done) => {
    const child = spawn(command, {
      shell: true,
      stdio: ["ignore", "inherit", "inherit"],
      timeout,
      env: { ...process.env, PATH: `${join(process.cwd(), "node_modules/.bin")}:${process.env.PATH}` },
    });
    child.on("exit", (code) => done(code === 0));
    child.on("error", () => done(false));
  });
}
