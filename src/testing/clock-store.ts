/**
 * Virtual time in SQL: functions named like PostgreSQL's own, found before them by the search path, that read a setting of the session.
 *
 * There are two, because time stands still and history must still have an order. What decides when something is due reads
 * `millrace_clock.now()`, which moves only when the test moves it. The defaults of Millrace's columns, which say when something
 * happened, were bound to `millrace_history.now()` when the tables were made: it is a microsecond later after every commit.
 */
import type { PGlite } from "../db/embedded.ts";

const functions = `
create schema millrace_clock;
create schema millrace_history;
create function millrace_clock.now() returns timestamptz language sql stable as
  $$ select current_setting('millrace.now')::timestamptz $$;
create function millrace_history.now() returns timestamptz language sql stable as
  $$ select current_setting('millrace.history')::timestamptz
       + (pg_snapshot_xmax(pg_current_snapshot())::text::bigint - current_setting('millrace.xid')::bigint) * interval '1 microsecond' $$;
create function millrace_clock.transaction_timestamp() returns timestamptz language sql stable as
  $$ select current_setting('millrace.now')::timestamptz $$;
create function millrace_clock.statement_timestamp() returns timestamptz language sql stable as
  $$ select millrace_history.now() $$;
create function millrace_clock.clock_timestamp() returns timestamptz language sql stable as
  $$ select millrace_history.now() $$;
`;

/** Part of what a prepared database is made of; see `template.ts`. */
export const clockDefinition: string = functions;

/** To be called before the migrations: their column defaults are bound to what the search path finds now. */
export async function installClock(pglite: PGlite, ms: number): Promise<void> {
  await pglite.exec(functions);
  await startClock(pglite, ms);
  await pglite.exec("set search_path = public, millrace_history, pg_catalog");
}

/** A new beginning, earlier than before perhaps. `public` comes first: what is made without a schema is made there. */
export async function startClock(pglite: PGlite, ms: number): Promise<void> {
  await pglite.exec("set search_path = public, millrace_clock, pg_catalog");
  await pglite.query(
    `select set_config('millrace.now', $1::text, false), set_config('millrace.history', $1::text, false),
            set_config('millrace.xid', pg_snapshot_xmax(pg_current_snapshot())::text, false)`,
    [new Date(ms).toISOString()],
  );
}

/** Later than before. History never goes back, however much happened in one moment. */
export async function moveClock(pglite: PGlite, ms: number): Promise<void> {
  await pglite.query(
    `with told as materialized (select greatest($1::text::timestamptz, millrace_history.now())::text as until)
     select set_config('millrace.now', $1::text, false), set_config('millrace.history', until, false),
            set_config('millrace.xid', pg_snapshot_xmax(pg_current_snapshot())::text, false)
     from told`,
    [new Date(ms).toISOString()],
  );
}
