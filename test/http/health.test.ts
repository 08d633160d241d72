import { statfs } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, test, vi } from "vitest";
import { readAddresses } from "../../src/access/addresses.ts";
import type { Database } from "../../src/db/database.ts";
import { latestVersion } from "../../src/db/migrate.ts";
import { sql } from "../../src/db/sql.ts";
import { diskUsedPercent, readinessEndpoints } from "../../src/http/readiness.ts";
import { useDatabase } from "../support/engine.ts";
import { type Caller, callerOf, createApi, recorder } from "./caller.ts";
import { mounted } from "./mounted.ts";
import { millraceOn } from "./millrace-on.ts";

const file = useDatabase();
afterEach(() => void vi.useRealTimers());

/** The same database, but what is asked of it is answered by `query`. */
function answeringWith(db: Database, query: () => Promise<never>): Database {
  return { ...db, query };
}

function readinessOf(db: Database, usedPercent: number, diskThreshold = 0.9): Caller {
  const diskUsed = async () => usedPercent;
  return callerOf(
    mounted(readinessEndpoints(db, { diskUsedPercent: diskUsed, diskThreshold, isKnown: async () => true })),
  );
}

describe("liveness", () => {
  test.each(["/health", "/api/health"])("%s answers anyone, exactly, without asking the database", async (path) => {
    await using mill = await file.open();
    const asked = vi.fn<() => Promise<never>>(() => new Promise(() => {}));
    const call = callerOf(createApi(millraceOn(answeringWith(mill.db, asked)), { log: recorder() }));

    const { status, body } = await call(path, { from: "203.0.113.7", headers: { host: "queue.example" } });

    expect({ status, body }).toEqual({ status: 200, body: { status: "ok" } });
    expect(asked).not.toHaveBeenCalled();
  });
});

describe("who asks for application/health+json", () => {
  test("gets it, with its words; others get application/json", async () => {
    await using mill = await file.open();
    const call = callerOf(createApi(mill, { log: recorder(), healthAllowlist: readAddresses("127.0.0.1") }));
    const asking = { headers: { accept: "application/health+json" } };
    const stranger = { from: "203.0.113.7" };
    const typed = async (path: string, options = {}) => {
      const { headers, body } = await call(path, options);
      return [headers.get("content-type"), body["status"]];
    };
    for (const path of ["/health", "/api/health"]) {
      expect(await typed(path)).toEqual(["application/json", "degraded"]); // nobody works
      expect(await typed(path, { headers: { accept: "*/*" } })).toEqual(["application/json", "degraded"]);
      expect(await typed(path, asking)).toEqual(["application/health+json", "warn"]);
      expect((await call(path, { ...asking, ...stranger })).body).toEqual({ status: "ok" });
    }
    for (const path of ["/livez", "/readyz"]) {
      expect(await typed(path, stranger)).toEqual(["application/json", "ok"]);
      expect(await typed(path, { ...asking, ...stranger })).toEqual(["application/health+json", "ok"]);
    }
  });
});

describe("readiness", () => {
  test("is ok with a database that answers, its schema and room on the disk", async () => {
    await using mill = await file.open();
    const readiness = readinessOf(mill.db, 89);
    expect(await readiness("/health/test")).toMatchObject({
      status: 200,
      body: {
        status: "ok",
        checks: { database: { ok: true }, migrations: { ok: true }, disk: { ok: true, used_percent: 89 } },
      },
    });
  });

  test("is not ok, and says why, when the disk is 90 % full", async () => {
    await using mill = await file.open();
    const readiness = readinessOf(mill.db, 90);
    const { status, headers, body } = await readiness("/health/test");

    expect(status).toBe(503);
    expect(headers.get("content-type")).toBe("application/problem+json");
    expect(headers.get("retry-after")).toBe("5");
    expect(body).toMatchObject({
      code: "NOT_READY",
      detail: "The disk is 90 % full; 90 % is too much.",
      checks: { database: { ok: true }, disk: { ok: false, used_percent: 90 } },
    });
  });

  test("is not ok when the schema is of another version", async () => {
    await using mill = await file.open();
    const call = readinessOf(mill.db, 10);
    await mill.db.query(sql`insert into millrace.migrations (version, name) values (9999, '9999_later.sql')`);

    expect(await call("/health/test")).toMatchObject({
      status: 503,
      body: { code: "NOT_READY", detail: expect.stringContaining("9999"), checks: { migrations: { ok: false } } },
    });
  });

  test("is not ok when the database fails", async () => {
    await using mill = await file.open();
    const call = readinessOf(
      answeringWith(mill.db, () => Promise.reject(new Error("connection refused"))),
      10,
    );

    expect(await call("/health/test")).toMatchObject({
      status: 503,
      body: { detail: expect.stringContaining("connection refused"), checks: { database: { ok: false } } },
    });
  });

  test("gives a database that hangs two seconds, and asks it once for any number of probes", async () => {
    await using mill = await file.open();
    const asked = vi.fn<() => Promise<never>>(() => new Promise(() => {}));
    const call = readinessOf(answeringWith(mill.db, asked), 10);
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });

    const answers = [call("/health/test"), call("/health/test")];
    await vi.waitFor(() => expect(vi.getTimerCount()).toBe(2));
    await vi.advanceTimersByTimeAsync(2_000);

    for (const answer of answers) {
      expect(await answer).toMatchObject({ status: 503, body: { detail: expect.stringContaining("2000 ms") } });
    }
    expect(asked).toHaveBeenCalledOnce();
  });

  test("gives a disk that hangs, as one of a network does, as long, and measures it once", async () => {
    await using mill = await file.open();
    const measured = vi.fn<() => Promise<never>>(() => new Promise(() => {}));
    const isKnown = async () => true;
    const answers = [{ found: true, version: latestVersion }];
    const db = { ...mill.db, query: (async () => answers) as unknown as Database["query"] };
    const call = callerOf(mounted(readinessEndpoints(db, { diskUsedPercent: measured, diskThreshold: 0.9, isKnown })));
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });

    const both = [call("/readyz"), call("/readyz")];
    await vi.waitFor(() => expect(vi.getTimerCount()).toBe(2));
    await vi.advanceTimersByTimeAsync(2_000);

    for (const answer of both)
      expect(await answer).toMatchObject({
        status: 503,
        body: {
          detail: "The disk could not be measured: no answer within 2000 ms.",
          checks: { database: { ok: true }, disk: { ok: false } },
        },
      });
    expect(measured).toHaveBeenCalledOnce();
  });
});

describe("the disk", () => {
  test("is measured as df does, for a folder that is there and for one that is not yet", async () => {
    const { blocks, bfree, bavail } = await statfs(tmpdir());
    const used = Math.ceil(((blocks - bfree) / (blocks - bfree + bavail)) * 100);
    for (const folder of [tmpdir(), join(tmpdir(), "not", "there", "yet")]) {
      // Others write to this disk meanwhile.
      expect(Math.abs((await diskUsedPercent(folder)) - used)).toBeLessThanOrEqual(1);
    }
  });
});
