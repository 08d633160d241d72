/** Is the process up (asks nobody), and can it do its work (asks the database, the schema and the disk)? */
import { statfs } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { Hono } from "hono";
import type { Database } from "../db/database.ts";
import { latestVersion, schemaVersion } from "../db/migrate.ts";
import type { ApiEnv } from "./env.ts";
import { problem } from "./problem.ts";

const databaseLimitMs = 2_000;
const diskLimitPercent = 90;

/** For load balancers and anyone else: answers without looking at anything, so it is as fast as the process is alive. */
export function livenessRoutes(): Hono<ApiEnv> {
  return new Hono<ApiEnv>()
    .get("/health", (c) => c.json({ status: "ok" }))
    .get("/api/health", (c) => c.json({ status: "ok" }));
}

interface Check {
  readonly ok: boolean;
  /** A sentence when it is not. */
  readonly reason?: string;
  readonly [measured: string]: unknown;
}

export function readinessRoutes(db: Database, diskUsedPercent: () => Promise<number>): Hono<ApiEnv> {
  // A database that hangs is asked once, however many probes wait for it.
  let asked: Promise<number> | undefined;
  const askOnce = (): Promise<number> => {
    asked ??= schemaVersion(db).finally(() => (asked = undefined));
    return asked;
  };

  return new Hono<ApiEnv>().get("/health/test", async (c) => {
    const [[database, migrations], disk] = await Promise.all([
      checkDatabase(askOnce),
      diskUsedPercent().then(diskCheck, unreadableDisk),
    ]);
    const checks = { database, migrations, disk };
    const reasons = Object.values(checks).flatMap(({ reason }) => reason ?? []);
    if (reasons.length === 0) return c.json({ status: "ok", checks });
    return problem(c, "NOT_READY", reasons.join(" "), { members: { checks } });
  });
}

async function checkDatabase(ask: () => Promise<number>): Promise<[database: Check, migrations: Check]> {
  const startedAt = performance.now();
  try {
    const version = await within(databaseLimitMs, ask());
    return [{ ok: true, ms: Math.round(performance.now() - startedAt) }, migrationsCheck(version)];
  } catch (error) {
    const reason = `The database did not answer: ${(error as Error).message.replace(/\.$/, "")}.`;
    return [{ ok: false, reason }, { ok: false }];
  }
}

function migrationsCheck(version: number): Check {
  const measured = { version, needed: latestVersion };
  if (version === latestVersion) return { ok: true, ...measured };
  const reason = `The schema is at version ${version}; this Millrace needs ${latestVersion}.`;
  return { ok: false, reason, ...measured };
}

function diskCheck(usedPercent: number): Check {
  const measured = { used_percent: usedPercent, limit_percent: diskLimitPercent };
  if (usedPercent < diskLimitPercent) return { ok: true, ...measured };
  const reason = `The disk is ${usedPercent} % full; ${diskLimitPercent} % is too much.`;
  return { ok: false, reason, ...measured };
}

function unreadableDisk(error: Error): Check {
  return { ok: false, reason: `The disk could not be measured: ${error.message}.` };
}

/** How full the disk under a folder is, as `df` counts it. A folder that is not there yet will be made on its parent's disk. */
export async function diskUsedPercent(folder: string): Promise<number> {
  try {
    const { blocks, bfree, bavail } = await statfs(folder);
    const used = blocks - bfree;
    return used + bavail === 0 ? 0 : Math.ceil((used / (used + bavail)) * 100);
  } catch (error) {
    const parent = dirname(resolve(folder));
    if ((error as { code?: string }).code !== "ENOENT" || parent === folder) throw error;
    return diskUsedPercent(parent);
  }
}

async function within<Value>(ms: number, work: Promise<Value>): Promise<Value> {
  let timer: NodeJS.Timeout | undefined;
  const tooLate = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${ms} ms`)), ms);
  });
  try {
    return await Promise.race([work, tooLate]);
  } finally {
    clearTimeout(timer);
  }
}
