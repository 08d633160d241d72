-- Who may come in with what. Only the hash of a token is kept: it is 256 random bits, which no guessing finds, so a fast hash will do.
create table millrace.api_tokens (
  -- the part of the token by which it is recognised
  id text primary key,
  name text not null,
  -- viewer | operator | admin
  role text not null check (role in ('viewer', 'operator', 'admin')),
  hash bytea not null,
  created_at timestamptz not null default now(),
  created_by text,
  expires_at timestamptz,
  last_used_at timestamptz,
  revoked_at timestamptz,
  revoked_by text
);
create index api_tokens_name on millrace.api_tokens (name);
