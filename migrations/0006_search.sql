-- A list by tag follows an index in the order of the list, however many jobs have the tag; a GIN index cannot be read in order.
drop index millrace.jobs_tags;
create table millrace.job_tags (
  tag text collate "C" not null,
  job_id uuid not null,
  -- deleted with its job
  primary key (job_id, tag)
);
create unique index job_tags_recent on millrace.job_tags (tag, job_id);
insert into millrace.job_tags (tag, job_id)
select distinct tag, id from (
  select id, unnest(tags) as tag from millrace.jobs where tags is not null
  union all
  select id, unnest(tags) from millrace.jobs_archive where tags is not null
) given;
