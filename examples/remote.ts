/**
 * A program on another machine: it asks a server over HTTP, by the typed client. Beside `npm start` in another terminal:
 *
 *     npx tsx examples/remote.ts
 *
 * MILLRACE_URL and MILLRACE_TOKEN lead to another server.
 */
import { ApiError, createClient } from "millrace/client";

const { MILLRACE_URL: url = "http://localhost:3003", MILLRACE_TOKEN: token } = process.env;
const api = createClient({ url, token });

/** One job for each scene, however often this program runs. */
const analyse = (entityId: string) =>
  api.post("/jobs", {
    params: { header: { "Idempotency-Key": `remote-example-${entityId}` } },
    body: { task: "analyse-scene", input: { entityId }, tags: ["remote"] },
  });

const { id } = await analyse("1");
await api.get("/jobs/{id}/wait", { params: { path: { id }, query: { within: "30s" } } });
const { story } = await api.get("/jobs/{id}/timeline", { params: { path: { id } } });
for (const { summary } of story) console.log(summary);
const again = await analyse("1");
console.log(
  again.duplicate && again.id === id ? "Asked again, it is the same job." : "Asked again, it is another job.",
);

const missing = (await analyse("3")).id;
try {
  await api.get("/jobs/{id}/wait", { params: { path: { id: missing }, query: { within: "30s" } } });
} catch (error) {
  if (!(error instanceof ApiError) || error.code !== "JOB_FAILED") throw error;
  const { summary, what_next } = await api.get("/jobs/{id}/explain", { params: { path: { id: missing } } });
  console.log(`${summary} ${what_next}`);
}
