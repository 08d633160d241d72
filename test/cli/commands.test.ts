/** The commands that come and go, on a database that nobody holds. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { files } from "../../src/db/migrations.generated.ts";
import { backend } from "../support/database.ts";
import { type Place, cliPlace, emptyPlace } from "./process.ts";

// Each test starts processes that open a database, on a machine that may be busy.
vi.setConfig({ testTimeout: 120_000 });

let place: Place;
beforeAll(async () => {
  place = await cliPlace();
});
afterAll(() => place[Symbol.asyncDispose]());

describe("before the schema is there", () => {
  test("nothing is listed: the schema is behind, which is exit code 4", async () => {
    const { code, stderr } = await place.run("jobs");
    expect(stderr).toContain("Run `millrace migrate`");
    expect(code).toBe(4);
  });

  test("the doctor says so, and what to do", async () => {
    const { code, stdout } = await place.run("doctor");
    expect(stdout).toMatch(/✓ database/);
    expect(stdout).toMatch(/✗ migrations .*is at version 0; this Millrace needs \d+/);
    expect(code).toBe(4);
  });

  test("migrate applies every migration, and a second time none", async () => {
    const version = Object.keys(files).length;
    expect(await place.json("migrate")).toEqual({ schema: "millrace", version, applied: Object.keys(files) });
    const { stdout } = await place.run("migrate");
    expect(stdout).toBe(`Schema millrace is at version ${version} already.`);
  });
});

describe("on a current schema", () => {
  let id = "";

  test("enqueue prints the id of the job, with the options it was given", async () => {
    const app = await place.write(
      "mail.ts",
      `import { defineApp, task } from "millrace";
       export default defineApp({ tasks: [task({ name: "send", queue: "mail", maxAttempts: 3, run() {} })] });`,
    );
    const made = await place.json(
      "enqueue",
      "send",
      '{"to":"ada"}',
      "--app",
      app,
      "--delay",
      "1h",
      "--tags",
      "a, b",
      "--priority",
      "-5",
    );
    expect(made).toEqual({ job_id: expect.any(String), id: expect.any(String), duplicate: false });
    ({ id } = made as { id: string });
    expect(await place.json("job", id)).toMatchObject({
      id,
      task: "send",
      queue: "mail",
      status: "delayed",
      priority: -5,
      max_attempts: 3,
      tags: ["a", "b"],
      input: { to: "ada" },
    });
  });

  test("enqueue takes every option there is", async () => {
    const times = ["--run-at", "2099-01-31", "--timeout", "90s", "--max-attempts", "2"];
    const keys = ["--key", "january", "--concurrency-key", "ada"];
    const { id: made } = (await place.json("enqueue", "report", "[1]", "--queue", "night", ...times, ...keys)) as {
      id: string;
    };
    expect(await place.json("job", made)).toMatchObject({
      task: "report",
      queue: "night",
      run_at: "2099-01-31T00:00:00.000Z",
      max_attempts: 2,
      input: [1],
    });
    expect((await place.run("enqueue", "report", "--key", "january")).stdout).toBe(
      `There already is job ${made} with this key.`,
    );
  });

  test("an input that the app's schema refuses is exit code 1, an option that the engine refuses 2", async () => {
    const app = await place.write(
      "strict.ts",
      `import { defineApp, task } from "millrace";
       const validate = (value: unknown) => (typeof value === "number" ? { value } : { issues: [{ message: "no number" }] });
       const input = { "~standard": { version: 1 as const, vendor: "test", validate } };
       export default defineApp({ tasks: [task({ name: "count", input, run() {} })] });`,
    );
    const refused = await place.run("enqueue", "count", '"one"', "--app", app);
    expect(refused.stderr).toMatch(/^millrace: The input does not match .* "count": no number\.\n {2}BAD_PAYLOAD: /);
    expect(refused.code).toBe(1);
    const odd = await place.run("enqueue", "count", "1", "--app", app, "--priority", "99999");
    expect(odd.stderr).toMatch(/^millrace: priority must be a whole number .*\n {2}OPTION_INVALID: /);
    expect(odd.code).toBe(2);
  });

  test("a second job under the same key is not made", async () => {
    const { stdout } = await place.run("enqueue", "bill", "--key", "march");
    const id = /^Enqueued job (\S+)\.$/.exec(stdout)?.[1];
    expect(await place.json("enqueue", "bill", "--key", "march")).toEqual({ job_id: id, id, duplicate: true });
  });

  test("jobs lists them in a table, or as the API would", async () => {
    const { code, stdout } = await place.run("jobs", "--queue", "mail");
    expect(stdout).toMatch(
      /^id +queue +task +status +attempt +created +due +error\n.* mail +send +delayed +1\/3 +.* ago +in /,
    );
    expect(code).toBe(0);
    expect(await place.json("jobs", "--status", "waiting")).toEqual({
      items: [expect.objectContaining({ task: "bill", job_type: "bill", queue: "default" })],
      next: null,
    });
  });

  test("job shows one of them, and exit code 1 when there is none of that id", async () => {
    const { stdout } = await place.run("job", id);
    expect(stdout).toMatch(/^status +delayed$/m);
    expect(stdout).toMatch(/^due +.*\(in .*\)$/m);
    const { code, stderr } = await place.run("job", "01a00000-0000-7000-8000-000000000000");
    expect(stderr).toContain("There is no job 01a00000-0000-7000-8000-000000000000.");
    expect(code).toBe(1);
  });

  test("explain says why a job is where it is, what else holds it, and what would move it", async () => {
    const { code, stdout } = await place.run("explain", id);
    expect(stdout).toMatch(/^status +delayed$/m);
    expect(stdout).toMatch(/^why +Not due until .*, as its enqueue asked at /m);
    expect(stdout).toMatch(/^also +No live worker serves task "send" in queue "mail"; none was ever seen\.$/m);
    expect(stdout).toMatch(/^next +Nothing: it runs by itself then\./m);
    expect(code).toBe(0);
    expect(await place.json("explain", id)).toMatchObject({ job_id: id, because: "NOT_DUE", job_type: "send" });
  });

  test("timeline tells what happened to a job, a line each", async () => {
    const { code, stdout } = await place.run("timeline", id);
    const [head, ...story] = stdout.split("\n");
    expect(head).toBe(`${id}: task send in queue mail, delayed`);
    expect(story).toEqual([
      expect.stringMatching(
        /^\d{4}-\d\d-\d\dT\S+Z {2}Enqueued( by .+)? in queue "mail" with priority -5 for task "send", to run at .*\.$/,
      ),
    ]);
    expect(code).toBe(0);
    expect(await place.json("timeline", id)).toMatchObject({ job_id: id, attempts: [], story: [{ kind: "Enqueued" }] });
  });

  test("logs of a job that has not run are none", async () => {
    expect(await place.run("logs", id)).toMatchObject({ code: 0, stdout: "No lines." });
    expect(await place.json("logs", id)).toEqual({ items: [], next: null });
  });

  test.each(["explain", "timeline", "logs"])("%s of no job is exit code 1, of no id 2", async (question) => {
    const { code, stderr } = await place.run(question, "01a00000-0000-7000-8000-000000000000");
    expect(stderr).toContain("There is no job 01a00000-0000-7000-8000-000000000000.");
    expect(code).toBe(1);
    expect((await place.run(question, "send")).code).toBe(2);
  });

  test("the doctor finds jobs that no live worker would take, and variables that are none of ours", async () => {
    const { code, stdout } = await place.with({ MILLRACE_QUEU: "x" }).run("doctor", "--json");
    const { ok, checks } = JSON.parse(stdout) as { ok: boolean; checks: { status: string; message: string }[] };
    expect(checks.filter(({ status }) => status !== "ok").map(({ message }) => message)).toEqual([
      'MILLRACE_QUEU is set, but Millrace has no such variable. Did you mean "MILLRACE_QUEUE"?',
      "No worker runs.",
      expect.stringMatching(
        /^1 job of task "bill" in queue "default", the oldest for .*: no live worker defines the task/,
      ),
    ]);
    expect({ ok, code }).toEqual({ ok: true, code: 0 });
  });
});

test("migrate --print prints the SQL for the configured schema, without a database", async () => {
  await using empty = await emptyPlace();
  const { code, stdout } = await empty.with({ MILLRACE_SCHEMA: "mill" }).run("migrate", "--print");
  expect(stdout).toMatch(/^create schema if not exists "mill";\n/);
  expect(stdout).toContain('create table "mill".jobs');
  expect(stdout).not.toContain("millrace.");
  expect(code).toBe(0);
});

test("a database that does not answer is exit code 3", async () => {
  await using empty = await emptyPlace();
  const away = empty.with({ DATABASE_URL: "postgres://ada:secret@127.0.0.1:1/none" });
  const { code, stderr } = await away.run("jobs");
  expect(stderr).toMatch(/^millrace: PostgreSQL did not answer: .*\n {2}DATABASE_UNREACHABLE: /);
  expect(code).toBe(3);
  const doctor = await away.run("doctor");
  expect(doctor.stdout).toMatch(/✗ database +PostgreSQL did not answer/);
  expect(doctor.code).toBe(3);
});

test("config masks passwords, names sources, and marks what is not allowed", async () => {
  await using empty = await emptyPlace();
  const { code, stdout } = await empty
    .with({
      DATABASE_URL: "postgres://ada:opensesame@db/x?password=opensesame",
      PGFLOW_LEASE_SECONDS: "20",
      MILLRACE_POOLER: "maybe",
    })
    .run("config", "--json");
  expect(stdout).not.toContain("opensesame");
  const { settings } = JSON.parse(stdout) as { settings: { name: string }[] };
  const named = Object.fromEntries(settings.map((setting) => [setting.name, setting]));
  expect(named["DATABASE_URL"]).toMatchObject({
    value: "postgres://ada:***@db/x?password=***",
    source: "DATABASE_URL",
  });
  expect(named["MILLRACE_LEASE_SECONDS"]).toMatchObject({
    value: "20",
    source: "PGFLOW_LEASE_SECONDS",
    default: "10",
    valid: true,
  });
  expect(named["MILLRACE_POOLER"]).toMatchObject({ value: "maybe", valid: false });
  expect(named["MILLRACE_SCHEMA"]).toMatchObject({ value: "millrace", source: "default" });
  expect(code).toBe(2);
});

test.runIf(backend === "pglite")("looking at embedded data that is not there makes none", async () => {
  await using empty = await emptyPlace();
  const { code, stderr } = await empty.run("jobs");
  expect(stderr).toContain("There is no database in ./.millrace yet; `millrace up` makes one.");
  expect(code).toBe(4);
  const { stdout } = await empty.run("doctor");
  expect(stdout).toContain("No embedded database in ./.millrace yet");
  expect(existsSync(join(empty.folder, ".millrace"))).toBe(false);
});
