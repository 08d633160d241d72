/** Opening a Millrace: which database it finds, what it refuses, and what is left behind when it cannot open. */
import { createServer, type AddressInfo } from "node:net";
import { once } from "node:events";
import { afterEach, describe, expect, test, vi } from "vitest";
import {
  MillraceError,
  type MillraceOptions,
  NonRetryableError,
  RateLimitError,
  defineApp,
  errorCodes,
  millrace,
  task,
} from "millrace";
import { isApp } from "../../src/app/app.ts";
import { backend } from "../support/database.ts";
import { freshSchema, useDatabase } from "../support/engine.ts";

const file = useDatabase();
const app = defineApp({ tasks: [] });
const hello = task({ name: "hello", run: () => undefined });

afterEach(() => {
  vi.unstubAllEnvs();
});

describe("defineApp", () => {
  test("keeps its tasks, and cannot be changed afterwards", () => {
    const tasks = [hello];
    const made = defineApp({ tasks });
    tasks.pop();
    expect(made.tasks).toEqual([hello]);
    expect(Object.isFrozen(made) && Object.isFrozen(made.tasks)).toBe(true);
    expect(isApp(made)).toBe(true);
    expect([null, undefined, {}, "app", { tasks: 1 }].map(isApp)).toEqual([false, false, false, false, false]);
  });

  test.each<[string, object, string]>([
    ["two tasks of one name", { tasks: [hello, task({ name: "hello", run: () => 1 })] }, "TASK_DUPLICATE"],
    ["something that is no task", { tasks: [{ name: "x" }] }, "OPTION_INVALID"],
    ["null for a task", { tasks: [null] }, "OPTION_INVALID"],
    ["an unknown option", { tasks: [], task: [] }, "OPTION_UNKNOWN"],
  ])("refuses %s", (_, options, code) => {
    expect(() => defineApp(options as never)).toThrow(expect.objectContaining({ code }));
  });
});

describe("a task", () => {
  test("has its defaults, and cannot be changed", () => {
    expect(hello).toMatchObject({
      name: "hello",
      queue: "default",
      maxAttempts: 25,
      timeoutMs: 3_600_000,
      priority: 0,
      schema: undefined,
    });
    expect(hello.backoff).toEqual({ type: "exponential", delayMs: 2_000, maxMs: 900_000, jitter: 0.2 });
    expect(Object.isFrozen(hello)).toBe(true);
  });

  test.each<[string, object, string]>([
    ["without a name", { name: undefined }, "TASK_NAME_INVALID"],
    ["with a name that is none", { name: "a b" }, "TASK_NAME_INVALID"],
    ["with a queue that is none", { queue: "" }, "QUEUE_NAME_INVALID"],
    ["without run", { run: undefined }, "OPTION_INVALID"],
    ["with an input that is no schema", { input: { type: "string" } }, "OPTION_INVALID"],
    ["with no attempts", { maxAttempts: 0 }, "OPTION_INVALID"],
    ["with a timeout that is none", { timeout: "long" }, "OPTION_INVALID"],
    ["with a backoff that is none", { backoff: { type: "random" } }, "OPTION_INVALID"],
    ["with a priority that is none", { priority: 1.5 }, "OPTION_INVALID"],
    ["with an unknown option", { retries: 3 }, "OPTION_UNKNOWN"],
  ])("%s is refused", (_, options, code) => {
    expect(() => task({ name: "ok", run: () => undefined, ...options } as never)).toThrow(
      expect.objectContaining({ code }),
    );
  });
});

