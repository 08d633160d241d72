/**
 * The engine against a model of it: random sequences of what producers, workers, reapers and operators do, in any order, dead workers
 * reporting late and answers lost included. After each step the database must hold exactly what the model holds.
 *
 *     MILLRACE_TEST_SEQUENCES=2000 npx vitest run test/model
 *
 * A failure prints its seed and path; put both into `fc.assert` to see it again.
 */
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Millrace } from "millrace";
import { finishRequests } from "../../src/jobs/cancel-store.ts";
import { findJobs } from "../../src/jobs/read-store.ts";
import { foldTallies } from "../../src/jobs/stats-store.ts";
import { sql } from "../../src/db/sql.ts";
import { backend } from "../support/database.ts";
import { jobTables, useDatabase } from "../support/engine.ts";
import { type Claim, type End, StoreWorker, reapNow } from "../support/store-worker.ts";
import { Model, type ModelJob, type ModelLease } from "./reference.ts";

const sequences = Number(process.env["MILLRACE_TEST_SEQUENCES"] ?? (backend === "postgres" ? 100 : 50));
const queues = ["north", "south"];
const hourMs = 3_600_000;

const file = useDatabase();
let mill: Millrace;
beforeAll(async () => {
  mill = await file.open([]);
});
afterAll(() => mill.close());

/** The real engine's side of one sequence. */
class Real {
  readonly workers: StoreWorker[];
  /** Every claim ever made, also those whose lease is gone. */
  readonly claims: { claim: Claim; lease: ModelLease; worker: StoreWorker }[] = [];
  /** `lease:job` where the task called `complete(tx)`: whether that committed, only history knows. */
  readonly completing = new Set<string>();
  lastReport: { worker: StoreWorker; claim: Claim; ends: Record<string, End> } | undefined;

  constructor(workers: StoreWorker[]) {
    this.workers = workers;
  }
}

type Step = fc.AsyncCommand<Model, Real>;

/** One kind of step. `choose` turns random numbers into something there is; undefined: the step makes no sense now. */
function step<Choice>(
  name: string,
  choose: (model: Model, real: Real) => Choice | undefined,
  run: (choice: Choice, model: Model, real: Real) => Promise<void>,
): Step {
  let chosen = "";
  return {
    check: () => true,
    async run(model, real) {
      const choice = choose(model, real);
      chosen = choice === undefined ? " (nothing)" : "";
      if (choice === undefined) return;
      await run(choice, model, real);
      await compare(model);
    },
    toString: () => name + chosen,
  };
}

const pick = <Item>(items: Iterable<Item>, n: number): Item | undefined => {
  const all = [...items];
  return all[n % Math.max(all.length, 1)];
};

const ends: readonly End[] = [
  { next: "done" },
  { next: "done" },
  { next: "retry", delayMs: 0, code: "AGAIN" },
  { next: "retry", delayMs: hourMs, code: "LATER" },
  { next: "dead", code: "NEVER" },
  { next: "again", delayMs: 0 },
  { next: "again", delayMs: hourMs },
  { next: "cancelled", code: "CANCELLED" },
];

/** Each job of a lease with an end, or none. */
const endings = (ids: readonly string[], choices: readonly number[]): Record<string, End> =>
  Object.fromEntries(
    ids.flatMap((id, i): [string, End][] => {
      const end = ends[(choices[i % choices.length] ?? 0) % (ends.length + 2)];
      return end ? [[id, end]] : [];
    }),
  );

const some = (ids: readonly string[], choices: readonly number[]): string[] =>
  ids.filter((_, i) => (choices[i % choices.length] ?? 0) % 2 === 0);

async function report(
  model: Model,
  real: Real,
  one: Real["claims"][number],
  chosen: Record<string, End>,
): Promise<void> {
  // A worker cannot know whether a job that completed itself is done, and says what is to happen if it is not.
  const unsure = ([id, end]: [string, End]): [string, End] => [
    id,
    !real.completing.has(`${one.lease.id}:${id}`)
      ? end
      : end.next === "done"
        ? { next: "retry", delayMs: 0, completed: true }
        : { ...end, completed: true },
  ];
  const given = Object.fromEntries(Object.entries(chosen).map(unsure));
  await one.worker.settle(one.claim, given);
  model.settle(one.lease, given);
  real.lastReport = { worker: one.worker, claim: one.claim, ends: given };
}

