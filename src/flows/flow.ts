/** Jobs that wait for other jobs: a graph by name, written as one transaction. */
import { type Duration, durationMs } from "../core/duration.ts";
import { MillraceError } from "../core/errors.ts";
import { didYouMean, isText, refuseUnknown, show } from "../core/options.ts";
import type { ForeignTransaction } from "../db/database.ts";
import type { Asked, Enqueuer } from "../jobs/enqueue.ts";
import { type EnqueueOptions, readInstant } from "../jobs/enqueue-options.ts";
import type { AnyTask } from "../jobs/task.ts";
import { type BlockedJob, type Edge, type OnFailure, insertEdges } from "./flow-store.ts";

/** One job of a flow. `delay` and `runAt` of a job that waits for others count from when it no longer does. */
export interface FlowJob extends Omit<
  EnqueueOptions,
  "tx" | "idempotencyKey" | "idempotencyKeep" | "unique" | "debounce" | "throttle"
> {
  task: AnyTask | string;
  input?: unknown;
  /** Names of the jobs it needs. It runs when all of them have completed, and finds their results by `dependencies()`. */
  after?: readonly string[];
  /**
   * When one of those fails for good, is cancelled or removed: `"fail"` gives this one up too (default; it goes on by itself if the
   * other is retried and completes), `"ignore"` waits for the rest, `"continue"` runs at once.
   */
  onFailure?: OnFailure;
}

export interface Flow {
  /** Names are yours: 1 to 128 characters. */
  jobs: Readonly<Record<string, FlowJob>>;
  /** Your own transaction: the flow exists if and only if it commits. */
  tx?: ForeignTransaction;
}

/** What became of each name. */
export interface EnqueuedFlow<Name extends string = string> {
  readonly jobs: Readonly<Record<Name, string>>;
}

export interface BatchOptions extends Omit<FlowJob, "task" | "input" | "after"> {
  /** Runs when every job of the batch has ended: with `onFailure` "ignore" (default) however they ended. */
  callback: FlowJob;
  tx?: ForeignTransaction;
}

const flowNames: ReadonlySet<string> = new Set(["jobs", "tx"]);
const onFailures: readonly OnFailure[] = ["fail", "ignore", "continue"];
/** A job of a flow that turned out to be another one would leave the others waiting for the wrong job. */
const aboutOneJob = ["idempotencyKey", "idempotencyKeep", "unique", "debounce", "throttle", "tx"] as const;
/** Jobs of one flow: what one statement takes. */
const flowMax = 50_000;

/** Throws `FLOW_INVALID`, `FLOW_CYCLE`, and what `enqueue` throws; nothing is written then. */
export async function enqueueFlow<Name extends string>(
  enqueuer: Enqueuer,
  flow: { jobs: Readonly<Record<Name, FlowJob>>; tx?: ForeignTransaction },
): Promise<EnqueuedFlow<Name>> {
  refuseUnknown("enqueueFlow", flow, flowNames);
  const names = Object.keys(flow.jobs) as Name[];
  if (names.length === 0 || names.length > flowMax)
    throw new MillraceError("FLOW_INVALID", `A flow has 1 to ${flowMax} jobs; this one has ${names.length}.`);
  const needed = new Set<string>();
  for (const name of names) {
    if (!isText(name, 128))
      throw new MillraceError("FLOW_INVALID", `A job's name is 1 to 128 characters, not ${show(name)}.`);
    for (const other of afterOf(flow.jobs, name)) needed.add(other);
  }
  refuseCycles(flow.jobs);
  const asked = names.map((name) => askedOf(flow.jobs[name], needed.has(name)));
  const ids = await enqueuer.enqueueTogether(asked, flow.tx, async (into, made) => {
    const idOf = new Map<string, string>(names.map((name, i) => [name, made[i] as string]));
    const edges: Edge[] = [];
    const blocked: BlockedJob[] = [];
    for (const name of names) {
      const { after = [], onFailure = "fail", runAt, delay } = flow.jobs[name];
      if (after.length === 0) continue;
      const jobId = idOf.get(name) as string;
      after.forEach((other, place) =>
        edges.push({ jobId, place, needs: idOf.get(other) as string, name: other, onFailure }),
      );
      blocked.push({
        id: jobId,
        open: after.length,
        runAt: runAt === undefined ? undefined : readInstant(runAt),
        delayMs: delay === undefined ? undefined : durationMs(delay as Duration, "delay"),
      });
    }
    if (edges.length > 0) await insertEdges(into, edges, blocked);
  });
  return { jobs: Object.fromEntries(names.map((name, i) => [name, ids[i]])) as Record<Name, string> };
}

