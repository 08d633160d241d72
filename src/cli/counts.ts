/** How many jobs are where, in words: a line, a bar, and what came of it all. */
import type { Millrace } from "../app/millrace.ts";
import { describeMs } from "../core/duration.ts";
import type { QueueStats } from "../jobs/stats-store.ts";
import { counted, paint, table } from "./print.ts";

export interface Counts {
  readonly completed: number;
  readonly failed: number;
  readonly active: number;
  readonly delayed: number;
  /** Without paused queues: those wait on purpose. */
  readonly waiting: number;
}

export function countAll(queues: readonly QueueStats[]): Counts {
  const sum = (count: (queue: QueueStats) => number): number =>
    queues.reduce((total, queue) => total + count(queue), 0);
  return {
    completed: sum((queue) => queue.completed),
    failed: sum((queue) => queue.failed),
    active: sum((queue) => queue.active),
    delayed: sum((queue) => queue.delayed),
    waiting: sum((queue) => (queue.paused ? 0 : queue.waiting)),
  };
}

export const finished = ({ completed, failed }: Counts): number => completed + failed;

export function line({ completed, failed, waiting, active }: Counts, perSecond: number): string {
  const time = new Date().toTimeString().slice(0, 8);
  return `[${time}] ${completed} completed, ${failed} failed, ${active} active, ${waiting} waiting (${perSecond}/s)`;
}

const barWidth = 20;

/** How much of what there was to do since `first` is done. */
export function bar(first: Counts, counts: Counts, perSecond: number): string {
  const done = Math.max(0, finished(counts) - finished(first));
  const all = done + counts.waiting + counts.active;
  const filled = all === 0 ? 0 : Math.round((done / all) * barWidth);
  const failed = Math.max(0, counts.failed - first.failed);
  return `${"━".repeat(filled)}${"╌".repeat(barWidth - filled)} ${done} of ${counted(all, "job")}, ${failed} failed, ${counts.active} active, ${perSecond}/s`;
}

export interface Outcome {
  readonly first: Counts;
  readonly counts: Counts;
  readonly queues: readonly QueueStats[];
  readonly tookMs: number;
}

/** A block of lines: what was done since `first`, where every queue stands, and where to look further. */
export async function summary(mill: Millrace, outcome: Outcome, url: string | undefined): Promise<string> {
  const { first, counts, queues, tookMs } = outcome;
  const completed = counts.completed - first.completed;
  const failed = counts.failed - first.failed;
  const head =
    completed + failed === 0
      ? "Nothing to do; waiting for jobs."
      : `All quiet after ${describeMs(tookMs)}: ${counted(completed, "job")} completed, ${failed} failed.`;
  const rows = queues.map((queue) => [
    queue.paused ? `${queue.name} (paused)` : queue.name,
    queue.completed,
    queue.failed,
    queue.delayed,
    queue.waiting,
  ]);
  const notes = [
    ...(counts.waiting > 0
      ? [`${counted(counts.waiting, "job")} waiting for a worker: \`millrace doctor\` says why.`]
      : []),
    ...(counts.failed > 0 ? [`Dead letters: ${await reasons(mill)}${url ? ` → curl ${url}/dlq` : ""}`] : []),
  ];
  const parts = [
    paint("bold", head),
    ...(rows.length > 0 ? [table(["queue", "completed", "failed", "delayed", "waiting"], rows)] : []),
    ...(notes.length > 0 ? [notes.join("\n")] : []),
  ];
  return `\n${parts.join("\n\n")}\n`;
}

/** Dead letters that are read to count their reasons. */
const newest = 500;

/** `49 BAD_PAYLOAD, 1 TIMEOUT` */
async function reasons(mill: Millrace): Promise<string> {
  const { jobs } = await mill.jobs({ status: "failed", limit: newest });
  const numbers = new Map<string, number>();
  for (const { lastErrorCode } of jobs) {
    const code = lastErrorCode ?? "UNKNOWN";
    numbers.set(code, (numbers.get(code) ?? 0) + 1);
  }
  const told = [...numbers].sort(([, a], [, b]) => b - a).map(([code, n]) => `${n} ${code}`);
  return `${jobs.length === newest ? `of the newest ${newest}, ` : ""}${told.join(", ")}`;
}
