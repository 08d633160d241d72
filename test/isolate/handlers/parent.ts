/** A process that runs a busy handler in another one, says so, and waits to be killed. */
import { Pool } from "../../../src/isolate/pool.ts";

const module = new URL("./acts.ts", import.meta.url).href;
const log = { debug() {}, info() {}, warn() {}, error() {} };
const pool = new Pool({
  rule: { in: "process", module, memoryMb: undefined, size: undefined, graceMs: 1_000 },
  module,
  size: () => 1,
  log,
});
await pool.run({
  job: { id: "1", task: "acts", queue: "default", attempt: 1, maxAttempts: 1, input: { do: "loop" } },
  hasSteps: false,
  maxResultBytes: 1_000,
  trace: undefined,
  began() {},
  progress() {},
  ask: () => Promise.resolve(),
  log: (_, fields) => process.stdout.write(`${JSON.stringify(fields)}\n`),
});
