/**
 * The statements of the engine, as the server plans them with a hundred thousand rows in each table: each follows its index, whatever
 * the statistics say. A plan that reads a whole table is right in every other test, and the end of the queue in production.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Millrace, task } from "millrace";
import type { Database, Executor } from "../../src/db/database.ts";
import { Dialect, type Sql, quoteIdent } from "../../src/db/sql.ts";
import { claimWithCare } from "../../src/jobs/careful-store.ts";
import { claimSuspect, closeAndClaim, fromTheHead, lookAround } from "../../src/jobs/claim-store.ts";
import { cancelJobs, finishRequests, requestsFor } from "../../src/jobs/cancel-store.ts";
import { nextBatch } from "../../src/jobs/bulk-walk-store.ts";
import { countDeadLetters } from "../../src/jobs/dead-letters-store.ts";
import { cleanQueue } from "../../src/jobs/control-store.ts";
import { takeEndings } from "../../src/jobs/endings-store.ts";
import { insertOnce, insertPlain, insertSpecial } from "../../src/jobs/enqueue-store.ts";
import {
  countDependencies,
  culprits,
  dependenciesOf,
  listDependencies,
  outstanding,
} from "../../src/jobs/dependencies-store.ts";
import { insertEdges, settleDependents } from "../../src/flows/flow-store.ts";
import { findFinishes, findResult } from "../../src/jobs/results-store.ts";
import {
  awaitEvent,
  currentStep,
  emitEvent,
  giveUpWait,
  keepSteps,
  loadSteps,
  readSteps,
} from "../../src/jobs/steps-store.ts";
import { releaseKey, takeKey } from "../../src/jobs/unique-store.ts";
import { type Standing, readLimits, readLine, readServing, readStanding } from "../../src/jobs/explain-store.ts";
import { moveJobs, removeJobs, replayJobs, retryJobs } from "../../src/jobs/orders-store.ts";
import { listJobs } from "../../src/jobs/list-store.ts";
import { type JobRow, type JobStatus, findJobDetail, findJobs, jobStatuses } from "../../src/jobs/read-store.ts";
import { completeWithin, giveBack, settle } from "../../src/jobs/settle-store.ts";
import { readHistory } from "../../src/jobs/timeline-store.ts";
import { prompt, readArrivals } from "../../src/events/arrivals-store.ts";
import { readAttempts, readOperations, readSettled } from "../../src/events/events-store.ts";
import { IdLine } from "../../src/events/id-line.ts";
import { countQueues } from "../../src/jobs/stats-store.ts";
import { anyUncounted, foldTotals } from "../../src/jobs/totals-store.ts";
import { readDeadLetters, readQueues, readSchedules, readSystem } from "../../src/metrics/snapshot-store.ts";
import { readLifecycle, readRates } from "../../src/metrics/window-store.ts";
import { beat, reap } from "../../src/jobs/workers-store.ts";
import { backend } from "../support/database.ts";
import { freshSchema, useDatabase } from "../support/engine.ts";
import { StoreWorker, succeeded } from "../support/store-worker.ts";

const file = useDatabase();
/** PGlite is the same planner in slower hands: there, fewer rows and the hardest state are enough. */
const rows = backend === "postgres" ? 100_000 : 20_000;
/** Tables that grow with the number of jobs. */
const large = new Set([
  "jobs",
  "pending",
  "settled",
  "attempts",
  "dead_letters",
  "operations",
  "idempotency_keys",
  "results",
  "endings",
  "dependencies",
  "blocked",
  "unique_keys",
  "steps",
  "emitted_events",
]);

const idOf = (n: number): string => `018f0000-0000-7000-8000-${n.toString(16).padStart(12, "0")}`;
const job = { id: idOf(900_001), queue: 1, task: 1, priority: 0, maxAttempts: 3, input: "{}" };
const result = { jobId: idOf(7), attempt: 1, startedMs: 1, tookMs: 1 };
const whole = { id: "1", minId: idOf(1), maxId: idOf(2), startedMs: [1, 1], tookMs: [1, 1], tookMsSum: 2 };
const wanted = { lease: "77", worker: 1, queue: 1, tasks: [1, 2], limit: 100 };
const lanes = [
  { rank: -5, ...fromTheHead },
  { rank: 0, runAt: "2026-01-01 00:00:00+00", jobId: idOf(3) },
];

