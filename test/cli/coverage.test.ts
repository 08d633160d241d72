/** Every operation of the API has a command: each is called here as people would, and what it asks for is held against the document. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type CommandDef, runCommand } from "citty";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { commands } from "../../src/cli/commands.ts";
import { callerOf, createApi, recorder } from "../http/caller.ts";
import { useDatabase } from "../support/engine.ts";

const id = "018f0000-0000-7000-8000-000000000000";
/** A command as it is typed, and the operation it asks for. */
const asked: readonly (readonly [line: string, operation: string])[] = [
  [`job ${id}`, "GET /jobs/{id}"],
  ["jobs", "GET /jobs"],
  ["enqueue hello", "POST /jobs"],
  [`retry ${id}`, "POST /jobs/{id}/retry"],
  [`remove ${id}`, "DELETE /jobs/{id}"],
  [`change ${id} --now`, "PATCH /jobs/{id}"],
  [`cancel ${id}`, "POST /jobs/{id}/cancel"],
  [`replay ${id}`, "POST /jobs/{id}/replay"],
  [`result ${id}`, "GET /jobs/{id}/result"],
  [`wait ${id}`, "GET /jobs/{id}/wait"],
  [`explain ${id}`, "GET /jobs/{id}/explain"],
  [`timeline ${id}`, "GET /jobs/{id}/timeline"],
  [`logs ${id}`, "GET /jobs/{id}/logs"],
  [`steps ${id}`, "GET /jobs/{id}/steps"],
  [`dependencies ${id}`, "GET /jobs/{id}/dependencies"],
  ["flow FILE", "POST /flows"],
  ["batch FILE", "POST /batches"],
  ["emit paid", "POST /events"],
  ["events", "GET /events"],
  ["dlq --group reason", "GET /dlq"],
  ["bulk list", "GET /api/bulk"],
  ["bulk cancel --queue a", "POST /api/bulk"],
  [`bulk show ${id}`, "GET /api/bulk/{id}"],
  [`bulk stop ${id}`, "POST /api/bulk/{id}/stop"],
  ["queues", "GET /api/queue/stats"],
  ["queues show a", "GET /api/queue/{name}/stats"],
  ["queues pause a", "POST /api/queue/{name}/pause"],
  ["queues resume a", "POST /api/queue/{name}/resume"],
  ["queues clean a", "POST /api/queue/{name}/clean"],
  ["queues pause --all", "POST /api/queue/pause-all"],
  ["queues resume --all", "POST /api/queue/resume-all"],
  ["queues clean --all --grace 1h", "POST /api/queue/clean-all"],
  ["queues decisions a", "GET /api/queue/{name}/decisions"],
  ["queues denials", "GET /ingest/decisions"],
  ["policy", "GET /api/policies"],
  ["policy a", "GET /api/queue/{name}/policy"],
  ["policy a --concurrency 1", "PATCH /api/queue/{name}/policy"],
  ["policy a --remove", "DELETE /api/queue/{name}/policy"],
  ["schedules", "GET /api/schedules"],
  ["schedules show a", "GET /api/schedules/{name}"],
  ["schedules runs a", "GET /api/schedules/{name}/runs"],
  ["schedules preview a", "GET /api/schedules/{name}/preview"],
  ["schedules preview --every 1h", "POST /api/schedules/preview"],
  ["schedules run a", "POST /api/schedules/{name}/run"],
  ["schedules pause a", "POST /api/schedules/{name}/pause"],
  ["schedules resume a", "POST /api/schedules/{name}/resume"],
  ["schedules create a --task t --every 1h", "POST /api/schedules"],
  ["schedules update a --every 2h", "PATCH /api/schedules/{name}"],
  ["schedules reset a", "POST /api/schedules/{name}/reset"],
  ["schedules delete a", "DELETE /api/schedules/{name}"],
  ["workers", "GET /api/workers"],
  ["workers drain 1", "POST /api/workers/{id}/drain"],
  ["workers resume 1", "POST /api/workers/{id}/resume"],
  ["workers recycle 1", "POST /api/workers/{id}/recycle"],
  ["workers concurrency 1 5", "PATCH /api/workers/{id}"],
  ["drain", "POST /api/drain"],
  ["drain resume", "POST /api/drain/resume"],
  ["drain --until-empty", "POST /api/drain/scheduling"],
  ["status", "GET /api/ops/queues"],
  ["health", "GET /health"],
  ["health --ready", "GET /readyz"],
  ["metrics", "GET /metrics"],
  ["metrics --format prometheus", "GET /metrics/prom"],
  ["metrics --format objectives", "GET /ops/metrics"],
  ["token", "GET /api/tokens"],
  ["token create ada", "POST /api/tokens"],
  ["token revoke abc", "DELETE /api/tokens/{id}"],
  ["sessions", "GET /api/sessions"],
  [`sessions end ${id}`, "DELETE /api/sessions/{id}"],
  ["whoami", "GET /auth/session"],
  ["audit", "GET /api/audit"],
  ["audit verify", "GET /api/audit/verify"],
];

