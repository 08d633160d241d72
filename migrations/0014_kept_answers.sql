-- What callers were answered who gave their request a key: a repeat under the same key gets the same answer, and nothing is done again.
create table millrace.kept_answers (
  -- SHA-256 of the caller, the operation and the key
  id bytea primary key,
  -- SHA-256 of what was asked
  request bytea not null,
  -- null: it is under way
  status int,
  headers jsonb,
  -- null: the answer had none, is too long to be kept, or holds what is told only once
  body text,
  -- false: the answer was more than this row has
  whole boolean not null default false,
  -- of what is under way: when it is given up, for its process may be gone
  expires_at timestamptz not null
);
create index kept_answers_expires on millrace.kept_answers (expires_at);
