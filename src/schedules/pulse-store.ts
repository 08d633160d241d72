/** Whether anybody fires schedules, as far as the database can tell: schedulers have no row of their own. */
import type { Executor } from "../db/database.ts";
import { sql } from "../db/sql.ts";
import { goesOn } from "./firing-store.ts";
import { aliveMs } from "./versions-store.ts";

export interface Pulse {
  /** Schedules that fire: neither paused nor retired, with a tick to come. */
  readonly scheduled: number;
  /** Since when the one that is due the longest waits to be fired, in ms; 0: none does, or the system is drained. */
  readonly lateMs: number;
  /** Code defines some of them, and nobody with code has said for a minute that it lives. */
  readonly abandoned: boolean;
}

export async function readPulse(db: Executor): Promise<Pulse> {
  const [row] = await db.query<Pulse>(sql`
    select (select count(*)::int from millrace.schedules where due_at is not null) as scheduled,
      greatest(coalesce((select extract(epoch from now() - min(due_at)) * 1000 from millrace.schedules where ${goesOn}), 0), 0)::float8 as "lateMs",
      exists (select from millrace.schedules where due_at is not null and source <> 'operator')
        and not exists (select from millrace.schedule_versions
          where first_at > '-infinity' and abs(extract(epoch from now() - beat_at)) * 1000 < ${aliveMs}::float8) as abandoned`);
  return row ?? { scheduled: 0, lateMs: 0, abandoned: false };
}
