/**
 * Fires what is due: one transaction claims schedules, decides about their ticks, enqueues jobs, writes what became of each tick, and sets
 * the next one. Killed anywhere, it has done all of that or nothing.
 */
import type { Ending } from "../jobs/endings-store.ts";
import type { Log } from "../core/log.ts";
import { show } from "../core/options.ts";
import { uuidv7 } from "../core/uuid.ts";
import { type Database, type Executor, isTransient } from "../db/database.ts";
import type { Admission, Denial } from "../jobs/admission.ts";
import { batches } from "../jobs/batches.ts";
import type { Signature } from "../jobs/cancel-store.ts";
import { type NewJob, type StoredSchedule, insertSpecial } from "../jobs/enqueue-store.ts";
import {
  type LockedSchedule,
  type Moved,
  type NewRun,
  beginRuns,
  claimDue,
  countOpen,
  denyRuns,
  endRuns,
  endSilent,
  insertManualRun,
  insertRuns,
  lockSchedules,
  moveOn,
  postpone,
  readQueued,
  schedulesOf,
} from "./firing-store.ts";
import { type Plan, plan, queuedMax, slotsOf } from "./plan.ts";

/** What firing needs of its surroundings. */
export interface FiringDesk {
  readonly db: Database;
  readonly channel: string;
  readonly log: Log;
  /** Time for ids, ms since 1970. */
  readonly now: () => number;
  /** Chance for jitter, 0 to 1. */
  readonly random: () => number;
  readonly admission: Admission;
  /** The name of a queue, for the record of what it did not take. */
  readonly queueName: (id: number) => Promise<string>;
}

/** What one transaction did. */
export interface Fired {
  /** Schedules that were due. */
  readonly schedules: number;
  /** Jobs that were enqueued. */
  readonly jobs: number;
}

export interface FireOptions {
  /** Schedules at most. Default 1 000. */
  readonly limit?: number;
  /** Now, for tests. Default: the database's clock. */
  readonly at?: Date;
}

/** Jobs of one transaction at most; a schedule with many late ticks waits for the next. */
const jobsMax = 5_000;
const batchMax = 1_000;

interface Order {
  readonly job: NewJob;
  /** The run it is of. */
  readonly run: string;
}

type Denials = Map<number, Denial[]>;

export class Firing {
  readonly #desk: FiringDesk;

  constructor(desk: FiringDesk) {
    this.#desk = desk;
  }

  /** Fires up to `limit` schedules that are due, in one transaction. */
  async step({ limit = batchMax, at }: FireOptions = {}): Promise<Fired> {
    const { db, log } = this.#desk;
    let claimed: readonly LockedSchedule[] = [];
    const denials: Denials = new Map();
    let fired: Fired;
    try {
      fired = await db.transaction(async (tx) => {
        claimed = await claimDue(tx, limit, at);
        return this.#fire(tx, claimed, at, denials);
      });
    } catch (error) {
      const [only] = claimed;
      if (isTransient(error) || only === undefined) throw error;
      if (claimed.length > 1) return this.step({ limit: 1, ...(at ? { at } : {}) });
      // One that cannot be fired must not hold up the others behind it.
      log.error(
        { err: error, schedule: only.name },
        `schedule "${only.name}" cannot be fired; tried again in a minute`,
      );
      await postpone(db, only.id, (error as Error).message);
      return { schedules: 1, jobs: 0 };
    }
    await this.#recordDenials(denials);
    return fired;
  }