/** Where job 50 000 stands, as far as these statements ask. */
const place = { queueId: 1, taskId: 1, key: "", rank: -1, due: "2999-01-01 00:00:00+00" } as Standing;

/** How far a bulk operation is, by what it walks. */
const bulkPlaces: readonly (readonly [JobStatus | undefined, readonly string[]])[] = [
  ["waiting", ["1", "-2", "2020-01-01 00:00:00+00", idOf(1)]],
  ["active", [idOf(1)]],
  ["failed", [idOf(5_000)]],
  ["completed", ["5000", idOf(5_000)]],
  ["cancelled", ["5000"]],
  [undefined, [idOf(5_000)]],
];
const bulkOrder = {
  id: idOf(900_004),
  action: "replay",
  options: {},
  asOf: "2099-01-01 00:00:00+00",
  place: null,
} as const;

/** An event reader that has seen almost everything. */
const recent = new IdLine(rows - 50, [
  [17, 17],
  [rows - 90, rows - 80],
]);
const nobodyWrites = { at: Date.now() * 1_000, of: new Map(), open: [], enqueuing: [], hidden: false };
const cameSince = { ...nobodyWrites, snapshot: "3:3:" };

const nobody = { by: null, reason: null };

const step = {
  lease: "1",
  jobId: idOf(1),
  attempt: 1,
  first: true,
  place: 5,
  name: "s",
  kind: "run",
  finished: true,
} as const;
const waiting = { ...step, kind: "event", event: "e7", finished: false, untilMs: 9 } as const;
const rule = { key: "k7", statuses: [], keepMs: 1, debounce: undefined };
const debouncing = { ...rule, statuses: ["waiting"], debounce: { waitMs: 1, maxWaitMs: 2 } } as const;
const ended = [1, 2, 3].map((n) => ({ jobId: idOf(n), outcome: "completed", at: new Date() }) as const);

/** As `described` has it. */
const waitingJob: JobRow = [
  ...([idOf(5), "one", "a", null, 0, [], 0, 0, 5, null, "waiting", 1, null, null] as const),
  ...([null, null, null, null, null, null, null] as const),
];
/** What statements are told to have found, so that those that depend on it follow. */
const answers: readonly (readonly [part: string, rows: readonly unknown[]])[] = [
  ["order by l.id limit 500", [{ id: "1" }, { id: "2" }]],
  ["unique_keys as k", [{ holder: idOf(5), expired: false, waitMs: 1 }]],
  ["chosen cross join lateral", [waitingJob]],
  [" as counts", [{ counts: {} }]],
  ["select job_id::text as id from placed", [{ id: idOf(5) }]],
  [
    "returning b.job_id::text as id",
    [
      { id: idOf(1), open: 0, broken: 1, impatient: 0 },
      { id: idOf(2), open: 0, broken: 0, impatient: 0 },
      { id: idOf(3), open: 1, broken: 0, impatient: 0 },
    ],
  ],
  ["from kept", [[`${idOf(1)}:5`]]],
  ["do nothing returning name", [{ name: "e" }]],
  ["and finished_at is null returning job_id::text as id", [{ id: idOf(5) }]],
];

type Statement = readonly [name: string, run: (db: Database) => Promise<unknown>, indexes: readonly string[]];

