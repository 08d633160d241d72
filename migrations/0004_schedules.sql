-- Schedules. The row is the truth: what is due is read from it, fired under its lock, and moved on in the same transaction.

create table millrace.schedules (
  id int generated always as identity primary key,
  name text not null unique,
  -- code | operator | built_in
  source text not null check (source in ('code', 'operator', 'built_in')),
  -- what holds: what the code says, with what operators changed laid over it
  spec jsonb not null,
  -- null: no code ever defined it
  defined jsonb,
  edits jsonb not null default '{}',
  task int not null,
  queue int not null,
  -- intervals are counted from here
  anchor timestamptz not null default date_trunc('second', now()),
  -- the next tick, and when it fires: later by its jitter. Null: none comes, or paused, or retired
  next_at timestamptz,
  due_at timestamptz,
  -- when these two were worked out: in the future, when the clock was ahead and came back
  placed_at timestamptz not null default now(),
  -- ticks up to here were dealt with
  last_at timestamptz,
  paused_at timestamptz,
  paused_by text,
  paused_reason text,
  -- the code that defined it is gone
  retired_at timestamptz,
  -- why it could not be fired; tried again at due_at
  trouble text,
  created_at timestamptz not null default now(),
  created_by text,
  updated_at timestamptz not null default now(),
  updated_by text
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01);
create index schedules_due on millrace.schedules (due_at);
create index schedules_placed on millrace.schedules (placed_at) where paused_at is null and retired_at is null;

-- What became of each tick. count: of neighbouring ticks that were missed or skipped together, up to tick_until; at_least: or more.
create table millrace.schedule_runs (
  id bigint generated always as identity primary key,
  schedule int not null,
  tick_at timestamptz not null,
  tick_until timestamptz,
  count int not null default 1,
  at_least boolean not null default false,
  -- tick | manual
  cause text not null check (cause in ('tick', 'manual')),
  status text not null check (status in ('fired', 'queued', 'skipped', 'missed', 'denied')),
  -- why it was denied
  code text,
  job_id uuid,
  decided_at timestamptz not null default now(),
  -- when its job was enqueued
  fired_at timestamptz,
  ended_at timestamptz,
  -- completed | failed | cancelled | removed
  outcome text,
  by text,
  reason text
) with (fillfactor = 80);
-- A tick has one row, whatever else goes wrong.
create unique index schedule_runs_tick on millrace.schedule_runs (schedule, tick_at) where cause = 'tick';
create index schedule_runs_recent on millrace.schedule_runs (schedule, id);
create index schedule_runs_job on millrace.schedule_runs (job_id) where job_id is not null;
create index schedule_runs_open on millrace.schedule_runs (schedule, status, id) where status in ('fired', 'queued') and ended_at is null;
create index schedule_runs_age on millrace.schedule_runs (decided_at);

-- The same history under the name by which runbook 001 asks for it: one row for each run, with why it failed.
create view millrace.job_runs as
  select r.id, s.name as job_id, s.id as config_id,
         case when r.outcome = 'completed' then 'success' when r.outcome = 'failed' then 'error' when r.outcome is not null then r.outcome
              when r.status = 'fired' then 'running' else r.status end as status,
         r.cause, r.tick_at, coalesce(r.fired_at, r.decided_at) as run_at,
         (extract(epoch from r.ended_at - r.fired_at) * 1000)::float8 as duration_ms,
         coalesce(case when r.outcome = 'failed' then e.error_message end, r.code, r.reason) as detail, r.count, r.job_id as correlation_id
  from millrace.schedule_runs r join millrace.schedules s on s.id = r.schedule
  left join lateral (
    select a.error_message from millrace.attempts a where a.job_id = r.job_id and a.error_code is not null order by a.id desc limit 1
  ) e on true;

-- Versions of an app, told apart by what they define. The one that came last, of those that live, decides.
create table millrace.schedule_versions (
  fingerprint text primary key,
  names text[] not null,
  first_at timestamptz not null default clock_timestamp(),
  beat_at timestamptz not null default now()
);