describe("millrace()", () => {
  test.each<[string, object, string]>([
    ["an unknown option", { databaseURL: "x" }, "OPTION_UNKNOWN"],
    ["a schema that is no identifier", { schema: "a-b" }, "OPTION_INVALID"],
    ["a payload limit that is no number", { maxPayloadBytes: "1MB" }, "OPTION_INVALID"],
    ["a payload limit of nothing", { maxPayloadBytes: 0 }, "OPTION_INVALID"],
  ])("refuses %s", async (_, options, code) => {
    await expect(
      millrace(app, { ...file.door, schema: freshSchema(), ...options } as MillraceOptions),
    ).rejects.toMatchObject({ code });
  });

  test("stops at a variable that is not allowed", async () => {
    vi.stubEnv("MILLRACE_DB_MAX_CONNECTIONS", "lots");
    await expect(millrace(app, file.door)).rejects.toMatchObject({ code: "CONFIG_INVALID" });
  });

  test("takes the schema from the environment, and the option before it", async () => {
    vi.stubEnv("MILLRACE_SCHEMA", "From_Env");
    await using fromEnv = await millrace(app, file.door);
    expect(fromEnv.db.schema).toBe("From_Env");
    const own = freshSchema();
    await using fromOption = await millrace(app, { ...file.door, schema: own });
    expect(fromOption.db.schema).toBe(own);
  });

  test.runIf(backend === "postgres")("finds the server by DATABASE_URL", async () => {
    if (file.database.backend !== "postgres") return;
    vi.stubEnv("DATABASE_URL", file.database.url);
    await using mill = await millrace(app, { schema: freshSchema() });
    expect(mill.db.kind).toBe("postgres");
  });

  test.runIf(backend === "pglite")("uses the PGlite it is given although DATABASE_URL is set", async () => {
    vi.stubEnv("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none");
    if (file.database.backend !== "pglite") return;
    await using mill = await millrace(app, { schema: freshSchema(), pglite: file.database.pglite });
    expect(mill.db.kind).toBe("embedded");
  });

  test.runIf(backend === "postgres").each([0, 1, 501, 2.5])("refuses a pool of %d", async (poolSize) => {
    await expect(millrace(app, { ...file.door, poolSize })).rejects.toMatchObject({ code: "OPTION_INVALID" });
  });

  test("knows its tasks' queues from the start, so that they can be paused before they had a job", async () => {
    await using mill = await file.open([task({ name: "later", queue: "later", run: () => undefined })]);
    expect(await mill.stats()).toMatchObject([{ name: "later", total: 0 }]);
    expect(await mill.resume("later")).toBe(false);
  });

  test("can be opened many times on one database at once", async () => {
    const schema = freshSchema();
    const mills = await Promise.all(Array.from({ length: 5 }, () => file.open([hello], { schema })));
    const ids = await Promise.all(mills.map(async (mill, n) => (await mill.enqueue(hello, n)).id));
    expect(await mills[0]?.stats()).toMatchObject([{ name: "default", waiting: 5 }]);
    expect(new Set(ids).size).toBe(5);
    await Promise.all(mills.map((mill) => mill.close()));
  });

  describe.runIf(backend === "postgres")("without a server that answers", () => {
    const unreachable = expect.objectContaining({ name: "MillraceError", code: "DATABASE_UNREACHABLE" });

    test("says so when nobody listens", async () => {
      const server = createServer().listen(0, "127.0.0.1");
      await once(server, "listening");
      const { port } = server.address() as AddressInfo;
      await new Promise((closed) => server.close(closed));
      await expect(millrace(app, { databaseUrl: `postgres://u:secret@127.0.0.1:${port}/db` })).rejects.toEqual(
        unreachable,
      );
    });

    test("says so when the connection is cut, and never tells the password", async () => {
      const server = createServer((socket) => socket.destroy()).listen(0, "127.0.0.1");
      await once(server, "listening");
      const { port } = server.address() as AddressInfo;
      const error = await millrace(app, { databaseUrl: `postgres://u:s3cret@127.0.0.1:${port}/db` }).catch(
        (thrown: unknown) => thrown,
      );
      expect(error).toEqual(unreachable);
      expect(`${(error as Error).message} ${(error as Error).stack}`).not.toContain("s3cret");
      await new Promise((closed) => server.close(closed));
    });

    test("says so when there is no such database", async () => {
      if (file.database.backend !== "postgres") return;
      const url = new URL(file.database.url);
      url.pathname = "/no_such_database";
      await expect(millrace(app, { databaseUrl: url.href })).rejects.toEqual(unreachable);
    });
  });
});

describe("an error", () => {
  test("has a code, what to do, and its cause", () => {
    const cause = new Error("why");
    const error = new MillraceError("JOB_STATE", "no", { cause });
    expect(error).toMatchObject({ name: "MillraceError", code: "JOB_STATE", message: "no", cause });
    expect(error.action).toBe(errorCodes.JOB_STATE.action);
    expect(error).toBeInstanceOf(Error);
  });

  test("of every code says in one sentence what to do", () => {
    for (const { action, status } of Object.values(errorCodes)) {
      expect(action).toMatch(/^[A-Z].*\.$/);
      expect(status).toBeGreaterThanOrEqual(400);
    }
  });

  test("that a task throws carries what the engine needs", () => {
    expect(new NonRetryableError("no")).toMatchObject({ name: "NonRetryableError", code: "NON_RETRYABLE" });
    expect(new NonRetryableError("no", { code: "GONE" })).toMatchObject({ code: "GONE" });
    expect(new RateLimitError("wait", { retryAfterMs: 5 })).toMatchObject({
      name: "RateLimitError",
      code: "RATE_LIMIT",
      retryAfterMs: 5,
    });
  });
});