/** The hot path, each statement with the indexes it must follow. These must not depend on sequential scans being forbidden. */
const hot: readonly Statement[] = [
  ["claim", (db) => closeAndClaim(db, undefined, { ...wanted, lanes }), ["pending_pkey", "jobs_pkey"]],
  [
    "claim any task",
    (db) => closeAndClaim(db, undefined, { ...wanted, tasks: null, lanes }),
    ["pending_pkey", "jobs_pkey"],
  ],
  [
    "close and claim",
    (db) => closeAndClaim(db, whole, { ...wanted, lanes }),
    ["pending_pkey", "jobs_pkey", "leases_pkey"],
  ],
  ["close", (db) => closeAndClaim(db, whole, { ...wanted, lanes: [], limit: 0 }), ["leases_pkey"]],
  [
    "claim with care",
    (db) => claimWithCare(db, { firstLease: "79", worker: 1, queue: 3, tasks: [1, 2], limit: 10, suspects: false }),
    ["pending_keyed", "pending_pkey"],
  ],
  ["look around", (db) => lookAround(db, null, null), ["pending_pkey", "pending_suspect"]],
  ["look around in some queues", (db) => lookAround(db, [1, 2], [1]), ["pending_pkey", "pending_suspect"]],
  ["claim a suspect", (db) => claimSuspect(db, "78", 1, null, [1]), ["pending_suspect", "jobs_pkey"]],
  [
    "settle",
    (db) =>
      settle(db, "plans", 1, [
        { ...result, jobId: idOf(1), lease: "1", outcome: "succeeded", next: "done" },
        { ...result, jobId: idOf(2), lease: "1", outcome: "failed", next: "retry", completed: true },
        { ...result, jobId: idOf(3), lease: "999", outcome: "failed", next: "dead" },
      ]),
    ["leases_pkey", "jobs_pkey", "settled_lease", "attempts_job"],
  ],
  [
    "give back",
    (db) => giveBack(db, "c", 1, ["1"], [idOf(1)]),
    ["leases_pkey", "jobs_pkey", "attempts_job", "operations_job"],
  ],
  [
    "give back whole leases",
    (db) => giveBack(db, "c", 1, ["1", "2"], null),
    ["leases_pkey", "jobs_pkey", "attempts_job"],
  ],
  [
    "complete",
    (db) => completeWithin(db, { ...result, result: null, watched: false, lease: "1", worker: 1, id: idOf(1) }),
    ["leases_pkey"],
  ],
  ["insert plain jobs", (db) => insertPlain(db, "c", [job, { ...job, id: idOf(900_002) }]), []],
  ["insert special jobs", (db) => insertSpecial(db, "c", [{ ...job, special: { delayMs: 5 } }], false), []],
  ["insert once", (db) => insertOnce(db, "c", job, { text: "k", keepMs: 1 }, false), []],
  ["find a job whole", (db) => findJobDetail(db, idOf(1)), ["jobs_pkey", "results_pkey", "dependencies_pkey"]],
  [
    "find jobs",
    (db) => findJobs(db, [idOf(1), idOf(2)]),
    ["jobs_pkey", "pending_pkey", "attempts_job", "operations_job", "settled_ids", "dead_letters_pkey"],
  ],
  [
    "read a timeline",
    (db) => readHistory(db, idOf(1), 1_000),
    [
      "jobs_pkey",
      "attempts_job",
      "operations_job",
      "settled_ids",
      "dead_letters_pkey",
      "jobs_replays",
      "dependencies_pkey",
      "dependencies_needs",
      "steps_pkey",
      "results_pkey",
    ],
  ],
  ["explain a job", (db) => readStanding(db, idOf(1)), ["jobs_pkey", "pending_pkey", "attempts_job", "operations_job"]],
  ["explain by its workers", (db) => readServing(db, place), []],
  ["explain by limits", (db) => readLimits(db, place), ["rate_windows_pkey", "policy_decisions_queue"]],
  ["retry", (db) => retryJobs(db, "c", [idOf(1)], nobody), ["dead_letters_pkey", "jobs_pkey"]],
  [
    "put elsewhere in line",
    (db) => moveJobs(db, "c", [idOf(1), idOf(2)], "move", { queue: 2, priority: 3, delayMs: 0 }, nobody),
    ["pending_pkey", "jobs_pkey", "attempts_job", "operations_job"],
  ],
  ["replay", (db) => replayJobs(db, "c", [[idOf(1), idOf(900_003)]], {}, nobody), ["jobs_pkey"]],
  [
    "cancel",
    (db) => cancelJobs(db, "c", [idOf(1), idOf(2)], nobody, true),
    ["pending_pkey", "jobs_pkey", "attempts_job", "operations_job", "cancel_requests_pkey"],
  ],
  ["ask for cancels", (db) => requestsFor(db, 1), []],
  ["finish cancels", (db) => finishRequests(db), []],
  [
    "remove",
    (db) => removeJobs(db, [idOf(1), idOf(2)]),
    [
      "pending_pkey",
      "jobs_pkey",
      "attempts_job",
      "operations_job",
      "settled_ids",
      "idempotency_keys_job",
      "unique_keys_job",
    ],
  ],
  ["reap", (db) => reap(db, "c", 0), ["jobs_pkey", "attempts_job", "settled_lease"]],
  ["take a key", (db) => takeKey(db, "c", { ...job, id: idOf(900_005) }, rule), ["unique_keys_pkey", "jobs_pkey"]],
  [
    "put a debounced job off",
    (db) => takeKey(db, "c", { ...job, id: idOf(900_005) }, debouncing),
    ["operations_job", "pending_pkey", "jobs_pkey"],
  ],
  ["give a key up", (db) => releaseKey(db, job), ["unique_keys_job"]],
  ["take endings", (db) => takeEndings(db, "c"), ["endings_pkey"]],
  [
    "insert a flow's edges",
    (db) =>
      insertEdges(
        db,
        [{ jobId: idOf(900_006), place: 0, needs: idOf(1), name: "n", onFailure: "fail" }],
        [{ id: idOf(900_006), open: 1 }],
      ),
    [],
  ],
  [
    "settle dependents",
    (db) => settleDependents(db, "c", ended),
    ["dependencies_needs", "dependencies_pkey", "blocked_pkey", "jobs_pkey", "pending_pkey", "dead_letters_pkey"],
  ],
  ["dependencies of a job", (db) => dependenciesOf(db, idOf(1)), ["dependencies_pkey", "results_pkey"]],
  ["list dependencies", (db) => listDependencies(db, idOf(1), 100, 0), ["dependencies_pkey"]],
  ["count dependencies", (db) => countDependencies(db, idOf(1)), ["dependencies_pkey"]],
  ["outstanding dependencies", (db) => outstanding(db, idOf(1)), ["dependencies_pkey", "blocked_pkey"]],
  ["culprits", (db) => culprits(db, idOf(1)), ["dependencies_pkey"]],
  ["find a result", (db) => findResult(db, idOf(1)), ["results_pkey"]],
  [
    "find finishes",
    (db) => findFinishes(db, [idOf(1), idOf(2)]),
    ["jobs_pkey", "settled_ids", "dead_letters_pkey", "attempts_job", "results_pkey"],
  ],
  ["load steps", (db) => loadSteps(db, idOf(1)), ["steps_pkey"]],
  ["read steps", (db) => readSteps(db, idOf(1), 100, 0), ["steps_pkey"]],
  ["current step", (db) => currentStep(db, idOf(1), "event"), ["steps_pkey"]],
  ["keep steps", (db) => keepSteps(db, 1, [step]), ["leases_pkey", "jobs_pkey"]],
  ["wait for an event", (db) => awaitEvent(db, "c", 1, waiting), ["steps_pkey", "emitted_events_pkey"]],
  ["give a wait up", (db) => giveUpWait(db, idOf(1), 0), ["steps_pkey"]],
  ["emit an event", (db) => emitEvent(db, "c", "e-new", "1", null), ["steps_event"]],
  ["beat", (db) => beat(db, 1, 10, 90_000), []],
];

