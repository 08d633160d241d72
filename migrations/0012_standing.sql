-- Somebody waits for the queues to empty before the system is drained: no schedule fires, and workers go on.
alter table millrace.system_state
  add column scheduling_stopped_at timestamptz,
  add column scheduling_stopped_by text;

-- Paused with all the others: resuming all leaves alone what was paused by itself.
alter table millrace.queues add column paused_with_all boolean not null default false;

alter table millrace.bulk_operations add column stop_asked_by text;
