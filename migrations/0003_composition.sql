-- What jobs are composed with: results, endings that somebody waits for, dependencies, uniqueness, durable steps. A plain job is in none of it.

-- What a job's task returned, when it returned something.
create table millrace.results (
  job_id uuid primary key,
  result jsonb not null,
  at timestamptz not null default now()
);

-- Jobs that somebody waits for (jobs.options.watched) and that have ended: written with the end itself, taken away by whoever tells.
create table millrace.endings (
  id bigint generated always as identity primary key,
  job_id uuid not null,
  outcome text not null check (outcome in ('completed', 'failed', 'cancelled', 'removed')),
  at timestamptz not null default clock_timestamp()
) with (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);

-- What a job needs before it runs: one row per job it waits for, in the order it asked for them. name: under which it finds the result.
create table millrace.dependencies (
  job_id uuid not null,
  place int not null,
  needs uuid not null,
  name text not null,
  on_failure text not null check (on_failure in ('fail', 'ignore', 'continue')),
  state text not null default 'open' check (state in ('open', 'completed', 'failed')),
  primary key (job_id, place)
) with (fillfactor = 80);
create index dependencies_needs on millrace.dependencies (needs);

-- Jobs that wait for others: how many of those have not ended; how many failed and take this one along, or let it go on without them;
-- and when the job is due once it is free (null: at once).
create table millrace.blocked (
  job_id uuid primary key,
  open int not null,
  broken int not null default 0,
  impatient int not null default 0,
  run_at timestamptz,
  delay_ms float8
) with (fillfactor = 50);

-- Which job has a key of a task, until then (null: for ever); whether it still counts is decided by its status when the next one comes.
-- since: the first enqueue that a debounced job stands for.
create table millrace.unique_keys (
  task int not null,
  key text collate "C" not null,
  job_id uuid not null,
  since timestamptz not null default now(),
  until timestamptz,
  primary key (task, key)
);
create index unique_keys_job on millrace.unique_keys (job_id);
create index unique_keys_until on millrace.unique_keys (until);

-- What a run has done so far, in the order in which its code asked for it. A finished step is never done again.
create table millrace.steps (
  job_id uuid not null,
  place int not null,
  name text not null,
  kind text not null check (kind in ('run', 'sleep', 'event')),
  -- of a sleep and of a wait for an event: when it is over; and the event's name
  until timestamptz,
  event text,
  result jsonb,
  attempt smallint not null,
  started_at timestamptz not null default now(),
  finished_at timestamptz,
  primary key (job_id, place)
);
create index steps_event on millrace.steps (event) where event is not null and finished_at is null;

-- Events that runs wait for: the first of a name is the one that counts, whether it comes before the wait or after.
create table millrace.emitted_events (
  name text collate "C" primary key,
  payload jsonb not null,
  at timestamptz not null default now(),
  by text
);
create index emitted_events_age on millrace.emitted_events (at);
