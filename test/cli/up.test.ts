/** The commands that stay: how they start, what they say, how they end. */
import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { backend } from "../support/database.ts";
import { type Place, cliPlace } from "./process.ts";

// Each test starts processes that open a database, on a machine that may be busy.
vi.setConfig({ testTimeout: 120_000 });

let place: Place;
let app: string;
beforeAll(async () => {
  place = await cliPlace();
  app = await place.write(
    "app.ts",
    `import { setTimeout as pause } from "node:timers/promises";
     import { MillraceError, type Millrace, defineApp, task } from "millrace";
     const hello = task({ name: "hello", run: ({ log }) => log.info({}, "hello from the task") });
     const slow = task({ name: "slow", run: async ({ log }) => { log.info({}, "slow begins"); await pause(60_000); } });
     const steady = task({ name: "steady", keepLogs: 3, async run({ log, progress }) {
       for (const n of [1, 2, 3, 4, 5]) {
         log.info({ n }, "at " + n);
         progress(n * 20);
         await pause(300);
       }
     } });
     export default defineApp({ tasks: [hello, slow, steady] });
     export async function start(mill: Millrace): Promise<void> {
       const same = await mill.jobs({ limit: 0 }).catch((error: unknown) => error instanceof MillraceError);
       mill.log.info({}, "the app's MillraceError is " + (same ? "ours" : "another"));
     }`,
  );
});
afterAll(() => place[Symbol.asyncDispose]());

