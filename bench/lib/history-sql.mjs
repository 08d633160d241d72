/**
 * History of any size in minutes: SQL that leaves the rows that enqueueing, claiming and settling leave. Written from
 * src/jobs/settle-store.ts; `LIKE_DRAINED` holds them against rows that a worker has left.
 */

/**
 * Jobs come in rounds of ten thousand, 52 ms apart: ten million reach back six days, and none is old enough to be archived yet. A round
 * is half of the 17 minutes of ids that a batch may span. In each are 5 batches of 1,000, claimed by turns, so that their ranges of ids overlap; 40 batches of 100;
 * and 1,000 jobs each alone, as a queue with little to do leaves them. Ten million leave about a million settled batches.
 */
const ROUND = 10_000;
const ROUND_MS = 2 ** 19;
const BATCHES = 1045;
const BIG = "b.k < 5";
const MIDDLE = "b.k < 45";

/** When the first of the rounds begins, for `size` jobs that have all ended by `ms`. */
export const beginning = (size, ms) => (Math.floor(ms / ROUND_MS) - Math.ceil(size / ROUND)) * ROUND_MS;

/** The id of job `n`, made at `ms`: a version 7 UUID, its chance the same each time. */
const idAt = (ms, n) =>
  `(lpad(to_hex(${ms}), 12, '0') || '7' || substr(md5((${n})::text), 1, 3) || '8' || substr(md5((${n})::text), 4, 15))::uuid`;
/** $1: ms since 1970 of the first round. */
const msOf = (n) => `($1::bigint + ${ROUND_MS} * ((${n})::bigint / ${ROUND}) + 52 * ((${n})::bigint % ${ROUND}))`;
const idOf = (n) => idAt(msOf(n), n);
const timeOf = (ms) => `to_timestamp(${ms} / 1000.0)`;
const queueOf = (n) => `case when (${n}) % ${ROUND} >= ${ROUND - 100} then $4::int else $2::int end`;
const PAYLOAD = `'{"sceneId": 12345, "title": "a scene of moderate length", "tags": ["a", "b", "c"], "n": 42, "at": 0}'`;

/** $2 queue, $3 task, $4 and $5 a queue and a task that few jobs have, $6 how many. */
export const JOBS = `
  with asked as (
  insert into millrace.jobs (id, queue, task, max_attempts, run_at, created_at, input, tags)
  select ${idOf("n")}, ${queueOf("n")}, case when n % ${ROUND} >= ${ROUND - 100} then $5::int else $3::int end, 25,
         ${timeOf(msOf("n"))}, ${timeOf(msOf("n"))}, ${PAYLOAD},
         case when n % 1000 = 0 then '{often,seldom}'::text[] when n % 10 = 0 then '{often}' end
  from generate_series(0, $6::int - 1) n returning id, tags
  )
  insert into millrace.job_tags (tag, job_id) select unnest(tags), id from asked`;

/** One row per batch. $2 queue, $3 worker, $4 a queue that few jobs have, $5 how many jobs. A batch ends a moment after its last job came. */
export const SETTLED = `
  insert into millrace.settled (lease, queue, worker, claimed_at, finished_at, n, took_ms_sum, ids, job_ids, started_ms, took_ms)
  select ($3::bigint << 32) + 1000000 + b.round * ${BATCHES} + b.k, ${queueOf("b.first")}, $3::int,
         ${timeOf(`(${msOf("b.last")} + 20)`)}, ${timeOf(`(${msOf("b.last")} + 70)`)}, cardinality(jobs.ids), jobs.took_sum,
         millrace.uuidrange(jobs.ids[1], jobs.ids[cardinality(jobs.ids)], '[]'), jobs.ids, jobs.started, jobs.took
  from (
    select b.*, b.first + (b.size - 1) * b.step as last from (
      select b.round, b.k, b.round * ${ROUND} + case when ${BIG} then b.k when ${MIDDLE} then 5000 + (b.k - 5) * 100 else 9000 + b.k - 45 end as first,
             case when ${BIG} then 5 else 1 end as step, case when ${BIG} then 1000 when ${MIDDLE} then 100 else 1 end as size
      from (select round, k from generate_series(0, $5::int / ${ROUND} - 1) round, generate_series(0, ${BATCHES - 1}) k) b
    ) b
  ) b
  cross join lateral (
    select array_agg(${idOf("n")} order by n) as ids, array_agg((n % 40)::int order by n) as started, array_agg((n % 5)::int order by n) as took, sum(n % 5) as took_sum
    from generate_series(b.first, b.last, b.step) n
  ) jobs`;

/** Eighteen jobs in ten thousand failed once before it went well. $2 queue, $3 worker, $4 how many jobs. */
export const RETRIED = `
  insert into millrace.attempts (job_id, queue, attempt, lease, worker, outcome, started_at, finished_at, error_code, error_message, error_stack, retry_at)
  select ${idOf("n")}, $2::int, 1, ($3::bigint << 32) + 900000000 + n, $3::int, 'failed', ${timeOf(msOf("n"))}, ${timeOf(`(${msOf("n")} + 5)`)},
         'UNKNOWN', 'It did not go well.', repeat('at somewhere in a file ', 20), ${timeOf(`(${msOf("n")} + 10)`)}
  from (select round * ${ROUND} + 9000 + k * 50 as n from generate_series(0, $4::int / ${ROUND} - 1) round, generate_series(0, 17) k) n`;

