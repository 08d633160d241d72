/**
 * Durable steps of one run. What a step returned is kept; when the job runs again, after a crash, a failure or a sleep, the step is not
 * done again: its result is given. Steps are known by their order, so the code must ask for the same steps in the same order each time;
 * where it does not, because it was changed while the run was under way, the run fails and says at which step.
 *
 * A step that throws is not kept, so that the next attempt does it again; unless the run goes on to another step: it has decided
 * something because of that failure then, and will find the same failure whenever it runs again.
 */
import { AsyncLocalStorage } from "node:async_hooks";
import { type Duration, durationMs } from "../core/duration.ts";
import { MillraceError } from "../core/errors.ts";
import { storableJson } from "../core/json.ts";
import { isText, show } from "../core/options.ts";
import { type Failure, Snooze, errorOf, readFailure } from "../core/retry.ts";

export type StepKind = "run" | "sleep" | "event";

/** A step as it is kept. */
export interface StepRecord {
  readonly place: number;
  readonly name: string;
  readonly kind: StepKind;
  readonly finished: boolean;
  /** Of a finished one: what it returned. Undefined: nothing, or the time to wait is over. */
  readonly result: unknown;
  /** Of one that threw, before the run went on. */
  readonly failure: StepFailure | null;
  /** What a wait waits for. */
  readonly event: string | null;
  /** Of one that sleeps or waits: for how much longer, in ms. */
  readonly leftMs: number;
}

/** What a step threw, without its stack. */
export type StepFailure = Omit<Failure, "stack"> & { readonly name: string };

/** A step that is to be kept. Times in ms from now. */
export interface NewStep {
  readonly place: number;
  readonly name: string;
  readonly kind: StepKind;
  /** JSON text of a finished one; undefined when it returned nothing. */
  readonly result?: string | undefined;
  readonly failure?: StepFailure | undefined;
  readonly finished: boolean;
  readonly untilMs?: number;
  /** Instead of `untilMs`. */
  readonly untilTime?: Date;
  readonly event?: string;
}

/** Where steps are kept. Each throws when the job is no longer this worker's: then nothing was kept. */
export interface StepStore<Transaction> {
  load(): Promise<readonly StepRecord[]>;
  /** Returns for how much longer it sleeps, in ms. */
  keep(step: NewStep): Promise<number>;
  /** Keeps a wait for an event, unless it is there already: then keeps the step as finished. Returns how it stands. */
  await(step: NewStep): Promise<StepRecord>;
  /** The time to wait is over: keeps that, unless the event has come after all. */
  giveUp(place: number): Promise<StepRecord>;
  /** What `work` writes and the step itself, together or not at all. */
  within<Result>(
    step: Omit<NewStep, "result">,
    work: (tx: Transaction) => Promise<Result>,
    json: (result: Result) => string | undefined,
  ): Promise<Result>;
}

/** What a task can do step by step. */
export interface StepContext<Transaction> {
  /**
   * Does it once: `work` runs again only if the worker dies, or it throws, before its result is kept. The result comes back as JSON; what
   * it throws comes back as an `Error` with its name, code and message.
   */
  run<Result>(name: string, work: () => Result | Promise<Result>): Promise<Result>;
  /** Does it once in a transaction, in which the step is kept: its writes happen exactly once. */
  transaction<Result>(name: string, work: (tx: Transaction) => Result | Promise<Result>): Promise<Result>;
  /** Ends this attempt and goes on here later; no worker is held up, no attempt used. */
  sleep(name: string, pause: Duration): Promise<void>;
  sleepUntil(name: string, time: Date | string): Promise<void>;
  /** Goes on when `mill.emit(event)` is called, or was; undefined when that did not happen within `timeout` (default `"7d"`). */
  waitForEvent(name: string, options: { event: string; timeout?: Duration }): Promise<unknown>;
}

/** Thrown through the task to end its attempt. A task that catches it is asked to stop all the same. */
export class Suspension extends Error {
  readonly pauseMs: number;
  readonly step: NewStep;
  constructor(step: NewStep, pauseMs: number) {
    super(`The run waits in step "${step.name}".`);
    this.step = step;
    this.pauseMs = pauseMs;
  }
}

/** The step inside which code runs. One storage for all runs: Node 20 keeps every storage, and asks each at every promise. */
const inside = new AsyncLocalStorage<{ readonly run: object; readonly step: string }>();

const longestWaitMs = 400 * 86_400_000;

/** After these another worker goes on with the run: no further step begins here. */
const goesOnElsewhere: ReadonlySet<string> = new Set(["WORKER_SHUTDOWN", "WORKER_LOST"]);

