/** Runs jobs, at most so many at once, and watches their deadlines. Knows nothing of the database. */
import type { Log } from "../core/log.ts";
import type { Interruption, RunningJob } from "./running.ts";

/** After its timeout, or a cancel, a task has this long to obey its signal before it is reported as hung. */
const hungAfterMs = 5_000;

export class Runner {
  /** Claimed and not started. */
  readonly #buffer: RunningJob[] = [];
  #head = 0;
  readonly running = new Set<RunningJob>();
  /** Timed out or cancelled, and still running: JavaScript cannot stop them. */
  readonly hung = new Set<RunningJob>();
  #starting = false;
  #deadlineTimer: NodeJS.Timeout | undefined;
  #deadlineAt = Number.POSITIVE_INFINITY;
  #busySince = 0;
  #busyMs = 0;
  #finishedCount = 0;
  /** Jobs finished per millisecond of being busy, over the recent past. */
  rate = 0;

  readonly #onFinish: (job: RunningJob, now: number, ended: { thrown: unknown } | undefined) => void;
  readonly #onHung: (job: RunningJob) => void;
  readonly #log: Log;
  concurrency: number;

  constructor(
    concurrency: number,
    log: Log,
    onFinish: (job: RunningJob, now: number, ended: { thrown: unknown } | undefined) => void,
    onHung: (job: RunningJob) => void = () => undefined,
  ) {
    this.concurrency = concurrency;
    this.#log = log;
    this.#onFinish = onFinish;
    this.#onHung = onHung;
  }

  get buffered(): number {
    return this.#buffer.length - this.#head;
  }

  /** performance.now() when the job that starts next was claimed. */
  get waitingSince(): number {
    return this.#buffer[this.#head]?.lease.claimedAt ?? Number.POSITIVE_INFINITY;
  }

  get free(): number {
    return this.concurrency - this.running.size;
  }

  add(jobs: readonly RunningJob[]): void {
    for (const job of jobs) this.#buffer.push(job);
  }

  /** Takes what was not started out again. */
  takeBuffered(only?: (job: RunningJob) => boolean): RunningJob[] {
    const waiting = this.#buffer.slice(this.#head);
    this.#buffer.length = 0;
    this.#head = 0;
    if (!only) return waiting;
    this.add(waiting.filter((job) => !only(job)));
    return waiting.filter(only);
  }

  /** Starts what there is room for. */
  startNext(): void {
    // A task that ends at once calls back into here; the loop below goes on for it, so the stack stays flat.
    if (this.#starting) return;
    this.#starting = true;
    while (this.running.size < this.concurrency && this.#head < this.#buffer.length) {
      const job = this.#buffer[this.#head] as RunningJob;
      this.#head += 1;
      if (this.#head === this.#buffer.length) {
        this.#buffer.length = 0;
        this.#head = 0;
      }
      this.#start(job);
    }
    this.#starting = false;
  }

  /** Sends back what waits for a thread or process. */
  interruptQueued(why: Interruption): void {
    for (const job of this.running) if (job.queued) job.interrupt(why);
  }

  interruptAll(why: Interruption): void {
    for (const job of this.running) job.interrupt(why);
  }

  /**
   * Asks a running job to end, or takes one that was not started out again, which is returned. `known` is false when neither has it.
   */
  cancel(id: string): { known: boolean; unstarted: RunningJob[] } {
    for (const job of this.running) {
      if (job.id !== id) continue;
      job.interrupt("cancelled");
      this.#watchBy(performance.now() + hungAfterMs);
      return { known: true, unstarted: [] };
    }
    const has = this.#buffer.some((job, i) => i >= this.#head && job.id === id);
    return { known: has, unstarted: has ? this.takeBuffered((job) => job.id === id) : [] };
  }

  close(): void {
    clearTimeout(this.#deadlineTimer);
  }

  #start(job: RunningJob): void {
    const now = performance.now();
    job.startedAt = now;
    if (this.running.size === 0) this.#busySince = now;
    this.running.add(job);
    const { timeoutMs } = job;
    if (timeoutMs > 0) this.#watchBy(now + timeoutMs);
    try {
      const outcome = job.execute();
      if (isThenable(outcome))
        outcome.then(
          (output) => this.#returned(job, output),
          (thrown: unknown) => this.#finish(job, { thrown }),
        );
      else this.#returned(job, outcome);
    } catch (thrown) {
      this.#finish(job, { thrown });
    }
  }

  #returned(job: RunningJob, output: unknown): void {
    job.output = output;
    this.#finish(job, undefined);
  }

