-- What operators set and ask for: limits, admission, cancels, operations on many jobs, orders to workers; and what was decided for them.

-- Settings of a queue. Null: no limit. What reads them while claiming or enqueueing is told by queues.careful and queues.guarded.
create table millrace.queue_policies (
  queue int primary key,
  -- jobs running at once, over all workers; and of one concurrency key
  concurrency int check (concurrency >= 0),
  key_concurrency int check (key_concurrency >= 1),
  -- starts per so many ms, in any window of that length; and of one concurrency key
  rate_max int check (rate_max >= 1),
  rate_per_ms bigint check (rate_per_ms >= 1),
  key_rate_max int check (key_rate_max >= 1),
  key_rate_per_ms bigint check (key_rate_per_ms >= 1),
  -- storm control: beyond these, the queue holds its breath for throttle_delay_ms and the decision is written down
  max_in_flight int check (max_in_flight >= 1),
  max_attempts_per_minute int check (max_attempts_per_minute >= 1),
  throttle_delay_ms int not null default 500 check (throttle_delay_ms between 1 and 3600000),
  -- admission
  max_payload_bytes int check (max_payload_bytes >= 1),
  max_enqueue_per_minute int check (max_enqueue_per_minute >= 1),
  -- of jobs enqueued by name or by a task without a priority of its own
  priority smallint,
  -- finished jobs are deleted after so long
  keep_completed_ms bigint check (keep_completed_ms >= 0),
  keep_failed_ms bigint check (keep_failed_ms >= 0),
  updated_at timestamptz not null default now(),
  updated_by text,
  check ((rate_max is null) = (rate_per_ms is null)),
  check ((key_rate_max is null) = (key_rate_per_ms is null))
);

-- Starts within the window of a rate limit: n[i] of them at at[i], at most a hundred entries. kind: rate | attempts; key '': of the queue.
-- Pages are left half empty, so that an update stays in its page, which is cleared of what is dead by the next one: 10 000 full rows
-- updated 93 000 times keep their size without any vacuum.
create table millrace.rate_windows (
  queue int not null,
  kind text not null,
  key text collate "C" not null,
  at timestamptz[] not null,
  n int[] not null,
  updated_at timestamptz not null default now(),
  primary key (queue, kind, key)
) with (fillfactor = 50);

-- What storm control decided, with the job that would have started.
create table millrace.policy_decisions (
  id bigint generated always as identity primary key,
  queue int not null,
  job_id uuid not null,
  at timestamptz not null default now(),
  decision text not null,
  reason_code text not null,
  details jsonb not null
);
create index policy_decisions_job on millrace.policy_decisions (job_id, id);
create index policy_decisions_queue on millrace.policy_decisions (queue, id);

-- What was not let in.
create table millrace.ingest_decisions (
  id bigint generated always as identity primary key,
  queue text not null,
  at timestamptz not null default now(),
  decision text not null,
  reason_code text not null,
  details jsonb not null
);
create index ingest_decisions_queue on millrace.ingest_decisions (queue, id);

-- Jobs let in per minute, for queues that limit it.
create table millrace.enqueue_rate_counters (
  queue int not null,
  window_start timestamptz not null,
  count int not null,
  primary key (queue, window_start)
);

-- Running jobs that are to end. Gone once the job has ended.
create table millrace.cancel_requests (
  job_id uuid primary key,
  at timestamptz not null default now(),
  by text,
  reason text,
  -- the task was told and went on
  ignored_at timestamptz
);

-- What people did to queues, workers and many jobs at once. subject: queue:<name>, worker:<id>, bulk:<id>, …
create table millrace.audit (
  id bigint generated always as identity primary key,
  at timestamptz not null default now(),
  by text,
  action text not null,
  subject text not null,
  details jsonb
);
create index audit_subject on millrace.audit (subject, id);

-- One action on all jobs that match a filter, done in batches by a job. place: how far it is, in the order of the list.
create table millrace.bulk_operations (
  id uuid primary key,
  action text not null,
  filter jsonb not null,
  options jsonb not null,
  status text not null default 'waiting' check (status in ('waiting', 'running', 'completed', 'stopped', 'failed')),
  -- how many matched when it was asked for, were looked at, and were changed; the rest had moved on
  expected bigint not null,
  looked_at bigint not null default 0,
  changed bigint not null default 0,
  place jsonb,
  per_second int not null,
  created_at timestamptz not null default now(),
  created_by text,
  started_at timestamptz,
  finished_at timestamptz,
  stop_asked_at timestamptz,
  error text
);

-- Successes that were moved out of the way of the others; history stays where it is until it is pruned.
create table millrace.jobs_archive (
  id uuid primary key,
  queue int not null,
  task int not null,
  priority smallint not null,
  max_attempts smallint not null,
  run_at timestamptz not null,
  created_at timestamptz not null,
  replay_of uuid,
  key text collate "C" not null,
  input jsonb not null,
  options jsonb,
  tags text[],
  archived_at timestamptz not null default now()
);
create index jobs_archive_age on millrace.jobs_archive (archived_at);

alter table millrace.settled add column archived boolean not null default false;
create index settled_age on millrace.settled (archived, finished_at);
create index ingest_decisions_age on millrace.ingest_decisions (at);
create index policy_decisions_age on millrace.policy_decisions (at);
-- The lists of dead letters, of a queue and of all, in their order.
drop index millrace.dead_letters_recent;
create index dead_letters_recent on millrace.dead_letters (queue, failed_at, job_id);
create index dead_letters_age on millrace.dead_letters (failed_at, job_id);
create index attempts_cancelled on millrace.attempts (queue, finished_at) where outcome = 'cancelled' and not late;
-- What was replayed knows its replays. Plain jobs are in neither index.
create index jobs_replays on millrace.jobs (replay_of) where replay_of is not null;
create index jobs_archive_replays on millrace.jobs_archive (replay_of) where replay_of is not null;

-- Orders for the system as a whole: one row. Drained: no worker claims anything, those that start later included.
create table millrace.system_state (
  singleton boolean primary key default true check (singleton),
  drained_at timestamptz,
  drained_by text
);
insert into millrace.system_state default values;

-- Orders for workers, read at once when they are given and with every beat.
alter table millrace.workers
  add column draining boolean not null default false,
  add column wanted_concurrency int,
  add column recycle_asked_at timestamptz;
