-- What metrics count, for ever: deleting history does not make them smaller. Folded from history behind the mark of the tallies.

-- How often what happened in each queue; queue 0: a name that is no queue. Kinds and labels: src/jobs/totals-store.ts.
create table millrace.totals (
  queue int not null,
  kind text not null,
  label text not null,
  n bigint not null,
  primary key (queue, kind, label)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01);

-- How long successful attempts took, in all, and how many fall into each bucket; the last has no upper end.
create table millrace.durations (
  queue int primary key,
  took_ms bigint not null,
  buckets bigint[] not null
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01);

-- The reason of the dead letter that this attempt made, which may be retried and gone before anybody counts.
alter table millrace.attempts add column dead_reason text;

-- Jobs in the order of time, for those that are still to be counted: an entry per 128 pages, and none per job.
create index jobs_created on millrace.jobs using brin (created_at) with (autosummarize = on);
