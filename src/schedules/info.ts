/** A schedule as its users see it. Pure. */
import type { Spec } from "./definition.ts";
import type { RunStatus, ScheduleRun } from "./runs-store.ts";
import type { ListedRow, ScheduleSource } from "./schedules-store.ts";

export interface ScheduleInfo extends Spec {
  readonly id: number;
  readonly name: string;
  /** Who made it: the app's code, an operator, or Millrace itself. */
  readonly source: ScheduleSource;
  /** Fields an operator changed; the code's say does not count for them until they are reset. */
  readonly edited: readonly string[];
  /** Null while it is paused or retired, and when its pattern never comes again. */
  readonly nextAt: Date | null;
  /** Ticks up to here were dealt with. */
  readonly lastAt: Date | null;
  readonly paused: { readonly at: Date; readonly by: string | null; readonly reason: string | null } | null;
  /** Since when no schedule fires, and who wanted it: the system is drained, or about to be. */
  readonly stopped: { readonly at: Date; readonly by: string | null } | null;
  /** Since when no running app defines it; it fires no more. */
  readonly retiredAt: Date | null;
  /** Why it cannot be fired. */
  readonly trouble: string | null;
  /** Runs that have not ended, those that wait for them, and those that should have ended by now. */
  readonly active: number;
  readonly queued: number;
  readonly overdue: number;
  readonly lastRun: {
    readonly at: Date;
    readonly status: RunStatus;
    readonly outcome: ScheduleRun["outcome"];
    readonly jobId: string | null;
  } | null;
  readonly createdAt: Date;
  readonly createdBy: string | null;
  readonly updatedAt: Date;
  readonly updatedBy: string | null;
}

export function infoOf(row: ListedRow): ScheduleInfo {
  const { id, name, source, edits, nextAt, lastAt, pausedAt, pausedBy, pausedReason, retiredAt, trouble } = row;
  return {
    id,
    name,
    source,
    ...row.spec,
    edited: editedFields(edits),
    nextAt,
    lastAt,
    paused: pausedAt === null ? null : { at: pausedAt, by: pausedBy, reason: pausedReason },
    stopped: row.stoppedAt === null ? null : { at: row.stoppedAt, by: row.stoppedBy },
    retiredAt,
    trouble,
    active: row.active,
    queued: row.queued,
    overdue: row.overdue,
    lastRun:
      row.lastRunAt === null
        ? null
        : {
            at: row.lastRunAt,
            status: row.lastStatus as RunStatus,
            outcome: row.lastOutcome as ScheduleRun["outcome"],
            jobId: row.lastJobId,
          },
    createdAt: row.createdAt,
    createdBy: row.createdBy,
    updatedAt: row.updatedAt,
    updatedBy: row.updatedBy,
  };
}

/** As users spell them; of cron and interval the one there is. */
function editedFields(edits: Partial<Spec>): string[] {
  const timed = "cron" in edits || "everyMs" in edits;
  const named = Object.keys(edits).filter((field) => !(timed && (field === "cron" || field === "everyMs")));
  return [...(timed ? [edits.cron ? "cron" : "every"] : []), ...named.map((field) => field.replace(/Ms$/, ""))];
}
