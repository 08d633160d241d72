// Starts a Millrace of the build, lets it do a little of everything, scrapes it over HTTP, and has promtool judge what it says.
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { silent } from "../dist/core/log.js";
import { createApi } from "../dist/http/api.js";
import { serve } from "../dist/http/server.js";
import { defineApp, millrace, task } from "../dist/index.js";

const folder = mkdtempSync(join(tmpdir(), "millrace-metrics-"));
try {
  const tasks = [task({ name: "well", run: () => undefined }), task({ name: "badly", maxAttempts: 1, run: fail })];
  const mill = await millrace(defineApp({ tasks }), { databaseUrl: null, dataDir: folder });
  const server = await serve(createApi(mill, { log: silent }), { host: "127.0.0.1", ports: [0], log: silent });
  for (const { name } of tasks) await mill.enqueue(name, {});
  const worker = mill.work();
  while ((await mill.stats("default"))[0].waiting > 0) await new Promise((done) => setTimeout(done, 50));
  await worker.stop();
  const text = await (await fetch(`${server.urls[0]}/metrics/prom`)).text();
  await server.close(1_000);
  await mill.close();
  if (!text.includes("millrace_database_up 1")) throw new Error(`The scrape lacks the database:\n${text}`);
  const { status } = spawnSync("promtool", ["check", "metrics"], {
    input: text,
    stdio: ["pipe", "inherit", "inherit"],
  });
  process.exitCode = status ?? 1;
} finally {
  rmSync(folder, { recursive: true, force: true });
}

function fail() {
  throw new Error("meant to fail");
}