function note(model: Model, real: Real, worker: StoreWorker, queue: string, claim: Claim): void {
  const ids = claim.jobs.map(({ id }) => id);
  for (const { id, attempt } of claim.jobs) expect(attempt).toBe(model.jobs.get(id)?.attempt);
  model.claim(claim.lease, worker.id, queue, ids);
  const lease = model.leases.get(claim.lease);
  if (lease) real.claims.push({ claim, lease, worker });
}

const n = fc.nat(1_000);
const numbers = fc.array(fc.nat(1_000), { minLength: 1, maxLength: 6 });
const queueOf = (i: number): string => queues[i % queues.length] as string;
const live = (model: Model, { claims }: Real): Real["claims"] =>
  claims.filter(({ lease }) => model.leases.has(lease.id));
const gone = (model: Model, { claims }: Real): Real["claims"] =>
  claims.filter(({ lease }) => !model.leases.has(lease.id));

/** So many times as likely as others. */
const often = (times: number, one: fc.Arbitrary<Step>): fc.Arbitrary<Step>[] =>
  Array.from({ length: times }, () => one);

const steps: fc.Arbitrary<Step>[] = [
  ...often(
    3,
    fc
      .tuple(
        fc.integer({ min: 1, max: 4 }),
        n,
        fc.integer({ min: -1, max: 1 }),
        fc.integer({ min: 1, max: 4 }),
        fc.boolean(),
      )
      .map(([count, q, priority, max, delayed]) =>
        step(
          `enqueue ${count} in ${queueOf(q)}, priority ${priority}, ${max} attempts${delayed ? ", delayed" : ""}`,
          () => true,
          async (_, model) => {
            const options = { queue: queueOf(q), priority, maxAttempts: max, ...(delayed ? { delay: hourMs } : {}) };
            const ids = await mill.enqueueMany("job", Array.from({ length: count }), options);
            for (const id of ids) model.add({ id, queue: queueOf(q), priority, max, due: !delayed });
          },
        ),
      ),
  ),
  fc.tuple(n, n).map(([k, q]) =>
    step(
      `enqueue under key ${k % 2}`,
      () => true,
      async (_, model) => {
        const key = `key ${k % 2}`;
        const { id, duplicate } = await mill.enqueue(
          "job",
          {},
          { queue: queueOf(q), maxAttempts: 2, idempotencyKey: key },
        );
        expect(duplicate).toBe(model.keys.has(key));
        if (duplicate) expect(id).toBe(model.keys.get(key));
        else model.add({ id, queue: queueOf(q), priority: 0, max: 2, due: true });
        model.keys.set(key, id);
      },
    ),
  ),
  ...often(
    5,
    fc.tuple(n, n, fc.integer({ min: 1, max: 5 })).map(([w, q, limit]) =>
      step(
        `worker ${w % 3} claims ${limit} of ${queueOf(q)}`,
        (_, real) => pick(real.workers, w),
        async (worker, model, real) => {
          const expected = model.claimable(queueOf(q)).slice(0, limit);
          const claim = await worker.claim(limit, queueOf(q));
          expect(claim.jobs.map(({ id }) => model.jobs.get(id)?.priority)).toEqual(
            expected.map(({ priority }) => priority),
          );
          const allowed = new Set(model.claimable(queueOf(q)).map(({ id }) => id));
          expect(claim.jobs.filter(({ id }) => !allowed.has(id))).toEqual([]);
          note(model, real, worker, queueOf(q), claim);
        },
      ),
    ),
  ),
  ...often(
    3,
    n.map((w) =>
      step(
        `worker ${w % 3} claims a suspect`,
        (_, real) => pick(real.workers, w),
        async (worker, model, real) => {
          const suspects = model.suspects();
          const claim = await worker.claimSuspect();
          expect(claim?.jobs.length ?? 0).toBe(Math.min(suspects.length, 1));
          const job = suspects.find(({ id }) => id === claim?.jobs[0]?.id);
          expect(job === undefined).toBe(claim === undefined);
          if (claim && job) note(model, real, worker, job.queue, claim);
        },
      ),
    ),
  ),
  ...often(
    5,
    fc.tuple(n, numbers).map(([l, choices]) =>
      step(
        `settle of a lease ${choices}`,
        (model, real) => pick(live(model, real), l),
        (one, model, real) => report(model, real, one, endings([...one.lease.open], choices)),
      ),
    ),
  ),
  ...often(
    2,
    fc.tuple(n, numbers).map(([l, choices]) =>
      step(
        `settle late ${choices}`,
        (model, real) => pick(gone(model, real), l),
        (one, model, real) => report(model, real, one, endings(one.lease.all, choices)),
      ),
    ),
  ),
  fc.constant(0).map(() =>
    step(
      "send the last report again",
      (_, real) => real.lastReport,
      async ({ worker, claim, ends: given }, model, real) => {
        await worker.settle(claim, given);
        const one = real.claims.find((other) => other.claim === claim);
        if (one) model.settle(one.lease, given);
      },
    ),
  ),
  ...often(
    2,
    n.map((l) =>
      step(
        "close a lease whole",
        (model, real) =>
          pick(
            live(model, real).filter(({ lease }) => untouched(real, lease)),
            l,
          ),
        async ({ worker, claim, lease }, model) => {
          expect(await worker.close(claim)).toBe(true);
          model.settle(lease, Object.fromEntries(lease.all.map((id) => [id, { next: "done" as const }])));
        },
      ),
    ),
  ),
  n.map((l) =>
    step(
      "close a lease that is gone",
      (model, real) => pick(gone(model, real), l),
      async ({ worker, claim }) => {
        expect(await worker.close(claim)).toBe(false);
      },
    ),
  ),
  fc.tuple(n, fc.option(numbers)).map(([l, choices]) =>
    step(
      `give back ${choices ?? "all"}`,
      (_, real) => pick(real.claims, l),
      async ({ worker, claim, lease }, model) => {
        const ids = choices ? some(lease.all, choices) : null;
        await worker.giveBack(claim, ids);
        model.giveBack(lease, ids ?? lease.all);
      },
    ),
  ),
  ...often(
    3,
    fc.tuple(n, n, fc.boolean()).map(([l, j, commit]) =>
      step(
        `complete inside a transaction, ${commit ? "commit" : "roll back"}`,
        (_, real) => pick(real.claims, l),
        async ({ worker, claim, lease }, model, real) => {
          const id = pick(lease.all, j) ?? "";
          if (real.completing.has(`${lease.id}:${id}`)) return; // the worker itself refuses a second time
          const held = await worker.complete(claim, id, commit);
          real.completing.add(`${lease.id}:${id}`);
          expect(held).toBe(model.leases.has(lease.id) && lease.open.has(id));
          if (commit) model.complete(lease, id);
        },
      ),
    ),
  ),
  ...often(
    2,
    n.map((w) =>
      step(
        `worker ${w % 3} dies; another takes its place`,
        (_, real) => w % real.workers.length,
        async (at, model, real) => {
          const worker = real.workers[at] as StoreWorker;
          await worker.die();
          model.dead.add(worker.id);
          real.workers[at] = await StoreWorker.register(mill);
        },
      ),
    ),
  ),
  ...often(
    3,
    fc.constant(0).map(() =>
      step(
        "reap",
        () => true,
        async (_, model) => {
          await reapNow(mill);
          model.reap();
        },
      ),
    ),
  ),
  fc.tuple(n, fc.boolean()).map(([q, pause]) =>
    step(
      `${pause ? "pause" : "resume"} ${queueOf(q)}`,
      () => queueOf(q),
      async (queue, model) => {
        const changed = pause ? await mill.pause(queue) : await mill.resume(queue);
        expect(changed).toBe(pause !== model.paused.has(queue));
        if (pause) model.paused.add(queue);
        else model.paused.delete(queue);
      },
    ),
  ),
  ...often(
    2,
    fc.constant(0).map(() =>
      step(
        "two hours pass",
        () => true,
        async (_, model) => {
          await mill.db.query(sql`update millrace.jobs set run_at = run_at - interval '2 hours'`);
          await mill.db.query(sql`update millrace.pending set run_at = run_at - interval '2 hours'`);
          await mill.db.query(
            sql`update millrace.attempts set retry_at = retry_at - interval '2 hours', finished_at = finished_at - interval '2 hours'`,
          );
          await mill.db.query(
            sql`update millrace.operations set run_at = run_at - interval '2 hours', at = at - interval '2 hours'`,
          );
          for (const job of model.jobs.values()) if (job.place === "pending") job.due = true;
        },
      ),
    ),
  ),
  fc.constant(0).map(() =>
    step(
      "fold counts",
      () => true,
      async () => void (await foldTallies(mill.db, 0)),
    ),
  ),
  operator(
    "retry",
    (job) => job.place === "dead",
    (model, job) => model.retry(job.id),
  ),
  operator(
    "promote",
    (job) => job.place === "pending" && !job.due,
    (_, job) => (job.due = true),
  ),
  n.map((j) =>
    step(
      "cancel a job",
      (model) => pick(model.jobs.values(), j),
      async (job, model) => {
        const done = await mill.cancel(job.id, { within: 0 }).then(
          ({ status }) => status,
          (error: { code: string }) => error.code,
        );
        const expected = { pending: "cancelled", lease: "cancelling" } as const;
        expect(done).toBe(job.place in expected ? expected[job.place as "lease"] : "JOB_STATE");
        if (done !== "JOB_STATE") model.cancel(job.id);
      },
    ),
  ),
  fc.constant(0).map(() =>
    step(
      "finish cancels",
      () => true,
      async (_, model) => {
        await finishRequests(mill.db);
        model.finishCancels();
      },
    ),
  ),
  fc.tuple(n, n, fc.integer({ min: -1, max: 1 }), fc.option(fc.boolean())).map(([j, q, priority, due]) =>
    step(
      `put a job into ${queueOf(q)}, priority ${priority}, ${due === null ? "same time" : due ? "now" : "later"}`,
      (model) => pick(model.jobs.values(), j),
      async (job) => {
        const time = due === null ? {} : { delay: due ? 0 : hourMs };
        const done = await mill.change(job.id, { queue: queueOf(q), priority, ...time }).then(
          () => true,
          (error: { code: string }) => error.code,
        );
        expect(done).toBe(job.place === "pending" ? true : "JOB_STATE");
        if (done === true) Object.assign(job, { queue: queueOf(q), priority, due: due ?? job.due });
      },
    ),
  ),
  operator(
    "remove",
    (job) => job.place !== "lease",
    (model, job) => model.forget(job.id),
  ),
  n.map((q) =>
    step(
      `clean ${queueOf(q)}`,
      () => queueOf(q),
      async (queue, model) => {
        const over = [...model.jobs.values()].filter(
          (job) => job.queue === queue && ["dead", "settled", "cancelled"].includes(job.place),
        );
        const recorded = [...model.jobs.values()].some((job) => job.queue === queue && job.recorded);
        if (recorded) return; // done and not yet reported: neither here nor there
        expect(await mill.clean(queue, 0)).toEqual({
          completed: over.filter(({ place }) => place === "settled").length,
          failed: over.filter(({ place }) => place === "dead").length,
          cancelled: over.filter(({ place }) => place === "cancelled").length,
        });
        for (const { id } of over) model.forget(id);
      },
    ),
  ),
];

