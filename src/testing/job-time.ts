/**
 * Time as the code of a task sees it while its job runs: `Date` tells the virtual time, and the job's own timers move it. A timer takes
 * as long as it says, and time has gone on by that when it fires; `advance` makes it fire at once. Everybody else, the test runner and
 * the database among them, has the real `Date` and the real timers.
 */
import { AsyncLocalStorage, AsyncResource } from "node:async_hooks";
import { syncBuiltinESMExports } from "node:module";
import timers from "node:timers";
import promises from "node:timers/promises";
import { promisify } from "node:util";

type Callback = (...args: unknown[]) => void;

interface Waiting {
  readonly time: JobTime;
  readonly run: () => void;
  readonly delayMs: number;
  readonly repeats: boolean;
  dueMs: number;
}

/** The longest that Node's timers wait; what is longer, or no number, is 1 ms. */
const delayMaxMs = 2 ** 31 - 1;

const real = {
  Date,
  setTimeout: timers.setTimeout,
  setInterval: timers.setInterval,
  clearTimeout: timers.clearTimeout,
  clearInterval: timers.clearInterval,
  sleep: promises.setTimeout,
};
const running = new AsyncLocalStorage<JobTime>();
const waiting = new Map<NodeJS.Timeout, Waiting>();

/** Of one run of one job. */
export class JobTime {
  readonly #now: () => number;
  readonly #moveTo: (ms: number) => Promise<void>;
  #moved: Promise<void> = Promise.resolve();
  #over = false;

  /** `now` in ms since 1970. `moveTo` has moved it when it returns, and the database's when its promise resolves. */
  constructor(now: () => number, moveTo: (ms: number) => Promise<void>) {
    this.#now = now;
    this.#moveTo = moveTo;
  }

  /** Runs the task's code in this time. */
  run<Result>(work: () => Result): Result {
    return running.run(this, work);
  }

  now(): number {
    return this.#now();
  }

  /** What runs after the end of the job has real time. */
  get over(): boolean {
    return this.#over;
  }

  /** Moves time on; what is due until then fires in its order, and what it leads to comes before what is due later. */
  async advanceTo(ms: number): Promise<void> {
    for (;;) {
      const [next] = this.#own().toSorted(([, a], [, b]) => a.dueMs - b.dueMs);
      if (next === undefined || next[1].dueMs > ms) break;
      this.fire(...next);
      await promises.setImmediate(); // what it leads to
    }
    this.#move(ms);
    await this.#moved;
  }

  /** Time is as late as the timer says, at least, and what it is for happens. */
  fire(timer: NodeJS.Timeout, one: Waiting): void {
    this.#move(one.dueMs);
    if (one.repeats) one.dueMs += one.delayMs;
    else forget(timer);
    one.run();
  }

  /** The shortest time that a timer of the job takes, in ms; undefined: it waits for none. */
  shortestMs(): number | undefined {
    const delays = this.#own().map(([, { delayMs }]) => delayMs);
    return delays.length === 0 ? undefined : Math.min(...delays);
  }

  /** Timers that are left never fire. */
  async end(): Promise<void> {
    this.#over = true;
    for (const [timer] of this.#own()) forget(timer);
    await this.#moved;
  }

  #own(): (readonly [NodeJS.Timeout, Waiting])[] {
    return [...waiting].filter(([, { time }]) => time === this);
  }

  /** Not waited for: the job may hold the database in a transaction. Statements that follow find the database's clock moved. */
  #move(ms: number): void {
    if (ms <= this.#now()) return;
    this.#moved = Promise.all([this.#moved, outside(() => this.#moveTo(ms))]).then(() => undefined);
    this.#moved.catch(() => undefined); // `end` and `advanceTo` throw it
  }
}

/** What the engine does for a job takes real time. */
export const outside = <Result>(work: () => Result): Result => running.exit(work);

function current(): JobTime | undefined {
  const time = running.getStore();
  return time === undefined || time.over ? undefined : time;
}

function start(time: JobTime, callback: Callback, delay: unknown, args: unknown[], repeats: boolean): NodeJS.Timeout {
  const asked = Math.trunc(Number(delay));
  const delayMs = asked >= 1 && asked <= delayMaxMs ? asked : 1;
  const run = AsyncResource.bind(() => callback(...args));
  const one: Waiting = { time, run, delayMs, repeats, dueMs: time.now() + delayMs };
  const timer = outside(() => real[repeats ? "setInterval" : "setTimeout"](() => time.fire(timer, one), delayMs));
  waiting.set(timer, one);
  return timer;
}

function forget(timer: NodeJS.Timeout): void {
  waiting.delete(timer);
  real.clearTimeout(timer);
}

function clear(timer: NodeJS.Timeout | number | string | undefined): void {
  if (typeof timer === "object") waiting.delete(timer);
  else for (const one of waiting.keys()) if (Number(one) === Number(timer)) waiting.delete(one);
  real.clearTimeout(timer);
}

const starter =
  (repeats: boolean) =>
  (callback: Callback, delay?: number, ...args: unknown[]): NodeJS.Timeout => {
    const time = current();
    if (time !== undefined && typeof callback === "function") return start(time, callback, delay, args, repeats);
    return real[repeats ? "setInterval" : "setTimeout"](callback, delay, ...args);
  };

function sleep<Value>(delay?: number, value?: Value, options: Parameters<typeof real.sleep>[2] = {}): Promise<Value> {
  const time = current();
  const { signal, ref = true } = options;
  if (time === undefined || signal?.aborted) return real.sleep(delay, value as Value, options);
  return new Promise((resolve) => {
    const stop = (): void => {
      forget(timer);
      resolve(real.sleep(1, value as Value, options)); // rejects as it does
    };
    const finish = (): void => {
      signal?.removeEventListener("abort", stop);
      resolve(value as Value);
    };
    const timer = start(time, finish, delay, [], false);
    if (!ref) timer.unref();
    signal?.addEventListener("abort", stop, { once: true });
  });
}

const realNow = Date.now;
const nowMs = (): number => current()?.now() ?? realNow();

const virtual = {
  Date: new Proxy(real.Date, {
    construct: (target, args: unknown[], newTarget) =>
      Reflect.construct(target, args.length === 0 ? [nowMs()] : args, newTarget) as Date,
    apply: () => new real.Date(nowMs()).toString(),
    // A spy of the test's is left to it.
    get: (target, key) => (key === "now" && target.now === realNow ? nowMs : (Reflect.get(target, key) as unknown)),
  }),
  setTimeout: Object.assign(starter(false), { [promisify.custom]: sleep }),
  setInterval: starter(true),
  clearTimeout: clear,
  clearInterval: clear,
  sleep,
};

const names = ["Date", "setTimeout", "setInterval", "clearTimeout", "clearInterval"] as const;

/** What somebody else has replaced meanwhile, as fake timers do, is theirs. */
function swap(from: object, to: object): void {
  const places = [globalThis, timers].flatMap((place) =>
    names.map((name): [object, string, string] => [place, name, name]),
  );
  for (const [place, name, key] of [...places, [promises, "setTimeout", "sleep"] as const])
    if (Reflect.get(place, name) === Reflect.get(from, key)) Reflect.set(place, name, Reflect.get(to, key));
  if (globalThis.Date === Reflect.get(to, "Date")) real.Date.prototype.constructor = globalThis.Date;
  syncBuiltinESMExports();
}

let users = 0;

/** Puts them in place, until everybody who has asked for it has called what is returned. */
export function installJobTime(): () => void {
  if (users++ === 0) swap(real, virtual);
  return () => {
    if (--users === 0) swap(virtual, real);
  };
}
