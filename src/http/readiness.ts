/** Can this process do its work? Asks the database, the schema and the disk. */
import { statfs } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { z } from "zod";
import type { Database } from "../db/database.ts";
import { latestVersion, schemaVersion } from "../db/migrate.ts";
import { within } from "./deadline.ts";
import { type Endpoints, endpoint } from "./endpoint.ts";
import type { ApiContext } from "./env.ts";
import { aliveAnswer, named, sayHealth } from "./health.ts";
import { problem } from "./problem.ts";

/** For the database, and for the disk. */
const limitMs = 2_000;

const check = { ok: z.boolean(), reason: z.string().optional() };
const readyAnswer = z
  .object({
    status: z.literal("ok"),
    checks: z.object({
      database: z.object({ ...check, ms: z.int().min(0) }),
      migrations: z.object({ ...check, version: z.int(), needed: z.int() }),
      disk: z.object({ ...check, used_percent: z.number(), limit_percent: z.number() }),
    }),
  })
  .meta({ id: "Ready" });
const strangers = z.union([readyAnswer, aliveAnswer]);

interface Check {
  readonly ok: boolean;
  /** A sentence when it is not. */
  readonly reason?: string;
  readonly [measured: string]: unknown;
}

export interface ReadinessOptions {
  readonly diskUsedPercent: () => Promise<number>;
  /** The share of the disk, 0 to 1, from which on there is too little room. */
  readonly diskThreshold: number;
  /** Whether this caller may know why. */
  readonly isKnown: (c: ApiContext, withinMs: number) => Promise<boolean>;
  /** From then on nothing more is to be sent here. */
  readonly stopping?: AbortSignal | undefined;
}

export function readinessEndpoints(db: Database, options: ReadinessOptions): Endpoints {
  const { diskThreshold, isKnown, stopping } = options;
  const limitPercent = Math.round(diskThreshold * 1_000) / 10;
  const askDatabase = impatient(() => schemaVersion(db));
  const measureDisk = impatient(options.diskUsedPercent);

  const look = async () => {
    const [[database, migrations], disk] = await Promise.all([
      checkDatabase(askDatabase),
      measureDisk().then((used) => diskCheck(used, limitPercent), unreadableDisk),
    ]);
    const checks = { database, migrations, disk };
    const reasons = Object.values(checks).flatMap(({ reason }) => reason ?? []);
    return { checks, reasons: stopping?.aborted ? ["This server is stopping.", ...reasons] : reasons };
  };
  const told = (c: ApiContext, { checks, reasons }: Awaited<ReturnType<typeof look>>): Response =>
    reasons.length === 0
      ? sayHealth(c, { status: "ok", checks })
      : problem(c, "NOT_READY", reasons.join(" "), { members: { checks } });

  return [
    endpoint("Health", "GET /health/test", {
      summary: "Whether database, schema and disk are fit for work, and why not",
      role: "viewer",
      answers: { 200: [readyAnswer, named(readyAnswer)] },
      errors: ["NOT_READY"],
      handle: async ({ c }) => told(c, await look()),
    }),
    endpoint("Health", "GET /readyz", {
      summary: "Whether it is fit for work; why not is told to those who may know",
      role: "public",
      routeClass: "probe",
      query: z.looseObject({}),
      answers: { 200: [strangers, named(strangers)] },
      errors: ["NOT_READY"],
      async handle({ c }) {
        const [found, known] = await Promise.all([look(), isKnown(c, limitMs)]);
        if (known) return told(c, found);
        return found.reasons.length === 0
          ? sayHealth(c, { status: "ok" })
          : problem(c, "NOT_READY", "This server is not ready.");
      },
    }),
  ];
}

/** What hangs is asked once, however many probes wait for it, and given up in time. */
export function impatient<Value>(ask: () => Promise<Value>): () => Promise<Value> {
  let asked: Promise<Value> | undefined;
  return async () => {
    asked ??= ask().finally(() => (asked = undefined));
    const answer = await within(limitMs, asked);
    if (answer === undefined) throw new Error(`no answer within ${limitMs} ms`);
    return answer;
  };
}

async function checkDatabase(ask: () => Promise<number>): Promise<[database: Check, migrations: Check]> {
  const startedAt = performance.now();
  try {
    const version = await ask();
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

function diskCheck(usedPercent: number, limitPercent: number): Check {
  const measured = { used_percent: usedPercent, limit_percent: limitPercent };
  if (usedPercent < limitPercent) return { ok: true, ...measured };
  const reason = `The disk is ${usedPercent} % full; ${limitPercent} % is too much.`;
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
