/** How schedules, their runs and their next ticks look. */
import { describeMs } from "../core/duration.ts";
import type { PreviewedTick, Schedule, ScheduleRun } from "../client/index.ts";
import { facts, fromNow, oneLine, table } from "./print.ts";

export function schedulesTable(items: readonly Schedule[]): string {
  const now = Date.now();
  return table(
    ["name", "when", "task", "queue", "next", "last", "state"],
    items.map((item) => [
      item.name,
      whenOf(item),
      item.task,
      item.queue,
      item.next_at === null ? "-" : fromNow(item.next_at, now),
      item.last_run === null
        ? "-"
        : `${item.last_run.outcome ?? item.last_run.status} ${fromNow(item.last_run.at, now)}`,
      stateOf(item),
    ]),
  );
}

function whenOf({ cron, every_ms: every, zone }: Schedule): string {
  if (cron === null) return `every ${describeMs(every ?? 0)}`;
  return zone === "UTC" ? cron : `${cron} ${zone}`;
}

function stateOf(item: Schedule): string {
  const states = [
    item.retired_at === null ? "" : "retired",
    item.paused === null ? "" : `paused${item.paused.by === null ? "" : ` by ${item.paused.by}`}`,
    item.stopped === null ? "" : "stopped",
    item.trouble === null ? "" : "in trouble",
    item.overdue > 0 ? `${item.overdue} overdue` : "",
    item.active > 0 ? `${item.active} active` : "",
    item.queued > 0 ? `${item.queued} queued` : "",
  ];
  return states.filter((state) => state !== "").join(", ") || "waits";
}

export function factsOf(item: Schedule): string {
  const now = Date.now();
  const ms = (value: number | null): string | null => (value === null ? null : describeMs(value));
  const moment = (at: Date | string | null): string | null =>
    at === null ? null : `${new Date(at).toISOString()} (${fromNow(at, now)})`;
  const by = (who: string | null): string => (who === null ? "" : ` by ${who}`);
  const why = item.paused?.reason ? `: ${item.paused.reason}` : "";
  return facts([
    ["name", item.name],
    ["state", stateOf(item)],
    ["when", whenOf(item)],
    ["next", moment(item.next_at)],
    ["paused", item.paused && `${moment(item.paused.at)}${by(item.paused.by)}${why}`],
    [
      "stopped",
      item.stopped &&
        `${moment(item.stopped.at)}${by(item.stopped.by)}: no schedule fires until \`millrace drain resume\``,
    ],
    ["retired", item.retired_at && `${moment(item.retired_at)}: no running app defines it`],
    ["trouble", item.trouble],
    ["task", item.task],
    ["queue", item.queue],
    ["input", oneLine(JSON.stringify(item.input), 200)],
    ["overlap", item.overlap === "allow" ? "allow" : `${item.overlap}, ${item.concurrency} at once`],
    ["catch up", `${item.catch_up}, late after ${ms(item.start_grace_ms)}`],
    ["jitter", item.jitter_ms === 0 ? null : ms(item.jitter_ms)],
    ["run grace", ms(item.run_grace_ms)],
    ["priority", item.priority === null ? null : String(item.priority)],
    ["attempts", String(item.max_attempts)],
    ["timeout", ms(item.timeout_ms)],
    ["tags", item.tags?.join(", ")],
    [
      "made by",
      item.source === "operator"
        ? (item.created_by ?? "an operator")
        : item.source === "code"
          ? "the app's code"
          : "Millrace itself",
    ],
    [
      "changed",
      item.edited.length === 0 ? null : `${item.edited.join(", ")}${by(item.updated_by)}; reset takes it back`,
    ],
  ]);
}

export function runsTable(items: readonly ScheduleRun[]): string {
  return table(
    ["run", "tick", "status", "late", "took", "job"],
    items.map((run) => [
      run.id,
      `${new Date(run.tick_at).toISOString()}${run.count > 1 ? ` and ${run.count - 1}${run.at_least ? " or more" : ""} after it` : ""}`,
      [
        run.outcome ?? run.status,
        run.code ?? "",
        run.overdue ? "overdue" : "",
        run.cause === "manual" ? `by ${run.by ?? "hand"}` : "",
      ]
        .filter((word) => word !== "")
        .join(", "),
      run.late_ms === null ? "" : describeMs(Math.max(run.late_ms, 0)),
      run.took_ms === null ? "" : describeMs(run.took_ms),
      run.job_id ?? "",
    ]),
  );
}

export function previewTable(items: readonly PreviewedTick[]): string {
  return table(
    ["at", "local", ""],
    items.map(({ at, local, remark }) => [new Date(at).toISOString(), local, remark ?? ""]),
  );
}
