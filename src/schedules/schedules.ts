/** Schedules in the hands of operators and programs: `mill.schedules`. */
import type { Ending } from "../jobs/endings-store.ts";
import { MillraceError } from "../core/errors.ts";
import { storableJson } from "../core/json.ts";
import { checkedName, refuseUnknown, show, textOrNull, wholeNumber } from "../core/options.ts";
import type { Executor } from "../db/database.ts";
import type { AnyTask, Task } from "../jobs/task.ts";
import { setBack } from "./clock.ts";
import { type DefinedSet, type Standing, keepAlive, reconcile } from "./code.ts";
import {
  type Said,
  type ScheduleFields,
  type ScheduleOptions,
  type Spec,
  readFields,
  schedule,
  specOf,
} from "./definition.ts";
import { type ScheduleDesk, checkInput, editsOf, isRetimed, numbersOf, placeOf } from "./desk.ts";
import { type FireOptions, type Fired, Firing } from "./firing.ts";
import { type ScheduleInfo, infoOf } from "./info.ts";
import { type PreviewedTick, previewTicks } from "./preview.ts";
import { type RunStatus, type ScheduleRun, readRuns, runStatuses } from "./runs-store.ts";
import {
  type SavedSchedule,
  type ScheduleRow,
  deleteSchedule,
  findSchedule,
  insertSchedules,
  lockByName,
  readClock,
  readSchedules,
  saveSchedules,
  tellSchedulers,
} from "./schedules-store.ts";

/** Who does it. */
export interface By {
  /** Up to 200 characters, for the audit. */
  by?: string;
}
/** Who does it and why. */
export interface ByWhy extends By {
  /** Up to 1 000 characters. */
  reason?: string;
}

/** Null takes a field back to what the code says, or, without code, to its default. */
export type ScheduleChanges = { [Field in keyof ScheduleFields]?: ScheduleFields[Field] | null } & { task?: string };

export class Schedules {
  readonly #desk: ScheduleDesk;
  readonly #firing: Firing;

  constructor(desk: ScheduleDesk) {
    this.#desk = desk;
    this.#firing = new Firing(desk);
  }

