/**
 * What the five runbooks have an operator type, line by line, as they have it: one entry per line, with where it stands. Lines about rooms
 * that are not built yet name the room; lines about the machine around Millrace name what they are about.
 */

/** A line that is executed: what it must answer. */
interface Executed {
  readonly runbook: "000" | "001" | "002" | "003" | "004";
  readonly section: string;
  readonly line: string;
  readonly expects: Expectation;
}

/** A line that is not: the room that will answer it, or what outside of Millrace it is about. */
interface Unexecuted {
  readonly runbook: Executed["runbook"];
  readonly section: string;
  readonly line: string;
  readonly pending?: "ingest" | "callbacks" | "watch" | "cache" | "retention" | "deployment";
  readonly about?: string;
}

interface Expectation {
  readonly status?: number;
  /** What the JSON must match. */
  readonly body?: object;
  /** What the text must match. */
  readonly text?: RegExp;
}

/** Requests: `curl`, `Invoke-WebRequest`, `Invoke-RestMethod`, or a method and a path. */
export const requests: readonly Executed[] = [
  {
    runbook: "000",
    section: "Health endpoints",
    line: "GET /health",
    expects: { status: 200, body: { status: "ok" } },
  },
  {
    runbook: "000",
    section: "Health endpoints",
    line: "GET /api/health",
    expects: { status: 200, body: { status: "ok" } },
  },
  {
    runbook: "000",
    section: "Queue triage",
    line: "GET /api/ops/queues",
    expects: { status: 200, body: { status: "online", scheduler: { scheduled_jobs: 2 } } },
  },
  {
    runbook: "001",
    section: "Ingestion Failures, 3",
    line: `curl -X POST http://localhost:9000/scheduler/run -H "Authorization: Bearer <token>" -H "Content-Type: application/json" -d '{"job_id": "ingest_rank"}'`,
    expects: { status: 202, body: { queued: true, job_id: "ingest_rank" } },
  },
  {
    runbook: "001",
    section: "Scheduler / Job Failures, 1",
    line: "GET /scheduler/jobs",
    expects: { status: 200, text: /"job_id":"ingest_rank".*"next_run":"/ },
  },
  {
    runbook: "001",
    section: "Scheduler / Job Failures, 5",
    line: `POST /scheduler/toggle { "job_id": "ingest_rank", "action": "pause" }`,
    expects: { status: 200, body: { ok: true, paused: true } },
  },
  {
    runbook: "001",
    section: "Prometheus & Grafana, 1",
    line: "GET /metrics",
    expects: { status: 200 },
  },
  {
    runbook: "002",
    section: "1",
    line: "curl http://localhost:3001/health",
    expects: { status: 200, body: { status: "ok" } },
  },
  {
    runbook: "002",
    section: "1",
    line: "curl http://localhost:3001/api/queue/stats",
    expects: {
      status: 200,
      text: /"name":"ai-analysis","waiting":\d+,"active":\d+,"completed":\d+,"failed":\d+,"delayed":\d+,"total":\d+/,
    },
  },
  {
    runbook: "002",
    section: "2.2",
    line: "curl -X POST http://localhost:3001/api/queue/ai-analysis/pause",
    expects: { status: 200, body: { success: true, queue: "ai-analysis", changed: true } },
  },
  {
    runbook: "002",
    section: "2.3",
    line: "curl -X POST http://localhost:3001/api/queue/ai-analysis/resume",
    expects: { status: 200, body: { success: true, queue: "ai-analysis", changed: true } },
  },
  {
    runbook: "002",
    section: "2.4",
    line: "curl -X POST http://localhost:3001/api/queue/ai-analysis/clean",
    expects: { status: 200, body: { success: true, queue: "ai-analysis" } },
  },
  {
    runbook: "002",
    section: "8.2, 2",
    line: "curl -X POST http://localhost:3001/api/queue/pause-all",
    expects: { status: 200, body: { success: true } },
  },
  {
    runbook: "002",
    section: "8.2, 7",
    line: "curl -X POST http://localhost:3001/api/queue/resume-all",
    expects: { status: 200, body: { success: true } },
  },
  {
    runbook: "002",
    section: "9.1",
    line: "curl -X POST http://localhost:3001/api/queue/clean-all",
    expects: { status: 200, body: { success: true } },
  },
  { runbook: "003", section: "Service Health", line: "GET /health", expects: { status: 200, body: { status: "ok" } } },
  {
    runbook: "003",
    section: "Service Health",
    line: "GET /health/test",
    expects: { status: 200, body: { status: "ok", checks: { database: { ok: true }, disk: { ok: true } } } },
  },
  {
    runbook: "003",
    section: "Service Health",
    line: "GET http://localhost:4001/health",
    expects: { status: 200, body: { status: "ok" } },
  },
  {
    runbook: "004",
    section: "Smoke Checks",
    line: "Invoke-WebRequest -Uri http://localhost:3003/health -UseBasicParsing",
    expects: { status: 200 },
  },
  {
    runbook: "004",
    section: "Smoke Checks",
    line: 'Invoke-RestMethod -Uri "http://localhost:3003/metrics"',
    expects: { status: 200, text: /"runnable_queue_depth":\d+/ },
  },
  {
    runbook: "004",
    section: "Smoke Checks",
    line: 'Invoke-RestMethod -Uri "http://localhost:3003/dlq"',
    expects: { status: 200, text: /"dlq_reason_code":"NON_RETRYABLE".*/ },
  },
  { runbook: "004", section: "Observability", line: "GET /metrics/prom", expects: { status: 200, text: /^# HELP / } },
  { runbook: "004", section: "Observability", line: "GET /ingest/decisions", expects: { status: 200 } },
  {
    runbook: "004",
    section: "Observability",
    line: "GET /jobs/:id/timeline",
    expects: { status: 200, text: /"attempts":\[\{/ },
  },
  {
    runbook: "004",
    section: "Observability",
    line: "GET /jobs/:id/explain",
    expects: { status: 200, body: { because: "GAVE_UP" } },
  },
  {
    runbook: "004",
    section: "DLQ spike, 3",
    line: "GET /dlq?group=error_code",
    expects: { status: 200, body: { group: "error_code", total: 1 } },
  },
  {
    runbook: "004",
    section: "DLQ spike, 5",
    line: "POST /jobs/:id/replay",
    expects: { status: 200, text: /"replay_of_job_id":"/ },
  },
];

/** Statements for `psql`, on PostgreSQL. `about`: what stands instead of a name of the other system. */
export const statements: readonly { runbook: "001" | "002" | "004"; section: string; sql: string }[] = [
  { runbook: "001", section: "Scheduler / Job Failures, 2", sql: "SELECT * FROM millrace.job_runs" },
  { runbook: "002", section: "1", sql: "SELECT 1;" },
  {
    runbook: "002",
    section: "4.1",
    sql: "SELECT schemaname, relname AS tablename, indexrelname AS indexname, idx_scan FROM pg_stat_user_indexes ORDER BY idx_scan ASC LIMIT 20;",
  },
  {
    runbook: "002",
    section: "4.1",
    sql: "SELECT schemaname, tablename, pg_size_pretty(pg_total_relation_size(schemaname||'.'||tablename)) AS size FROM pg_tables WHERE schemaname = 'millrace' ORDER BY pg_total_relation_size(schemaname||'.'||tablename) DESC;",
  },
  { runbook: "002", section: "4.2", sql: "ANALYZE;" },
  { runbook: "002", section: "4.2", sql: "VACUUM ANALYZE millrace.jobs;" },
  { runbook: "002", section: "4.3", sql: "REINDEX TABLE millrace.pending;" },
  { runbook: "002", section: "4.4", sql: "SELECT count(*) FROM pg_stat_activity;" },
  { runbook: "002", section: "4.4", sql: "SELECT state, count(*) FROM pg_stat_activity GROUP BY state;" },
  { runbook: "002", section: "5.3", sql: "SELECT * FROM pg_stat_all_tables WHERE idx_scan = 0 AND seq_scan > 0;" },
  { runbook: "002", section: "9.1", sql: "VACUUM ANALYZE;" },
  { runbook: "002", section: "11", sql: "SELECT version();" },
  { runbook: "004", section: "Queue depth grows continuously, 5", sql: "SELECT * FROM millrace.queue_policies" },
  { runbook: "004", section: "Queue depth grows continuously, 5", sql: "SELECT * FROM millrace.policy_decisions" },
];

/** Not executed, and why. */
export const unexecuted: readonly Unexecuted[] = [
  { runbook: "000", section: "Runtime topology & order", line: "./scripts/dev.sh up", pending: "deployment" },
  {
    runbook: "000",
    section: "Queue drain and resume",
    line: "docker compose stop worker scheduler",
    pending: "deployment",
  },
  {
    runbook: "000",
    section: "Queue drain and resume",
    line: "docker compose start worker scheduler",
    pending: "deployment",
  },
  {
    runbook: "000",
    section: "Connector failure triage",
    line: "ingestion_failure, ingestion_circuit_open",
    pending: "ingest",
  },
  {
    runbook: "000",
    section: "Verify retention jobs",
    line: "Pruned X expired external search previews",
    pending: "retention",
  },
  {
    runbook: "000",
    section: "Verify retention jobs",
    line: "Scrubbed X ingestion payloads older than N days",
    pending: "retention",
  },
  {
    runbook: "001",
    section: "Ingestion Failures, 1",
    line: "docker compose logs worker --tail 200",
    pending: "deployment",
  },
  { runbook: "001", section: "Ingestion Failures, 2", line: "X_BEARER_TOKEN, REDDIT_*", pending: "ingest" },
  {
    runbook: "001",
    section: "Ingestion Failures, 4",
    line: "X_INGEST_ENABLED=false, REDDIT_INGEST_ENABLED=false",
    pending: "ingest",
  },
  { runbook: "001", section: "Ingestion Failures, 4", line: "GET /ingest/audit", pending: "ingest" },
  { runbook: "001", section: "Real-time Stream Issues, 1", line: "GET /stream/rules", pending: "ingest" },
  { runbook: "001", section: "Real-time Stream Issues, 4", line: "X_STREAM_ENABLED=false", pending: "ingest" },
  { runbook: "001", section: "Telegram Alert Problems, 1", line: "/health services.telegram.ok", pending: "watch" },
  {
    runbook: "001",
    section: "Telegram Alert Problems, 3",
    line: "send_telegram_message('Trend? test alert', category='manual_test')",
    pending: "watch",
  },
  { runbook: "001", section: "Telegram Alert Problems, 4", line: "ENABLE_REALTIME_ALERTS=false", pending: "watch" },
  {
    runbook: "001",
    section: "API Error Spikes",
    line: "alert names the endpoint, and auto-resolves",
    pending: "watch",
  },
  {
    runbook: "001",
    section: "Database Retention & Archival",
    line: "export to CSV/Parquet with a checksum, delete 1k per transaction",
    pending: "retention",
  },
  {
    runbook: "001",
    section: "Prometheus & Grafana, 1",
    line: "rate(trendspark_ingest_items_total[5m])",
    pending: "ingest",
  },
  {
    runbook: "001",
    section: "Prometheus & Grafana, 2",
    line: "dashboards, data source http://prometheus:9090",
    pending: "deployment",
  },
  { runbook: "002", section: "1", line: "redis-cli ping", pending: "cache" },
  {
    runbook: "002",
    section: "1",
    line: "pm2 list; df -h; free -h; tail -n 100 /var/log/app.log | grep -i error",
    about: "the machine",
  },
  {
    runbook: "002",
    section: "3.1 to 3.5",
    line: "redis-cli INFO, DBSIZE, GET, FLUSHALL, FLUSHDB, KEYS, TTL, MONITOR",
    pending: "cache",
  },
  { runbook: "002", section: "3.3", line: "curl -X POST http://localhost:3001/api/cache/warm", pending: "cache" },
  { runbook: "002", section: "2.1", line: "http://localhost:3001/admin/queues", about: "test/board" },
  { runbook: "002", section: "2.2 to 2.7, 5.1, 5.5, 7.1", line: "queueManager.…", about: "test/bullmq/guide.test.ts" },
  {
    runbook: "002",
    section: "4.1, 5.3",
    line: "pg_stat_statements",
    about: "an extension that the server may not have",
  },
  { runbook: "002", section: "4.3", line: "REINDEX DATABASE your_database", about: "takes the database for itself" },
  {
    runbook: "002",
    section: "4.4",
    line: "pg_terminate_backend of queries older than 5 minutes",
    about: "ends work of others",
  },
  { runbook: "002", section: "4.5, 8.2", line: "pg_dump, psql < backup.sql", pending: "deployment" },
  { runbook: "002", section: "6.1", line: "tail -f /var/log/app.log; pm2 restart app", about: "the machine" },
  {
    runbook: "002",
    section: "8.2",
    line: "npm run db:push; npm run test:smoke; git pull; npm install; npm run build",
    pending: "deployment",
  },
  {
    runbook: "002",
    section: "8.3",
    line: "curl http://localhost:3001/api/projects; curl http://localhost:3001/api/analysis",
    about: "the application's own routes",
  },
  {
    runbook: "003",
    section: "Callback Security",
    line: "x-worker-signature, x-worker-timestamp, job_source_callback_events",
    pending: "callbacks",
  },
  {
    runbook: "003",
    section: "Dead-letter Recovery",
    line: "pnpm --filter worker callbacks:replay",
    pending: "callbacks",
  },
  {
    runbook: "003",
    section: "Dead-letter Recovery",
    line: 'curl -X POST http://localhost:4001/callbacks/replay -H "Authorization: Bearer <TASKS_AUTH_TOKEN>"',
    pending: "callbacks",
  },
  {
    runbook: "003",
    section: "Queue Backpressure",
    line: "WORKER_MAX_QUEUE_SIZE, WORKER_TASK_TIMEOUT_MS, 429 when full",
    pending: "callbacks",
  },
  { runbook: "003", section: "Failed Run Retry", line: "POST /api/job-sources/runs/:id/retry", pending: "ingest" },
  {
    runbook: "003",
    section: "Alert Thresholds",
    line: "runningWithoutHeartbeat, failedEvents, retry and scrape success in /ops/metrics",
    pending: "ingest",
  },
  { runbook: "003", section: "Incident Checklist", line: "pnpm smoke:e2e", pending: "deployment" },
  { runbook: "003", section: "Deployment Verification", line: "./scripts/verify-deployment.sh", pending: "deployment" },
  {
    runbook: "004",
    section: "Start and Stop",
    line: "docker compose up --build -d; --profile worker --scale worker=4; down",
    pending: "deployment",
  },
  {
    runbook: "004",
    section: "Backup and Restore",
    line: "docker compose exec -T db pg_dump / psql",
    pending: "deployment",
  },
];
