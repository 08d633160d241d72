/** Assertions for any test runner: what was enqueued, and what became of it. Their messages say what is there instead. */
import { AssertionError } from "node:assert";
import { type Duration, durationMs } from "../core/duration.ts";
import { refuseUnknown } from "../core/options.ts";
import type { Millrace } from "../app/millrace.ts";
import type { Job, JobStatus } from "../jobs/read-store.ts";
import type { AnyTask } from "../jobs/task.ts";
import { difference } from "./difference.ts";

export interface ExpectedJob {
  /**
   * What must be in its input: objects may hold more, arrays may not. Matchers such as `expect.any(String)` work inside. Or a function
   * that says whether the input is right.
   */
  input?: unknown;
  queue?: string;
  status?: JobStatus;
  priority?: number;
  /** All of them, and perhaps others. */
  tags?: readonly string[];
  /** When it is or was due, to the millisecond. */
  runAt?: Date;
  /** How long after it was enqueued it was due. */
  delay?: Duration;
}

const known: ReadonlySet<string> = new Set(["input", "queue", "status", "priority", "tags", "runAt", "delay"]);
/** Jobs listed in a message. */
const shownMax = 10;

export async function enqueuedAs(mill: Millrace, task: AnyTask | string, expected: ExpectedJob): Promise<Job> {
  const { all, found } = await look(mill, task, expected);
  const [job] = found;
  if (job) return job;
  const name = nameOf(task);
  const same = all.filter((one) => one.task === name);
  const shown = (same.length > 0 ? same : all).slice(0, shownMax);
  const lines = shown.map((one) => {
    const why = same.length > 0 ? `\n    ${misfit(one, expected)}` : "";
    return `  ${line(one)}${why}`;
  });
  const others = same.length > 0 ? `jobs of "${name}" are` : all.length > 0 ? "jobs are of other tasks" : "";
  throw failed(
    `No job of task "${name}"${wish(expected)} was enqueued; ${others === "" ? "nothing was." : `the ${others}:`}`,
    lines,
    (same.length > 0 ? same : all).length,
  );
}

export async function refuseEnqueued(mill: Millrace, task: AnyTask | string, expected: ExpectedJob): Promise<void> {
  const { found } = await look(mill, task, expected);
  if (found.length === 0) return;
  const lines = found.slice(0, shownMax).map((one) => `  ${line(one)}`);
  throw failed(`No job of task "${nameOf(task)}"${wish(expected)} was to be enqueued; there are:`, lines, found.length);
}

export async function checkStatus(mill: Millrace, id: string, status: JobStatus): Promise<Job> {
  const job = await mill.job(id);
  if (job === undefined) throw failed(`There is no job ${id}; it was to be ${status}.`, [], 0);
  if (job.status === status) return job;
  const { summary } = await mill.explain(id);
  const error = job.lastErrorStack ?? job.lastErrorMessage;
  const lines = [`  ${summary}`, ...(error === null ? [] : [`  ${job.lastErrorCode ?? ""}: ${error}`])];
  throw failed(`Job ${id} of task "${job.task}" is ${job.status}, not ${status}.`, lines, lines.length);
}

/** Newest first. */
async function look(
  mill: Millrace,
  task: AnyTask | string,
  expected: ExpectedJob,
): Promise<{ all: Job[]; found: Job[] }> {
  refuseUnknown("the expected job", expected, known);
  const all: Job[] = [];
  let after: string | undefined;
  do {
    const page = await mill.jobs({ limit: 500, ...(after === undefined ? {} : { after }) });
    all.push(...page.jobs);
    after = page.next ?? undefined;
  } while (after !== undefined);
  all.sort((a, b) => (a.id < b.id ? 1 : -1));
  const found = all.filter((job) => job.task === nameOf(task) && misfit(job, expected) === undefined);
  return { all, found };
}

/** Why a job is not the expected one; undefined when it is. */
function misfit(job: Job, { input, queue, status, priority, tags, runAt, delay }: ExpectedJob): string | undefined {
  if (typeof input === "function") {
    if (!(input as (input: unknown) => boolean)(job.input)) return "input: the function said no";
  } else if (input !== undefined) {
    const differs = difference(job.input, input, "input");
    if (differs !== undefined) return differs;
  }
  if (queue !== undefined && job.queue !== queue) return `queue is ${job.queue}, not ${queue}`;
  if (status !== undefined && job.status !== status) return `status is ${job.status}, not ${status}`;
  if (priority !== undefined && job.priority !== priority) return `priority is ${job.priority}, not ${priority}`;
  const missing = tags?.filter((tag) => !job.tags.includes(tag)) ?? [];
  if (missing.length > 0) return `it has no tag ${missing.join(", ")}`;
  if (runAt !== undefined && job.runAt?.getTime() !== runAt.getTime())
    return `it is due ${iso(job.runAt)}, not ${iso(runAt)}`;
  if (delay === undefined) return undefined;
  const waits = (job.runAt?.getTime() ?? Number.NaN) - job.createdAt.getTime();
  return waits === durationMs(delay, "delay") ? undefined : `it was due after ${waits} ms, not after ${delay}`;
}

function line({ task, id, input, queue, status, runAt }: Job): string {
  const text = JSON.stringify(input);
  const due = status === "delayed" ? ` until ${iso(runAt)}` : "";
  return `${task} ${id} ${text.length > 200 ? `${text.slice(0, 200)} …` : text}, queue ${queue}, ${status}${due}`;
}

/** ` with {…}`, as far as it can be written. */
function wish(expected: ExpectedJob): string {
  if (Object.keys(expected).length === 0) return "";
  const text = JSON.stringify(expected, (_, value: unknown) =>
    typeof value === "function" ? "(a function)" : isMatcher(value) ? String(value) : value,
  );
  return ` with ${text}`;
}

function isMatcher(value: unknown): boolean {
  return typeof (value as { asymmetricMatch?: unknown } | null)?.asymmetricMatch === "function";
}

function failed(head: string, lines: readonly string[], count: number): AssertionError {
  const more = count > lines.length ? [`  … and ${count - lines.length} more`] : [];
  return new AssertionError({ message: [head, ...lines, ...more].join("\n"), stackStartFn: failed });
}

function iso(date: Date | null): string {
  return date === null ? "never" : date.toISOString();
}

function nameOf(task: AnyTask | string): string {
  return typeof task === "string" ? task : task.name;
}
