/** The way in: jobs, flows and batches of jobs, and the results of jobs. `Millrace` has these verbs. */
import { type Duration, durationMs } from "../core/duration.ts";
import { storableJson } from "../core/json.ts";
import type { Log } from "../core/log.ts";
import { refuseUnknown, wholeNumber } from "../core/options.ts";
import { isUuid } from "../core/uuid.ts";
import type { Database, ForeignTransaction } from "../db/database.ts";
import {
  type BatchOptions,
  type EnqueuedFlow,
  type Flow,
  type FlowJob,
  enqueueBatch,
  enqueueFlow,
} from "../flows/flow.ts";
import { Admission } from "../jobs/admission.ts";
import { type Dependency, dependenciesOf } from "../jobs/dependencies-store.ts";
import type { EnqueueOptions } from "../jobs/enqueue-options.ts";
import { type Enqueued, Enqueuer } from "../jobs/enqueue.ts";
import { Names } from "../jobs/names.ts";
import { Finishes } from "../jobs/finishes.ts";
import { findResult } from "../jobs/results-store.ts";
import { type Emitted, type Step, emitEvent, readSteps } from "../jobs/steps-store.ts";
import { checkedEvent } from "../steps/steps.ts";
import type { Tracing } from "../telemetry/tracing.ts";
import type { AnyTask, Task } from "../jobs/task.ts";
import type { App } from "./app.ts";
import { BulkOrders } from "./bulk-orders.ts";
import { signatureOf } from "./orders.ts";
import type { Surroundings } from "./millrace.ts";

export interface WaitOptions {
  /** How long to wait for it. Default `"1h"`. */
  within?: Duration;
}

export interface StepsOptions {
  /** 1 to 10 000, default 1 000. */
  limit?: number;
  /** Only those behind this place; places count from 1. */
  after?: number;
}

const stepsNames: ReadonlySet<string> = new Set(["limit", "after"]);
const emitNames: ReadonlySet<string> = new Set(["by"]);
const waitNames: ReadonlySet<string> = new Set(["within"]);

export abstract class Producer extends BulkOrders {
  readonly log: Log;
  protected readonly enqueuer: Enqueuer;
  protected readonly finishes: Finishes;
  /** Undefined: nobody can take spans. */
  protected readonly tracing: Tracing | undefined;

  constructor(app: App, db: Database, { log, now, tracing, maxPayloadBytes, maxEnqueuePerMinute }: Surroundings) {
    const admission = new Admission(db, log, now, maxEnqueuePerMinute);
    super({ app, db, now, admission, maxPayloadBytes, names: new Names(db), channel: `millrace_${db.schema}` });
    this.log = log;
    const traceOf = tracing && (() => (tracing.on ? tracing.active : undefined));
    this.tracing = tracing;
    this.enqueuer = new Enqueuer(db, this.names, this.channel, now, maxPayloadBytes, admission, traceOf);
    this.finishes = new Finishes(db);
  }

  /** Puts a job into its queue. Resolves when it is durable, or, with `tx`, when it is part of your transaction. */
  enqueue<Input, Output>(
    task: Task<Input, Output>,
    input: NoInfer<Input>,
    options?: EnqueueOptions,
  ): Promise<Enqueued<Output>>;
  /** A task by name, for processes that do not have its code: the input is not validated until it runs. */
  enqueue(task: string, input: unknown, options?: EnqueueOptions): Promise<Enqueued>;
  async enqueue(task: AnyTask | string, input: unknown, options?: EnqueueOptions): Promise<Enqueued> {
    this.mustBeOpen();
    const enqueue = (): Promise<Enqueued> => this.enqueuer.enqueue(task, input, options);
    return this.tracing ? this.tracing.send(queueOf(task, options), enqueue, ({ id }) => [id]) : enqueue();
  }

  /** Many jobs of one task at once; ids in the order of the inputs. */
  enqueueMany<Input>(
    task: Task<Input, unknown>,
    inputs: readonly NoInfer<Input>[],
    options?: EnqueueOptions,
  ): Promise<string[]>;
  enqueueMany(task: string, inputs: readonly unknown[], options?: EnqueueOptions): Promise<string[]>;
  async enqueueMany(task: AnyTask | string, inputs: readonly unknown[], options?: EnqueueOptions): Promise<string[]> {
    this.mustBeOpen();
    const enqueue = (): Promise<string[]> => this.enqueuer.enqueueMany(task, inputs, options);
    return this.tracing ? this.tracing.send(queueOf(task, options), enqueue, (ids) => ids) : enqueue();
  }

