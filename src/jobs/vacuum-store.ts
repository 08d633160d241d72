/** Vacuum of the hot tables, which are emptied as fast as they are filled. */
import type { Database } from "../db/database.ts";
import { sql } from "../db/sql.ts";

/** Whether anybody has vacuumed them so recently: autovacuum, or one of the workers. */
export async function vacuumedWithin(db: Database, ms: number): Promise<boolean> {
  const [last] = await db.query<{ recent: boolean }>(sql`
    select coalesce(greatest(pg_stat_get_last_vacuum_time(pending), pg_stat_get_last_autovacuum_time(pending))
      > clock_timestamp() - ${ms}::float8 * interval '1 millisecond', false) as recent
    from (select 'millrace.pending'::regclass as pending) t`);
  return last?.recent ?? false;
}

/** skip_locked: when another worker is at it already, it is left to that one. */
export async function vacuumHotTables(db: Database): Promise<void> {
  await db.script("vacuum (truncate off, skip_locked) millrace.pending");
  await db.script("vacuum (truncate off, skip_locked) millrace.leases");
}
