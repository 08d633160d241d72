/** The runbooks' own lines, executed against a server that has what they speak of: each on the port that its runbook names. */
import { NonRetryableError, schedule, task } from "millrace";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import type { Millrace } from "millrace";
import { defaultText, variables } from "../../src/app/config.ts";
import { Tokens } from "../../src/access/tokens.ts";
import { Sql } from "../../src/db/sql.ts";
import { createApi } from "../../src/http/api.ts";
import { type Serving, serve } from "../../src/http/server.ts";
import { backend } from "../support/database.ts";
import { useDatabase } from "../support/engine.ts";
import { recorder } from "../http/caller.ts";
import { requests } from "./lines.ts";
import { named, statements } from "./statements.ts";
import { unexecuted } from "./unexecuted.ts";

const analyse = task({
  name: "analyse-scene",
  queue: "ai-analysis",
  run() {
    throw new NonRetryableError("The scene is empty.", { code: "EMPTY_SCENE" });
  },
});
const ingest = task({ name: "ingest", run: () => undefined });
const schedules = [
  schedule({ name: "ingest_rank", task: ingest, cron: "*/15 * * * *" }),
  schedule({ name: "scan", task: ingest, every: "1h" }),
];

const file = useDatabase();
/** The ports that the runbooks name, and where they are here. */
const ports = new Map<string, string>();
let mill: Millrace;
const log = recorder();
let serving: Serving;
let token: string;
let failed: string;
beforeAll(async () => {
  mill = await file.open([analyse, ingest], {}, schedules);
  mill.work();
  await vi.waitFor(async () => expect(await mill.schedules.list({ limit: 10 })).toHaveLength(2), { timeout: 10_000 });
  const { id } = await mill.enqueue(analyse, { scene: 1 });
  await expect(mill.waitUntilFinished(id)).rejects.toThrow(/EMPTY_SCENE|empty/);
  failed = id;
  await mill.schedules.runNow("scan");
  await mill.bulk("cancel", { tag: "nobody" }); // its job is in the queue maintenance, of which tests have no schedule
  await mill.policies.set("flooded", { maxEnqueuePerMinute: 1 });
  await mill.enqueue("any", null, { queue: "flooded" });
  await expect(mill.enqueue("any", null, { queue: "flooded" })).rejects.toMatchObject({
    code: "ENQUEUE_RATE_EXCEEDED",
  });
  token = (await new Tokens(mill.db, []).create({ name: "runbook", role: "operator" })).token;
  const named = ["3001", "3003", "4001", "9000"];
  serving = await serve(createApi(mill, { log, trustMachine: true }), {
    host: "127.0.0.1",
    ports: named.map(() => 0),
    log,
  });
  for (const [i, port] of named.entries()) ports.set(port, new URL(serving.urls[i] as string).port);
});
afterAll(async () => {
  await serving.close(1_000);
  await mill.close();
});

interface Asked {
  readonly url: string;
  readonly method: string;
  readonly headers: Record<string, string>;
  readonly body?: string;
}

/** What a line asks for, whichever program it is written for. */
function asked(line: string): Asked {
  const words = [...line.matchAll(/"([^"]*)"|'([^']*)'|(\S+)/g)].map(
    ([, double, single, bare]) => double ?? single ?? bare ?? "",
  );
  const url = (text: string): string =>
    text.startsWith("/") ? `http://localhost:3003${text.replace(":id", failed)}` : text;
  const [program = "", second = "", ...rest] = words;
  if (/^(GET|POST)$/.test(program)) {
    const body = line.slice(line.indexOf(second) + second.length).trim();
    const json = body === "" ? {} : { headers: { "content-type": "application/json" }, body };
    return { url: url(second), method: program, headers: {}, ...json };
  }
  if (program.startsWith("Invoke-")) return { url: rest[0] ?? "", method: "GET", headers: {} };
  expect(program).toBe("curl");
  const headers: Record<string, string> = {};
  const found: { url: string; method: string; body?: string } = { url: "", method: "GET" };
  const curl = words.slice(1);
  for (let i = 0; i < curl.length; i += 1) {
    const word = curl[i] as string;
    if (word === "-X") found.method = curl[(i += 1)] ?? "";
    else if (word === "-d") found.body = curl[(i += 1)] ?? "";
    else if (word === "-H") {
      const [name = "", value = ""] = (curl[(i += 1)] ?? "").split(/: (.*)/s);
      headers[name] = value.replace(/<\w+>/, token);
    } else found.url = word.replace(":name", "ai-analysis");
  }
  return { ...found, headers };
}

describe("requests", () => {
  test.each(requests.map((one) => [one.runbook, one.section, one.line, one] as const))(
    "%s, %s: %s",
    async (...[, , line, { as, expects }]) => {
      const { url, ...init } = asked(line);
      // Passed on by a proxy that nobody vouches for, and without a token.
      if (as === "stranger") init.headers["x-forwarded-for"] = "192.0.2.4";
      const port = new URL(url).port;
      expect([...ports.keys()]).toContain(port);
      const response = await fetch(url.replace(`:${port}`, `:${ports.get(port)}`), init);
      const text = await response.text();
      expect([response.status, text]).toEqual([expects.status ?? 200, text]);
      if (expects.body) expect(JSON.parse(text)).toMatchObject(expects.body);
      if (expects.exactly) expect(JSON.parse(text)).toEqual(expects.exactly);
      if (expects.text) expect(text).toMatch(expects.text);
    },
  );
});

// PGlite has one session and no activity to show.
describe.skipIf(backend === "pglite")("statements", () => {
  test.each(statements.map((one) => [one.runbook, one.section, one.sql, one.rows] as const))(
    "%s, %s: %s",
    async (...[, , statement, rows]) => {
      const answer = await mill.db.query(new Sql([statement.replace("'millrace'", `'${mill.db.schema}'`)], []));
      if (rows === undefined) expect(answer).toEqual([]);
      else expect(JSON.stringify(answer)).toMatch(rows);
    },
  );
});

test.each(named)("$runbook, $section: $name is read, with the runbook's default", ({ name, value }) => {
  const one = Object.values(variables).find(({ names }) => (names as readonly string[]).includes(name));
  expect(one).toBeDefined();
  if (one !== undefined && value !== undefined) expect(defaultText(one)).toBe(value);
});

test("001, API Error Spikes, 1: request.completed is in the log", () => {
  expect(log.lines.map(({ message }) => message)).toContain("request.completed");
});

// Once a room has them, they belong among the others.
describe("not there yet", () => {
  const routes = unexecuted.filter(({ pending, line }) => pending !== undefined && /^(curl|GET \/|POST \/)/.test(line));
  test.each(routes.map((one) => [one.runbook, one.section, one.line] as const))("%s, %s: %s", async (...[, , line]) => {
    const { url, ...init } = asked(line);
    const { port } = new URL(url);
    const response = await fetch(url.replace(`:${port}`, `:${ports.get(port)}`), init);
    expect([response.status, await response.json()]).toMatchObject([404, { code: "ROUTE_NOT_FOUND" }]);
  });
});