/** Many jobs of one task, and one more when all of them have ended. */
export async function enqueueBatch(
  enqueuer: Enqueuer,
  task: AnyTask | string,
  inputs: readonly unknown[],
  { callback, tx, ...options }: BatchOptions,
): Promise<{ ids: string[]; callback: string }> {
  if (callback === undefined || callback.after !== undefined)
    throw new MillraceError("FLOW_INVALID", "A batch needs `callback`: the job that runs after it, without `after`.");
  const jobs: Record<string, FlowJob> = Object.fromEntries(
    inputs.map((input, i) => [`${i + 1}`, { ...options, task, input }]),
  );
  const after = Object.keys(jobs);
  const flow = {
    jobs: { ...jobs, callback: { onFailure: "ignore", ...callback, after } as FlowJob },
    ...(tx ? { tx } : {}),
  };
  const made: EnqueuedFlow = await enqueueFlow<string>(enqueuer, flow);
  return { ids: after.map((name) => made.jobs[name] as string), callback: made.jobs["callback"] as string };
}

function askedOf(job: FlowJob, watched: boolean): Asked {
  const { task, input, after = [], onFailure, ...options } = job;
  if (onFailure !== undefined && !onFailures.includes(onFailure))
    throw new MillraceError(
      "OPTION_INVALID",
      `onFailure must be one of ${onFailures.join(", ")}, not ${show(onFailure)}.`,
    );
  const alone = aboutOneJob.find((option) => Object.hasOwn(options, option));
  if (alone !== undefined)
    throw new MillraceError("OPTION_INVALID", `${alone} is about one job; a job of a flow cannot have it.`);
  const blocked = after.length > 0;
  // When a job that waits is due is decided when it no longer does.
  const { runAt, delay, ...atOnce } = options;
  if (blocked && runAt !== undefined && delay !== undefined)
    throw new MillraceError("OPTION_INVALID", "Give delay or runAt, not both.");
  return { task, input, options: blocked ? atOnce : options, blocked, watched };
}

function afterOf(jobs: Readonly<Record<string, FlowJob>>, name: string): readonly string[] {
  const { after = [], task } = jobs[name] ?? {};
  if (task === undefined) throw new MillraceError("FLOW_INVALID", `Job "${name}" of the flow has no task.`);
  if (!Array.isArray(after)) throw new MillraceError("FLOW_INVALID", `Job "${name}": after must be a list of names.`);
  const unknown = after.find((other) => !Object.hasOwn(jobs, other));
  if (unknown !== undefined) {
    const hint = didYouMean(String(unknown), Object.keys(jobs));
    throw new MillraceError(
      "FLOW_INVALID",
      `Job "${name}" comes after ${show(unknown)}, which is not in the flow.${hint}`,
    );
  }
  if (new Set(after).size < after.length)
    throw new MillraceError("FLOW_INVALID", `Job "${name}": after names a job twice.`);
  return after;
}

/** Walks each path once; a job met again on its own path closes a circle. */
function refuseCycles(jobs: Readonly<Record<string, FlowJob>>): void {
  const done = new Set<string>();
  for (const start of Object.keys(jobs)) {
    const path = [{ name: start, next: 0 }];
    const onPath = new Set([start]);
    while (path.length > 0) {
      const here = path[path.length - 1] as { name: string; next: number };
      const other = done.has(here.name) ? undefined : jobs[here.name]?.after?.[here.next];
      if (other === undefined) {
        done.add(here.name);
        onPath.delete(here.name);
        path.pop();
        continue;
      }
      here.next += 1;
      if (onPath.has(other)) {
        const circle = [...path.slice(path.findIndex(({ name }) => name === other)).map(({ name }) => name), other];
        throw new MillraceError("FLOW_CYCLE", `These jobs wait for each other: ${circle.join(" → ")}.`);
      }
      path.push({ name: other, next: 0 });
      onPath.add(other);
    }
  }
}