/** Operations that no command of their own asks for: `millrace api` does. Why is said here. */
const others: Readonly<Record<string, string>> = {
  "GET /": "a page",
  "GET /openapi.json": "a document",
  "GET /auth/login": "for browsers",
  "GET /auth/callback": "for browsers",
  "GET /auth/token": "a page",
  "POST /auth/token": "for browsers: a program sends its token with each request",
  "GET /auth/logout": "a page",
  "POST /auth/logout": "for browsers",
  "POST /api/drain/scheduling/resume":
    "`drain --until-empty` asks for it when it is given up, and `drain resume` includes it",
  "GET /livez": "for probes; `health` asks for more",
  "GET /health/test": "`doctor` asks for it, and `health --ready` for its other name",
  "GET /api/health": "another name of GET /health",
  "GET /api/ops/metrics": "another name of GET /ops/metrics",
  "POST /dlq/replay": "`dlq replay` begins the same with POST /api/bulk",
  "POST /dlq/retry": "`dlq retry` begins the same with POST /api/bulk",
  "POST /dlq/purge": "`dlq purge` begins the same with POST /api/bulk",
  "GET /scheduler/jobs": "as runbook 001 asks; `schedules` does the same",
  "GET /scheduler/jobs/{name}/runs": "another name of GET /api/schedules/{name}/runs",
  "POST /scheduler/run": "as runbook 001 asks; `schedules run` does the same",
  "POST /scheduler/toggle": "as runbook 001 asks; `schedules pause` and `resume` do the same",
};

const heard: string[] = [];
const server = createServer((request, response) => {
  heard.push(`${request.method} ${new URL(request.url as string, "http://localhost").pathname}`);
  request.resume();
  response.writeHead(404, { "Content-Type": "application/problem+json" });
  response.end(JSON.stringify({ code: "ROUTE_NOT_FOUND", detail: "Nothing here." }));
});
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "millrace-coverage-"));
  await writeFile(join(folder, "file.json"), "{}");
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
});
afterAll(async () => {
  server.close();
  await rm(folder, { recursive: true });
});

/** What the command asks of a server that has nothing. */
async function asksFor(line: string): Promise<readonly string[]> {
  const [name = "", ...rest] = line.replace("FILE", join(folder, "file.json")).split(" ");
  const { port } = server.address() as AddressInfo;
  const command = (await commands[name]?.()) as CommandDef;
  heard.length = 0;
  await runCommand(command, { rawArgs: [...rest, "--url", `http://127.0.0.1:${port}`, "--json"] }).catch(
    (error: { code?: string }) => expect([line, error.code]).toEqual([line, "ROUTE_NOT_FOUND"]),
  );
  return [...heard];
}

test.each(asked)("millrace %s asks for %s", async (line, operation) => {
  const pattern = new RegExp(`^${operation.replaceAll(/\{\w+\}/g, "[^/]+")}$`);
  expect(await asksFor(line)).toContainEqual(expect.stringMatching(pattern));
});

test("millrace api asks for whatever is named", async () => {
  expect(await asksFor("api GET /livez")).toEqual(["GET /livez"]);
  expect(await asksFor('api post /scheduler/run {"job_id":"a"}')).toEqual(["POST /scheduler/run"]);
});

const file = useDatabase();

test("every operation of the document has a command, or a reason why not", async () => {
  await using mill = await file.open();
  const call = callerOf(createApi(mill, { log: recorder() }));
  const { paths } = (await call("/openapi.json")).body as { paths: Record<string, Record<string, unknown>> };
  const operations = Object.entries(paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
  );
  const known = [...asked.map(([, operation]) => operation), ...Object.keys(others)];
  expect([...new Set(known)].toSorted()).toEqual(operations.toSorted());
  expect(new Set(known).size).toBe(known.length);
});

/** What is printed is not looked at here. */
beforeAll(() => void vi.spyOn(process.stdout, "write").mockReturnValue(true));
