/**
 * Virtual time in SQL: functions named like PostgreSQL's own, found before them by the search path, that read settings of the session.
 *
 * Time stands still, and yet what happens has an order, which history tells by its times: each commit is a microsecond. What is due
 * is due at a whole millisecond, so that a job that asks for its next run "in a minute" asks for the same minute however much
 * has been written meanwhile.
 */
import type { PGlite } from "../db/embedded.ts";

const functions = `
create schema millrace_clock;
create function millrace_clock.now() returns timestamptz language sql stable as
  $$ select current_setting('millrace.now')::timestamptz
       + (pg_snapshot_xmax(pg_current_snapshot())::text::bigint - current_setting('millrace.xid')::bigint) * interval '1 microsecond' $$;
create function millrace_clock.transaction_timestamp() returns timestamptz language sql stable as $$ select millrace_clock.now() $$;
create function millrace_clock.statement_timestamp() returns timestamptz language sql stable as $$ select millrace_clock.now() $$;
create function millrace_clock.clock_timestamp() returns timestamptz language sql stable as $$ select millrace_clock.now() $$;
create function millrace_clock.whole_run_at() returns trigger language plpgsql as
  $$ begin new.run_at := date_trunc('milliseconds', new.run_at); return new; end $$;
create function millrace_clock.whole_retry_at() returns trigger language plpgsql as
  $$ begin new.retry_at := date_trunc('milliseconds', new.retry_at); return new; end $$;
create function millrace_clock.whole_until() returns trigger language plpgsql as
  $$ begin new.until := date_trunc('milliseconds', new.until); return new; end $$;
`;

/**
 * On every table that says when something is due; the same time stands in several, and must be the same in all: a job that wakes before
 * the step it sleeps in is over is put off again.
 */
const triggers = `
do $$ declare c record; begin
  for c in
    select n.nspname as schema, t.relname as name, a.attname as field
    from pg_attribute a join pg_class t on t.oid = a.attrelid join pg_namespace n on n.oid = t.relnamespace
    where n.nspname = 'millrace' and t.relkind = 'r' and a.attname in ('run_at', 'retry_at', 'until') and not a.attisdropped
  loop
    execute format('create trigger whole_time before insert or update on %I.%I for each row when (new.%I is not null) execute function millrace_clock.whole_%s()',
      c.schema, c.name, c.field, c.field);
  end loop;
end $$`;

/** Part of what a prepared database is made of; see `template.ts`. */
export const clockDefinition: string = functions + triggers;

/** To be called before the migrations: their column defaults are bound to what the search path finds now. */
export async function installClock(pglite: PGlite): Promise<void> {
  await pglite.exec(functions);
  await startClock(pglite, 0);
}

/** To be called after the migrations. */
export async function wholeDueTimes(pglite: PGlite): Promise<void> {
  await pglite.exec(triggers);
}

/** A new beginning, earlier than before perhaps. `public` comes first: what is made without a schema is made there. */
export async function startClock(pglite: PGlite, ms: number): Promise<void> {
  // Simple protocol, as all that takes no values: it is several times as fast.
  await pglite.exec(`
    set search_path = public, millrace_clock, pg_catalog;
    select set_config('millrace.now', '${new Date(ms).toISOString()}', false),
           set_config('millrace.xid', pg_snapshot_xmax(pg_current_snapshot())::text, false)`);
}

/** Later than before. Nothing that happens from here on is earlier than what has happened, however much that was. */
export async function moveClock(pglite: PGlite, ms: number): Promise<void> {
  await pglite.exec(`
    select set_config('millrace.now', greatest('${new Date(ms).toISOString()}'::timestamptz, millrace_clock.now())::text, false);
    select set_config('millrace.xid', pg_snapshot_xmax(pg_current_snapshot())::text, false)`);
}

/** What it takes to come back to this moment. */
export interface Moment {
  readonly time: string;
}

export async function momentNow(pglite: PGlite): Promise<Moment> {
  const { rows } = await pglite.query<Moment>("select millrace_clock.now()::text as time");
  return rows[0] as Moment;
}

/** History goes on behind what it told then. */
export async function returnTo(pglite: PGlite, { time }: Moment): Promise<void> {
  await pglite.query(
    `select set_config('millrace.now', $1::text, false), set_config('millrace.xid', pg_snapshot_xmax(pg_current_snapshot())::text, false)`,
    [time],
  );
}
