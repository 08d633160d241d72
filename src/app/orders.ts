/** What people tell single jobs to do: cancel, retry, promote, put elsewhere in line, replay, remove. `Millrace` has these verbs. */
import { type Duration, durationMs } from "../core/duration.ts";
import { MillraceError } from "../core/errors.ts";
import { storableJson } from "../core/json.ts";
import { checkedName, refuseUnknown, textOrNull, wholeNumber } from "../core/options.ts";
import { isUuid, uuidv7 } from "../core/uuid.ts";
import type { Database } from "../db/database.ts";
import { type Cancelled, cancelJob } from "../jobs/cancel.ts";
import type { Signature } from "../jobs/cancel-store.ts";
import { readInstant } from "../jobs/enqueue-options.ts";
import type { Names } from "../jobs/names.ts";
import type { Admission } from "../jobs/admission.ts";
import { moveByRules } from "../jobs/move.ts";
import { type Move, moveJobs, removeJobs, retryJobs } from "../jobs/orders-store.ts";
import { replayByRules } from "../jobs/replay.ts";
import { type Job, type JobStatus, findJobs } from "../jobs/read-store.ts";
import { highestPriority, refuseOwnTask, validate } from "../jobs/task.ts";
import type { App } from "./app.ts";

/** Who does it and why: kept with the job's history. */
export interface OrderOptions {
  /** Up to 200 characters. */
  by?: string;
  /** Up to 1 000 characters. */
  reason?: string;
}

export interface CancelOptions extends OrderOptions {
  /** How long to wait for a running task to end. Default `"5s"`; 0 does not wait. */
  within?: Duration;
}

export interface ChangeOptions extends OrderOptions {
  /** Run then; a time in the past means now. */
  runAt?: Date | string;
  /** Run this much later, from now. Not together with `runAt`. */
  delay?: Duration;
  /** Higher runs first, -32 767 to 32 767. */
  priority?: number;
  queue?: string;
}

export interface ReplayOptions extends ChangeOptions {
  /** Instead of the old job's. */
  input?: unknown;
}

const signatureNames = ["by", "reason"] as const;
const orderNames: ReadonlySet<string> = new Set(signatureNames);
const cancelNames: ReadonlySet<string> = new Set([...signatureNames, "within"]);
const changeNames: ReadonlySet<string> = new Set([...signatureNames, "runAt", "delay", "priority", "queue"]);
const replayNames: ReadonlySet<string> = new Set([...changeNames, "input"]);

/** What a job must be for the verb to take it. */
const takes = {
  retried: ["failed"],
  promoted: ["delayed"],
  changed: ["waiting", "delayed"],
  removed: ["waiting", "delayed", "blocked", "completed", "failed", "cancelled"],
  cancelled: ["waiting", "delayed", "blocked", "active"],
} as const satisfies Record<string, readonly JobStatus[]>;

/** A job that somebody else is moving this moment is tried again so often. */
const triesMax = 100;

/** What the orders need of their Millrace. */
export interface OrderDesk {
  readonly app: App;
  readonly db: Database;
  readonly names: Names;
  readonly channel: string;
  readonly admission: Admission;
  readonly maxPayloadBytes: number;
  readonly now: () => number;
}

export abstract class Orders {
  readonly app: App;
  /** The door to the database, for rooms of Millrace and for tests. */
  readonly db: Database;
  readonly names: Names;
  /** What workers listen on. */
  readonly channel: string;
  /** Lets new jobs into queues that limit them. */
  readonly admission: Admission;
  /** Largest input of a job, as JSON. */
  readonly maxPayloadBytes: number;
  /** Time for ids, ms since 1970. */
  readonly now: () => number;

  constructor({ app, db, names, channel, admission, maxPayloadBytes, now }: OrderDesk) {
    this.app = app;
    this.db = db;
    this.names = names;
    this.channel = channel;
    this.admission = admission;
    this.maxPayloadBytes = maxPayloadBytes;
    this.now = now;
  }

  /** Throws `CLOSED`. */
  protected abstract mustBeOpen(): void;