/** Statements over many jobs. Where sequential scans are allowed, one may be right for them. */
const wide: readonly Statement[] = [
  ...jobStatuses.map((status): Statement => [
    `list jobs that are ${status}`,
    (db) => listJobs(db, { status, queue: 1, limit: 10 }),
    ["jobs_pkey"],
  ]),
  ...bulkPlaces.flatMap(([status, place]): Statement[] =>
    [null, place].map((after) => [
      `batch of ${status ?? "all"} jobs ${after === null ? "from the beginning" : "further on"}`,
      (db) => nextBatch(db, { ...bulkOrder, filter: { status, queue: "one", task: "a" }, place: after }, 500),
      ["jobs_pkey"],
    ]),
  ),
  [
    "batch of jobs by id",
    (db) => nextBatch(db, { ...bulkOrder, filter: { ids: [idOf(1), idOf(2)], status: "waiting" } }, 500),
    ["jobs_pkey", "pending_pkey", "attempts_job", "operations_job"],
  ],
  ["count dead letters", (db) => countDeadLetters(db, "task", { queue: 1 }), []],
  ["list jobs of any status", (db) => listJobs(db, { limit: 10, after: [idOf(50_000)] }), ["jobs_pkey"]],
  ["list jobs by tag", (db) => listJobs(db, { tag: "t", limit: 10 }), ["job_tags_recent", "jobs_pkey"]],
  [
    "list jobs by tag, of a time, from within",
    (db) => listJobs(db, { tag: "t", createdAfter: new Date(0), limit: 10, after: [idOf(50_000)] }),
    ["job_tags_recent", "jobs_pkey"],
  ],
  ["list jobs by their input", (db) => listJobs(db, { input: '{"a":1}', search: "x", limit: 10 }), ["jobs_pkey"]],
  ["explain by the line", (db) => readLine(db, idOf(50_000), place), ["pending_pkey", "settled_recent"]],
  ["fold", (db) => foldTotals(db, "2099-01-01 00:00:00+00"), ["settled_recent", "attempts_recent", "jobs_created"]],
  ["look for what is uncounted", (db) => anyUncounted(db), ["settled_age", "attempts_recent"]],
  ["metrics of queues", (db) => readQueues(db, 200), ["pending_pkey"]],
  ["metrics of dead letters", (db) => readDeadLetters(db, 200), ["dead_letters_recent"]],
  ["metrics of the system", (db) => readSystem(db), []],
  ["metrics of schedules", (db) => readSchedules(db, 200), []],
  ["rates", (db) => readRates(db), ["pending_pkey", "settled_recent", "attempts_recent"]],
  ["ratios", (db) => readLifecycle(db, 24), ["pending_pkey", "attempts_recent", "jobs_replays"]],
  ["count", (db) => countQueues(db, "one"), ["pending_pkey", "settled_recent", "dead_letters_recent"]],
  [
    "clean",
    (db) => cleanQueue(db, 1, 0, { by: null, reason: null }),
    ["settled_recent", "attempts_cancelled", "attempts_job", "jobs_pkey"],
  ],
  ["events of batches", (db) => readSettled(db, recent, [idOf(3)]), ["settled_pkey", "jobs_pkey"]],
  ["events of attempts", (db) => readAttempts(db, recent), ["attempts_pkey", "jobs_pkey", "dead_letters_pkey"]],
  ["events of operations", (db) => readOperations(db, recent), ["operations_pkey", "jobs_pkey"]],
  ["events of jobs that came", (db) => readArrivals(db, cameSince, nobodyWrites, [], prompt), ["jobs_pkey"]],
];