test("up takes app.ts, which needs no package.json, shares this package with it, and with --json writes nothing but its log", async () => {
  await using up = place.start("up", "--json");
  await up.says(/the app's MillraceError is ours/);
  await up.says(/"worker started/);
  up.kill("SIGTERM");
  const { code, stdout, stderr } = await up.ended;
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  const entries = stdout.split("\n").map((line) => JSON.parse(line) as { level: string; msg: string });
  expect(entries[0]).toMatchObject({ level: "info", msg: "millrace is up", tasks: ["hello", "slow", "steady"] });
  expect(entries.at(-1)).toMatchObject({ level: "info", msg: "worker stopped" });
});

test("up says where its data is, what runs, and what to try; then what came of the work", async () => {
  await place.run("enqueue", "hello", "--app", app);
  await using up = place.start("up", "--app", app);
  const data =
    backend === "pglite" ? /embedded: .*survives a killed process, not a power cut/ : /^data +postgres:.*:\*\*\*@/;
  await up.says(data);
  await up.says(/^app +.*app\.ts: hello, slow, steady$/);
  await up.says(backend === "pglite" ? /^try +curl http.*\/api\/queue\/stats$/ : /^try +export MILLRACE_TOKEN=/);
  const [url = ""] = /http:\S+/.exec(await up.says(/^open/)) ?? [];
  expect(await (await fetch(`${url}/livez`)).json()).toEqual({ status: "ok" });
  expect((await fetch(`${url}/health`)).status).toBe(200);
  await up.says(/hello from the task/);
  await up.says(/^All quiet after .*: 1 job completed, 0 failed\.$/);
  const enqueued = await place.run("enqueue", "hello", "--url", url);
  const [, id = ""] = /^Enqueued job (\S+)\.$/.exec(enqueued.stdout) ?? [];
  expect(id).not.toBe("");
  await up.hasSaid(2, /hello from the task/);
  expect((await place.run("timeline", id, "--url", url)).stdout).toMatch(
    / Enqueued( by .+)? in queue "default" for task "hello"\.$/m,
  );
  expect((await place.run("explain", id, "--url", url)).stdout).toMatch(/^job +\S+: task hello in queue default$/m);
  up.kill("SIGINT");
  expect((await up.ended).stdout).toMatch(/Stopped\.$/);
});

test("logs follows a job to its end, and job says how far it is", async () => {
  await using up = place.start("up", "--app", app);
  const [url = ""] = /http:\S+/.exec(await up.says(/^open/)) ?? [];
  const { stdout } = await place.run("enqueue", "steady", "--json", "--url", url);
  const { id } = JSON.parse(stdout) as { id: string };
  const followed = await place.run("logs", id, "--follow", "--url", url);
  expect(followed.code).toBe(0);
  expect(followed.stdout.split("\n").map((line) => line.replace(/^\S+Z {2}/, ""))).toEqual([
    'info   at 1 {"n":1}',
    'info   at 2 {"n":2}',
    'info   at 3 {"n":3}',
    "warn   2 lines were not kept.",
  ]);
  const page = JSON.parse((await place.run("logs", id, "--json", "--url", url)).stdout) as { items: object[] };
  expect(page.items).toHaveLength(4);
  expect((await place.run("job", id, "--url", url)).stdout).toMatch(/^progress +100 % {2}\(.* ago\)$/m);
  up.kill("SIGINT");
  await up.ended;
});

test("worker runs jobs and has no API", async () => {
  await place.run("enqueue", "hello", "--app", app);
  await using worker = place.start("worker");
  await worker.says(/hello from the task/);
  worker.kill("SIGTERM");
  const { code, stdout } = await worker.ended;
  expect(stdout).not.toContain("http://");
  expect(code).toBe(0);
});

test.runIf(backend === "pglite")("while up holds the embedded data, other commands ask it", async () => {
  await using up = place.start("up");
  await up.says(/worker started/);
  const { code, stdout } = await place.run("enqueue", "hello", "--json");
  expect(code).toBe(0);
  const { id } = JSON.parse(stdout) as { id: string };
  expect((await place.run("job", id)).stdout).toContain(id);
  expect((await place.run("jobs", "--limit", "1")).stdout).toContain(id);
  const doctor = await place.run("doctor");
  expect(doctor.stdout).toMatch(/✓ database +.*held by the `millrace up` at http.*, which is ready\./);
  const second = await place.run("up");
  expect(second.stderr).toMatch(/is in use by process \d+/);
  expect(second.code).toBe(3);
});

test("a port that is taken, and a start that throws, end it with code 1 and leave nothing behind", async () => {
  await using taken = createServer().listen(0, "127.0.0.1");
  await once(taken, "listening");
  const { port } = taken.address() as AddressInfo;
  const { code, stderr } = await place.with({ MILLRACE_PORTS: String(port) }).run("up");
  expect(stderr).toMatch(/^millrace: Port \d+ of 127\.0\.0\.1 is in use by another program\.\n {2}PORT_IN_USE: /);
  expect(code).toBe(1);

  const bad = await place.write(
    "bad.ts",
    `import { defineApp } from "millrace";
     export default defineApp({ tasks: [] });
     export function start(): void { throw new Error("no coffee"); }`,
  );
  const thrown = await place.run("up", "--app", bad);
  expect(thrown.stderr).toMatch(/^millrace: no coffee\nError: no coffee\n.*bad\.ts:3/);
  expect(thrown.code).toBe(1);
});

test("under npm, up ends when npm does, however that ended", async () => {
  await using up = place.with({ npm_lifecycle_event: "start" }).startBelowShells("up");
  await up.says(/worker started/);
  up.kill("SIGKILL");
  const { stdout } = await up.ended;
  expect(stdout).toMatch(/npm is gone: stopping[^]*Stopped\.$/);
});

test("a second signal ends it at once, whatever runs", async () => {
  await place.run("enqueue", "slow", "--app", app);
  await using worker = place.start("worker");
  await worker.says(/slow begins/);
  worker.kill("SIGTERM");
  await worker.says(/SIGTERM: stopping; once more ends it at once/);
  worker.kill("SIGTERM");
  expect((await worker.ended).code).toBe(143);
});

test.for([
  ["export default {};", "is not an app made by defineApp"],
  ["export default", "could not be loaded"],
  [
    'import { defineApp } from "millrace"; export default defineApp({ tasks: [] }); export const start = 1;',
    '"start", but it is not a function',
  ],
] as const)("an app module that reads `%s` is refused with code 2", async ([text, reason]) => {
  const file = await place.write("wrong.ts", text);
  const { code, stderr } = await place.run("worker", "--app", file);
  expect(stderr).toContain(reason);
  expect(stderr).toContain("APP_INVALID");
  expect(code).toBe(2);
});
