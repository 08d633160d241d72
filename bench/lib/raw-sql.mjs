/** The statements of contenders/raw.mjs: what was asked, who waits, who runs (a row per batch), who went well (a row per batch). */

export const ZERO = "00000000-0000-0000-0000-000000000000";

export const SCHEMA = `
  create type uuidrange as range (subtype = uuid);
  create table job (
    id uuid primary key, queue int, kind text, payload jsonb, priority smallint default 0,
    run_at timestamptz default now(), max_attempts smallint default 25, created_at timestamptz default now());
  create table ready (
    queue int, priority smallint, run_at timestamptz, job_id uuid, attempt smallint,
    primary key (queue, priority, run_at, job_id));
  create table lease (
    id bigint generated always as identity primary key, queue int, worker int, claimed_at timestamptz default now(),
    job_ids uuid[], attempts smallint[]);
  create table done (
    lease_id bigint primary key, queue int, worker int, claimed_at timestamptz, finished_at timestamptz default now(),
    n int, ids uuidrange, job_ids uuid[], started_ms int[], took_ms int[]);
  create index on done (queue, finished_at);
  create index on done using gist (ids);
  create table sleeper (worker int);`;

/** $1 ids, $2 payloads. Wakes a worker only when one has said that it may be asleep. */
export const ENQUEUE = `
  with j as (
    insert into job (id, queue, kind, payload)
    select id, 1, 'noop', payload from unnest($1::uuid[], $2::jsonb[]) n (id, payload) returning id),
  r as (insert into ready select 1, 0::smallint, now(), id, 1::smallint from j)
  select pg_notify('bench', '') from sleeper limit 1`;

/**
 * $1 the lease to settle, $2 and $3 its smallest and largest id, $4 and $5 start offsets and durations in ms;
 * $6 and $7 the mark to claim from, $8 how many. Rows: lease, id, kind, payload, attempt; the last one is the new mark.
 */
export const CLAIM = `
  with settled as (delete from lease where id = $1 returning *),
  history as (
    insert into done (lease_id, queue, worker, claimed_at, n, ids, job_ids, started_ms, took_ms)
    select d.id, d.queue, d.worker, d.claimed_at, cardinality(d.job_ids), uuidrange($2::uuid, $3::uuid, '[]'), d.job_ids,
           $4::int[], $5::int[]
      from settled d),
  r as (
    select ctid, run_at, job_id from ready
     where queue = 1 and run_at <= now() and (priority, run_at, job_id) >= (0::smallint, $6::timestamptz, $7::uuid)
     order by priority, run_at, job_id limit $8 for update skip locked),
  d as (delete from ready where ctid = any (array(select ctid from r)) returning job_id, attempt, run_at),
  c as (
    insert into lease (queue, worker, job_ids, attempts)
    select 1, 1, array_agg(job_id), array_agg(attempt) from d having count(*) > 0 returning id)
  select (select id from c) as lease, job.id, kind, payload::text, d.attempt from d join job on job.id = d.job_id
  union all
  select null, job_id, run_at::text, null::text, null
    from (select job_id, run_at from r order by run_at desc, job_id desc limit 1) z`;
