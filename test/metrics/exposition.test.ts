import { task } from "millrace";
import { expect, test } from "vitest";
import { createApi } from "../../src/http/api.ts";
import { callerOf, recorder } from "../http/caller.ts";
import { foldAll, useDatabase } from "../support/engine.ts";
import { StoreWorker } from "../support/store-worker.ts";
import { writeFileSync } from "node:fs";

const file = useDatabase();
test("x", async () => {
  const plain = task({ name: "plain", run: () => undefined });
  await using mill = await file.open([plain]);
  const worker = await StoreWorker.register(mill);
  await mill.enqueueMany(plain, [1, 2, 3]);
  await worker.close(await worker.claim(2));
  await foldAll(mill);
  const log = recorder();
  const call = callerOf(createApi(mill, { log }));
  const a = await call<string>("/metrics/prom");
  writeFileSync("/tmp/prom.txt", a.body);
  console.log(log.lines, JSON.stringify((await call("/metrics")).body), JSON.stringify((await call("/ops/metrics")).body));
  expect(a.status).toBe(200);
});
