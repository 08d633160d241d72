/** The contents of all tables, set aside and put back: much faster than a new database. */
import type { PGlite } from "../db/embedded.ts";

/** Of every table of a user, Millrace's among them; those we set aside are not. */
const tables = `
  select n.nspname as schema, c.relname as name, c.oid
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where c.relkind = 'r' and c.relpersistence <> 't'
    and n.nspname !~ '^(pg_|millrace_saved_)' and n.nspname <> 'information_schema'`;

/** Sets the contents of all tables aside, under a name of lower-case letters. */
export async function saveState(pglite: PGlite, name: string): Promise<void> {
  const into = `millrace_saved_${name}`;
  await pglite.exec(`
    do $$ declare t record; n int := 0; filled boolean; begin
      drop schema if exists ${into} cascade;
      create schema ${into};
      create table ${into}.sequences as select schemaname, sequencename, start_value, last_value from pg_sequences;
      create table ${into}.tables (n int, schema text, name text);
      for t in ${tables} loop
        execute format('select exists (select from %I.%I)', t.schema, t.name) into filled;
        if filled then
          n := n + 1;
          execute format('create table ${into}.t%s as table %I.%I', n, t.schema, t.name);
          insert into ${into}.tables values (n, t.schema, t.name);
        end if;
      end loop;
    end $$`);
}

/** Puts back what was set aside. Tables made since are emptied; those dropped since are an error. */
export async function restoreState(pglite: PGlite, name: string): Promise<void> {
  const from = `millrace_saved_${name}`;
  // Replica: no trigger fires and no foreign key is checked; the rows fitted together when they were set aside.
  await pglite.exec(`
    do $$ declare t record; begin
      perform set_config('session_replication_role', 'replica', true);
      for t in ${tables} loop
        execute format('delete from %I.%I', t.schema, t.name);
      end loop;
      for t in
        select s.n, s.schema, s.name, string_agg(quote_ident(a.attname), ', ' order by a.attnum) as columns
        from ${from}.tables s
        join pg_attribute a on a.attrelid = format('%I.%I', s.schema, s.name)::regclass and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
        group by s.n, s.schema, s.name order by s.n
      loop
        execute format('insert into %I.%I (%s) overriding system value select %s from ${from}.t%s', t.schema, t.name, t.columns, t.columns, t.n);
      end loop;
      for t in select * from ${from}.sequences loop
        perform setval(format('%I.%I', t.schemaname, t.sequencename)::regclass, coalesce(t.last_value, t.start_value), t.last_value is not null);
      end loop;
    end $$`);
}

const own = "'public', 'information_schema', 'millrace', 'millrace_clock', 'millrace_saved_empty'";

/** Drops whatever a test has made besides rows. */
export async function dropForeign(pglite: PGlite): Promise<void> {
  await pglite.exec(`
    do $$ declare s record; begin
      for s in select nspname from pg_namespace where nspname !~ '^pg_' and nspname not in (${own}) loop
        execute format('drop schema %I cascade', s.nspname);
      end loop;
      if exists (select from pg_depend where refclassid = 'pg_namespace'::regclass and refobjid = 'public'::regnamespace) then
        drop schema public cascade;
        create schema public;
      end if;
    end $$`);
}

/** Changes whenever something other than rows of Millrace's tables does: every such thing has a number, and none is given twice. */
export async function shapeOf(pglite: PGlite): Promise<string> {
  const counts = [
    "pg_class",
    "pg_proc",
    "pg_trigger",
    "pg_constraint",
    "pg_type",
    "pg_authid",
    "pg_extension",
    "pg_policy",
  ];
  const { rows } = await pglite.query<{ shape: string }>(
    `select concat_ws(' ', ${counts.map((table) => `(select count(*) || ':' || max(oid)::text from ${table} where oid >= 16384)`).join(", ")},
       (select sum(relnatts + relchecks) from pg_class where oid >= 16384)) as shape`,
  );
  return rows[0]?.shape ?? "";
}
