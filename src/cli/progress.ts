/**
 * Tells what is going on: a line a second while work is going on, and, the first time nothing is left to do, what came of it. In a
 * log for programs, an entry every ten seconds.
 */
import type { Millrace } from "../app/millrace.ts";
import { describeMs } from "../core/duration.ts";
import type { Log } from "../core/log.ts";
import type { QueueStats } from "../jobs/stats-store.ts";
import { counted, paint, table } from "./print.ts";
import type { Terminal } from "./terminal.ts";

const lookEveryMs = 1_000;
const logEveryMs = 10_000;
/** Looking must stay cheap: where counting a long queue takes 100 ms, we count every 5 s. */
const pausePerLook = 50;
/** What waits and does not move for this many looks waits for somebody else. */
const patience = 3;
/** Dead letters whose reasons are counted. */
const newestFailures = 500;

export interface Audience {
  /** Undefined: nobody watches, the log is all there is. */
  readonly terminal: Terminal | undefined;
  readonly log: Log;
  /** Where the API listens, to point at. */
  readonly url: string | undefined;
}

interface Counts {
  readonly completed: number;
  readonly failed: number;
  readonly active: number;
  readonly delayed: number;
  /** Without paused queues: those wait on purpose. */
  readonly waiting: number;
}

export interface Progress {
  stop(): void;
}

/** Counts from now on; call it before the first job runs. */
export async function watchProgress(mill: Millrace, audience: Audience): Promise<Progress> {
  const { terminal, log } = audience;
  const startedAt = performance.now();
  const first = countAll(await mill.stats());
  let last = first;
  let lastAt = startedAt;
  let loggedAt = startedAt;
  let still = 0;
  let summarised = false;
  let stopped = false;

  const look = async (): Promise<void> => {
    const queues = await mill.stats();
    const now = performance.now();
    const counts = countAll(queues);
    const moved = finished(counts) - finished(last);
    const perSecond = Math.max(0, Math.round((moved / (now - lastAt)) * 1_000));
    const working = moved !== 0 || counts.active > 0;
    still = working ? 0 : still + 1;
    last = counts;
    lastAt = now;
    if (working) {
      if (terminal) terminal.status(process.stdout.isTTY ? bar(first, counts, perSecond) : line(counts, perSecond));
      else if (now - loggedAt >= logEveryMs) {
        loggedAt = now;
        log.info({ ...counts, per_second: perSecond }, "progress");
      }
      return;
    }
    terminal?.clear();
    if (summarised || (counts.waiting > 0 && still < patience)) return;
    summarised = true;
    if (terminal)
      terminal.line(await summary(mill, queues, { first, counts, tookMs: now - startedAt, url: audience.url }));
    else log.info({ ...counts, took_ms: Math.round(now - startedAt) }, "quiet");
  };

  const lookAgain = (afterMs: number): NodeJS.Timeout =>
    setTimeout(() => {
      const askedAt = performance.now();
      look()
        // The worker says it when the database is away; the next look comes anyway.
        .catch((error: unknown) => log.debug({ err: error }, "progress not known"))
        .finally(() => {
          if (!stopped) timer = lookAgain(Math.max(lookEveryMs, (performance.now() - askedAt) * pausePerLook));
        });
    }, afterMs);
  let timer = lookAgain(lookEveryMs);

  return {
    stop() {
      stopped = true;
      clearTimeout(timer);
      terminal?.clear();
    },
  };
}

function countAll(queues: readonly QueueStats[]): Counts {
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

const finished = ({ completed, failed }: Counts): number => completed + failed;

const clock = (): string => new Date().toTimeString().slice(0, 8);

function line({ completed, failed, waiting, active }: Counts, perSecond: number): string {
  return `[${clock()}] ${completed} completed, ${failed} failed, ${active} active, ${waiting} waiting (${perSecond}/s)`;
}

function bar(first: Counts, counts: Counts, perSecond: number): string {
  const done = finished(counts) - finished(first);
  const all = done + counts.waiting + counts.active;
  const filled = all === 0 ? 0 : Math.max(0, Math.round((done / all) * 30));
  const failed = counts.failed - first.failed;
  return `${"━".repeat(filled)}${"╌".repeat(30 - filled)}  ${done} of ${counted(all, "job")}, ${failed} failed, ${counts.active} active, ${perSecond}/s`;
}

interface Outcome {
  readonly first: Counts;
  readonly counts: Counts;
  readonly tookMs: number;
  readonly url: string | undefined;
}

async function summary(
  mill: Millrace,
  queues: readonly QueueStats[],
  { first, counts, tookMs, url }: Outcome,
): Promise<string> {
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
    counts.waiting > 0 &&
      `${counted(counts.waiting, "job")} wait for a task that no worker here defines; \`millrace doctor\` says which.`,
    counts.failed > 0 && `Dead letters: ${await reasons(mill)}${url === undefined ? "" : ` → curl ${url}/dlq`}`,
  ].filter((note) => note !== false);
  return [
    "",
    paint("bold", head),
    "",
    ...(rows.length > 0 ? [table(["queue", "completed", "failed", "delayed", "waiting"], rows), ""] : []),
    ...(notes.length > 0 ? [...notes, ""] : []),
  ].join("\n");
}

/** `49 BAD_PAYLOAD, 1 TIMEOUT` */
async function reasons(mill: Millrace): Promise<string> {
  const { jobs } = await mill.jobs({ status: "failed", limit: newestFailures });
  const counts = new Map<string, number>();
  for (const { lastErrorCode } of jobs) {
    const code = lastErrorCode ?? "UNKNOWN";
    counts.set(code, (counts.get(code) ?? 0) + 1);
  }
  const told = [...counts].sort(([, a], [, b]) => b - a).map(([code, n]) => `${n} ${code}`);
  return `${jobs.length === newestFailures ? `of the newest ${newestFailures}: ` : ""}${told.join(", ")}`;
}