  /** Makes a schedule. Throws `SCHEDULE_EXISTS`, `SCHEDULE_INVALID`, `OPTION_UNKNOWN`, `OPTION_INVALID`, `BAD_PAYLOAD`. */
  async create(options: ScheduleOptions, { by }: By = {}): Promise<ScheduleInfo> {
    const { task } = options;
    const known = typeof task === "string" ? this.#taskOf(task) : (task as unknown as AnyTask | undefined);
    const { name, spec, paused } = schedule({ ...options, task: (known as Task | undefined) ?? options.task });
    storableJson(spec.input, this.#desk.maxPayloadBytes);
    await checkInput(known, spec);
    const made = await this.#desk.db.transaction(async (tx) => {
      const now = await readClock(tx);
      const anchor = new Date(Math.floor(now.getTime() / 1_000) * 1_000);
      const place = placeOf(this.#desk, spec, { anchor, lastAt: null, now });
      const numbers = await numbersOf(this.#desk, tx, spec);
      const row = { name, source: "operator", spec, defined: null, anchor, paused, ...numbers, ...place } as const;
      const inserted = await insertSchedules(tx, [row], textOrNull(by, "by", 200));
      await tellSchedulers(tx, this.#desk.channel);
      return inserted.length === 1;
    });
    if (!made) throw new MillraceError("SCHEDULE_EXISTS", `There is a schedule "${name}" already.`);
    return this.get(name);
  }

  /**
   * Changes what is named and leaves the rest. Of a schedule that code defines, the change stays until it is reset, whatever the code says
   * meanwhile. Throws `SCHEDULE_NOT_FOUND` and what `create` throws.
   */
  async update(name: string, changes: ScheduleChanges, { by }: By = {}): Promise<ScheduleInfo> {
    const where = `schedule "${name}"`;
    const said = readFields(changes, where, this.#desk.maxPayloadBytes);
    if (Object.keys(said).length === 0)
      throw new MillraceError("OPTION_INVALID", `${where}: there is nothing to change.`);
    await this.#change(name, "schedule.changed", by, said, (row) => {
      // Where no code defines it, a field without a value is left out, and filled in by `specOf`.
      const base: Partial<Record<string, unknown>> = { ...row.defined };
      const merged: Record<string, unknown> = { ...row.spec };
      for (const [field, value] of Object.entries(said))
        merged[field] = value ?? (field === "input" ? null : base[field]);
      // One of the two takes the other away, the code's too.
      if (typeof said.cron === "string") merged["everyMs"] = null;
      else if (typeof said.everyMs === "number") merged["cron"] = null;
      else if (said.cron === null || said.everyMs === null) Object.assign(merged, timingOf(base));
      const task = this.#taskOf(merged["task"] as string);
      // A queue that was only the old task's is the new one's.
      if (said.task !== undefined && said.queue === undefined && row.defined === null) delete merged["queue"];
      return specOf(merged as Said, task, where);
    });
    return this.get(name);
  }

  /** Takes every change of operators back, but for a pause: what the code says holds again. */
  async reset(name: string, { by }: By = {}): Promise<ScheduleInfo> {
    await this.#change(name, "schedule.reset", by, {}, ({ defined }) => {
      if (defined !== null) return defined;
      throw invalid(`schedule "${name}": no code defines it, so there is nothing to take it back to.`);
    });
    return this.get(name);
  }

  /** Removes a schedule with its history; its jobs stay. Throws `SCHEDULE_NOT_FOUND`, `SCHEDULE_IN_CODE`. */
  async delete(name: string, { by }: By = {}): Promise<void> {
    await this.#locked(name, async (tx, row) => {
      if (row.source !== "operator" && row.retiredAt === null)
        throw new MillraceError("SCHEDULE_IN_CODE", `Schedule "${name}" is defined in the app's code.`);
      await deleteSchedule(tx, row.id, textOrNull(by, "by", 200));
    });
  }

  /** It fires nothing, and begins nothing that is queued, until it is resumed. False when it was paused already. */
  async pause(name: string, { by, reason }: ByWhy = {}): Promise<boolean> {
    const [who, why] = [textOrNull(by, "by", 200), textOrNull(reason, "reason", 1_000)];
    return this.#locked(name, async (tx, row) => {
      if (row.pausedAt !== null) return false;
      const rest = { pausedAt: row.now, pausedBy: who, pausedReason: why, nextAt: null, dueAt: null };
      await saveSchedules(tx, [{ ...row, ...rest }], {
        action: "schedule.paused",
        by: who,
        details: { reason: why },
      });
      return true;
    });
  }

  /** It goes on with its next tick: those of the pause are not made up for. False when it was not paused. */
  async resume(name: string, { by }: By = {}): Promise<boolean> {
    const who = textOrNull(by, "by", 200);
    let id = 0;
    const resumed = await this.#locked(name, async (tx, row) => {
      ({ id } = row);
      if (row.pausedAt === null) return false;
      const awake: SavedSchedule = { ...row, pausedAt: null, pausedBy: null, pausedReason: null };
      const place = row.retiredAt === null ? placeOf(this.#desk, row.spec, row) : {};
      await saveSchedules(tx, [{ ...awake, ...place }], { action: "schedule.resumed", by: who });
      return true;
    });
    if (resumed) await this.#firing.check([id]);
    return resumed;
  }

  /**
   * One run now, beside its ticks, paused or not. `input` instead of its own. Where the run before holds it up it is queued (overlap
   * `queue`) or refused with `SCHEDULE_BUSY`; what its queue does not take throws `PAYLOAD_TOO_LARGE` or `ENQUEUE_RATE_EXCEEDED`.
   */
  async runNow(
    name: string,
    { by, reason, input }: ByWhy & { input?: unknown } = {},
  ): Promise<{ runId: string; status: "fired" | "queued"; jobId: string | null }> {
    const found = await this.#find(name);
    const said: Said =
      input === undefined ? {} : readFields({ input }, `schedule "${name}"`, this.#desk.maxPayloadBytes);
    if (input !== undefined) {
      const { spec } = (await readSchedules(this.#desk.db, { names: [name], limit: 1 }))[0] ?? {};
      if (spec) await checkInput(this.#taskOf(spec.task), { ...spec, input: said.input });
    }
    const signature = { by: textOrNull(by, "by", 200), reason: textOrNull(reason, "reason", 1_000) };
    const run = await this.#firing.runNow(found.id, { ...signature, input: said.input });
    if (run === undefined)
      throw new MillraceError("SCHEDULE_BUSY", `Schedule "${name}" has as many runs as may be at once.`);
    if (run.denial !== undefined) throw run.denial.error;
    return { runId: run.id, status: run.status, jobId: run.jobId };
  }

  /** Throws `SCHEDULE_NOT_FOUND`. */
  async get(name: string): Promise<ScheduleInfo> {
    const [row] = await readSchedules(this.#desk.db, { names: [checkedName(name, "schedule")], limit: 1 });
    if (row === undefined) throw notFound(name);
    return infoOf(row);
  }

  /** By name. `limit` 1 to 1 000, default 100; `after` the last name of the page before. */
  async list({ limit = 100, after }: { limit?: number; after?: string } = {}): Promise<ScheduleInfo[]> {
    const page = { limit: wholeNumber(limit, "limit", 1, 1_000), after: textOrNull(after, "after", 128) ?? undefined };
    const rows = await readSchedules(this.#desk.db, page);
    return rows.map(infoOf);
  }

  /** What became of its ticks, the newest first. `limit` 1 to 500, default 100; `before` the id of the last one of the page before. */
  async runs(
    name: string,
    { limit = 100, before, status }: { limit?: number; before?: string; status?: RunStatus } = {},
  ): Promise<ScheduleRun[]> {
    if (before !== undefined && !/^\d{1,18}$/.test(before))
      throw new MillraceError("OPTION_INVALID", `before must be the id of a run, not ${show(before)}.`);
    if (status !== undefined && !runStatuses.includes(status))
      throw new MillraceError(
        "OPTION_INVALID",
        `status must be one of ${runStatuses.join(", ")}, not ${show(status)}.`,
      );
    const { id } = await this.#find(name);
    return readRuns(this.#desk.db, id, { limit: wholeNumber(limit, "limit", 1, 500), before, status });
  }

  /** When it comes next, whether it is paused or not; or when a pattern would, given instead of a name. `count` 1 to 100, default 10. */
  async preview(
    what: string | Pick<ScheduleFields, "cron" | "every" | "zone">,
    { count = 10 }: { count?: number } = {},
  ): Promise<PreviewedTick[]> {
    const most = wholeNumber(count, "count", 1, 100);
    const now = await readClock(this.#desk.db);
    if (typeof what === "string") {
      const [row] = await readSchedules(this.#desk.db, { names: [checkedName(what, "schedule")], limit: 1 });
      if (row === undefined) throw notFound(what);
      return previewTicks(row.spec, row.anchor.getTime(), now.getTime(), most);
    }
    refuseUnknown("preview", what, new Set(["cron", "every", "zone"]));
    const spec = specOf({ ...readFields(what, "preview"), task: "preview" }, undefined, "preview");
    return previewTicks(spec, Math.floor(now.getTime() / 1_000) * 1_000, now.getTime(), most);
  }

  /** Fires what is due, up to `limit` (1 000) schedules in one transaction. What schedulers do all the time; for tests and crontabs. */
  async fire(options: FireOptions = {}): Promise<Fired> {
    refuseUnknown("fire", options, new Set(["limit", "at"]));
    return this.#firing.step(options);
  }

  /** For the engine: the ends of watched jobs, in the transaction that forgets them. */
  async runsEnded(tx: Executor, endings: readonly Ending[]): Promise<void> {
    await this.#firing.runsEnded(tx, endings);
  }

  /** For schedulers: looks whether runs of these schedules ended in silence, and begins what can. */
  async check(ids: readonly number[]): Promise<void> {
    await this.#firing.check(ids);
  }

  /** Makes the database's schedules those that the code defines; see `reconcile`. */
  async define(sets: readonly DefinedSet[], options: { alone?: boolean; before?: Standing } = {}): Promise<Standing> {
    return reconcile(this.#desk, sets, options);
  }

  /** For processes that leave schedules to others: says that their code lives; see `keepAlive`. */
  async keepAlive(sets: readonly DefinedSet[]): Promise<void> {
    await keepAlive(this.#desk.db, sets);
  }

  /** For schedulers: after a clock that was ahead has come back, sets back what it put off. Returns how many that were. */
  async setBack(): Promise<number> {
    return setBack(this.#desk);
  }

  /** The name of a schedule known by its number. */
  async nameOf(id: number): Promise<string> {
    const found = await findSchedule(this.#desk.db, { id });
    if (found !== undefined) return found.name;
    throw notFound(`#${id}`);
  }

  async #change(
    name: string,
    action: string,
    by: string | undefined,
    details: object,
    change: (row: ScheduleRow) => Spec,
  ): Promise<void> {
    const who = textOrNull(by, "by", 200);
    const id = await this.#locked(name, async (tx, row) => {
      const spec = change(row);
      await checkInput(this.#taskOf(spec.task), spec);
      const edits = row.defined === null ? {} : editsOf(row.defined, spec);
      const saved = { ...row, spec, edits, ...(await numbersOf(this.#desk, tx, spec)) };
      const moves = isRetimed(row.spec, spec) && row.pausedAt === null && row.retiredAt === null;
      const place = moves ? placeOf(this.#desk, spec, row) : {};
      await saveSchedules(tx, [{ ...saved, ...place }], { action, by: who, details });
      return row.id;
    });
    await this.#firing.check([id]); // more may run at once by now
  }

  /** Does something with a schedule under its lock, and tells schedulers. */
  async #locked<Result>(name: string, work: (tx: Executor, row: ScheduleRow) => Promise<Result>): Promise<Result> {
    checkedName(name, "schedule");
    return this.#desk.db.transaction(async (tx) => {
      const [row] = await lockByName(tx, [name]);
      if (row === undefined) throw notFound(name);
      const result = await work(tx, row);
      await tellSchedulers(tx, this.#desk.channel);
      return result;
    });
  }

  async #find(name: string): Promise<{ id: number; name: string }> {
    const found = await findSchedule(this.#desk.db, { name: checkedName(name, "schedule") });
    if (found === undefined) throw notFound(name);
    return found;
  }

  #taskOf(name: string): AnyTask | undefined {
    return this.#desk.tasks.find((task) => task.name === name);
  }
}

function timingOf({ cron, everyMs }: Partial<Record<string, unknown>>): object {
  return { cron, everyMs };
}

function notFound(name: string): MillraceError {
  return new MillraceError("SCHEDULE_NOT_FOUND", `There is no schedule "${name}".`);
}

function invalid(message: string): MillraceError {
  return new MillraceError("SCHEDULE_INVALID", message);
}
