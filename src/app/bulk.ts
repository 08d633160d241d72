/** Reading what a bulk operation is to do, strictly: it may change a million jobs, so a word that is not understood stops it. */
import { type Duration, durationMs } from "../core/duration.ts";
import { MillraceError } from "../core/errors.ts";
import { checkedName, didYouMean, isText, refuseUnknown, show, wholeNumber } from "../core/options.ts";
import { isUuid } from "../core/uuid.ts";
import { type BulkAction, type StoredFilter, type StoredOptions, bulkActions } from "../jobs/bulk-walk-store.ts";
import { readInstant } from "../jobs/enqueue-options.ts";
import { type JobStatus, jobStatuses } from "../jobs/read-store.ts";
import { highestPriority } from "../jobs/task.ts";
import { type OrderOptions, signatureOf } from "./orders.ts";

/** Which jobs: all conditions hold. Jobs that come later than the operation are not touched. */
export interface BulkFilter {
  /** Default: what the action takes. `cancel` takes jobs that wait; of those that run, only with `"active"`. */
  status?: JobStatus;
  queue?: string;
  task?: string;
  tag?: string;
  /** Of dead letters. */
  errorCode?: string;
  /** Of dead letters: `NON_RETRYABLE`, `MAX_ATTEMPTS_EXCEEDED`, `POISON`. */
  reason?: string;
  /** Ended longer ago than this or, of jobs that have not ended, enqueued. */
  olderThan?: Duration;
  /** These jobs, up to 10 000. */
  ids?: readonly string[];
}

export interface BulkOptions extends OrderOptions {
  /** Only counts. */
  dryRun?: boolean;
  /** Needed when the filter has no condition: really all jobs are meant. */
  all?: boolean;
  /** Jobs looked at per second, 1 to 100 000. Default 1 000. */
  perSecond?: number;
  /** For `reprioritise`, and `replay`. */
  priority?: number;
  /** For `move`, and `replay`: where they go. */
  queue?: string;
  /** For `replay`. */
  runAt?: Date | string;
  /** For `replay`. */
  delay?: Duration;
}

export interface BulkPreview {
  readonly action: BulkAction;
  /** Jobs that match now, counted up to 100 000. */
  readonly expected: number;
  /** There are more than that. */
  readonly moreThanExpected: boolean;
}

export interface BulkPlan {
  readonly action: BulkAction;
  readonly filter: StoredFilter;
  readonly options: Omit<StoredOptions, "queueId">;
  readonly perSecond: number;
  readonly by: string | null;
  readonly dryRun: boolean;
}

const idsMax = 10_000;
const filterNames: ReadonlySet<string> = new Set([
  "status",
  "queue",
  "task",
  "tag",
  "errorCode",
  "reason",
  "olderThan",
  "ids",
]);
const commonNames = ["by", "reason", "dryRun", "all", "perSecond"];
/** What each action takes beside that, and the statuses it can change. */
const facts: Readonly<Record<BulkAction, { names: readonly string[]; needs?: string; takes: readonly JobStatus[] }>> = {
  retry: { names: [], takes: ["failed"] },
  cancel: { names: [], takes: ["waiting", "delayed", "blocked", "active"] },
  replay: { names: ["queue", "priority", "runAt", "delay"], takes: jobStatuses },
  remove: { names: [], takes: jobStatuses.filter((status) => status !== "active") },
  reprioritise: { names: ["priority"], needs: "priority", takes: ["waiting", "delayed"] },
  move: { names: ["queue"], needs: "queue", takes: ["waiting", "delayed"] },
};

