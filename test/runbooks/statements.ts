/**
 * The statements that the runbooks have an operator give to `psql`, on PostgreSQL: one entry per line, as they have it but for names.
 * Tables of the applications they were written for are none of ours: another stands in, and `instead` says what was replaced.
 */
import type { Runbook } from "./lines.ts";

interface Statement {
  readonly runbook: Runbook;
  readonly section: string;
  readonly sql: string;
  readonly instead?: string;
  /** What the rows, as JSON, must match. Left out: it answers with none. */
  readonly rows?: RegExp;
}

const total = /^\[\{"count":"\d+"\}\]$/;

export const statements: readonly Statement[] = [
  {
    runbook: "001",
    section: "Scheduler / Job Failures, 2",
    sql: "SELECT * FROM millrace.job_runs",
    instead: "named in words: job_runs",
    rows: /"scan"/,
  },
  { runbook: "001", section: "Database Retention & Archival, 2", sql: "VACUUM ANALYZE" },
  { runbook: "002", section: "1", sql: "SELECT 1;", rows: /^\[\{"\?column\?":1\}\]$/ },
  {
    runbook: "002",
    section: "4.1, index usage",
    sql: "SELECT schemaname, relname AS tablename, indexrelname AS indexname, idx_scan FROM pg_stat_user_indexes ORDER BY idx_scan ASC LIMIT 20;",
    instead: "tablename and indexname, which that view does not have",
    rows: /"tablename":"\w+","indexname":"\w+","idx_scan":/,
  },
  {
    runbook: "002",
    section: "4.1, table sizes",
    sql: "SELECT schemaname, tablename, pg_size_pretty(pg_total_relation_size(quote_ident(schemaname)||'.'||tablename)) AS size FROM pg_tables WHERE schemaname = 'millrace' ORDER BY pg_total_relation_size(quote_ident(schemaname)||'.'||tablename) DESC;",
    instead: "schema public; and the name of the schema is quoted, for here it may need it",
    rows: /"tablename":"jobs","size":"\d+ \w+"/,
  },
  { runbook: "002", section: "4.2, all tables", sql: "ANALYZE;" },
  { runbook: "002", section: "4.2, one table", sql: "ANALYZE millrace.jobs;", instead: "table projects" },
  { runbook: "002", section: "4.2, vacuum", sql: "VACUUM ANALYZE millrace.jobs;", instead: "table projects" },
  {
    runbook: "002",
    section: "4.3, index",
    sql: "REINDEX INDEX millrace.jobs_pkey;",
    instead: "index idx_scenes_project_id",
  },
  { runbook: "002", section: "4.3, table", sql: "REINDEX TABLE millrace.pending;", instead: "table scenes" },
  { runbook: "002", section: "4.4, all", sql: "SELECT count(*) FROM pg_stat_activity;", rows: total },
  {
    runbook: "002",
    section: "4.4, by state",
    sql: "SELECT state, count(*) FROM pg_stat_activity GROUP BY state;",
    rows: /"state":"active","count":"[1-9]/,
  },
  {
    runbook: "002",
    section: "5.3, missing indexes",
    sql: "SELECT * FROM pg_stat_all_tables WHERE idx_scan = 0 AND seq_scan > 0;",
    rows: /^\[(\{.*"seq_scan":.*\})?\]$/,
  },
  { runbook: "002", section: "9.1", sql: "VACUUM ANALYZE;" },
  { runbook: "002", section: "11", sql: "SELECT version();", rows: /"version":"PostgreSQL \d+/ },
  { runbook: "002", section: "11", sql: "SELECT count(*) FROM pg_stat_activity;", rows: total },
  {
    runbook: "004",
    section: "Queue depth grows continuously, 5",
    sql: "SELECT * FROM millrace.queue_policies",
    instead: "named in words: queue_policies",
    rows: /"max_enqueue_per_minute":1\b/,
  },
  {
    runbook: "004",
    section: "Queue depth grows continuously, 5",
    sql: "SELECT * FROM millrace.policy_decisions",
    instead: "named in words: policy_decisions",
    rows: /^\[.*\]$/,
  },
];

/** Variables that the runbooks name and this server reads, with the default that they give, where they do. */
export const named: readonly { runbook: Runbook; section: string; name: string; value?: string }[] = [
  { runbook: "000", section: "Health endpoints", name: "HEALTH_ALLOWLIST" },
  { runbook: "000", section: "Queue triage", name: "OPS_ADMIN_EMAILS" },
  { runbook: "003", section: "Queue Backpressure", name: "WORKER_MAX_CONCURRENT_TASKS" },
  { runbook: "004", section: "Required Environment", name: "DATABASE_URL" },
  { runbook: "004", section: "Required Environment", name: "PGFLOW_WORKER_ID" },
  { runbook: "004", section: "Required Environment", name: "PGFLOW_QUEUE" },
  { runbook: "004", section: "Required Environment", name: "PGFLOW_LEASE_SECONDS", value: "10" },
  { runbook: "004", section: "Required Environment", name: "PGFLOW_ADMIN_ADDR" },
  { runbook: "004", section: "Required Environment", name: "PGFLOW_MIGRATE_ON_STARTUP" },
  { runbook: "004", section: "Required Environment", name: "PGFLOW_MAX_PAYLOAD_BYTES" },
  { runbook: "004", section: "Required Environment", name: "PGFLOW_MAX_ENQUEUE_PER_MINUTE" },
  { runbook: "004", section: "Required Environment", name: "ARCHIVE_SUCCEEDED_AFTER_DAYS", value: "7" },
  { runbook: "004", section: "Required Environment", name: "PRUNE_HISTORY_AFTER_DAYS", value: "7" },
  { runbook: "004", section: "Required Environment", name: "MAINTENANCE_INTERVAL_SECS", value: "60" },
];
