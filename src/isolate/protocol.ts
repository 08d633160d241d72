/** What a worker and its threads or processes say to each other. One job at a time, so that a crash is that job's and nobody else's. */
import type { Log } from "../core/log.ts";
import type { Failure } from "../core/retry.ts";
import type { NewStep } from "../steps/steps.ts";
import type { StoredTrace } from "../telemetry/trace-context.ts";

/** What a handler is told of its job. `input` may be anything that can be cloned. */
export interface JobFacts {
  readonly id: string;
  readonly task: string;
  readonly queue: string;
  readonly attempt: number;
  readonly maxAttempts: number;
  readonly schedule?: { readonly name: string; readonly at: Date } | undefined;
  readonly input: unknown;
}

/** `turn` counts the jobs of one thread or process: what is said about a turn that is over concerns nobody. */
export type ToIsolate =
  | {
      readonly say: "run";
      readonly turn: number;
      readonly job: JobFacts;
      /** Steps of it were kept by an attempt before. */
      readonly hasSteps: boolean;
      /** Largest JSON of what the handler, or a step of it, returns. */
      readonly maxResultBytes: number;
      /** Of the run's span, when somebody takes spans. */
      readonly trace: StoredTrace | undefined;
    }
  /** To the question of that number. */
  | {
      readonly say: "answer";
      readonly turn: number;
      readonly ask: number;
      readonly value?: unknown;
      readonly failure?: Failure;
    }
  | { readonly say: "abort"; readonly turn: number; readonly code: string; readonly message: string };

/** What a handler asks of its worker, and waits for: its dependencies, and what its steps need (steps/steps.ts). */
export type Ask =
  | { readonly what: "dependencies" }
  | { readonly what: "load" }
  | { readonly what: "keep" | "await"; readonly step: NewStep }
  | { readonly what: "giveUp"; readonly place: number };

export type FromIsolate =
  | { readonly say: "ready" }
  /** The module could not be loaded, or holds no handler. */
  | { readonly say: "unusable"; readonly failure: Failure }
  | {
      readonly say: "log";
      readonly job: string;
      readonly level: keyof Log;
      readonly fields: object;
      readonly message: string;
    }
  | { readonly say: "progress"; readonly turn: number; readonly json: string }
  | { readonly say: "ask"; readonly turn: number; readonly ask: number; readonly about: Ask }
  | { readonly say: "ended"; readonly turn: number; readonly how: Ended }
  /** Something was thrown that nobody caught. The thread or process ends after this. */
  | { readonly say: "crashed"; readonly failure: Failure };

export type Ended =
  /** `result`: JSON text. `looked`: the handler asked for its signal. */
  | { readonly as: "done"; readonly result: string | undefined; readonly looked: boolean }
  | { readonly as: "failed"; readonly failure: Failure }
  | { readonly as: "snoozed"; readonly pauseMs: number }
  /** It goes on in this step later. */
  | { readonly as: "suspended"; readonly step: NewStep; readonly pauseMs: number };