async function fill(mill: Millrace): Promise<void> {
  const { db } = mill;
  await db.script(`
    insert into millrace.queues (name) values ('one'), ('two');
    insert into millrace.tasks (name) values ('a'), ('b');
    insert into millrace.workers (name, host, pid, version, concurrency, lease_ms) select 'w', 'h', 1, '0', 1, 10000 from generate_series(1, 20);
    insert into millrace.jobs (id, queue, task, priority, max_attempts, run_at, input)
      select ('018f0000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 1 + n % 2, 1 + n % 2, n % 3, 5, now() + (n % 1000 - 700) * interval '1 second', '{}'
      from generate_series(1, ${rows}) n;
    insert into millrace.pending (line, rank, run_at, job_id, task, attempt, losses)
      select queue, -priority, run_at, id, task, 1, (random() < 0.0005)::int from millrace.jobs;
    insert into millrace.queues (name, careful, keyed) values ('three', true, true);
    insert into millrace.queue_policies (queue, key_concurrency) values (3, 1);
    insert into millrace.pending (line, key, rank, run_at, job_id, task, attempt)
      select -3, case n when 1 then 'a' when 2 then 'z' else 'long' end, n % 3, now() - interval '1 minute', ('018f0001-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 1, 1
      from generate_series(1, ${rows}) n;
    insert into millrace.attempts (job_id, queue, attempt, lease, worker, outcome, retry_at)
      select id, queue, 1, 1000 + (random() * 1000)::int, 1, 'failed', now() from millrace.jobs;
    insert into millrace.operations (job_id, action, run_at) select id, 'retry', now() from millrace.jobs;
    insert into millrace.dead_letters (job_id, queue, task, attempt, reason, error_code, failed_at)
      select id, queue, task, 1, 'POISON', 'X', run_at - interval '1 day' from millrace.jobs;
    insert into millrace.settled (lease, queue, worker, claimed_at, finished_at, n, took_ms_sum, ids, job_ids, started_ms, took_ms)
      select 1000 + n % 50000, 1 + n % 2, 1, now() - interval '1 day', now() - interval '1 day' + n * interval '10 milliseconds', 1, 1,
             millrace.uuidrange(j, j, '[]'), array[j], '{1}', '{1}'
      from generate_series(1, ${rows}) n, lateral (select ('018f0000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid as j) id;
    insert into millrace.idempotency_keys (task, key, job_id, expires_at) select 1, 'k' || n, ('018f0000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, now() from generate_series(1, ${rows}) n;
    insert into millrace.results (job_id, result) select id, '1' from millrace.jobs;
    insert into millrace.endings (job_id, outcome) select id, 'completed' from millrace.jobs;
    insert into millrace.dependencies (job_id, place, needs, name, on_failure)
      select id, 0, ('018f0000-0000-7000-8000-' || lpad(to_hex(('x' || right(id::text, 12))::bit(48)::bigint % ${rows} + 1), 12, '0'))::uuid, 'n', 'fail' from millrace.jobs;
    insert into millrace.blocked (job_id, open) select id, 1 from millrace.jobs;
    insert into millrace.unique_keys (task, key, job_id) select 1, 'k' || row_number() over (order by id), id from millrace.jobs;
    insert into millrace.steps (job_id, place, name, kind, until, event, attempt) select id, 0, 's', 'event', now(), 'e' || row_number() over (order by id), 1 from millrace.jobs;
    insert into millrace.emitted_events (name, payload) select 'e' || n, '1' from generate_series(1, ${rows}) n;
    insert into millrace.leases (id, queue, worker, job_ids, attempts)
      select n, 1, n, array(select ('018f0000-0000-7000-8000-' || lpad(to_hex((n - 1) * 10 + i), 12, '0'))::uuid from generate_series(1, 10) i),
             array(select 1 from generate_series(1, 10)) from generate_series(1, 20) n;
  `);
}

