/** A server pays for Bull Board when somebody opens it. Alone in its file: whatever else loads it would be seen here. */
import { createRequire } from "node:module";
import { expect, test } from "vitest";
import { createApi } from "../../src/http/api.ts";
import { callerOf, recorder } from "../http/caller.ts";
import { useDatabase } from "../support/engine.ts";

const file = useDatabase();
const isLoaded = (): boolean =>
  Object.keys(createRequire(import.meta.url).cache).some((path) => path.includes("@bull-board"));

test("nothing of Bull Board is loaded before the first request for it", async () => {
  await using mill = await file.open();
  const call = callerOf(createApi(mill, { log: recorder(), trustMachine: true }));
  expect((await call("/api/queue/stats")).status).toBe(200);
  expect(isLoaded()).toBe(false);
  expect((await call("/admin/queues")).status).toBe(200);
  expect(isLoaded()).toBe(true);
});
