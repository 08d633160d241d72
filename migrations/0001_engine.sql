-- The engine. A job is in exactly one place: pending (waits), leases (runs), settled (went well), dead_letters (gave up).
-- Its status is not stored: it is where the job is. ARCHITECTURE.md tells the story; docs/decisions/ has the measurements.

create table millrace.migrations (
  version int primary key,
  name text not null,
  applied_at timestamptz not null default now()
);

-- Names are written once; hot rows carry the numbers.
create table millrace.queues (
  id int generated always as identity primary key,
  name text not null unique,
  paused_at timestamptz,
  paused_by text,
  paused_reason text,
  -- has limits, or jobs with concurrency keys: claimed with care, one lease per job
  careful boolean not null default false,
  -- had a job with a concurrency key, ever
  keyed boolean not null default false,
  -- has limits on what may be enqueued
  guarded boolean not null default false,
  -- the concurrency key that was served last: the next claim begins behind it
  last_key text collate "C" not null default '',
  -- storm control lets nothing start until then
  throttled_until timestamptz,
  created_at timestamptz not null default now()
);

create table millrace.tasks (
  id int generated always as identity primary key,
  name text not null unique
);

-- What was asked. Written once, read at claim.
create table millrace.jobs (
  id uuid primary key,
  queue int not null,
  task int not null,
  priority smallint not null default 0,
  max_attempts smallint not null,
  run_at timestamptz not null,
  created_at timestamptz not null default now(),
  replay_of uuid,
  -- jobs of one key are limited together; '' for those without
  key text collate "C" not null default '',
  input jsonb not null,
  -- what most jobs do not have: {timeout_ms, backoff}
  options jsonb,
  tags text[]
);
create index jobs_tags on millrace.jobs using gin (tags) where tags is not null;

-- Who waits. The primary key is the queue: rank is minus the priority, so that the index reads in the order of work. line is the
-- number of the queue; minus that for jobs with a concurrency key, which plain claims must not see.
-- run_at in the future: delayed; at infinity: blocked. losses counts how often the job went down with a worker.
create table millrace.pending (
  line int not null,
  rank smallint not null,
  run_at timestamptz not null,
  job_id uuid not null,
  task int not null,
  attempt smallint not null,
  losses smallint not null default 0,
  key text collate "C",
  primary key (line, rank, run_at, job_id)
) with (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);
create index pending_suspect on millrace.pending (run_at) where losses > 0;
create index pending_keyed on millrace.pending (line, key, rank, run_at, job_id) where key is not null;

-- Who works. One row per started worker, never reused.
create table millrace.workers (
  id int generated always as identity primary key,
  name text not null,
  host text not null,
  pid int not null,
  version text not null,
  -- null: every queue
  queues int[],
  -- null: every task
  tasks int[],
  concurrency int not null,
  lease_ms int not null,
  -- found nothing to do and waits for a NOTIFY
  idle boolean not null default false,
  started_at timestamptz not null default now(),
  beat_at timestamptz not null default now(),
  stopped_at timestamptz,
  -- stopped | lost
  ended text
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01);
create index workers_live on millrace.workers (id) where stopped_at is null;

-- Who runs. One row per claimed batch; it lives until its last job is settled or its worker stops beating.
create table millrace.leases (
  -- made by the worker, from its number and a count
  id bigint primary key,
  queue int not null,
  worker int not null,
  claimed_at timestamptz not null default now(),
  job_ids uuid[] not null,
  attempts smallint[] not null,
  -- in a queue with limits there is one lease per job, so that counting leases counts what runs under a key
  key text collate "C" not null default '',
  -- jobs of this batch that are settled already
  done uuid[] not null default '{}'
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);

-- Ids are random bits: trying to compress them costs time and gains nothing.
alter table millrace.leases alter column job_ids set storage external;

create type millrace.uuidrange as range (subtype = uuid);

-- Who went well. One row per settled batch: jobs, when each started (ms after claimed_at) and how long it took (ms).
create table millrace.settled (
  id bigint generated always as identity primary key,
  lease bigint not null,
  queue int not null,
  worker int not null,
  claimed_at timestamptz not null,
  finished_at timestamptz not null default now(),
  n int not null,
  took_ms_sum bigint not null,
  ids millrace.uuidrange not null,
  job_ids uuid[] not null,
  started_ms int[] not null,
  took_ms int[] not null
);
alter table millrace.settled alter column job_ids set storage external;
create index settled_recent on millrace.settled (queue, finished_at) include (n, took_ms_sum);
create index settled_ids on millrace.settled using gist (ids);
create index settled_lease on millrace.settled (lease);

-- What went otherwise, and what has something to tell: one row per attempt that failed, timed out, was lost, snoozed or cancelled,
-- and for successes that were not the first attempt. late: the lease was gone when the result came; nothing was applied.
create table millrace.attempts (
  id bigint generated always as identity primary key,
  job_id uuid not null,
  queue int not null,
  attempt smallint not null,
  lease bigint,
  worker int,
  outcome text not null check (outcome in ('succeeded', 'failed', 'timed_out', 'lost', 'cancelled', 'snoozed')),
  started_at timestamptz,
  finished_at timestamptz not null default now(),
  error_code text,
  error_message text,
  error_stack text,
  -- when the job is due again; null when it is not
  retry_at timestamptz,
  -- for lost: the worker held nothing else
  alone boolean not null default false,
  late boolean not null default false
);
create index attempts_job on millrace.attempts (job_id, id);
create index attempts_recent on millrace.attempts (queue, finished_at);

create table millrace.dead_letters (
  job_id uuid primary key,
  queue int not null,
  task int not null,
  attempt smallint not null,
  reason text not null,
  error_code text not null,
  failed_at timestamptz not null default now()
);
create index dead_letters_recent on millrace.dead_letters (queue, failed_at);

-- What people did to a job: retried, promoted, … run_at is where they put it.
create table millrace.operations (
  id bigint generated always as identity primary key,
  job_id uuid not null,
  action text not null,
  at timestamptz not null default now(),
  by text,
  reason text,
  run_at timestamptz
);
create index operations_job on millrace.operations (job_id, id);

-- The first enqueue under a key wins; later ones get its job until the key expires.
create table millrace.idempotency_keys (
  task int not null,
  key text not null,
  job_id uuid not null,
  expires_at timestamptz not null,
  primary key (task, key)
);
create index idempotency_keys_job on millrace.idempotency_keys (job_id);
create index idempotency_keys_expiry on millrace.idempotency_keys (expires_at);

-- Successes counted so far per queue, up to tally_mark.counted_until; what came after is counted from settled.
create table millrace.tallies (
  queue int primary key,
  completed bigint not null
);
create table millrace.tally_mark (
  singleton boolean primary key default true check (singleton),
  counted_until timestamptz not null default '-infinity',
  next_until timestamptz,
  -- the transactions that were running when it was noted
  next_waits text[]
);
insert into millrace.tally_mark default values;