/** Dead letters, evenly among the others: three attempts each. $2 queue, $3 task, $4 worker, $5 how many jobs, $6 how many of these. */
const DEAD = `
  select n, ${msOf("n")} + 20 as ms, ${idAt(`(${msOf("n")} + 20)`, "-1 - n")} as id
  from (select ($5::bigint * k / $6::int) as n from generate_series(0, $6::int - 1) k) n`;
export const DEAD_LETTERS = `
  with dead as materialized (${DEAD}),
  asked as (
    insert into millrace.jobs (id, queue, task, max_attempts, run_at, created_at, input)
    select id, $2::int, $3::int, 3, ${timeOf("ms")}, ${timeOf("ms")}, ${PAYLOAD} from dead
  ),
  told as (
    insert into millrace.attempts (job_id, queue, attempt, lease, worker, outcome, started_at, finished_at, error_code, error_message, error_stack, retry_at)
    select id, $2::int, attempt, ($4::bigint << 32) + 950000000 + n, $4::int, 'failed', ${timeOf("ms")} + attempt * interval '2 seconds',
           ${timeOf("ms")} + attempt * interval '2 seconds', 'UNKNOWN', 'It did not go well.', repeat('at somewhere in a file ', 20),
           case when attempt < 3 then ${timeOf("ms")} + (attempt + 1) * interval '2 seconds' end
    from dead cross join generate_series(1, 3) attempt order by attempt
  )
  insert into millrace.dead_letters (job_id, queue, task, attempt, reason, error_code, failed_at)
  select id, $2::int, $3::int, 3, 'MAX_ATTEMPTS_EXCEEDED', 'UNKNOWN', ${timeOf("ms")} + interval '6 seconds' from dead`;

/** Ids by number. $2: the numbers. */
export const IDS = `select ${idOf("n")}::text as id from unnest($2::bigint[]) with ordinality as given (n, at) order by at`;

/**
 * What is true of every settled batch that a worker has left, and which columns of its jobs are empty: one line, with how many batches
 * it is true of. Among `$1` batches, from `$2` on.
 */
export const LIKE_DRAINED = `
  select s.n = cardinality(s.job_ids) and s.n = cardinality(s.started_ms) and s.n = cardinality(s.took_ms) as counted,
         s.took_ms_sum = (select sum(took) from unnest(s.took_ms) took) as summed,
         lower(s.ids) = (select min(id::text)::uuid from unnest(s.job_ids) id) and upper(s.ids) = (select max(id::text)::uuid from unnest(s.job_ids) id)
           and lower_inc(s.ids) and upper_inc(s.ids) as ranged,
         left(lower(s.ids)::text, 7) = left(upper(s.ids)::text, 7) as narrow,
         s.finished_at >= s.claimed_at as in_time, s.archived, s.lease >> 32 = s.worker as leased,
         exists (select from millrace.workers w where w.id = s.worker) as worked, j.jobs = s.n as asked, j.shape
  from (select * from millrace.settled where id >= $2::bigint order by id limit $1::int) s
  cross join lateral (
    select count(*) as jobs, array_agg(distinct concat_ws(' ', j.queue = s.queue, j.priority, j.max_attempts, j.run_at = j.created_at, j.replay_of is null, j.key,
           j.options is null, jsonb_typeof(j.input), array(select jsonb_object_keys(j.input) order by 1), length(j.id::text), substr(j.id::text, 15, 1))) as shape
    from millrace.jobs j where j.id = any (s.job_ids)
  ) j`;

/**
 * Lets the jobs of queue `$1` sleep in the last of `$2` steps. Each step was an attempt of its own, as those of a run that slept between
 * them are.
 */
export const STEPWISE = `
  with slept as (
    update millrace.pending set run_at = date_trunc('milliseconds', run_at) + interval '1 hour' where line = $1::int returning job_id, run_at
  ),
  marked as (update millrace.jobs j set options = '{"steps": true}' from slept where j.id = slept.job_id),
  told as (
    insert into millrace.attempts (job_id, queue, attempt, outcome, started_at, finished_at, error_code, retry_at)
    select job_id, $1::int, 1, 'snoozed', now() - ($2::int - n) * interval '1 second', now() - ($2::int - n) * interval '1 second', 'STEP_SLEEPS',
           case when n = $2::int then run_at else now() - ($2::int - n) * interval '1 second' end
    from slept cross join generate_series(1, $2::int) n order by n
  )
  insert into millrace.steps (job_id, place, name, kind, until, result, attempt, started_at, finished_at)
  select job_id, n - 1, 'step ' || n, case when n = $2::int then 'sleep' else 'run' end, case when n = $2::int then run_at end,
         case when n < $2::int then '{"euros": 5}'::jsonb end, 1, now() - ($2::int - n) * interval '1 second',
         case when n < $2::int then now() - ($2::int - n) * interval '1 second' end
  from slept cross join generate_series(1, $2::int) n`;
