/** How a task says that it runs in a thread or a process of its own. */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { type Duration, durationMs } from "../core/duration.ts";
import { MillraceError } from "../core/errors.ts";
import { refuseUnknown, show, wholeNumber } from "../core/options.ts";

export type IsolateKind = "thread" | "process";

export interface IsolateOptions {
  in: IsolateKind;
  /** Heap of each thread or process, in MiB, 32 to 1 048 576; beyond it the attempt fails as `MEMORY_LIMIT`. Default: what Node allows. */
  memoryMb?: number;
  /** Threads or processes at most, per worker. Default: the worker's concurrency, or the number of CPUs where that is less. */
  size?: number;
  /** After its signal was aborted, a handler has this long to end before it is killed. 0 to a minute, default `"1s"`. */
  grace?: Duration;
}

/** The same, read. */
export interface IsolateRule {
  readonly in: IsolateKind;
  /** The module whose default export is the handler: a file: URL. */
  readonly module: string;
  readonly memoryMb: number | undefined;
  readonly size: number | undefined;
  readonly graceMs: number;
}

const known: ReadonlySet<string> = new Set(["in", "memoryMb", "size", "grace"]);
const longestGraceMs = 60_000;

/** Undefined for a task whose `run` is a function. Throws `OPTION_INVALID` where `isolate` and `run` do not fit together. */
export function isolateRule(task: string, isolate: unknown, run: unknown): IsolateRule | undefined {
  const where = `task "${task}": `;
  if (isolate === undefined) {
    if (typeof run === "function") return undefined;
    if (isModule(run))
      throw invalid(`${where}run is a module, which only a task with isolate: "thread" or "process" can run.`);
    throw invalid(`${where}run must be a function, or, with isolate, the URL of a module.`);
  }
  if (typeof run === "function")
    throw invalid(
      `${where}with isolate, run must be the URL of a module whose default export is the function, such as new URL("./${task}.ts", import.meta.url): a function cannot move to another thread or process.`,
    );
  if (!isModule(run)) throw invalid(`${where}with isolate, run must be a file: URL, not ${show(run)}.`);
  const options = (typeof isolate === "string" ? { in: isolate } : isolate) as Partial<IsolateOptions> | null;
  if (typeof options !== "object" || options === null || (options.in !== "thread" && options.in !== "process"))
    throw invalid(`${where}isolate must be "thread", "process" or { in: "thread" | "process", … }.`);
  refuseUnknown(`${where}isolate`, options, known);
  const { memoryMb, size, grace = 1_000 } = options;
  const graceMs = durationMs(grace, `${where}isolate.grace`);
  if (graceMs > longestGraceMs) throw invalid(`${where}isolate.grace must be a minute at most, not ${show(grace)}.`);
  return Object.freeze({
    in: options.in,
    module: String(run),
    memoryMb: memoryMb === undefined ? undefined : wholeNumber(memoryMb, `${where}isolate.memoryMb`, 32, 1_048_576),
    size: size === undefined ? undefined : wholeNumber(size, `${where}isolate.size`, 1, 1_000),
    graceMs,
  });
}

/** What a compiler makes of the file that the source names; and the other way round, for sources run as they are. */
const twins: Readonly<Record<string, string>> = { ".ts": ".js", ".mts": ".mjs", ".js": ".ts", ".mjs": ".mts" };

/** The module's file, or its compiled twin: `resize.ts` is `resize.js` in a built app. Throws `OPTION_INVALID` without either. */
export function existingModule(task: string, module: string): string {
  const path = fileURLToPath(module);
  if (existsSync(path)) return module;
  const twin = module.replace(/\.m?[jt]s$/, (extension) => twins[extension] ?? extension);
  if (twin !== module && existsSync(fileURLToPath(twin))) return twin;
  throw invalid(`task "${task}": run names a module that does not exist: there is no file ${path}.`);
}

function isModule(value: unknown): value is URL | string {
  return (
    (value instanceof URL && value.protocol === "file:") || (typeof value === "string" && value.startsWith("file://"))
  );
}

function invalid(message: string): MillraceError {
  return new MillraceError("OPTION_INVALID", message);
}
