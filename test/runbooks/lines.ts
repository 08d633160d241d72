/**
 * What the five runbooks have an operator send to a server, line by line, as they have it: one entry per line, with where it stands. A
 * path that stands in a sentence is a GET. What is not a request is in `statements.ts` and `unexecuted.ts`.
 */

export type Runbook = "000" | "001" | "002" | "003" | "004";

/** A line that is executed: what it must answer. */
interface Executed {
  readonly runbook: Runbook;
  readonly section: string;
  readonly line: string;
  /** Default: a program on this machine. */
  readonly as?: "stranger";
  readonly expects: Expectation;
}

interface Expectation {
  readonly status?: number;
  /** What the JSON must match. */
  readonly body?: object;
  /** All of the JSON. */
  readonly exactly?: object;
  /** What the text must match. */
  readonly text?: RegExp;
}

/** Requests: `curl`, `Invoke-WebRequest`, `Invoke-RestMethod`, or a method and a path. */
export const requests: readonly Executed[] = [
  {
    runbook: "000",
    section: "Health endpoints",
    line: "GET /health",
    as: "stranger",
    expects: { status: 200, exactly: { status: "ok" } },
  },
  {
    runbook: "000",
    section: "Health endpoints",
    line: "GET /health",
    expects: { status: 200, body: { status: "ok", ingestion: { issues: [] }, worker: { ok: true } } },
  },
  {
    runbook: "000",
    section: "Health endpoints",
    line: "GET /api/health",
    as: "stranger",
    expects: { status: 200, exactly: { status: "ok" } },
  },
  {
    runbook: "000",
    section: "Health endpoints",
    line: "GET /api/health",
    expects: { status: 200, body: { status: "ok", ingestion: { issues: [] }, worker: { ok: true } } },
  },
  {
    runbook: "000",
    section: "Connector failure triage, 1",
    line: "GET /api/health",
    expects: { status: 200, body: { status: "ok", ingestion: { issues: [] }, worker: { ok: true } } },
  },
  {
    runbook: "000",
    section: "Queue triage",
    line: "GET /api/ops/queues",
    expects: { status: 200, body: { status: "online", scheduler: { scheduled_jobs: 2 } } },
  },
  {
    runbook: "000",
    section: "Connector failure triage, 2",
    line: "GET /api/ops/queues",
    expects: { status: 200, body: { status: "online", scheduler: { scheduled_jobs: 2 } } },
  },
  {
    runbook: "000",
    section: "Verify retention jobs",
    line: "GET /api/ops/queues",
    expects: { status: 200, text: /"maintenance"/ },
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
    section: "Scheduler / Job Failures, 4",
    line: 'POST /scheduler/run { "job_id": "scan" }',
    expects: { status: 202, body: { queued: true, job_id: "scan" } },
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
    expects: { status: 200, text: /"queue":"ai-analysis","runnable_queue_depth":\d+,"jobs_per_sec":[\d.]+/ },
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
    section: "2.1",
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
    section: "6.1",
    line: "curl http://localhost:3001/health",
    expects: { status: 200, body: { status: "ok" } },
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
    section: "8.3",
    line: "curl http://localhost:3001/health",
    expects: { status: 200, body: { status: "ok" } },
  },
  {
    runbook: "002",
    section: "8.3",
    line: "curl http://localhost:3001/api/queue/stats",
    expects: {
      status: 200,
      text: /"name":"ai-analysis","waiting":\d+,"active":\d+,"completed":\d+,"failed":\d+,"delayed":\d+,"total":\d+/,
    },
  },
  {
    runbook: "002",
    section: "9.1",
    line: "curl -X POST http://localhost:3001/api/queue/clean-all",
    expects: { status: 200, body: { success: true } },
  },
  {
    runbook: "002",
    section: "11",
    line: "curl http://localhost:3001/api/queue/stats",
    expects: {
      status: 200,
      text: /"name":"ai-analysis","waiting":\d+,"active":\d+,"completed":\d+,"failed":\d+,"delayed":\d+,"total":\d+/,
    },
  },
  {
    runbook: "002",
    section: "11",
    line: "curl -X POST http://localhost:3001/api/queue/:name/pause",
    expects: { status: 200, body: { success: true, queue: "ai-analysis", changed: true } },
  },
  {
    runbook: "002",
    section: "11",
    line: "curl -X POST http://localhost:3001/api/queue/:name/resume",
    expects: { status: 200, body: { success: true, queue: "ai-analysis", changed: true } },
  },
  {
    runbook: "002",
    section: "11",
    line: "curl -X POST http://localhost:3001/api/queue/:name/clean",
    expects: { status: 200, body: { success: true, queue: "ai-analysis" } },
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
    runbook: "003",
    section: "Alert Thresholds",
    line: "GET /ops/metrics",
    expects: { status: 200, text: /"runningWithoutHeartbeat":\d+/ },
  },
  {
    runbook: "003",
    section: "Incident Checklist, 3",
    line: "GET /health",
    expects: { status: 200, text: /"queue":\{"queued":\d+,"active":\d+,"max_concurrent":\d+/ },
  },
  {
    runbook: "004",
    section: "Smoke Checks",
    line: "Invoke-WebRequest -Uri http://localhost:3003/health -UseBasicParsing",
    expects: { status: 200, body: { status: "ok" } },
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
  {
    runbook: "004",
    section: "Observability",
    line: "GET /metrics",
    expects: { status: 200, text: /"retry_rate":[\d.]+/ },
  },
  { runbook: "004", section: "Observability", line: "GET /metrics/prom", expects: { status: 200, text: /^# HELP / } },
  {
    runbook: "004",
    section: "Observability",
    line: "GET /ingest/decisions",
    expects: { status: 200, text: /"queue":"flooded".*"reason_code":"ENQUEUE_RATE_EXCEEDED"/ },
  },
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
    section: "Queue depth grows continuously, 1",
    line: "GET /metrics",
    expects: { status: 200, text: /"runnable_queue_depth":\d+,"jobs_per_sec":[\d.]+.*"retry_rate":[\d.]+/ },
  },
  {
    runbook: "004",
    section: "DLQ spike, 1",
    line: "GET /dlq",
    expects: { status: 200, text: /"dlq_reason_code":"NON_RETRYABLE"/ },
  },
  {
    runbook: "004",
    section: "DLQ spike, 2",
    line: "GET /jobs/:id/timeline",
    expects: { status: 200, text: /"attempts":\[\{/ },
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
  {
    runbook: "004",
    section: "Enqueue rejected, 1",
    line: "GET /ingest/decisions",
    expects: { status: 200, text: /"queue":"flooded".*"reason_code":"ENQUEUE_RATE_EXCEEDED"/ },
  },
];