/** Autovacuum would change what the planner knows in the middle of a test. */
async function withoutAutovacuum(mill: Millrace): Promise<void> {
  const tables = [...large, "leases", "workers", "queues", "tasks"];
  await mill.db.script(
    tables.map((table) => `alter table millrace.${table} set (autovacuum_enabled = false);`).join(" "),
  );
}

async function analyse(mill: Millrace): Promise<void> {
  for (const table of [...large, "leases", "workers", "queues", "tasks"])
    await mill.db.script(`analyze millrace.${table}`);
}

interface Node {
  readonly "Node Type": string;
  readonly "Relation Name"?: string;
  readonly "Index Name"?: string;
  readonly "Actual Rows": number;
  readonly "Actual Loops": number;
  readonly "Rows Removed by Filter"?: number;
  readonly Filter?: string;
  readonly Plans?: readonly Node[];
}

/** As `claimWithCare` reads them. */
const noLimits = {
  concurrency: null,
  max_in_flight: null,
  rate_max: null,
  max_attempts_per_minute: null,
  in_flight: 0,
  rate_used: 0,
  attempts_used: 0,
};

/** Runs the statements, with the server telling how, and takes everything back. */
async function plansOf(mill: Millrace, settings: string, run: (db: Database) => Promise<unknown>): Promise<Node[]> {
  const { db } = mill;
  const dialect = new Dialect(db.schema, false);
  const nodes: Node[] = [];
  const collect = (node: Node): void => {
    nodes.push(node);
    node.Plans?.forEach(collect);
  };
  const literal = (value: unknown): string =>
    value === null || value === undefined
      ? "null"
      : `'${String(value as string | number | boolean).replaceAll("'", "''")}'`;
  const takenBack = new Error("taken back");

  const running = db.lend(async (tx) => {
    await tx.query(settings, []);
    const explain = async (query: Sql): Promise<never[]> => {
      const { text, values } = dialect.statement(query);
      await tx.query(`prepare probe as ${text}`, []);
      const given = values.length > 0 ? `(${values.map(literal).join(", ")})` : "";
      const {
        rows: [row],
      } = await tx.query(`explain (analyze, timing off, format json) execute probe${given}`, []);
      await tx.query("deallocate probe", []);
      const plan = (row as { "QUERY PLAN": string | { Plan: Node }[] })["QUERY PLAN"];
      for (const { Plan } of typeof plan === "string" ? (JSON.parse(plan) as { Plan: Node }[]) : plan) collect(Plan);
      // A claim with care goes on only if there is such a queue, and it has room.
      if (text.includes("as in_flight")) return [{ name: "three", throttled_ms: 0, ...noLimits }] as never[];
      return (answers.find(([part]) => text.includes(part))?.[1] ?? []) as never[];
    };
    const recording: Executor = { query: explain, rows: explain };
    await run({ ...db, ...recording, transaction: (work) => work(recording) });
    throw takenBack;
  });
  await running.catch((error: unknown) => {
    if (error !== takenBack) throw error;
  });
  expect(nodes.length).toBeGreaterThan(0);
  return nodes;
}

