/** What a worker and its threads or processes say to each other. One job at a time, so that a crash is that job's and nobody else's. */
import type { Log } from "../core/log.ts";
import type { Failure } from "../core/retry.ts";

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
  | { readonly say: "run"; readonly turn: number; readonly job: JobFacts }
  | { readonly say: "abort"; readonly turn: number; readonly code: string; readonly message: string };

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
  | { readonly say: "ended"; readonly turn: number; readonly how: Ended }
  /** Something was thrown that nobody caught. The thread or process ends after this. */
  | { readonly say: "crashed"; readonly failure: Failure };

export type Ended =
  /** `looked`: the handler asked for its signal. */
  | { readonly as: "done"; readonly result: unknown; readonly looked: boolean }
  | { readonly as: "failed"; readonly failure: Failure }
  | { readonly as: "snoozed"; readonly pauseMs: number };
