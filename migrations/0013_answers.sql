-- What an order changed, from what to what: {"queue": {"from", "to"}, "priority": …, "run_at": …}, of these what was another before.
alter table millrace.operations add column details jsonb;