function operator(
  verb: "retry" | "promote" | "remove",
  allowed: (job: ModelJob) => boolean,
  apply: (model: Model, job: ModelJob) => void,
): fc.Arbitrary<Step> {
  return n.map((j) =>
    step(
      `${verb} a job`,
      (model) => pick(model.jobs.values(), j),
      async (job, model) => {
        const done = await mill[verb](job.id).then(
          () => true,
          (error: { code: string }) => error.code,
        );
        expect(done).toBe(allowed(job) ? true : "JOB_STATE");
        if (done === true) apply(model, job);
      },
    ),
  );
}

/** Nothing of it was reported or completed by its task: what a worker reports whole. */
const untouched = ({ completing }: Real, lease: ModelLease): boolean =>
  lease.open.size === lease.all.length && lease.all.every((id) => !completing.has(`${lease.id}:${id}`));

/** Everything the database knows about each job, as one line. */
async function compare(model: Model): Promise<void> {
  const rows = await mill.db.query<{ id: string; line: string }>(sql`
    select j.id::text, concat_ws(' ',
      (select string_agg(format('pending %s%s%s', p.attempt, case when p.run_at <= now() then ' due' else '' end,
                                case when p.losses > 0 then ' suspect' else '' end), '+') from millrace.pending p where p.job_id = j.id),
      (select string_agg(format('lease %s', l.attempts[array_position(l.job_ids, j.id)]), '+') from millrace.leases l where j.id = any (l.job_ids) and j.id <> all (l.done)),
      (select string_agg('settled', '+') from millrace.settled s where j.id = any (s.job_ids)),
      (select format('dead %s', d.attempt) from millrace.dead_letters d where d.job_id = j.id),
      (select 'asked' from millrace.cancel_requests c where c.job_id = j.id),
      '|', (select string_agg(case when a.late then 'late ' else '' end || a.outcome || case when a.alone then ' alone' else '' end, ', ' order by a.id)
            from millrace.attempts a where a.job_id = j.id)) as line
    from millrace.jobs j`);
  const expected = [...model.jobs.values()].map((job) => [job.id, lineOf(job)]);
  expect(Object.fromEntries(rows.map(({ id, line }) => [id, line]))).toEqual(Object.fromEntries(expected));
  const leases = await mill.db.query<{ id: string; worker: number; open: number }>(
    sql`select id::text, worker, cardinality(job_ids) - cardinality(done) as open from millrace.leases l order by l.id`,
  );
  const held = [...model.leases.values()].map(({ id, worker, open }) => ({ id, worker, open: open.size }));
  expect(leases).toEqual(held.toSorted((a, b) => (BigInt(a.id) < BigInt(b.id) ? -1 : 1)));
  for (const job of model.jobs.values()) if (!job.retried) expect(job.attempt).toBeLessThanOrEqual(job.max);
}

