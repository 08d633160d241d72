/**
 * The threads or processes of one task: at most `size`, started when there is work, used again and again, replaced after a crash or
 * a kill. Each runs one job at a time. Jobs beyond `size` wait here.
 */
import { type ErrorCode, MillraceError, NonRetryableError } from "../core/errors.ts";
import type { Log } from "../core/log.ts";
import { type Failure, errorOf, readFailure } from "../core/retry.ts";
import type { StoredTrace } from "../telemetry/trace-context.ts";
import type { IsolateRule } from "./options.ts";
import { type Ask, type Ended, type FromIsolate, type JobFacts } from "./protocol.ts";
import { type End, type Vessel, launch } from "./vessel.ts";

/** One attempt. */
export interface Work {
  readonly job: JobFacts;
  /** Steps of it were kept by an attempt before. */
  readonly hasSteps: boolean;
  readonly maxResultBytes: number;
  /** Of the run's span, when somebody takes spans. */
  readonly trace: StoredTrace | undefined;
  /** It left the queue: its time begins. */
  began(): void;
  log(level: keyof Log, fields: object, message: string): void;
  progress(json: string): void;
  /** Answers what the handler asks of the worker. */
  ask(about: Ask): Promise<unknown>;
}

/** How an attempt ended that did not throw. */
export type Outcome = Exclude<Ended, { as: "failed" }>;

export interface PoolSetup {
  readonly rule: IsolateRule;
  /** The rule's module, or its compiled twin. */
  readonly module: string;
  readonly size: () => number;
  readonly log: Log;
}

/** A module that takes longer to load will never do so. */
const startLimitMs = 60_000;
/** A thread inside native code ends when that returns; we do not wait for it. */
const killPatienceMs = 1_000;

interface Attempt {
  readonly work: Work;
  readonly resolve: (outcome: Outcome) => void;
  readonly reject: (error: Error) => void;
  seat: Seat | undefined;
  /** Why it is to end, once somebody asked. */
  reason: Error | undefined;
  killTimer: NodeJS.Timeout | undefined;
}

/** One thread or process, and the attempt in it. */
interface Seat {
  readonly vessel: Vessel;
  state: "starting" | "free" | "busy" | "leaving";
  turn: number;
  attempt: Attempt | undefined;
  /** Why it can run nothing. */
  refusal: Error | undefined;
  /** What nobody caught in it. */
  crash: Failure | undefined;
  timer: NodeJS.Timeout | undefined;
  /** Counts it as gone although it has not ended. */
  giveUp: (end: End) => void;
  gone: Promise<void>;
}

export class Pool {
  readonly #setup: PoolSetup;
  readonly #seats = new Set<Seat>();
  readonly #attempts = new Map<Work, Attempt>();
  #queue: Attempt[] = [];
  #closed = false;

  constructor(setup: PoolSetup) {
    this.#setup = setup;
  }