function expectNoSequentialScan(nodes: readonly Node[]): void {
  const whole = nodes.filter((node) => node["Node Type"] === "Seq Scan" && large.has(node["Relation Name"] ?? ""));
  expect(whole.map((node) => `Seq Scan on ${node["Relation Name"]}`)).toEqual([]);
}

function expectIndexes(nodes: readonly Node[], indexes: readonly string[]): void {
  const used = new Set(nodes.map((node) => node["Index Name"]));
  expect(indexes.filter((index) => !used.has(index))).toEqual([]);
}

/** An index that is read from end to end is an index used, too. */
function expectFewRows(nodes: readonly Node[], most: number): void {
  const read = nodes
    .filter(
      (node) =>
        node["Node Type"].includes("Scan") &&
        (node["Index Name"] !== undefined || large.has(node["Relation Name"] ?? "")),
    )
    .map((node) => ({
      scan: `${node["Node Type"]} ${node["Index Name"] ?? node["Relation Name"]}`,
      rows: (node["Actual Rows"] + (node["Rows Removed by Filter"] ?? 0)) * node["Actual Loops"],
    }));
  expect(read.filter(({ rows: count }) => count > most)).toEqual([]);
}

/** As our sessions are. */
const ours = `select set_config('enable_seqscan', 'off', true), set_config('enable_memoize', 'off', true), set_config('jit', 'off', true), set_config('plan_cache_mode', 'force_generic_plan', true)`;
/** As sessions behind a pooler are, which cannot be set: planned anew each time, with the values at hand. */
const pooled = `select set_config('enable_seqscan', 'on', true), set_config('jit', 'on', true), set_config('plan_cache_mode', 'force_custom_plan', true)`;
const generic = `select set_config('enable_seqscan', 'on', true), set_config('plan_cache_mode', 'force_generic_plan', true)`;

/** What the planner may know of the tables. */
const states: readonly [name: string, arrange: (mill: Millrace) => Promise<void>][] = [
  [
    "after an analysis",
    async (mill) => {
      await fill(mill);
      await analyse(mill);
    },
  ],
  ["never analysed", fill],
  [
    "analysed while empty, as before a burst",
    async (mill) => {
      await analyse(mill);
      await fill(mill);
    },
  ],
];

const tested = states.filter(([name]) => backend === "postgres" || name === "never analysed");

describe.each(tested)("with tables %s", (state, arrange) => {
  let mill: Millrace;
  beforeAll(async () => {
    mill = await file.open([], { schema: freshSchema() });
    await withoutAutovacuum(mill);
    await arrange(mill);
  });
  afterAll(async () => {
    await mill.db.script(`drop schema ${quoteIdent(mill.db.schema)} cascade`);
    await mill.close();
  });

  test.each([...hot, ...wide])("in our sessions, %s follows its indexes", async (_, run, indexes) => {
    const nodes = await plansOf(mill, ours, run);
    expectNoSequentialScan(nodes);
    expectIndexes(nodes, indexes);
  });

  test.each(wide.filter(([name]) => name.startsWith("batch")))("in our sessions, %s is bounded", async (_, run) => {
    expectFewRows(await plansOf(mill, ours, run), 10_500);
  });

  // As long as nobody has counted them, they are taken for few, and sorted.
  const paged = wide.filter(
    ([name]) => name.startsWith("list") && (state === "after an analysis" || !/failed|completed/.test(name)),
  );
  test.each(paged)("in our sessions, %s reads about a page", async (_, run) => {
    expectFewRows(await plansOf(mill, ours, run), 2_000);
  });

  test.each(hot)("in our sessions, %s reads no more rows than it has to do with", async (_, run) => {
    expectFewRows(await plansOf(mill, ours, run), 2_000);
  });

  describe.runIf(state === "after an analysis")("and sequential scans allowed", () => {
    test.each(hot)("%s needs none, planned once for all values", async (_, run) => {
      const nodes = await plansOf(mill, generic, run);
      expectNoSequentialScan(nodes);
      expectFewRows(nodes, 2_000);
    });

    test.each(hot)("%s needs none, planned anew behind a pooler", async (_, run) => {
      const nodes = await plansOf(mill, pooled, run);
      expectNoSequentialScan(nodes);
      expectFewRows(nodes, 2_000);
    });
  });
});

