/** Which versions of an app define schedules, and which of them live. */
import type { Executor } from "../db/database.ts";
import { sql, textArrayLiteral } from "../db/sql.ts";

export interface Version {
  /** What it defines, as a hash. */
  readonly fingerprint: string;
  /** The schedules it defines. */
  readonly names: readonly string[];
  /** False: it only keeps its schedules from being retired. It comes before all that decide. */
  readonly decides: boolean;
}

/** A version is alive for so long after one of its processes said so. */
export const aliveMs = 60_000;
const forgottenMs = 86_400_000;

/** One after the other: who comes later must see what the one before wrote. */
export async function lockVersions(tx: Executor, schema: string): Promise<void> {
  await tx.query(sql`select pg_advisory_xact_lock(hashtextextended(${`millrace schedules ${schema}`}, 0))::text`);
}

/** Says that these versions live. One that a clock that was ahead saw first has come now. */
export async function beatVersions(tx: Executor, versions: readonly Version[]): Promise<void> {
  for (const { fingerprint, names, decides } of versions) {
    await tx.query(sql`
      insert into millrace.schedule_versions as v (fingerprint, names, first_at)
      values (${fingerprint}, ${textArrayLiteral(names)}::text[], case when ${decides}::boolean then clock_timestamp() else '-infinity' end)
      on conflict (fingerprint) do update set beat_at = now(), first_at = least(v.first_at, clock_timestamp())`);
  }
}

/** All that live, the newest first. A beat to come is one of a clock that was ahead: whoever lives has another within moments. */
export async function livingVersions(tx: Executor): Promise<Version[]> {
  return tx.query<Version>(sql`
    select fingerprint, names, first_at > '-infinity' as decides from millrace.schedule_versions
    where abs(extract(epoch from now() - beat_at)) * 1000 < ${aliveMs}::float8 order by first_at desc, fingerprint`);
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