/** The step's own work threw; whatever else goes wrong in a step is nothing a task could go on from. */
class WorkFailed extends Error {
  readonly failure: StepFailure;
  /** Undefined: it threw in an attempt before. */
  readonly thrown: unknown;
  constructor(failure: StepFailure, thrown?: unknown) {
    super(failure.message);
    this.failure = failure;
    this.thrown = thrown;
  }

  /** What the task is given: the same shape now and whenever the run comes by here again. */
  get asTold(): Error {
    const { failure, thrown } = this;
    const stack = thrown instanceof Error ? (thrown.stack ?? null) : null;
    const error = errorOf({ ...failure, stack });
    Object.defineProperty(error, "name", { value: failure.name, configurable: true, writable: true });
    if (thrown !== undefined) error.cause = thrown;
    return error;
  }
}

export class Steps<Transaction> implements StepContext<Transaction> {
  readonly #store: StepStore<Transaction>;
  readonly #maxBytes: number;
  readonly #hasRecords: boolean;
  #records: Promise<Map<number, StepRecord>> | undefined;
  #next = 0;
  readonly #underWay = new Set<Promise<unknown>>();
  /** Steps that threw in this attempt and are not kept. */
  readonly #failed: NewStep[] = [];
  readonly #keepingFailures: Promise<unknown>[] = [];
  #halted: Error | undefined;

  /** `hasRecords`: steps of this job were kept before. `interrupted`: it was asked to end before it came to a step. */
  constructor(
    store: StepStore<Transaction>,
    {
      hasRecords,
      maxBytes,
      interrupted,
    }: { readonly hasRecords: boolean; readonly maxBytes: number; readonly interrupted: Error | undefined },
  ) {
    this.#store = store;
    this.#hasRecords = hasRecords;
    this.#maxBytes = maxBytes;
    if (interrupted) this.interrupt(interrupted);
  }

  /**
   * Why no further step begins: the run has to go on later (`Suspension`), or not here, or not at all. The attempt ends with it, whatever
   * the task returns or throws: a task that caught it would be done without having done its work.
   */
  get halted(): Error | undefined {
    return this.#halted;
  }

  /** The task was asked to end. One that is cancelled or late may still take steps to clean up. */
  interrupt(reason: Error & { readonly code?: unknown }): void {
    if (goesOnElsewhere.has(String(reason.code))) this.#halted ??= reason;
  }

  /** Steps that the run has begun and not awaited; undefined when there are none. */
  get underWay(): Promise<unknown> | undefined {
    return this.#underWay.size === 0 ? undefined : Promise.allSettled(this.#underWay);
  }

  /** Throws `STEP_CHANGED` when the run has ended and steps of before were not asked for. */
  async ended(): Promise<void> {
    if (!this.#hasRecords) return;
    const records = await this.#load();
    const missed = [...records.values()].find(({ place }) => place >= this.#next);
    if (missed) throw changed(missed, "the code has ended without it");
  }

  run<Result>(name: string, work: () => Result | Promise<Result>): Promise<Result> {
    return this.#enter(name, "run", async (place) => {
      const began = { place, name, kind: "run", finished: true } as const;
      const value = await this.#work(name, work);
      const result = this.#json(name, value);
      await this.#store.keep({ ...began, result });
      return asKept(result) as Result;
    });
  }

