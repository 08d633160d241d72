-- The audit is a chain: every row carries the hash of the one before it, so that a row that was changed or taken out is noticed.
-- Its rows say who asked, from where, and what came of it.

-- Where the chain begins and ends. One row, which whoever appends holds until the end of its transaction: it is the lock of the chain.
create table millrace.audit_checkpoint (
  singleton boolean primary key default true check (singleton),
  -- the newest row that retention has deleted; 0 and 32 zero bytes: none
  deleted_id bigint not null default 0,
  deleted_hash bytea not null default decode(repeat('00', 32), 'hex'),
  deleted_at timestamptz,
  -- the newest row
  last_id bigint not null,
  last_hash bytea not null
);

-- Events go on by the id, so none may be given twice, though the rows that had it are gone.
insert into millrace.audit_checkpoint (last_id, last_hash)
  values (coalesce(pg_sequence_last_value(pg_get_serial_sequence('millrace.audit', 'id')::regclass), 0), decode(repeat('00', 32), 'hex'));

alter table millrace.audit
  -- an identity is drawn before its transaction waits for the chain, and would be out of its order
  alter column id drop identity,
  -- who asked: program (this one, by its command line), machine (a program here, without a token), token, user. Null: nobody knew, or it
  -- is the order itself, whose request has a row of its own
  add column actor_kind text check (actor_kind in ('program', 'machine', 'token', 'user')),
  add column actor text,
  add column role text,
  add column address text,
  add column request_id text,
  add column outcome text check (outcome in ('allow', 'deny', 'error')),
  add column prev_hash bytea,
  add column hash bytea;
create index audit_action on millrace.audit (action, id);

-- SHA-256 of the hash before and of each field, in this order: its length in bytes, a colon and its text, or a dash where it is null.
create function millrace.audit_hash(entry millrace.audit) returns bytea language sql stable as $$
  select sha256(entry.prev_hash || convert_to((
    select string_agg(coalesce(octet_length(convert_to(field, 'UTF8')) || ':' || field, '-'), '' order by n)
    from unnest(array[
      entry.id::text, (extract(epoch from entry.at) * 1000000)::bigint::text, entry.by, entry.action, entry.subject, entry.details::text,
      entry.actor_kind, entry.actor, entry.role, entry.address, entry.request_id, entry.outcome
    ]) with ordinality as fields (field, n)
  ), 'UTF8'))
$$;

do $$
declare
  entry millrace.audit;
  prev bytea := decode(repeat('00', 32), 'hex');
begin
  for entry in select * from millrace.audit order by id loop
    entry.prev_hash := prev;
    prev := millrace.audit_hash(entry);
    update millrace.audit set prev_hash = entry.prev_hash, hash = prev where id = entry.id;
  end loop;
  update millrace.audit_checkpoint set last_hash = prev;
end
$$;

alter table millrace.audit alter column prev_hash set not null, alter column hash set not null;

create function millrace.audit_append() returns trigger language plpgsql as $$
declare
  checkpoint millrace.audit_checkpoint;
  newest millrace.audit;
begin
  select * into strict checkpoint from millrace.audit_checkpoint for update;
  -- A statement of its own, which sees what was committed while the one above waited; and rows that this very statement has appended.
  select * into newest from millrace.audit where id > checkpoint.last_id order by id desc limit 1;
  new.id := coalesce(newest.id, checkpoint.last_id) + 1;
  new.prev_hash := coalesce(newest.hash, checkpoint.last_hash);
  new.hash := millrace.audit_hash(new);
  return new;
end
$$;
create trigger append before insert on millrace.audit for each row execute function millrace.audit_append();

create function millrace.audit_appended() returns trigger language plpgsql as $$
begin
  update millrace.audit_checkpoint c set last_id = newest.id, last_hash = newest.hash
  from (select id, hash from millrace.audit order by id desc limit 1) newest where newest.id > c.last_id;
  return null;
end
$$;
create trigger appended after insert on millrace.audit for each statement execute function millrace.audit_appended();

-- Only what is older than 400 days may go, from the oldest on; the chain then begins behind it.
create function millrace.audit_deleted() returns trigger language plpgsql as $$
declare
  newest record;
begin
  select id, hash into newest from gone order by id desc limit 1;
  if not found then return null; end if;
  if exists (select from gone where at >= now() - interval '9600 hours') or exists (select from millrace.audit where id < newest.id) then
    raise exception 'The audit is append-only: only its oldest rows may be deleted, in order, and after 400 days.'
      using errcode = 'restrict_violation';
  end if;
  update millrace.audit_checkpoint set deleted_id = newest.id, deleted_hash = newest.hash, deleted_at = now();
  return null;
end
$$;
create trigger deleted after delete on millrace.audit referencing old table as gone for each statement execute function millrace.audit_deleted();

create function millrace.audit_refuse() returns trigger language plpgsql as $$
begin
  raise exception 'The audit is append-only: % of % is refused.', lower(tg_op), tg_table_name using errcode = 'restrict_violation';
end
$$;
create trigger refuse before update or truncate on millrace.audit for each statement execute function millrace.audit_refuse();
create trigger refuse before insert or update or delete or truncate on millrace.audit_checkpoint
  for each statement when (pg_trigger_depth() = 0) execute function millrace.audit_refuse();
