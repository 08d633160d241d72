import { query, redis } from "./connect.mjs";

const TABLES = `
  select s.schemaname || '.' || s.relname as name, pg_table_size(s.relid) / 1e6 as table_mb,
         pg_indexes_size(s.relid) / 1e6 as index_mb, n_dead_tup::int as dead, vacuum_count::int + autovacuum_count::int as vacuums
    from pg_stat_user_tables s order by pg_total_relation_size(s.relid) desc limit 5`;

/** How large the contender's database is now, and its largest tables. */
export async function sizes({ kind, url }) {
  if (kind === "redis") {
    const info = await redis(url, (client) => client.info());
    const field = (name) => Number(info.match(new RegExp(`^${name}:(\\d+)`, "m"))?.[1] ?? 0) / 1e6;
    const [memory, log] = [field("used_memory"), field("aof_current_size")];
    return { megabytes: memory, text: `memory ${memory.toFixed(1)} MB, append-only file ${log.toFixed(0)} MB` };
  }
  const [{ megabytes }] = await query(url, "select pg_database_size(current_database()) / 1e6 as megabytes");
  const tables = (await query(url, TABLES)).filter((table) => Number(table.table_mb) + Number(table.index_mb) >= 1);
  const text = tables.map(
    (table) =>
      `${table.name}: ${Number(table.table_mb).toFixed(0)} MB + indexes ${Number(table.index_mb).toFixed(0)} MB, ` +
      `${table.dead.toLocaleString("en-US")} dead, vacuumed ${table.vacuums}×`,
  );
  return { megabytes: Number(megabytes), text: text.join("; ") || "no table above 1 MB" };
}
