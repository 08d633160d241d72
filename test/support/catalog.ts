/** What a schema looks like, from the server's catalogs, as text that can be compared and read. */
import type { Database } from "../../src/db/database.ts";
import { sql } from "../../src/db/sql.ts";

export async function describeSchema(db: Database): Promise<string> {
  const lines = await db.query<{ line: string }>(sql`
    with here as (select oid from pg_namespace where nspname = ${db.schema}),
    tables as (
      select c.oid, c.relname, c.reloptions, case c.relkind when 'v' then 'view' else 'table' end as kind
      from pg_class c join here on here.oid = c.relnamespace where c.relkind in ('r', 'v')
    ),
    lines as (
      select relname as thing, 0 as kind, '' as name,
             format('%s %s%s', kind, relname, coalesce(' with (' || array_to_string(reloptions, ', ') || ')', '')) as line
      from tables
      union all
      select t.relname, 1, lpad(a.attnum::text, 3, '0'),
             format('  %s %s%s%s%s%s', a.attname, format_type(a.atttypid, a.atttypmod), case when a.attnotnull then ' not null' else '' end,
                    case a.attidentity when 'a' then ' generated always as identity' else '' end,
                    coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), ''),
                    case when a.attstorage <> ty.typstorage then ' storage ' || a.attstorage::text else '' end)
      from tables t join pg_attribute a on a.attrelid = t.oid and a.attnum > 0 and not a.attisdropped join pg_type ty on ty.oid = a.atttypid
      left join pg_attrdef d on d.adrelid = t.oid and d.adnum = a.attnum
      union all
      -- from PostgreSQL 18 on, not null is a constraint too; the columns tell it already
      select t.relname, 2, c.conname, format('  constraint %s %s', c.conname, pg_get_constraintdef(c.oid))
      from tables t join pg_constraint c on c.conrelid = t.oid and c.contype <> 'n'
      union all
      select t.relname, 3, i.relname, '  ' || pg_get_indexdef(i.oid)
      from tables t join pg_index x on x.indrelid = t.oid join pg_class i on i.oid = x.indexrelid
      where not exists (select from pg_constraint c where c.conindid = i.oid)
      union all
      select t.relname, 4, tg.tgname, '  ' || pg_get_triggerdef(tg.oid)
      from tables t join pg_trigger tg on tg.tgrelid = t.oid and not tg.tgisinternal
      union all
      select ty.typname, 5, '', format('type %s as range of %s', ty.typname, format_type(r.rngsubtype, null))
      from pg_type ty join here on here.oid = ty.typnamespace join pg_range r on r.rngtypid = ty.oid
      union all
      select p.proname, 6, '', 'function ' || p.oid::regprocedure::text
      from pg_proc p join here on here.oid = p.pronamespace
      where not exists (select from pg_depend dep where dep.objid = p.oid and dep.deptype = 'i')
    )
    select line from lines order by kind >= 5, thing, kind, name`);
  const quoted = new RegExp(`"?\\b${db.schema}\\b"?\\.`, "g");
  return `${lines.map(({ line }) => line.replaceAll(quoted, "")).join("\n")}\n`;
}