  /**
   * Your own SQL and Millrace's in one transaction: `tx.query(text, values)`, `enqueue(…, { tx })`, `complete(tx)`. A throw rolls
   * everything back. For those who have no pool of their own; embedded, it is the only way in. Nothing else of Millrace may be
   * awaited inside: embedded there is one connection, and the transaction has it.
   */
  async transaction<Result>(work: (tx: ForeignTransaction) => Promise<Result>): Promise<Result> {
    this.mustBeOpen();
    return this.db.lend(work);
  }

  /** Jobs that wait for each other, all or none of them written. Throws `FLOW_INVALID`, `FLOW_CYCLE`, and what `enqueue` throws. */
  async enqueueFlow<Name extends string>(
    flow: Omit<Flow, "jobs"> & { jobs: Readonly<Record<Name, FlowJob>> },
  ): Promise<EnqueuedFlow<Name>> {
    this.mustBeOpen();
    const enqueue = (): Promise<EnqueuedFlow<Name>> => enqueueFlow(this.enqueuer, flow);
    return this.tracing ? this.tracing.send(undefined, enqueue, ({ jobs }) => Object.values(jobs)) : enqueue();
  }

  /** Many jobs of one task, and a last one, `callback`, that runs when all of them have ended and finds their results. */
  async enqueueBatch(
    task: AnyTask | string,
    inputs: readonly unknown[],
    options: BatchOptions,
  ): Promise<{ ids: string[]; callback: string }> {
    this.mustBeOpen();
    const enqueue = (): ReturnType<typeof enqueueBatch> => enqueueBatch(this.enqueuer, task, inputs, options);
    const sent = ({ ids, callback }: { ids: string[]; callback: string }): string[] => [...ids, callback];
    return this.tracing ? this.tracing.send(undefined, enqueue, sent) : enqueue();
  }

  /** The jobs that this one waits for or has waited for, and what became of them. */
  async dependencies(id: string): Promise<Dependency[]> {
    this.mustBeOpen();
    return isUuid(id) ? dependenciesOf(this.db, id) : [];
  }

  /** What the job's run has done step by step, in order. */
  async steps(id: string, options: StepsOptions = {}): Promise<Step[]> {
    this.mustBeOpen();
    refuseUnknown("steps", options, stepsNames);
    const limit = wholeNumber(options.limit ?? 1_000, "limit", 1, 10_000);
    const after = wholeNumber(options.after ?? 0, "after", 0, 2_147_483_647);
    return isUuid(id) ? readSteps(this.db, id, limit, after) : [];
  }

  /**
   * Wakes the runs that wait for the event in a step, now or later: the first of a name counts, those after it change nothing. Put what
   * it is about into the name: `order.42.paid`.
   */
  async emit(event: string, payload: unknown = null, options: { by?: string } = {}): Promise<Emitted> {
    this.mustBeOpen();
    refuseUnknown("emit", options, emitNames);
    const text = storableJson(payload, this.maxPayloadBytes, "payload");
    return emitEvent(this.db, this.channel, checkedEvent(event), text, signatureOf(options).by);
  }

  /** What the job's task returned. Undefined: nothing, or the job has not completed. */
  async result(id: string): Promise<unknown> {
    this.mustBeOpen();
    return isUuid(id) ? findResult(this.db, id) : undefined;
  }

  /**
   * What the job's task returns, once it has. Throws `JOB_FAILED` when the job is given up, `JOB_CANCELLED`, `JOB_NOT_FOUND`, and
   * `WAIT_TIMEOUT` after `within`; the job goes on then.
   */
  async waitUntilFinished<Output>(job: Enqueued<Output> | string, options: WaitOptions = {}): Promise<Output> {
    this.mustBeOpen();
    refuseUnknown("waitUntilFinished", options, waitNames);
    const id = typeof job === "string" ? job : job.id;
    return (await this.finishes.of(id, durationMs(options.within ?? "1h", "within"))) as Output;
  }
}

function queueOf(task: AnyTask | string, options: EnqueueOptions | undefined): string {
  return options?.queue ?? (typeof task === "string" ? "default" : task.queue);
}