  transaction<Result>(name: string, work: (tx: Transaction) => Result | Promise<Result>): Promise<Result> {
    return this.#enter(name, "run", async (place) => {
      const step = { place, name, kind: "run", finished: true } as const;
      let text: string | undefined;
      await this.#store.within(
        step,
        async (tx) => this.#work(name, () => work(tx)),
        (value) => (text = this.#json(name, value)),
      );
      return asKept(text) as Result;
    });
  }

  sleep(name: string, pause: Duration): Promise<void> {
    const pauseMs = durationMs(pause, `step "${name}"`);
    return this.#sleep(name, { untilMs: pauseMs });
  }

  sleepUntil(name: string, time: Date | string): Promise<void> {
    const at = new Date(time);
    if (Number.isNaN(at.getTime()))
      throw new MillraceError(
        "OPTION_INVALID",
        `step "${name}": sleepUntil needs a Date or an ISO 8601 time, not ${show(time)}.`,
      );
    return this.#sleep(name, { untilTime: at });
  }

  #sleep(name: string, until: Pick<NewStep, "untilMs" | "untilTime">): Promise<void> {
    return this.#enter(name, "sleep", async (place, record) => {
      const step: NewStep = { place, name, kind: "sleep", finished: false, ...until };
      const leftMs = record === undefined ? await this.#store.keep(step) : record.leftMs;
      if (leftMs > 0) this.#suspend(step, leftMs);
    });
  }

  waitForEvent(name: string, { event, timeout = "7d" }: { event: string; timeout?: Duration }): Promise<unknown> {
    const untilMs = Math.min(durationMs(timeout, `step "${name}": timeout`), longestWaitMs);
    return this.#enter(name, "event", async (place, record) => {
      const step: NewStep = { place, name, kind: "event", finished: false, untilMs, event: checkedEvent(event) };
      if (record && record.event !== event)
        throw changed(record, `the code waits for event "${event}" instead of "${record.event}"`);
      let state = record ?? (await this.#store.await(step));
      if (!state.finished && state.leftMs <= 0) state = await this.#store.giveUp(place);
      if (!state.finished) this.#suspend(step, state.leftMs);
      return state.result;
    });
  }

  /** Takes the next place, now: the order of calls counts, not the order in which they come to an end. */
  #enter<Result>(
    name: string,
    kind: StepKind,
    work: (place: number, record: StepRecord | undefined) => Promise<Result>,
  ): Promise<Result> {
    const place = this.#next;
    this.#next += 1;
    const outer = inside.getStore();
    const going = this.#guard({ place, name, kind, finished: true }, async () => {
      if (!isText(name, 128, 1))
        throw new MillraceError("STEP_INVALID", `A step's name is 1 to 128 characters, not ${show(name)}.`);
      if (outer?.run === this)
        throw new MillraceError(
          "STEP_INVALID",
          `Step "${name}" is inside step "${outer.step}": steps cannot hold steps.`,
        );
      if (this.#halted) throw this.#halted;
      await this.#keepFailures();
      const record = (await this.#load()).get(place);
      if (record && (record.name !== name || record.kind !== kind))
        throw changed(record, `the code asks for ${kindNames[kind]} "${name}" in its place`);
      if (record?.failure) throw new WorkFailed(record.failure);
      if (record?.finished && kind === "run") return record.result as Result;
      return work(place, record);
    });
    this.#underWay.add(going);
    const over = (): void => void this.#underWay.delete(going);
    going.then(over, over);
    return going;
  }

  /** The task may catch what its own work threw. Anything else ends the attempt. */
  async #guard<Result>(step: NewStep, enter: () => Promise<Result>): Promise<Result> {
    try {
      return await enter();
    } catch (error) {
      if (!(error instanceof WorkFailed)) {
        this.#halted ??= error as Error;
        throw error;
      }
      const { thrown, failure, asTold } = error;
      if (thrown !== undefined) this.#failed.push({ ...step, failure });
      throw asTold;
    }
  }

  /** The run went on after steps that threw: from now on they are among what it is made of. */
  async #keepFailures(): Promise<void> {
    for (const step of this.#failed.splice(0)) this.#keepingFailures.push(this.#store.keep(step));
    await Promise.all(this.#keepingFailures);
  }

  async #work<Result>(step: string, work: () => Result | Promise<Result>): Promise<Result> {
    try {
      return await inside.run({ run: this, step }, work);
    } catch (thrown) {
      if (thrown instanceof Snooze) throw thrown;
      const { stack: _, ...failure } = readFailure(thrown);
      throw new WorkFailed({ ...failure, name: nameOf(thrown) }, thrown ?? null);
    }
  }

  #load(): Promise<Map<number, StepRecord>> {
    this.#records ??= this.#hasRecords
      ? this.#store.load().then((records) => new Map(records.map((record) => [record.place, record])))
      : Promise.resolve(new Map());
    return this.#records;
  }

  #suspend(step: NewStep, pauseMs: number): never {
    throw (this.#halted ??= new Suspension(step, pauseMs));
  }

  #json(name: string, value: unknown): string | undefined {
    if (value === undefined) return undefined;
    try {
      return storableJson(value, this.#maxBytes, `result of step "${name}"`);
    } catch (cause) {
      throw new MillraceError("STEP_NOT_STORABLE", (cause as Error).message, { cause });
    }
  }
}

/** `CardDeclined`, as `catch` would ask for it. */
function nameOf(thrown: unknown): string {
  const name: unknown = thrown instanceof Error ? thrown.name : undefined;
  return isText(name, 128, 1) ? name : "Error";
}

const kindNames = { run: "step", sleep: "sleep", event: "wait" } as const;

const asKept = (json: string | undefined): unknown => (json === undefined ? undefined : JSON.parse(json));

function changed({ place, name, kind }: StepRecord, what: string): MillraceError {
  return new MillraceError(
    "STEP_CHANGED",
    `This run was begun by other code: its step ${place + 1} was ${kindNames[kind]} "${name}", and ${what}. Nothing was done again.`,
  );
}

export function checkedEvent(event: unknown): string {
  if (isText(event, 255, 1)) return event;
  throw new MillraceError("OPTION_INVALID", `An event's name is a text of 1 to 255 characters, not ${show(event)}.`);
}
