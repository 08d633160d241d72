/**
 * Brings the schema to what this version needs: forward only, each migration in one transaction, all under one advisory lock, so
 * any number of processes may start at once. A database newer than the code is refused before anything is touched.
 */
import { createHash } from "node:crypto";
import { MillraceError } from "../core/errors.ts";
import type { Database, Executor } from "./database.ts";
import { files } from "./migrations.generated.ts";
import { Dialect, Sql, quoteIdent, sql } from "./sql.ts";

export interface Migration {
  readonly version: number;
  readonly name: string;
  readonly text: string;
}

export const migrations: readonly Migration[] = Object.entries(files).map(([name, text]) => ({
  version: Number.parseInt(name, 10),
  name,
  text,
}));

export const latestVersion: number = migrations.at(-1)?.version ?? 0;

/** Applies what is missing; returns the names applied. Safe to run from many processes at once. */
export async function migrate(db: Database): Promise<string[]> {
  const applied: string[] = [];
  for (;;) {
    const name = await db.transaction((tx) => applyNext(tx, db.schema));
    if (name === undefined) return applied;
    applied.push(name);
  }
}

async function applyNext(tx: Executor, schema: string): Promise<string | undefined> {
  await tx.query(sql`select pg_advisory_xact_lock(${lockKey(schema)}::bigint)::text`);
  const current = await versionIn(tx, schema);
  refuseNewer(current);
  const next = migrations.find(({ version }) => version > current);
  if (next === undefined) return undefined;
  const dialect = new Dialect(schema, false);
  const text =
    current === 0
      ? `create schema if not exists ${quoteIdent(schema)};\n${dialect.inSchema(next.text)}`
      : dialect.inSchema(next.text);
  for (const statement of statements(text)) await tx.query(new Sql([statement], []));
  await tx.query(sql`insert into millrace.migrations (version, name) values (${next.version}, ${next.name})`);
  return next.name;
}

/** The schema version of the database, 0 when Millrace was never installed there. */
export async function schemaVersion(db: Database): Promise<number> {
  return versionIn(db, db.schema);
}

async function versionIn(db: Executor, schema: string): Promise<number> {
  const [exists] = await db.query<{ found: boolean }>(
    sql`select to_regclass(${`${quoteIdent(schema)}.migrations`}) is not null as found`,
  );
  if (!exists?.found) return 0;
  const [row] = await db.query<{ version: number }>(
    sql`select coalesce(max(version), 0)::int as version from millrace.migrations`,
  );
  return row?.version ?? 0;
}

/** Throws unless the database has exactly the schema this code was written for. */
export async function requireCurrent(db: Database): Promise<void> {
  const version = await schemaVersion(db);
  refuseNewer(version);
  if (version < latestVersion) {
    throw new MillraceError(
      "DATABASE_BEHIND",
      `Schema "${db.schema}" is at version ${version}; this Millrace needs ${latestVersion}. Run \`millrace migrate\`.`,
    );
  }
}

function refuseNewer(version: number): void {
  if (version <= latestVersion) return;
  throw new MillraceError(
    "DATABASE_NEWER",
    `The database is at schema version ${version}, newer than the ${latestVersion} this Millrace knows. Deploy the newer Millrace; nothing was changed.`,
  );
}

/** The SQL a DBA would apply by hand, in the configured schema. */
export function printMigrations(schema: string): string {
  const dialect = new Dialect(schema, false);
  const parts = migrations.map(
    ({ name, version, text }) =>
      `-- ${name}\nbegin;\n${dialect.inSchema(text).trim()}\n${dialect.inSchema(`insert into millrace.migrations (version, name) values (${version}, '${name}');`)}\ncommit;\n`,
  );
  return `create schema if not exists ${quoteIdent(schema)};\n\n${parts.join("\n")}`;
}

/** Migrations are our own text: statements end with a semicolon at the end of a line, but for those within `$$`. */
function statements(text: string): string[] {
  return (text.match(/(?:\$\$[^]*?\$\$|[^$]|\$(?!\$))+?(?:;[ \t]*$|$(?![^]))/gm) ?? [])
    .map((statement) => statement.replace(/;\s*$/, "").trim())
    .filter((statement) => statement.replaceAll(/^\s*--.*$/gm, "").trim() !== "");
}

function lockKey(schema: string): string {
  return createHash("sha256").update(`millrace:${schema}`).digest().readBigInt64BE().toString();
}