  /** Its time begins only now: it had to wait for a thread or process. */
  begin(job: RunningJob): void {
    const now = performance.now();
    job.queued = false;
    job.startedAt = now;
    const { timeoutMs } = job;
    if (timeoutMs > 0) this.#watchBy(now + timeoutMs);
  }

  #finish(job: RunningJob, ended: { thrown: unknown } | undefined): void {
    if (!this.running.has(job)) return; // a thenable that settles twice
    const rest = job.rest(ended);
    if (rest) return void rest.then(() => this.#finish(job, ended));
    this.running.delete(job);
    const now = performance.now();
    this.hung.delete(job);
    this.#finishedCount += 1;
    if (this.running.size === 0) this.#busyMs += now - this.#busySince;
    this.#onFinish(job, now, ended);
  }

  /** Brings `rate` up to date; called when it matters, which is before a claim. */
  measure(now: number): void {
    let busy = this.#busyMs;
    if (this.running.size > 0) {
      busy += now - this.#busySince;
      this.#busySince = now;
    }
    this.#busyMs = busy;
    // Below half a millisecond there is more noise than rate; nothing finished for long is a rate too.
    if (busy < (this.#finishedCount === 0 ? 20 : 0.5)) return;
    const recent = this.#finishedCount / busy;
    this.rate = this.rate === 0 ? recent : this.rate * 0.7 + recent * 0.3;
    this.#busyMs = 0;
    this.#finishedCount = 0;
  }

  /** One timer for all deadlines: set for the earliest, and looked at again when it fires. */
  #watchBy(at: number): void {
    if (at >= this.#deadlineAt) return;
    clearTimeout(this.#deadlineTimer);
    this.#deadlineAt = at;
    this.#deadlineTimer = setTimeout(
      () => this.#checkDeadlines(),
      Math.min(Math.max(at - performance.now(), 1), 2 ** 31 - 1),
    );
  }

  #checkDeadlines(): void {
    const now = performance.now();
    let next = Number.POSITIVE_INFINITY;
    for (const job of this.running) {
      if (job.queued || (job.timeoutMs === 0 && job.interrupted !== "cancelled")) continue;
      // A cancelled job has no deadline any more: its attempt ends as cancelled, however late.
      const deadline = job.interrupted === "cancelled" ? job.interruptedAt : job.startedAt + job.timeoutMs;
      if (deadline > now) next = Math.min(next, deadline);
      else if (job.interrupted === undefined) {
        job.interrupt("timeout");
        next = Math.min(next, now + hungAfterMs);
      } else if (job.definition?.isolate) continue; // it will be killed
      else if (now < deadline + hungAfterMs) next = Math.min(next, deadline + hungAfterMs);
      else if (!this.hung.has(job)) {
        this.hung.add(job);
        const why = job.interrupted === "cancelled" ? "it was cancelled" : "its timeout";
        this.#log.error(
          { job: job.id, task: job.task, attempt: job.attempt, running_ms: Math.round(now - job.startedAt) },
          `job.hung: the task ignores its signal after ${why} and keeps its slot; make it honour the signal, or restart this worker`,
        );
        this.#onHung(job);
      }
    }
    this.#deadlineAt = Number.POSITIVE_INFINITY;
    this.#watchBy(next);
  }
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === "object" && value !== null && typeof (value as { then?: unknown }).then === "function";
}
