/** What people ask about jobs, timed: why one is where it is, what became of it, and which there are. The answers must be about what was asked. */
import { query } from "./connect.mjs";
import { timed } from "./probe.mjs";

/** Jobs of a page, unless somebody asks for another number. */
export const PAGE = 100;

/**
 * Timeline and explanation of each kind of job.
 * @param kinds [what it is called, the reasons that may be given for it, ids of such jobs]
 * @throws Error when one of them is explained as something else
 */
export async function questions(mill, kinds, times) {
  const calls = {};
  for (const [kind, expected, ids] of kinds) {
    if (ids.length === 0) throw new Error(`${kind}: there is none`);
    for (const id of ids.slice(0, 3)) {
      const { because } = await mill.explain(id);
      if (!expected.includes(because)) throw new Error(`${kind}, ${id}, is explained as ${because}`);
    }
    calls[`explain(), ${kind}`] = await timed(times, (n) => mill.explain(ids[n % ids.length]));
    calls[`timeline(), ${kind}`] = await timed(times, (n) => mill.timeline(ids[n % ids.length]));
  }
  return calls;
}

/** The slowest of the calls that begin with this verb. */
function worstOf(calls, verb) {
  const own = Object.entries(calls).filter(([name]) => name.startsWith(verb));
  const most = (at) => Math.max(...own.map(([, call]) => call[at]));
  return { p50: most("p50"), p99: most("p99") };
}

/** Of explanations and timelines, for the targets that are about any job. */
export const worstAnswers = (calls) => ({
  explain: worstOf(calls, "explain"),
  timeline: worstOf(calls, "timeline"),
});

/**
 * Lists, page by page.
 * @param pages [what it is called, the nth call's options, how many jobs the first page must hold if that is known]
 * @throws Error when it holds another number, or a job of another queue or status than asked for
 */
export async function lists(mill, pages, times) {
  const calls = {};
  for (const [name, optionsOf, held] of pages) {
    const options = optionsOf(0);
    const { jobs } = await mill.jobs(options);
    const strange = jobs.find((job) => ["queue", "status"].some((is) => options[is] && job[is] !== options[is]));
    if (strange) throw new Error(`jobs(), ${name}, lists ${strange.id}: ${strange.status}, in ${strange.queue}`);
    if (held !== undefined && jobs.length !== held)
      throw new Error(`jobs(), ${name}, lists ${jobs.length} jobs, not ${held}`);
    calls[`jobs(), ${name}`] = await timed(times, (n) => mill.jobs(optionsOf(n)));
  }
  return calls;
}

/** Ids of due jobs, in the order they are to run: of each of the queues `count`, from the place `from` on. `key`: those of a concurrency key. */
export async function inLine(url, queues, { key = null, from = 0, count }) {
  const rows = await query(
    url,
    `select p.job_id::text as id
     from unnest($1::text[]) with ordinality as given (name, n) join millrace.queues q on q.name = given.name
     cross join lateral (
       select job_id from millrace.pending
       where line = case when $2::text is null then q.id else -q.id end and key is not distinct from $2::text and run_at <= now()
       order by rank, run_at, job_id offset $3 limit $4
     ) p
     order by given.n`,
    [queues, key, from, count],
  );
  return rows.map(({ id }) => id);
}