  /** One job, wherever it is; undefined when there is none of that id. */
  async job(id: string): Promise<Job | undefined> {
    this.mustBeOpen();
    return isUuid(id) ? (await findJobs(this.db, [id]))[0] : undefined;
  }

  /**
   * Ends a job. One that waits is cancelled at once. One that runs has its signal aborted with `CANCELLED`, and this waits `within` for
   * its task to end: the answer says what became of it, which is `completed` when the cancel came too late, and `cancelling` when the
   * task had not ended by then.
   */
  async cancel(id: string, options: CancelOptions = {}): Promise<Cancelled> {
    refuseUnknown("cancel", options, cancelNames);
    const signature = signatureOf(options);
    const withinMs = durationMs(options.within ?? "5s", "within");
    const found = await this.#existing(id);
    const result = await cancelJob(this.db, this.channel, found, signature, withinMs);
    if (result !== undefined) return result;
    throw await this.#wrongState(id, "cancelled");
  }

  /** Runs a dead letter again: the same job, one more attempt. */
  async retry(id: string, options: OrderOptions = {}): Promise<void> {
    refuseUnknown("retry", options, orderNames);
    const signature = signatureOf(options);
    await this.#order(id, "retried", (ids) => retryJobs(this.db, this.channel, ids, signature));
  }

