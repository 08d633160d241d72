/** The way in: options are read, the input is checked, and concurrent calls share one insert. */
import { MillraceError } from "../core/errors.ts";
import { storableJson } from "../core/json.ts";
import { checkedName, wholeNumber } from "../core/options.ts";
import { uuidv7 } from "../core/uuid.ts";
import { type Database, type Executor, type ForeignTransaction, isTransient } from "../db/database.ts";
import type { StoredTrace } from "../telemetry/trace-context.ts";
import { type Admission, type Denial, tooLarge } from "./admission.ts";
import { batches } from "./batches.ts";
import { type EnqueueOptions, readKey, readSpecial, readUnique } from "./enqueue-options.ts";
import { type NewJob, insertOnce, insertPlain, insertSpecial } from "./enqueue-store.ts";
import type { Names } from "./names.ts";
import { type AnyTask, defaultMaxAttempts, highestPriority, validate, refuseOwnTask } from "./task.ts";
import { type UniqueRule, releaseKey, takeKey } from "./unique-store.ts";

/** `Output`: what the job's task returns. */
export interface Enqueued<Output = unknown> {
  readonly id: string;
  /** True when an earlier job already has the key: `id` is that job's. */
  readonly duplicate: boolean;
  /** Only for the compiler. */
  readonly types?: { readonly output: Output };
}

/** One of several jobs that are enqueued together. */
export interface Asked {
  readonly task: AnyTask | string;
  readonly input: unknown;
  readonly options: Omit<EnqueueOptions, "tx" | "idempotencyKey" | "unique" | "debounce" | "throttle">;
  /** Waits for others; whoever asks says for which. */
  readonly blocked: boolean;
  /** Others wait for it. */
  readonly watched: boolean;
}

/** What a queue's rules do not let in. Thrown so that the transaction is rolled back. */
class Refused extends Error {
  readonly queue: number;
  readonly denials: readonly Denial[];
  constructor(queue: number, denials: readonly Denial[]) {
    super("refused by the queue's rules");
    this.queue = queue;
    this.denials = denials;
  }
}

const none: EnqueueOptions = Object.freeze({});
/** Inserts under way at once: the server writes one to disk while the next is gathered. */
const insertsMax = 2;
/**
 * The second is begun only for so many jobs: with 64 requests under way over HTTP, inserts of 12 jobs cost the server a quarter more
 * CPU per job than these, and this process a tenth.
 */
const secondMin = 32;

/** A job but for its id and input. */
type Order = Omit<NewJob, "id" | "input">;

