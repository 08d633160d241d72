/** One job in a thread or process: what its handler is given, what it asks of the worker, and how it ended. */
import { inspect } from "node:util";
import { type Duration, durationMs } from "../core/duration.ts";
import { type ErrorCode, MillraceError, NonRetryableError, errorCodes } from "../core/errors.ts";
import { storableJson } from "../core/json.ts";
import type { Log } from "../core/log.ts";
import { progressJson } from "../core/progress.ts";
import { type Failure, Snooze, errorOf, readFailure } from "../core/retry.ts";
import { type NewStep, type StepRecord, type StepStore, Steps, Suspension } from "../steps/steps.ts";
import { type Ask, type Ended, type FromIsolate, type ToIsolate } from "./protocol.ts";

export type Handler = (context: object) => unknown;

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

export class Turn {
  readonly number: number;
  readonly #facts: Extract<ToIsolate, { say: "run" }>;
  readonly #tell: (message: FromIsolate) => void;
  readonly #asked = new Map<number, Waiting>();
  #asks = 0;
  #over = false;
  #abort: AbortController | undefined;
  #reason: Error | undefined;
  #steps: Steps<never> | undefined;

  /** `tell` throws when a message cannot be cloned. */
  constructor(facts: Extract<ToIsolate, { say: "run" }>, tell: (message: FromIsolate) => void) {
    this.number = facts.turn;
    this.#facts = facts;
    this.#tell = tell;
  }

  async run(handler: Handler): Promise<Ended> {
    try {
      return await this.#run(handler);
    } finally {
      this.#over = true;
    }
  }

  /** The same judgement as in the worker (jobs/running.ts): steps under way end first, and a run that must not go on does not, whatever it said. */
  async #run(handler: Handler): Promise<Ended> {
    const said = await this.#handle(handler);
    for (let rest = this.#steps?.underWay; rest; rest = this.#steps?.underWay) await rest;
    const halted = this.#steps?.halted;
    if (halted instanceof Suspension) return { as: "suspended", step: halted.step, pauseMs: halted.pauseMs };
    if (halted === undefined && "output" in said) return this.#done(said.output);
    const thrown = halted ?? ("error" in said ? said.error : undefined);
    if (thrown instanceof Snooze) return { as: "snoozed", pauseMs: thrown.pauseMs };
    return { as: "failed", failure: readFailure(thrown) };
  }

  async #handle(handler: Handler): Promise<{ output: unknown } | { error: unknown }> {
    try {
      return { output: await handler(this.#context()) };
    } catch (error) {
      return { error };
    }
  }

  async #done(output: unknown): Promise<Ended> {
    const { hasSteps, maxResultBytes } = this.#facts;
    try {
      if (hasSteps) await this.#ownSteps.ended();
    } catch (error) {
      return { as: "failed", failure: readFailure(error) };
    }
    try {
      const result = output === undefined ? undefined : storableJson(output, maxResultBytes, "result");
      return { as: "done", result, looked: this.#abort !== undefined };
    } catch (error) {
      const { message } = error as Error;
      const code = "RESULT_NOT_STORABLE";
      return { as: "failed", failure: { code, message, stack: null, retryable: false, retryAfterMs: 0 } };
    }
  }

  abort(reason: Failure["code"], message: string): void {
    this.#reason = codedError(reason, message);
    this.#abort?.abort(this.#reason);
    this.#steps?.interrupt(this.#reason);
  }

  /** The worker's answer to a question of this turn. */
  hear(answer: Extract<ToIsolate, { say: "answer" }>): void {
    const waiting = this.#asked.get(answer.ask);
    this.#asked.delete(answer.ask);
    const { failure } = answer;
    if (failure === undefined) waiting?.resolve(answer.value);
    else waiting?.reject(failure.code in errorCodes ? codedError(failure.code, failure.message) : errorOf(failure));
  }

  #ask<Answer>(about: Ask): Promise<Answer> {
    const { number: turn } = this;
    if (this.#over)
      return Promise.reject(new MillraceError("JOB_STATE", `The attempt at job ${this.#facts.job.id} has ended.`));
    this.#asks += 1;
    const ask = this.#asks;
    return new Promise((resolve, reject) => {
      this.#asked.set(ask, { resolve: resolve as Waiting["resolve"], reject });
      this.#tell({ say: "ask", turn, ask, about });
    });
  }

  get #ownSteps(): Steps<never> {
    const { hasSteps, maxResultBytes } = this.#facts;
    this.#steps ??= new Steps(this.#stepStore(), {
      hasRecords: hasSteps,
      maxBytes: maxResultBytes,
      interrupted: this.#reason,
    });
    return this.#steps;
  }

  #stepStore(): StepStore<never> {
    return {
      load: () => this.#ask<StepRecord[]>({ what: "load" }),
      keep: (step: NewStep) => this.#ask({ what: "keep", step }),
      await: (step: NewStep) => this.#ask<StepRecord>({ what: "await", step }),
      giveUp: (place: number) => this.#ask<StepRecord>({ what: "giveUp", place }),
      within: () => Promise.reject(this.#needsWorker("step.transaction", "use step.run")),
    };
  }

  #needsWorker(what: string, instead: string): NonRetryableError {
    const { task } = this.#facts.job;
    return new NonRetryableError(
      `${what} needs the worker's own thread, and task "${task}" runs isolated: run it without isolate, or ${instead}.`,
    );
  }

  /** The same as a function in the worker is given (jobs/context.ts). */
  #context(): object {
    const { job } = this.#facts;
    // Made when they are asked for.
    const signal = (): AbortSignal => this.#signal;
    const steps = (): Steps<never> => this.#ownSteps;
    return {
      ...job,
      get signal(): AbortSignal {
        return signal();
      },
      get step(): Steps<never> {
        return steps();
      },
      log: logOf(job.id, this.#tell),
      progress: (value: unknown): void => {
        this.#tell({ say: "progress", turn: this.number, json: progressJson(value) });
      },
      dependencies: () => this.#ask({ what: "dependencies" }),
      snooze(pause: Duration): never {
        throw new Snooze(durationMs(pause, "snooze"));
      },
      complete: () => Promise.reject(this.#needsWorker("complete(tx)", "let it return to be done")),
    };
  }

  get #signal(): AbortSignal {
    if (this.#abort === undefined) {
      this.#abort = new AbortController();
      if (this.#reason) this.#abort.abort(this.#reason);
    }
    return this.#abort.signal;
  }
}

function codedError(code: string, message: string): Error {
  return code in errorCodes
    ? new MillraceError(code as ErrorCode, message)
    : Object.assign(new Error(message), { code });
}

function logOf(job: string, tell: (message: FromIsolate) => void): Log {
  const at =
    (level: keyof Log) =>
    (fields: object, message: string): void => {
      const say = (given: object): void => tell({ say: "log", job, level, fields: given, message: String(message) });
      try {
        say({ ...fields });
      } catch {
        say(Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, printable(value)])));
      }
    };
  return { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
}

/** A field as it is, or, when it cannot be cloned, as text. */
function printable(value: unknown): unknown {
  try {
    return structuredClone(value);
  } catch {
    return inspect(value, { depth: 2 });
  }
}