  /** Makes a delayed job due now. */
  async promote(id: string, options: OrderOptions = {}): Promise<void> {
    refuseUnknown("promote", options, orderNames);
    const signature = signatureOf(options);
    await this.#order(id, "promoted", (ids) =>
      moveJobs(this.db, this.channel, ids, "promote", { delayMs: 0 }, signature, "delayed"),
    );
  }

  /** Makes a job that waits due at a time (a Date or an ISO 8601 text), or a duration from now such as `"10m"`. */
  async reschedule(id: string, when: Date | string | number, options: OrderOptions = {}): Promise<void> {
    refuseUnknown("reschedule", options, orderNames);
    const isDelay = typeof when === "number" || (typeof when === "string" && /^\s*[\d.]+[a-z]+\s*$/i.test(when));
    const time = isDelay ? { delay: when as Duration } : { runAt: when as Date | string };
    await this.#change(id, "reschedule", { ...time, ...options });
  }

  /** Gives a job that waits another priority. */
  async reprioritise(id: string, priority: number, options: OrderOptions = {}): Promise<void> {
    refuseUnknown("reprioritise", options, orderNames);
    await this.#change(id, "reprioritise", { priority, ...options });
  }

  /** Puts a job that waits into another queue, by that queue's limits on new jobs. Throws `PAYLOAD_TOO_LARGE`, `ENQUEUE_RATE_EXCEEDED`. */
  async move(id: string, queue: string, options: OrderOptions = {}): Promise<void> {
    refuseUnknown("move", options, orderNames);
    await this.#change(id, "move", { queue, ...options });
  }

  /** Several of `reschedule`, `reprioritise` and `move` at once; a job that its new queue does not let in stays as it is. */
  async change(id: string, options: ChangeOptions): Promise<void> {
    refuseUnknown("change", options, changeNames);
    await this.#change(id, "change", options);
  }

  /**
   * Makes a new job of an old one, whatever its status: the same task, input, priority, attempts, options, tags and concurrency key,
   * but for what is given here. The old one stays as it is. The limits of its queue on new jobs hold. Throws `ENQUEUE_RATE_EXCEEDED`, `TASK_RESERVED`.
   */
  async replay(id: string, options: ReplayOptions = {}): Promise<{ id: string; replayOf: string }> {
    this.mustBeOpen();
    refuseUnknown("replay", options, replayNames);
    const signature = signatureOf(options);
    const input = "input" in options ? await this.#newInput(id, options.input) : undefined;
    const changes = { ...(await this.readMove(options)), input };
    const old = isUuid(id) ? id : undefined;
    refuseOwnTask((await this.job(id))?.task ?? "");
    const pairs = old === undefined ? [] : [[old, uuidv7(this.now())] as const];
    const { ids, denied } = await this.db.transaction((tx) => replayByRules(tx, this, pairs, changes, signature));
    if (denied !== undefined) {
      await this.admission.record(await this.names.queues.nameOf(denied.queue), [denied.denial]);
      throw denied.denial.error;
    }
    const [fresh] = ids;
    if (fresh !== undefined) return { id: fresh, replayOf: id };
    throw new MillraceError("JOB_NOT_FOUND", `There is no job ${id}.`);
  }

  /** Removes a job that does not run, with its history. */
  async remove(id: string): Promise<void> {
    await this.#order(id, "removed", (ids) => removeJobs(this.db, ids));
  }

  /** Options as the store takes them. A queue that does not exist yet is made. */
  protected async readMove({ runAt, delay, priority, queue }: ChangeOptions): Promise<Move> {
    if (delay !== undefined && runAt !== undefined)
      throw new MillraceError("OPTION_INVALID", "Give delay or runAt, not both.");
    const name = queue === undefined ? undefined : checkedName(queue, "queue");
    return {
      priority:
        priority === undefined ? undefined : wholeNumber(priority, "priority", -highestPriority, highestPriority),
      runAt: runAt === undefined ? undefined : readInstant(runAt),
      delayMs: delay === undefined ? undefined : durationMs(delay, "delay"),
      queue: name === undefined ? undefined : await this.names.queues.id(name),
    };
  }

  async #change(id: string, action: string, options: ChangeOptions): Promise<void> {
    this.mustBeOpen();
    const signature = signatureOf(options);
    const { runAt, delay, priority, queue } = options;
    if (runAt === undefined && delay === undefined && priority === undefined && queue === undefined)
      throw new MillraceError("OPTION_INVALID", "Give at least one of runAt, delay, priority and queue.");
    const found = await this.#existing(id);
    const move = await this.readMove(options);
    await this.#order(found, "changed", async (ids) => {
      const moved = await this.db.transaction((tx) => moveByRules(tx, this, ids, action, move, signature));
      const denial = moved.full ?? moved.tooLarge[0];
      if (denial === undefined || move.queue === undefined) return moved.ids;
      // What cannot be moved at all is told that first.
      if (!(takes.changed as readonly (JobStatus | undefined)[]).includes((await this.job(found))?.status)) return [];
      await this.admission.record(await this.names.queues.nameOf(move.queue), [denial]);
      throw denial.error;
    });
  }

  async #newInput(id: string, input: unknown): Promise<string> {
    const text = storableJson(input, this.maxPayloadBytes);
    const name = (await this.job(id))?.task;
    const task = this.app.tasks.find((candidate) => candidate.name === name);
    if (task?.schema !== undefined) await validate(task.name, task.schema, JSON.parse(text));
    return text;
  }

  /** Gives one order to one job. Throws `JOB_NOT_FOUND`, `JOB_STATE`. */
  async #order(
    id: string,
    done: keyof typeof takes,
    give: (ids: readonly string[]) => Promise<readonly string[]>,
  ): Promise<void> {
    const found = await this.#existing(id);
    for (let tries = 0; tries < triesMax; tries += 1) {
      if ((await give([found])).length > 0) return;
      const status = (await this.job(id))?.status;
      if (!(takes[done] as readonly (JobStatus | undefined)[]).includes(status)) break;
    }
    throw await this.#wrongState(id, done);
  }

  async #existing(id: string): Promise<string> {
    if (await this.job(id)) return id;
    throw new MillraceError("JOB_NOT_FOUND", `There is no job ${id}.`);
  }

  async #wrongState(id: string, done: keyof typeof takes): Promise<MillraceError> {
    const job = await this.job(id);
    if (job === undefined) return new MillraceError("JOB_NOT_FOUND", `There is no job ${id}.`);
    const needed = done === "removed" ? "not active" : takes[done].join(" or ");
    return new MillraceError("JOB_STATE", `Job ${id} is ${job.status}; only a job that is ${needed} can be ${done}.`);
  }
}

/** Who and why, checked. */
export function signatureOf({ by, reason }: OrderOptions): Signature {
  return { by: textOrNull(by, "by", 200), reason: textOrNull(reason, "reason", 1_000) };
}