interface Waiting {
  readonly job: NewJob;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export class Enqueuer {
  readonly #db: Database;
  readonly #names: Names;
  readonly #channel: string;
  readonly #now: () => number;
  readonly #maxPayloadBytes: number;
  readonly #admission: Admission;
  readonly #traceOf: (() => StoredTrace | undefined) | undefined;
  /** Queues known to have rules. */
  readonly #guarded = new Set<number>();
  readonly #orders = new Map<AnyTask | string, Order>();
  #waiting: Waiting[] = [];
  #inserts = 0;

  constructor(
    db: Database,
    names: Names,
    channel: string,
    now: () => number,
    maxPayloadBytes: number,
    admission: Admission,
    /** The span of whoever enqueues. */
    traceOf?: () => StoredTrace | undefined,
  ) {
    this.#db = db;
    this.#traceOf = traceOf;
    this.#names = names;
    this.#channel = channel;
    this.#now = now;
    this.#maxPayloadBytes = maxPayloadBytes;
    this.#admission = admission;
    admission.onFree = (queue) => this.#guarded.delete(queue);
  }

  /** Resolves when the job is durable. A task given by name only is not validated here; the worker that runs it does. */
  async enqueue(task: AnyTask | string, input: unknown, options: EnqueueOptions = none): Promise<Enqueued> {
    // What can be refused is refused before anything is written, be it the number of a new name.
    const text = await this.#text(task, input, options);
    // As the worker will read it: a Date is a text by then, undefined is null.
    if (typeof task !== "string" && task.schema !== undefined) await validate(task.name, task.schema, JSON.parse(text));
    const key = readKey(options);
    const unique = readUnique(options);
    const known = this.#orders.get(task);
    const order = known !== undefined && options === none ? known : await this.#order(task, options);
    const job = this.#job(this.#traced(order), text);
    const { tx } = options;
    if (key === undefined && unique === undefined && tx === undefined) {
      await this.#together(job);
      return { id: job.id, duplicate: false };
    }
    if (unique !== undefined) return this.#insertUnique(job, unique, tx);
    let { id } = job;
    const insert = async (into: Executor, jobs: readonly NewJob[], admitted: boolean): Promise<boolean> => {
      const [one = job] = jobs;
      if (key === undefined) return insertSpecial(into, this.#channel, [one], tx !== undefined, admitted);
      const holder = await insertOnce(into, this.#channel, one, key, tx !== undefined, admitted);
      id = holder ?? id;
      return holder !== undefined;
    };
    await this.#insert([job], tx, insert);
    return { id, duplicate: id !== job.id };
  }

  /** Many jobs of one task: all or none become durable per thousand; with `tx`, all or none. Returns ids in order. */
  async enqueueMany(
    task: AnyTask | string,
    inputs: readonly unknown[],
    options: EnqueueOptions = none,
  ): Promise<string[]> {
    for (const name of ["idempotencyKey", "unique", "debounce", "throttle"] as const)
      if (options[name] !== undefined)
        throw new MillraceError("OPTION_INVALID", `enqueueMany: ${name} is about one job; use enqueue for each.`);
    const texts: string[] = [];
    for (const input of inputs) texts.push(await this.#text(task, input, options));
    if (typeof task !== "string" && task.schema !== undefined)
      for (const text of texts) await validate(task.name, task.schema, JSON.parse(text));
    const order = this.#traced(await this.#order(task, options));
    const jobs = texts.map((text) => this.#job(order, text));
    const { tx } = options;
    const insert = (into: Executor, some: readonly NewJob[], admitted: boolean): Promise<boolean> =>
      tx === undefined
        ? this.#insertAlike(into, some, admitted)
        : insertSpecial(into, this.#channel, some, true, admitted);
    for (const batch of batches(jobs, (job) => job.input.length)) await this.#insert(batch, tx, insert);
    return jobs.map((job) => job.id);
  }

  /** Jobs of any tasks and queues, all or none, and `alongside` what is said about them. Returns ids in order. */
  async enqueueTogether(
    asked: readonly Asked[],
    tx: ForeignTransaction | undefined,
    alongside: (into: Executor, ids: readonly string[]) => Promise<void>,
  ): Promise<string[]> {
    const jobs: NewJob[] = [];
    for (const { task, input, options, blocked, watched } of asked) {
      const text = await this.#text(task, input, options);
      if (typeof task !== "string" && task.schema !== undefined)
        await validate(task.name, task.schema, JSON.parse(text));
      const order = this.#traced(await this.#order(task, { ...options, ...(tx === undefined ? {} : { tx }) }));
      const { special = {} } = order;
      const stored = watched ? { options: { ...special.options, watched: true as const } } : {};
      jobs.push({ ...this.#job(order, text), special: { ...special, ...stored, ...(blocked ? { blocked } : {}) } });
    }
    const ids = jobs.map(({ id }) => id);
    await this.#within(tx, async (into) => {
      await this.#insertWithin(into, jobs, tx !== undefined);
      await alongside(into, ids);
    });
    return ids;
  }

  async #insertUnique(job: NewJob, rule: UniqueRule, tx: ForeignTransaction | undefined): Promise<Enqueued> {
    return this.#within(tx, async (into) => {
      // A debounced job may give its input to one that is there already.
      if (rule.debounce !== undefined) await this.#refuseTooLarge(into, job);
      const id = await takeKey(into, this.#channel, job, rule);
      if (id === job.id) {
        try {
          await this.#insertWithin(into, [job], tx !== undefined);
        } catch (error) {
          if (error instanceof Refused) await releaseKey(into, job); // the caller may commit all the same
          throw error;
        }
      }
      return { id, duplicate: id !== job.id };
    });
  }

  async #refuseTooLarge(into: Executor, job: NewJob): Promise<void> {
    const denial = await this.#admission.sizeDenial(into, job);
    if (denial !== undefined) throw new Refused(job.queue, [denial]);
  }

  /** Does `work` in the caller's transaction or one of its own, and writes down what rules refused. */
  async #within<Result>(
    tx: ForeignTransaction | undefined,
    work: (into: Executor) => Promise<Result>,
  ): Promise<Result> {
    try {
      return await (tx === undefined ? reached(undefined, () => this.#db.transaction(work)) : work(this.#db.adopt(tx)));
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      await this.#record(error.queue, error.denials, tx);
      throw error.denials[0]?.error ?? error;
    }
  }

  /** Jobs of any queues, by the rules of each. Throws `Refused` before any is inserted. */
  async #insertWithin(into: Executor, jobs: readonly NewJob[], always: boolean): Promise<void> {
    if (await insertSpecial(into, this.#channel, jobs, always)) return;
    const admitted: NewJob[] = [];
    for (const queue of new Set(jobs.map((job) => job.queue))) {
      const group = jobs.filter((job) => job.queue === queue);
      const denied = await this.#admission.admit(into, group, true, async (some) => void admitted.push(...some));
      if (denied.size > 0) throw new Refused(queue, [...denied.values()]);
    }
    await insertSpecial(into, this.#channel, admitted, always, true);
  }

  /** Inserts jobs of one queue, all or none; by its rules if it has any. Throws what the rules say. */
  async #insert(
    jobs: readonly NewJob[],
    tx: ForeignTransaction | undefined,
    insert: (into: Executor, jobs: readonly NewJob[], admitted: boolean) => Promise<boolean>,
  ): Promise<void> {
    const into = tx === undefined ? this.#db : this.#db.adopt(tx);
    if (await this.#isFree(jobs, () => reached(tx, () => insert(into, jobs, false)))) return;
    const admit = (within: Executor) =>
      this.#admission.admit(within, jobs, true, async (some) => void (await insert(within, some, true)));
    const denied = await reached(tx, () => (tx === undefined ? this.#db.transaction(admit) : admit(into)));
    const [denial] = denied.values();
    if (denial === undefined) return;
    await this.#record(jobs[0]?.queue ?? 0, denied.values(), tx);
    throw denial.error;
  }

  /** Through the caller's connection where there is no other: then a rollback takes the record with it. */
  async #record(queue: number, denials: Parameters<Admission["record"]>[1], tx?: ForeignTransaction): Promise<void> {
    const via = tx !== undefined && this.#db.kind === "embedded" ? this.#db.adopt(tx) : this.#db;
    await this.#admission.record(await this.#names.queues.nameOf(queue), denials, via);
  }

  /** The input as JSON. What is too large for any queue is written down before it is refused. */
  async #text(task: AnyTask | string, input: unknown, options: EnqueueOptions): Promise<string> {
    try {
      return storableJson(input, this.#maxPayloadBytes);
    } catch (error) {
      if (!(error instanceof MillraceError) || error.code !== "PAYLOAD_TOO_LARGE") throw error;
      const queue = options.queue ?? (typeof task === "string" ? "default" : task.queue);
      const denial = tooLarge(Buffer.byteLength(JSON.stringify(input)), this.#maxPayloadBytes);
      const embedded = options.tx !== undefined && this.#db.kind === "embedded";
      const via = embedded && options.tx ? this.#db.adopt(options.tx) : this.#db;
      await this.#admission.record(checkedName(queue, "queue"), [denial], via);
      throw error;
    }
  }

  /** Everything about a job but its input: read once per call, and once for all for a task without options. */
  async #order(task: AnyTask | string, options: EnqueueOptions): Promise<Order> {
    const named = typeof task === "string";
    const name = named ? checkedName(task, "task") : task.name;
    if (named) refuseOwnTask(name);
    const queue = options.queue === undefined ? (named ? "default" : task.queue) : checkedName(options.queue, "queue");
    // Through the caller's connection: embedded there is no other, and a pool may be used up by transactions like this one.
    const within = options.tx === undefined ? undefined : this.#db.adopt(options.tx);
    const { queues, tasks } = this.#names;
    const order: Order = {
      priority: wholeNumber(
        options.priority ?? (named ? 0 : task.priority),
        "priority",
        -highestPriority,
        highestPriority,
      ),
      maxAttempts: wholeNumber(
        options.maxAttempts ?? (named ? defaultMaxAttempts : task.maxAttempts),
        "maxAttempts",
        1,
        32_767,
      ),
      defaultPriority: options.priority === undefined && (named || task.priority === 0),
      special: options === none ? undefined : readSpecial(options),
      queue: within ? await queues.idWithin(within, queue) : await reached(undefined, () => queues.id(queue)),
      task: within ? await tasks.idWithin(within, name) : await reached(undefined, () => tasks.id(name)),
    };
    if (options === none && !named) this.#orders.set(task, order);
    return order;
  }

  /** With the span of whoever enqueues, if there is one. */
  #traced(order: Order): Order {
    const trace = this.#traceOf?.();
    if (trace === undefined) return order;
    return { ...order, special: { ...order.special, options: { ...order.special?.options, trace } } };
  }

  #job(order: Order, input: string): NewJob {
    const { queue, task, priority, defaultPriority, maxAttempts, special } = order;
    return { id: uuidv7(this.#now()), queue, task, priority, defaultPriority, maxAttempts, special, input };
  }

  /** Joins the insert that goes out next. While one is under way, callers gather for the one after it. */
  #together(job: NewJob): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ job, resolve, reject });
      if (this.#inserts >= insertsMax || (this.#inserts > 0 && this.#waiting.length < secondMin)) return;
      this.#inserts += 1;
      // Everything that is enqueued in this turn of the event loop goes along.
      queueMicrotask(() => void this.#insertWaiting());
    });
  }

  async #insertWaiting(): Promise<void> {
    while (this.#waiting.length > 0) {
      const waiting = this.#waiting;
      this.#waiting = [];
      // Plain jobs have a statement of their own, and do not pay for what others have.
      const plain = waiting.filter(({ job }) => job.special === undefined);
      const others = plain.length === waiting.length ? [] : waiting.filter(({ job }) => job.special !== undefined);
      for (const group of [plain, others])
        for (const batch of batches(group, ({ job }) => job.input.length)) await this.#insertBatch(batch);
    }
    this.#inserts -= 1;
  }

  async #insertBatch(batch: readonly Waiting[]): Promise<void> {
    try {
      const jobs = batch.map(({ job }) => job);
      if (await this.#isFree(jobs, () => reached(undefined, () => this.#insertAlike(this.#db, jobs, false))))
        for (const { resolve } of batch) resolve();
      else await this.#insertByRules(batch);
    } catch (error) {
      if (batch.length === 1 || error instanceof MillraceError) return batch.forEach(({ reject }) => reject(error));
      // One of them is not to PostgreSQL's taste; the others must not suffer for it.
      for (const one of batch) await this.#insertBatch([one]);
    }
  }

  /** Jobs that are all plain, or none of them. */
  #insertAlike(into: Executor, jobs: readonly NewJob[], admitted: boolean): Promise<boolean> {
    return jobs[0]?.special === undefined
      ? insertPlain(into, this.#channel, jobs, admitted)
      : insertSpecial(into, this.#channel, jobs, false, admitted);
  }

  /** Whether the jobs went in without asking anybody. */
  async #isFree(jobs: readonly NewJob[], insert: () => Promise<boolean>): Promise<boolean> {
    if (this.#admission.perMinute !== null || jobs.some(({ queue }) => this.#guarded.has(queue))) return false;
    if (await insert()) return true;
    for (const { queue } of jobs) this.#guarded.add(queue);
    return false;
  }

  /** Jobs of several callers, queue by queue: as many as the queue's rules let in. */
  async #insertByRules(batch: readonly Waiting[]): Promise<void> {
    for (const queue of new Set(batch.map(({ job }) => job.queue))) {
      const group = batch.filter(({ job }) => job.queue === queue);
      const jobs = group.map(({ job }) => job);
      try {
        const denied = await reached(undefined, () =>
          this.#db.transaction((tx) =>
            this.#admission.admit(tx, jobs, false, async (some) => void (await this.#insertAlike(tx, some, true))),
          ),
        );
        if (denied.size > 0) await this.#record(queue, denied.values());
        for (const { job, resolve, reject } of group) {
          const denial = denied.get(job);
          if (denial === undefined) resolve();
          else reject(denial.error);
        }
      } catch (error) {
        for (const { reject } of group) reject(error);
      }
    }
  }
}

/**
 * A connection that broke is tried once more: ids are made here, so an insert that did happen is not repeated. A database that is
 * away becomes one error that says so; the job may or may not be durable then. In the caller's transaction every error is theirs.
 */
async function reached<Result>(
  tx: ForeignTransaction | undefined,
  insert: () => Promise<Result>,
  tries = 2,
): Promise<Result> {
  try {
    return await insert();
  } catch (error) {
    if (tx !== undefined || !isTransient(error)) throw error;
    if (tries > 1) return reached(tx, insert, tries - 1);
    throw new MillraceError("DATABASE_UNREACHABLE", `The job could not be enqueued: ${(error as Error).message}`, {
      cause: error,
    });
  }
}
