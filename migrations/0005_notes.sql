-- What tasks say while they run: how far they are, and lines of their logs. A job that says nothing is in neither.

-- The newest mark of a job; attempt: the one that set it.
create table millrace.progress (
  job_id uuid primary key,
  value jsonb not null,
  attempt smallint not null,
  at timestamptz not null
) with (fillfactor = 50);

-- n: 1, 2, 3 … of a job, whatever attempt said it. A line without words stands for so many (missed) that were not kept.
-- lease and place: whose line it is, and which; what is sent twice, because its answer was lost, is written once.
create table millrace.job_logs (
  job_id uuid not null,
  n int not null,
  lease bigint not null,
  place int not null,
  attempt smallint not null,
  at timestamptz not null,
  level text not null check (level in ('info', 'warn', 'error')),
  message text not null,
  fields jsonb,
  missed int,
  primary key (job_id, n)
);
