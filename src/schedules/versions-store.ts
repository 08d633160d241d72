/** Which versions of an app define schedules, and which of them live. */
import type { Executor } from "../db/database.ts";
import { sql, textArrayLiteral } from "../db/sql.ts";

export interface Version {
  /** What it defines, as a hash. */
  readonly fingerprint: string;
  /** The schedules it defines. */
  readonly names: readonly string[];
}

/** A version is alive for so long after one of its processes said so. */
const aliveMs = 60_000;
const forgottenMs = 86_400_000;

/** One after the other: who comes later must see what the one before wrote. */
export async function lockVersions(tx: Executor, schema: string): Promise<void> {
  await tx.query(sql`select pg_advisory_xact_lock(hashtextextended(${`millrace schedules ${schema}`}, 0))::text`);
}

/** Says that these versions live. Returns all that do, the newest first. */
export async function beatVersions(tx: Executor, versions: readonly Version[]): Promise<Version[]> {
  for (const { fingerprint, names } of versions) {
    await tx.query(sql`
      insert into millrace.schedule_versions (fingerprint, names) values (${fingerprint}, ${textArrayLiteral(names)}::text[])
      on conflict (fingerprint) do update set beat_at = now()`);
  }
  return tx.query<Version>(sql`
    select fingerprint, names from millrace.schedule_versions
    where beat_at > now() - ${aliveMs}::float8 * interval '1 millisecond' order by first_at desc, fingerprint`);
}

/** Forgets versions that have been gone for a day: when one comes back, it is new. */
export async function forgetVersions(tx: Executor): Promise<void> {
  await tx.query(sql`
    delete from millrace.schedule_versions where beat_at < now() - ${forgottenMs}::float8 * interval '1 millisecond'`);
}

/** Nobody else can be alive: forgets every version. */
export async function forgetAllVersions(tx: Executor): Promise<void> {
  await tx.query(sql`delete from millrace.schedule_versions where true`);
}

/** Schedules that code defined and no living version does, not retired yet. */
export async function orphanedSchedules(tx: Executor, living: readonly string[]): Promise<string[]> {
  const rows = await tx.query<{ name: string }>(sql`
    select name from millrace.schedules
    where source in ('code', 'built_in') and retired_at is null and name <> all (${textArrayLiteral(living)}::text[]) order by id`);
  return rows.map(({ name }) => name);
}