/** Throws `OPTION_UNKNOWN`, `OPTION_INVALID`, `FILTER_TOO_WIDE`. */
export function readBulk(action: BulkAction, filter: BulkFilter, options: BulkOptions): BulkPlan {
  if (!bulkActions.includes(action))
    throw invalid(
      `action must be one of ${bulkActions.join(", ")}, not ${show(action)}.${didYouMean(String(action), bulkActions)}`,
    );
  if (typeof filter !== "object" || filter === null) throw invalid("filter must be an object.");
  refuseUnknown("bulk: filter", filter, filterNames);
  const { names, needs, takes } = facts[action];
  refuseUnknown(`bulk ${action}`, options, new Set([...commonNames, ...names]));
  if (needs !== undefined && options[needs as keyof BulkOptions] === undefined)
    throw invalid(`bulk ${action} needs ${needs}: what the jobs get.`);
  const stored = readFilter(filter, takes, action);
  if (!excludes(filter, takes) && options.all !== true)
    throw new MillraceError(
      "FILTER_TOO_WIDE",
      `bulk ${action}: the filter has no condition that leaves a job out, so it matches every one that can be taken.`,
    );
  const { priority, queue, runAt, delay } = options;
  if (runAt !== undefined && delay !== undefined) throw invalid("Give delay or runAt, not both.");
  const { by, reason } = signatureOf(options);
  return {
    action,
    filter: action === "retry" && stored.ids === undefined ? { ...stored, status: "failed" } : stored,
    options: {
      priority:
        priority === undefined ? undefined : wholeNumber(priority, "priority", -highestPriority, highestPriority),
      queue: queue === undefined ? undefined : checkedName(queue, "queue"),
      runAt: runAt === undefined ? undefined : readInstant(runAt).toISOString(),
      delayMs: delay === undefined ? undefined : durationMs(delay, "delay"),
      reason: reason ?? undefined,
    },
    perSecond: wholeNumber(options.perSecond ?? 1_000, "perSecond", 1, 100_000),
    by,
    dryRun: options.dryRun === true,
  };
}

/** Whether the filter can leave out any job of these statuses. An age of 0 cannot, nor the one status there is to choose from. */
export function excludes({ olderThan, status, ...others }: BulkFilter, among: readonly JobStatus[]): boolean {
  return (
    Object.values(others).some((condition) => condition !== undefined) ||
    (olderThan !== undefined && durationMs(olderThan, "olderThan") > 0) ||
    (status !== undefined && !among.every((one) => one === status))
  );
}

function readFilter(filter: BulkFilter, takes: readonly JobStatus[], action: BulkAction): StoredFilter {
  const { queue, task, tag, errorCode, reason, olderThan, ids } = filter;
  // Only dead letters have these.
  const status = filter.status ?? (errorCode === undefined && reason === undefined ? undefined : "failed");
  if (status !== undefined && !jobStatuses.includes(status))
    throw invalid(`status must be one of ${jobStatuses.join(", ")}, not ${show(status)}.`);
  if (status !== undefined && !takes.includes(status))
    throw invalid(
      `bulk ${action} takes jobs that are ${takes.join(" or ")}; a filter for ${status} ones matches none.`,
    );
  if (status !== "failed" && (errorCode !== undefined || reason !== undefined))
    throw invalid(`errorCode and reason are of dead letters; a job that is ${status} has none.`);
  return {
    status,
    queue: queue === undefined ? undefined : checkedName(queue, "queue"),
    task: task === undefined ? undefined : checkedName(task, "task"),
    tag: checkedText(tag, "tag"),
    errorCode: checkedText(errorCode, "errorCode"),
    reason: checkedText(reason, "reason"),
    olderThanMs: olderThan === undefined ? undefined : durationMs(olderThan, "olderThan"),
    ids: ids === undefined ? undefined : checkedIds(ids),
  };
}

function checkedText(text: unknown, what: string): string | undefined {
  if (text === undefined) return undefined;
  if (isText(text, 200)) return text;
  throw invalid(`filter: ${what} must be a text of at most 200 characters, not ${show(text)}.`);
}

function checkedIds(ids: unknown): string[] {
  if (Array.isArray(ids) && ids.length > 0 && ids.length <= idsMax) {
    const wrong = ids.find((id) => typeof id !== "string" || !isUuid(id));
    if (wrong === undefined) return ids as string[];
    throw invalid(`filter: ${show(wrong)} is not the id of a job: ids are UUIDs.`);
  }
  throw invalid(`filter: ids must be a list of 1 to ${idsMax} ids.`);
}

function invalid(message: string): MillraceError {
  return new MillraceError("OPTION_INVALID", message);
}
