/** A task: what a job runs. Code, typed by its input schema and by what `run` returns. */
import type { StandardSchemaV1 } from "@standard-schema/spec";
import { type Duration, durationMs } from "../core/duration.ts";
import { MillraceError } from "../core/errors.ts";
import { checkedName, refuseUnknown, wholeNumber } from "../core/options.ts";
import { type Backoff, type BackoffRule, backoffRule } from "../core/retry.ts";
import { type IsolateKind, type IsolateOptions, type IsolateRule, isolateRule } from "../isolate/options.ts";
import type { JobContext } from "./context.ts";

/** Tasks of this name are Millrace's own: only it begins their jobs. */
export const ownTasks = "millrace.";
export const isOwnTask = (name: string): boolean => name.startsWith(ownTasks);

/** Throws `TASK_RESERVED`. */
export function refuseOwnTask(name: string): void {
  if (!isOwnTask(name)) return;
  throw new MillraceError(
    "TASK_RESERVED",
    `Task "${name}" is Millrace's own: nobody else enqueues or replays its jobs.`,
  );
}

export interface TaskOptions<Schema extends StandardSchemaV1 | undefined, Output> {
  /** Stored with each job; renaming a task strands the jobs that wait under the old name. */
  name: string;
  /** Default `"default"`. */
  queue?: string;
  /** Any Standard Schema (zod, valibot, arktype …). Checked when a job is enqueued and again before it runs. */
  input?: Schema;
  /** Total tries, not extra ones. Default 25, as in the system this engine replaces. */
  maxAttempts?: number;
  /** Default: 2 s doubling up to 15 minutes, ±20 %. */
  backoff?: Backoff;
  /** How long one attempt may take; then its signal is aborted and it ends as `TIMEOUT`. Default one hour: everything has a limit. */
  timeout?: Duration;
  /** Higher runs first, -32 767 to 32 767. Default 0. */
  priority?: number;
  /**
   * Run in a thread or a process of its own, which can be killed when it ignores its signal and whose crash is this job's alone.
   * `run` is then the URL of a module, `new URL("./resize.ts", import.meta.url)`, whose default export is the function.
   */
  isolate?: IsolateKind | IsolateOptions;
  /** Lines of `context.log` that are kept with each job, 1 to 10 000, or false: none. Default 200. */
  keepLogs?: number | false;
  run: ((context: JobContext<OutputOf<Schema>>) => Output | Promise<Output>) | URL | string;
}

/** What a caller passes in, before the schema has transformed it. */
export type InputOf<Schema> = Schema extends StandardSchemaV1 ? StandardSchemaV1.InferInput<Schema> : unknown;
/** What `run` receives, after. */
export type OutputOf<Schema> = Schema extends StandardSchemaV1 ? StandardSchemaV1.InferOutput<Schema> : unknown;

/** A defined task. `Input` is what callers pass, `Output` what `run` resolves to. */
export interface Task<Input = unknown, Output = unknown> {
  readonly name: string;
  readonly queue: string;
  readonly schema: StandardSchemaV1 | undefined;
  readonly maxAttempts: number;
  readonly backoff: BackoffRule;
  readonly timeoutMs: number;
  readonly priority: number;
  /** Absent: `run` runs in the worker itself. */
  readonly isolate: IsolateRule | undefined;
  /** Lines of its log that are kept with a job; 0: none. */
  readonly keepLogs: number;
  /** Of an isolated task, what stands in for its module. */
  readonly run: (context: JobContext<never>) => unknown;
  /** Only for the compiler: what goes in and what comes out. */
  readonly types?: { readonly input: (input: Input) => void; readonly output: Output };
}

/** Any task, whatever its types. */
export type AnyTask = Task<never, unknown>;

const known: ReadonlySet<string> = new Set([
  "name",
  "queue",
  "input",
  "maxAttempts",
  "backoff",
  "timeout",
  "priority",
  "isolate",
  "keepLogs",
  "run",
]);

const defaultKeepLogs = 200;
const defaultTimeoutMs = 3_600_000;
export const defaultMaxAttempts = 25;
export const highestPriority = 32_767;

/** Defines a task. Throws `OPTION_UNKNOWN`, `OPTION_INVALID` or a name error; nothing is connected or stored. */
export function task<Schema extends StandardSchemaV1 | undefined = undefined, Output = void>(
  options: TaskOptions<Schema, Output>,
): Task<InputOf<Schema>, Awaited<Output>> {
  const name = checkedName(options.name, "task");
  refuseUnknown(`task "${name}"`, options, known);
  const isolate = isolateRule(name, options.isolate, options.run);
  if (options.input !== undefined && !("~standard" in Object(options.input))) {
    throw new MillraceError(
      "OPTION_INVALID",
      `task "${name}": input must be a Standard Schema, such as one made by zod, valibot or arktype.`,
    );
  }
  return Object.freeze({
    name,
    queue: checkedName(options.queue ?? "default", "queue"),
    schema: options.input,
    maxAttempts: wholeNumber(options.maxAttempts ?? defaultMaxAttempts, `task "${name}": maxAttempts`, 1, 32_767),
    backoff: backoffRule(options.backoff),
    timeoutMs: durationMs(options.timeout ?? defaultTimeoutMs, `task "${name}": timeout`),
    priority: wholeNumber(options.priority ?? 0, `task "${name}": priority`, -highestPriority, highestPriority),
    isolate,
    keepLogs: linesKept(name, options.keepLogs),
    run: isolate ? notHere(name) : (options.run as (context: JobContext<never>) => unknown),
  });
}

function linesKept(task: string, keep: number | false = defaultKeepLogs): number {
  return keep === false ? 0 : wholeNumber(keep, `task "${task}": keepLogs`, 1, 10_000);
}

function notHere(task: string): () => never {
  return () => {
    throw new MillraceError("OPTION_INVALID", `Task "${task}" runs in a thread or process of its own only.`);
  };
}

/** Runs a schema. Returns the value it made of the input, or throws `BAD_PAYLOAD` with every issue in one sentence. */
export function validate(taskName: string, schema: StandardSchemaV1 | undefined, input: unknown): unknown {
  if (schema === undefined) return input;
  const result = schema["~standard"].validate(input);
  return result instanceof Promise ? result.then((settled) => accepted(taskName, settled)) : accepted(taskName, result);
}

function accepted(taskName: string, result: StandardSchemaV1.Result<unknown>): unknown {
  if (!result.issues) return result.value;
  const issues = result.issues.slice(0, 10).map(({ path = [], message }) => {
    const where = path.map((part) => String(typeof part === "object" ? part.key : part)).join(".");
    return where === "" ? message : `${where}: ${message}`;
  });
  throw new MillraceError(
    "BAD_PAYLOAD",
    `The input does not match the schema of task "${taskName}": ${issues.join("; ")}.`,
  );
}