function lineOf(job: ModelJob): string {
  const where = {
    pending: `pending ${job.attempt}${job.due ? " due" : ""}${job.suspect ? " suspect" : ""}`,
    lease: `lease ${job.attempt}${job.recorded ? " settled" : ""}`,
    settled: "settled",
    dead: `dead ${job.attempt}`,
    cancelled: "",
  }[job.place];
  const words = [where, job.asked ? "asked" : ""].filter((word) => word !== "").join(" ");
  return `${words === "" ? "" : `${words} `}|${job.told.length > 0 ? ` ${job.told.join(", ")}` : ""}`;
}

/** What readers are told at the end of a sequence. */
async function compareReaders(model: Model): Promise<void> {
  const jobs = await findJobs(mill.db, [...model.jobs.keys()]);
  const status = (job: ModelJob): string =>
    ({
      pending: job.due ? "waiting" : "delayed",
      lease: "active",
      settled: "completed",
      dead: "failed",
      cancelled: "cancelled",
    })[job.place];
  const seen = Object.fromEntries(jobs.map(({ id, status: of, attempt }) => [id, `${of} ${attempt}`]));
  expect(seen).toEqual(
    Object.fromEntries([...model.jobs.values()].map((job) => [job.id, `${status(job)} ${job.attempt}`])),
  );
  for (const { name, ...counts } of await mill.stats()) {
    const own = [...model.jobs.values()].filter((job) => job.queue === name);
    const count = (place: ModelJob["place"], when: (job: ModelJob) => boolean = () => true): number =>
      own.filter((job) => job.place === place && when(job)).length;
    expect(counts).toMatchObject({
      waiting: count("pending", (job) => job.due),
      delayed: count("pending", (job) => !job.due),
      active: count("lease"),
      completed: count("settled") + count("lease", (job) => job.recorded),
      failed: count("dead"),
      paused: model.paused.has(name),
    });
  }
}

async function begin(): Promise<{ model: Model; real: Real }> {
  const tables = [...jobTables, "workers", "tallies"];
  await mill.db.script(tables.map((table) => `delete from millrace.${table};`).join(" "));
  await mill.db.script(
    "update millrace.tally_mark set counted_until = '-infinity', next_until = null, next_waits = null; update millrace.queues set paused_at = null",
  );
  const workers = [
    await StoreWorker.register(mill),
    await StoreWorker.register(mill),
    await StoreWorker.register(mill),
  ];
  return { model: new Model(), real: new Real(workers) };
}

test(
  `${sequences} random sequences of steps leave the engine where the model is`,
  { timeout: 60_000 + sequences * 2_000 },
  async () => {
    await mill.names.queues.ids(queues);
    const run = fc.asyncProperty(fc.commands(steps, { maxCommands: 40, size: "max" }), async (commands) => {
      const { model, real } = await begin();
      await fc.asyncModelRun(() => ({ model, real }), commands);
      await compareReaders(model);
    });
    await fc.assert(run, { numRuns: sequences, endOnFailure: sequences > 100 });
  },
);
