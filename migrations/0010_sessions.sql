-- People who have signed in. Only the hash of what a browser holds is kept: it is 256 random bits, which no guessing finds.
create table millrace.sessions (
  -- names the session to people; it lets nobody in
  id uuid primary key default gen_random_uuid(),
  hash bytea not null unique,
  -- the hash before the last rotation, good for some seconds more
  rotated_from bytea,
  rotated_at timestamptz not null default now(),
  -- who: the issuer and its own name for somebody. E-mail and name may change there, and are for reading
  issuer text not null,
  sub text not null,
  email text,
  email_verified boolean not null,
  name text,
  -- null: only OPS_ADMIN_EMAILS lets this one in
  role text check (role in ('viewer', 'operator', 'admin')),
  created_at timestamptz not null default now(),
  last_seen_at timestamptz not null default now(),
  expires_at timestamptz not null
);
create index sessions_rotated_from on millrace.sessions (rotated_from) where rotated_from is not null;
create index sessions_person on millrace.sessions (issuer, sub);
create index sessions_expires on millrace.sessions (expires_at);

-- People who are away at the identity provider: each row can be taken once. What finishes a sign-in is in the browser alone.
create table millrace.sign_ins (
  hash bytea primary key,
  return_to text not null,
  expires_at timestamptz not null
);
create index sign_ins_expires on millrace.sign_ins (expires_at);
