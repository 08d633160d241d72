/** What the entries of a timeline say, in a sentence each. Pure. */
import { describeMs } from "../core/duration.ts";
import { byWhom, instant, many } from "./sentences.ts";
import type { Attempt, Changes, Kin } from "./timeline.ts";
import { kinCounted } from "./timeline-store.ts";

/** ` It needs 2 jobs: extract, load. 3 jobs need it.` */
export function flowSentence(needs: Kin<{ name: string }> | null, neededBy: Kin<string> | null): string {
  const count = (n: number): string => (n >= kinCounted ? `${kinCounted} jobs or more` : many(n, "job"));
  const names = needs?.first.map(({ name }) => name).join(", ") ?? "";
  const rest = needs === null || needs.count === needs.first.length ? "" : ", …";
  const upward = needs === null ? "" : ` It needs ${count(needs.count)}: ${names}${rest}.`;
  return upward + (neededBy === null ? "" : ` ${count(neededBy.count)} ${neededBy.count === 1 ? "needs" : "need"} it.`);
}

/** What Millrace does to a job by itself, and what people do. */
export function operationSentence(action: string, by: string | null, reason: string | null, due: string): string {
  switch (action) {
    case "release":
      return `Released by the jobs it waited for${due}.`;
    case "block":
      return "Waits for other jobs again: one of those that had failed has completed since.";
    case "debounce":
      return `Put off: enqueued again under its key${byWhom(by, null)}${due}.`;
    case "event":
      return `Woken by event "${reason}"${byWhom(by, null)}.`;
    default:
      return `Operator action "${action}"${byWhom(by, reason)}${due}.`;
  }
}

/** `, from queue "a" to "b", from priority 0 to 5` */
export function changed(changes: Changes | null): string {
  const { queue, priority } = changes ?? {};
  return `${queue ? `, from queue "${queue.from}" to "${queue.to}"` : ""}${priority ? `, from priority ${priority.from} to ${priority.to}` : ""}`;
}

const outcomes: Readonly<Record<Attempt["status"], string>> = {
  running: "runs",
  succeeded: "succeeded",
  failed: "failed",
  timed_out: "took too long",
  lost: "was lost with its worker",
  cancelled: "was cancelled",
  snoozed: "was put off",
};

export function attemptSentence(attempt: Attempt): string {
  const { attempt: n, status, startedAt, tookMs, worker, errorCode, errorMessage, retryAt } = attempt;
  if (errorCode === "DEPENDENCY_FAILED" && startedAt === null) return `Not run: ${errorMessage ?? errorCode}`;
  const where = worker === null ? "" : ` on worker ${worker}`;
  const after = tookMs === null || status === "lost" ? "" : ` after ${describeMs(tookMs)}`;
  const why = errorCode === null ? "" : `: ${errorCode}${errorMessage === null ? "" : `: ${errorMessage}`}`;
  const next = retryAt === null ? "" : ` Due again at ${instant(retryAt)}.`;
  return `Attempt ${n} ${outcomes[status]}${where}${after}${stopped(why)}${next}`;
}

export function lateSentence({ attempt, status, worker, errorCode }: Attempt): string {
  const why = errorCode === null ? "" : ` with ${errorCode}`;
  return `A late result of attempt ${attempt} from worker ${worker ?? "unknown"}: it ${outcomes[status]}${why}. The job was no longer its; nothing was applied.`;
}

/** With a full stop, unless there is one. */
function stopped(sentence: string): string {
  return /[.!?]$/.test(sentence) ? sentence : `${sentence}.`;
}