  /** Runs one attempt. Rejects with what the handler threw, `ISOLATE_CRASHED`, `MEMORY_LIMIT`, or the reason of its interruption. */
  run(work: Work): Promise<Outcome> {
    if (this.#closed) return Promise.reject(stopping());
    return new Promise((resolve, reject) => {
      const attempt: Attempt = { work, resolve, reject, seat: undefined, reason: undefined, killTimer: undefined };
      this.#attempts.set(work, attempt);
      this.#queue.push(attempt);
      this.#serve();
    });
  }

  /** Aborts the attempt's signal, and, unless it ends within the grace, kills what runs it. */
  interrupt(work: Work, reason: Error): void {
    const attempt = this.#attempts.get(work);
    if (attempt === undefined || attempt.reason !== undefined) return;
    attempt.reason = reason;
    const { seat } = attempt;
    if (seat === undefined) {
      this.#queue = this.#queue.filter((one) => one !== attempt);
      return this.#fail(attempt, reason);
    }
    const code = reason instanceof MillraceError ? reason.code : "UNKNOWN";
    seat.vessel.tell({ say: "abort", turn: seat.turn, code, message: reason.message });
    attempt.killTimer = setTimeout(() => this.#kill(seat), this.#setup.rule.graceMs);
  }

  /** Kills what runs; what waits is rejected. Resolves when every thread and process is gone. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const attempt of this.#queue.splice(0)) this.#fail(attempt, stopping());
    for (const seat of this.#seats) {
      if (seat.attempt) {
        seat.attempt.reason ??= stopping();
        this.#kill(seat);
      } else this.#dismiss(seat);
    }
    await Promise.all([...this.#seats].map(({ gone }) => gone));
  }

  /** Gives what waits to whom is free, and starts more of them while there may be more. */
  #serve(): void {
    for (const seat of this.#seats) {
      if (seat.state !== "free") continue;
      if (this.#seated > this.#size) this.#dismiss(seat);
      else this.#begin(seat);
    }
    while (this.#queue.length > this.#starting && this.#seated < this.#size) this.#start();
  }

  get #size(): number {
    return Math.max(1, this.#setup.size());
  }

  get #seated(): number {
    return [...this.#seats].filter(({ state }) => state !== "leaving").length;
  }

  get #starting(): number {
    return [...this.#seats].filter(({ state }) => state === "starting").length;
  }

  #start(): void {
    let giveUp!: (end: End) => void;
    const givenUp = new Promise<End>((resolve) => {
      giveUp = resolve;
    });
    const seat: Seat = {
      vessel: launch(this.#setup.rule, this.#setup.module, (message) => this.#hear(seat, message)),
      state: "starting",
      turn: 0,
      attempt: undefined,
      refusal: undefined,
      crash: undefined,
      timer: undefined,
      giveUp,
      gone: Promise.resolve(),
    };
    this.#seats.add(seat);
    seat.gone = Promise.race([seat.vessel.ended, givenUp]).then((end) => this.#gone(seat, end));
    seat.timer = setTimeout(() => {
      const seconds = startLimitMs / 1_000;
      seat.refusal = failed("ISOLATE_CRASHED", `The handler's module was not loaded within ${seconds} s.`);
      this.#blame(seat);
      this.#kill(seat);
    }, startLimitMs);
  }

  #begin(seat: Seat): void {
    while (seat.state === "free") {
      const attempt = this.#queue.shift();
      if (attempt === undefined) return;
      const { work } = attempt;
      this.#sit(seat, attempt);
      seat.turn += 1;
      work.began();
      try {
        const { job, hasSteps, maxResultBytes, trace } = work;
        seat.vessel.tell({ say: "run", turn: seat.turn, job, hasSteps, maxResultBytes, trace });
      } catch (cause) {
        const { task } = work.job;
        const message = `The input of task "${task}" cannot be sent to a ${this.#setup.rule.in}: ${(cause as Error).message}`;
        this.#stand(seat);
        this.#fail(attempt, new NonRetryableError(message, { cause }));
      }
    }
  }

  #hear(seat: Seat, message: FromIsolate): void {
    switch (message.say) {
      case "ready":
        if (seat.state !== "starting") return;
        clearTimeout(seat.timer);
        seat.state = "free";
        return this.#serve();
      case "unusable":
        seat.refusal = errorOf(message.failure);
        return;
      case "crashed":
        seat.crash = message.failure;
        return;
      case "log": {
        const { job, level, fields, message: text } = message;
        const work = seat.attempt?.work;
        if (work?.job.id === job) work.log(level, fields, text);
        else this.#setup.log[level]({ job, ...fields }, text); // said after its job had ended
        return;
      }
      case "progress":
      case "ask":
      case "ended": {
        const { attempt } = seat;
        if (attempt === undefined || message.turn !== seat.turn) return;
        if (message.say === "progress") return attempt.work.progress(message.json);
        if (message.say === "ask") return void this.#answer(seat, attempt, message.ask, message.about);
        // A kill may be on its way; what it hits has nothing to do with the next job.
        if (seat.state === "busy") this.#stand(seat);
        const { how } = message;
        if (how.as === "failed") this.#fail(attempt, errorOf(how.failure));
        else {
          this.#forget(attempt);
          attempt.resolve(how);
        }
        this.#serve();
      }
    }
  }

  async #answer(seat: Seat, attempt: Attempt, ask: number, about: Ask): Promise<void> {
    const { turn } = seat;
    const answer = await attempt.work.ask(about).then(
      (value) => ({ value }),
      (thrown: unknown) => ({ failure: readFailure(thrown) }),
    );
    if (seat.attempt === attempt) seat.vessel.tell({ say: "answer", turn, ask, ...answer });
  }

  /** Ended, or given up. Whatever ran in it, and nothing else, has failed. */
  #gone(seat: Seat, { how, outOfMemory }: End): void {
    clearTimeout(seat.timer);
    if (seat.state === "starting") this.#blame(seat);
    const kind = this.#setup.rule.in;
    const limit = this.#setup.rule.memoryMb;
    const { attempt, refusal, crash } = seat;
    const error = outOfMemory
      ? failed("MEMORY_LIMIT", `The ${kind} ${how}: its heap reached the limit${limit ? ` of ${limit} MiB` : ""}.`)
      : (refusal ??
        failed(
          "ISOLATE_CRASHED",
          `The ${kind} ${how}${crash ? `; nobody caught: ${crash.message}` : "."}`,
          crash?.stack,
        ));
    const wasFree = seat.state === "free";
    this.#seats.delete(seat);
    if (attempt) this.#fail(attempt, attempt.reason ?? error);
    else if (wasFree) this.#setup.log.warn({ error: error.message }, `a ${kind} that ran nothing ended by itself`);
    if (!this.#closed) this.#serve();
  }

  /** The end of one that had not even started is put down to the first that waits; the next one tries anew. */
  #blame(seat: Seat): void {
    const attempt = this.#queue.shift();
    if (attempt) this.#sit(seat, attempt);
  }

  #sit(seat: Seat, attempt: Attempt): void {
    seat.state = "busy";
    seat.attempt = attempt;
    attempt.seat = seat;
  }

  #stand(seat: Seat): void {
    seat.state = "free";
    seat.attempt = undefined;
  }

  #kill(seat: Seat): void {
    this.#leave(seat);
    seat.vessel.kill();
  }

  #dismiss(seat: Seat): void {
    this.#leave(seat);
    seat.vessel.dismiss();
  }

  #leave(seat: Seat): void {
    seat.state = "leaving";
    clearTimeout(seat.timer);
    seat.timer = setTimeout(() => {
      this.#setup.log.error({}, `a ${this.#setup.rule.in} was killed and does not end: native code runs in it`);
      seat.giveUp({ how: "was killed and does not end", outOfMemory: false });
    }, killPatienceMs);
  }

  #fail(attempt: Attempt, error: Error): void {
    this.#forget(attempt);
    attempt.reject(error);
  }

  #forget(attempt: Attempt): void {
    clearTimeout(attempt.killTimer);
    this.#attempts.delete(attempt.work);
  }
}

function stopping(): MillraceError {
  return new MillraceError("WORKER_SHUTDOWN", "The worker is stopping.");
}

function failed(code: ErrorCode, message: string, stack?: string | null): MillraceError {
  const error = new MillraceError(code, message);
  error.stack = stack ?? "";
  return error;
}
