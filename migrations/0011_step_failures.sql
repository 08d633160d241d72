-- What a step threw before its run went on to another one: whenever the run comes by again, it throws the same.
alter table millrace.steps add column failure jsonb;