/** Unpacking a batch takes longer than all else that is read of a job. */
describe("a job whose id lies between those of a settled batch", () => {
  const noop = task({ name: "noop", run: () => undefined });
  let mill: Millrace;
  let worker: StoreWorker;
  let between: Readonly<Record<"waiting" | "delayed" | "active" | "failed" | "cancelled", string>>;
  let settled: string;
  beforeAll(async () => {
    mill = await file.open([noop], { schema: freshSchema() });
    worker = await StoreWorker.register(mill);
    const enqueue = async (queue: string): Promise<string> => (await mill.enqueue(noop, {}, { queue })).id;
    settled = await enqueue("settled");
    between = {
      waiting: await enqueue("waiting"),
      delayed: await enqueue("delayed"),
      active: await enqueue("active"),
      failed: await enqueue("failed"),
      cancelled: await enqueue("cancelled"),
    };
    const last = await enqueue("settled");
    await worker.settle(await worker.claim(2, "settled"), { [settled]: succeeded, [last]: succeeded });
    await worker.settle(await worker.claim(1, "delayed"), { [between.delayed]: { next: "retry", delayMs: 3_600_000 } });
    await worker.claim(1, "active");
    await worker.settle(await worker.claim(1, "failed"), { [between.failed]: { next: "dead" } });
    await mill.cancel(between.cancelled);
  });
  afterAll(async () => {
    await mill.db.script(`drop schema ${quoteIdent(mill.db.schema)} cascade`);
    await mill.close();
  });

  const batchesRead = async (id: string): Promise<number> =>
    (await plansOf(mill, ours, (db) => findJobs(db, [id])))
      .filter((node) => node["Relation Name"] === "settled")
      .reduce((sum, node) => sum + node["Actual Rows"] * node["Actual Loops"], 0);

  test.each(["waiting", "delayed", "active", "failed", "cancelled"] as const)(
    "and that is %s is found without it",
    async (status) => {
      expect((await mill.job(between[status]))?.status).toBe(status);
      expect(await batchesRead(between[status])).toBe(0);
    },
  );

  test("and that is one of them is found in it", async () => {
    expect((await mill.job(settled))?.status).toBe("completed");
    expect(await batchesRead(settled)).toBeGreaterThan(0);
  });
});

/** A hundred jobs beside a thousand that were claimed with them: compared each with each, reading them took four times as long. */
test("a page is not compared, job by job, with what runs or has ended beside it", async () => {
  const noop = task({ name: "noop", run: () => undefined });
  await using mill = await file.open([noop], { schema: freshSchema() });
  await withoutAutovacuum(mill);
  await analyse(mill);
  const worker = await StoreWorker.register(mill);
  const many = Array.from({ length: 1_000 });
  const ended = await mill.enqueueMany(noop, many, { queue: "ended" });
  await mill.enqueueMany(noop, many, { queue: "running" });
  const lease = await worker.claim(1_000, "ended");
  await worker.settle(lease, Object.fromEntries(ended.map((id) => [id, succeeded])));
  await worker.claim(1_000, "running");
  for (const queue of ["ended", "running"]) {
    const { jobs } = await mill.jobs({ queue });
    expect(new Set(jobs.map(({ status }) => status))).toEqual(new Set([queue === "ended" ? "completed" : "active"]));
    const nodes = await plansOf(mill, ours, (db) =>
      findJobs(
        db,
        jobs.map(({ id }) => id),
      ),
    );
    // Those that run are unpacked, and those that ended together: each of them is looked up.
    const unpacked = nodes.filter((node) => node["Node Type"] === "Function Scan" && node["Actual Rows"] > 0);
    expect(unpacked.filter(({ Filter: filter = "" }) => filter.includes("hashed SubPlan")).length).toBeGreaterThan(0);
  }
});