  /** Enqueues one run now, whether the schedule is paused or not. Undefined: as many run as may. */
  async runNow(
    id: number,
    order: { by: string | null; reason: string | null; input: unknown },
    at?: Date,
  ): Promise<ManualRun | undefined> {
    const denials: Denials = new Map();
    const run = await this.#desk.db.transaction(async (tx) => {
      const [found] = await lockSchedules(tx, [id], at);
      if (found === undefined) return undefined;
      const { active, queued } = await this.#openOf(tx, found);
      const { by, reason, input } = order;
      const given = { schedule: id, by, reason };
      if (slotsOf(found.spec, active) > 0 && queued === 0) {
        const jobId = uuidv7(this.#desk.now());
        const runId = await insertManualRun(tx, { ...given, status: "fired", jobId }, at);
        const schedule = input === undefined ? found : { ...found, spec: { ...found.spec, input } };
        const job = this.#job(schedule, jobId, found.nowMs, runId, { by, reason });
        const denied = await this.#enqueue(tx, [{ job, run: runId }], denials);
        return { id: runId, status: "fired" as const, jobId, denial: [...denied.values()][0] };
      }
      if (found.spec.overlap !== "queue" || queued >= queuedMax || input !== undefined) return undefined;
      const runId = await insertManualRun(tx, { ...given, status: "queued", jobId: null }, at);
      return { id: runId, status: "queued" as const, jobId: null, denial: undefined };
    });
    await this.#recordDenials(denials);
    return run;
  }

  /** Hears that jobs ended: their runs have too, and what waited for them begins. Call it in the transaction that forgets the endings. */
  async runsEnded(tx: Executor, endings: readonly Ending[]): Promise<void> {
    const ids = await schedulesOf(
      tx,
      endings.map(({ jobId }) => jobId),
    );
    if (ids.length === 0) return;
    const found = await lockSchedules(tx, ids, undefined);
    await endRuns(tx, endings);
    await this.#beginQueued(tx, found, undefined);
  }

  /** Looks at schedules whose runs have not ended for a while: whether they did in silence, and whether something could begin. */
  async check(ids: readonly number[], at?: Date): Promise<void> {
    await this.#desk.db.transaction(async (tx) => {
      const found = await lockSchedules(tx, ids, at);
      await endSilent(tx, ids);
      await this.#beginQueued(tx, found, at);
    });
  }

  async #fire(
    tx: Executor,
    claimed: readonly LockedSchedule[],
    at: Date | undefined,
    denials: Denials,
  ): Promise<Fired> {
    if (claimed.length === 0) return { schedules: 0, jobs: 0 };
    const open = await this.#openRuns(tx, claimed);
    const runs: NewRun[] = [];
    const moved: Moved[] = [];
    const byId = new Map<number, LockedSchedule>();
    let jobs = 0;
    for (const schedule of claimed) {
      if (jobs >= jobsMax) break;
      byId.set(schedule.id, schedule);
      const planned = this.#plan(schedule, open.get(schedule.id) ?? none);
      if (planned === undefined) {
        moved.push({ ...unmoved(schedule), trouble: this.#trouble(schedule) });
        continue;
      }
      for (const run of planned.runs) {
        jobs += run.status === "fired" ? 1 : 0;
        runs.push({
          ...run,
          schedule: schedule.id,
          jobId: run.status === "fired" ? uuidv7(this.#desk.now()) : null,
        });
      }
      moved.push(this.#next(schedule, planned.nextMs));
    }
    const jobIds = new Map(runs.map(({ schedule, tickMs, jobId }) => [`${schedule} ${tickMs}`, jobId]));
    const orders: Order[] = [];
    for (const batch of batches(runs, () => 0)) {
      for (const { id, schedule, tickMs } of await insertRuns(tx, batch, at)) {
        const jobId = jobIds.get(`${schedule} ${tickMs}`);
        const from = byId.get(schedule);
        if (jobId && from) orders.push({ run: id, job: this.#job(from, jobId, tickMs, id) });
      }
    }
    const denied = await this.#enqueue(tx, orders, denials);
    await moveOn(tx, moved);
    return { schedules: moved.length, jobs: orders.length - denied.size };
  }

  #plan(schedule: LockedSchedule, { active, queued }: Open): Plan | undefined {
    const { spec, anchorMs, nowMs, nextMs } = schedule;
    try {
      return plan({ spec, anchorMs, nowMs, nextMs: nextMs ?? nowMs, active, queued });
    } catch (error) {
      // Stored by a version or a Node that knew the pattern or the zone, and unknown here.
      this.#desk.log.error({ err: error, schedule: schedule.name }, `schedule "${schedule.name}" cannot be read here`);
      return undefined;
    }
  }

  #trouble({ spec }: LockedSchedule): string {
    return `This version cannot tell when ${show(spec.cron ?? spec.everyMs)} in zone ${spec.zone} comes next.`;
  }

  #next({ id, spec, nowMs }: LockedSchedule, nextMs: number | null): Moved {
    const dueMs = nextMs === null ? null : nextMs + Math.floor(this.#desk.random() * spec.jitterMs);
    return { id, nextMs, dueMs, lastMs: nowMs, placedMs: nowMs, trouble: null };
  }

  /** Runs that have not ended; asked twice where they hold something up, for an ending may not have been heard of yet. */
  async #openRuns(tx: Executor, schedules: readonly LockedSchedule[]): Promise<Map<number, Open>> {
    const limited = schedules.filter(({ spec }) => spec.overlap !== "allow");
    if (limited.length === 0) return new Map();
    const open = new Map<number, Open>();
    const count = async (ids: readonly number[]): Promise<void> => {
      for (const { schedule, ...rest } of await countOpen(tx, ids)) open.set(schedule, rest);
    };
    await count(limited.map(({ id }) => id));
    const full = limited.filter(({ id, spec }) => slotsOf(spec, open.get(id)?.active ?? 0) === 0);
    if (full.length === 0) return open;
    const silent = await endSilent(
      tx,
      full.map(({ id }) => id),
    );
    if (silent.length === 0) return open;
    await this.#beginQueued(
      tx,
      full.filter(({ id, resting }) => silent.includes(id) && !resting),
      undefined,
    );
    await count(silent);
    return open;
  }

  async #openOf(tx: Executor, schedule: LockedSchedule): Promise<Open> {
    return (await this.#openRuns(tx, [schedule])).get(schedule.id) ?? none;
  }

  /** Begins runs that waited, as many as may run. Call with the schedules locked. */
  async #beginQueued(tx: Executor, schedules: readonly LockedSchedule[], at: Date | undefined): Promise<void> {
    const awake = schedules.filter(({ resting }) => !resting);
    if (awake.length === 0) return;
    const byId = new Map(awake.map((schedule) => [schedule.id, schedule]));
    for (const { schedule: id, active, queued } of await countOpen(tx, [...byId.keys()])) {
      const schedule = byId.get(id);
      if (schedule === undefined) continue;
      let slots = Math.min(slotsOf(schedule.spec, active), queued);
      while (slots > 0) {
        const waiting = await readQueued(tx, id, slots);
        if (waiting.length === 0) break;
        const orders = waiting.map(({ id: run, tickMs, ...asked }) => {
          const jobId = uuidv7(this.#desk.now());
          return { run, job: this.#job(schedule, jobId, tickMs, run, asked) };
        });
        await beginRuns(
          tx,
          orders.map(({ run, job }) => ({ id: run, jobId: job.id })),
          at,
        );
        // What its queue does not take leaves its place to the next.
        const denied = await this.#enqueue(tx, orders, undefined);
        slots -= orders.length - denied.size;
      }
    }
  }

  /** `asked`: by somebody who ran it by hand. */
  #job(schedule: LockedSchedule, id: string, tickMs: number, run: string, asked?: Signature): NewJob {
    const { spec, queue, task, name } = schedule;
    const about: StoredSchedule = { name, at: new Date(tickMs).toISOString(), run };
    return {
      id,
      queue,
      task,
      priority: spec.priority ?? 0,
      defaultPriority: spec.priority === null,
      maxAttempts: spec.maxAttempts,
      input: JSON.stringify(spec.input),
      special: {
        options: {
          ...(spec.timeoutMs === null ? {} : { timeout_ms: spec.timeoutMs }),
          ...(spec.backoff === null ? {} : { backoff: spec.backoff }),
          watched: true,
          schedule: about,
          ...(asked?.by ? { by: asked.by } : {}),
          ...(asked?.reason ? { reason: asked.reason } : {}),
        },
        ...(spec.tags === null ? {} : { tags: spec.tags }),
        ...(spec.concurrencyKey === null ? {} : { key: spec.concurrencyKey }),
      },
    };
  }

  /** Enqueues; queues with rules take what they take, and the rest are runs that were denied. */
  async #enqueue(tx: Executor, orders: readonly Order[], denials: Denials | undefined): Promise<Map<string, Denial>> {
    const { channel, admission } = this.#desk;
    const denied = new Map<string, Denial>();
    const always = true; // it commits later, when a worker that is busy now may be idle
    for (const batch of batches(orders, ({ job }) => job.input.length)) {
      const jobs = batch.map(({ job }) => job);
      if (admission.perMinute === null && (await insertSpecial(tx, channel, jobs, always))) continue;
      // Gates are opened in one order, whoever opens them.
      for (const queue of [...new Set(jobs.map((job) => job.queue))].toSorted((a, b) => a - b)) {
        const here = jobs.filter((job) => job.queue === queue);
        const refused = await admission.admit(tx, here, false, async (some) => {
          await insertSpecial(tx, channel, some, always, true);
        });
        for (const [job, denial] of refused) {
          const order = batch.find((one) => one.job.id === job.id);
          if (order) denied.set(order.run, denial);
        }
        if (refused.size > 0) denials?.set(queue, [...(denials.get(queue) ?? []), ...refused.values()]);
      }
    }
    if (denied.size > 0)
      await denyRuns(
        tx,
        [...denied].map(([id, { code }]) => ({ id, code })),
      );
    return denied;
  }

  /** Beside the run, as for any job that was not let in. */
  async #recordDenials(denials: Denials): Promise<void> {
    for (const [queue, all] of denials) await this.#desk.admission.record(await this.#desk.queueName(queue), all);
  }
}

export interface ManualRun {
  readonly id: string;
  readonly status: "fired" | "queued";
  readonly jobId: string | null;
  /** Its queue did not take the job. */
  readonly denial: Denial | undefined;
}

interface Open {
  readonly active: number;
  readonly queued: number;
}

const none: Open = { active: 0, queued: 0 };
const troublePauseMs = 60_000;

function unmoved({ id, nextMs, nowMs }: LockedSchedule): Omit<Moved, "trouble"> {
  return { id, nextMs, dueMs: nowMs + troublePauseMs, lastMs: null, placedMs: nowMs };
}
