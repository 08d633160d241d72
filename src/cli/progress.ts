/**
 * Tells what is going on: a line a second while work is going on, and, the first time nothing is left to do, what came of it. In a
 * log for programs, an entry every ten seconds.
 */
import type { Millrace } from "../app/millrace.ts";
import type { Log } from "../core/log.ts";
import { type Counts, bar, countAll, finished, line, summary } from "./counts.ts";
import type { Terminal } from "./terminal.ts";

const lookEveryMs = 1_000;
/** A line that changes in place may do so more often than lines may scroll by. */
const lookEveryMsInPlace = 250;
const logEveryMs = 10_000;
/** Looking must stay cheap: where counting a long queue takes 100 ms, we count every 5 s. */
const pausePerLook = 50;
/** What waits and does not move for this long waits for somebody else. */
const patienceMs = 3_000;

export interface Audience {
  /** Undefined: nobody watches, the log is all there is. */
  readonly terminal: Terminal | undefined;
  readonly log: Log;
  /** Where the API listens, to point at. */
  readonly url: string | undefined;
}

/** Begin it before the first job runs: what is finished then counts as done before. */
export class Progress {
  readonly #mill: Millrace;
  readonly #audience: Audience;
  readonly #startedAt = performance.now();
  readonly #first: Counts;
  #last: Counts;
  #lastAt = this.#startedAt;
  /** When something was last seen to move. */
  #movedAt = this.#startedAt;
  #loggedAt = this.#startedAt;
  #summarised = false;
  #stopped = false;
  #timer: NodeJS.Timeout;

  static async begin(mill: Millrace, audience: Audience): Promise<Progress> {
    return new Progress(mill, audience, countAll(await mill.stats()));
  }

  private constructor(mill: Millrace, audience: Audience, first: Counts) {
    this.#mill = mill;
    this.#audience = audience;
    this.#first = first;
    this.#last = first;
    this.#timer = this.#lookAfter(this.#lookEveryMs);
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#audience.terminal?.clear();
  }

  get #lookEveryMs(): number {
    return this.#audience.terminal?.inPlace ? lookEveryMsInPlace : lookEveryMs;
  }

  #lookAfter(pauseMs: number): NodeJS.Timeout {
    return setTimeout(() => {
      const askedAt = performance.now();
      this.#look()
        // The worker says it when the database is away; the next look comes anyway.
        .catch((error: unknown) => this.#audience.log.debug({ err: error }, "progress not known"))
        .finally(() => {
          const tookMs = performance.now() - askedAt;
          if (!this.#stopped) this.#timer = this.#lookAfter(Math.max(this.#lookEveryMs, tookMs * pausePerLook));
        });
    }, pauseMs);
  }

  async #look(): Promise<void> {
    const queues = await this.#mill.stats();
    if (this.#stopped) return;
    const now = performance.now();
    const counts = countAll(queues);
    const moved = finished(counts) - finished(this.#last);
    const perSecond = Math.max(0, Math.round((moved / (now - this.#lastAt)) * 1_000));
    const working = moved !== 0 || counts.active > 0;
    this.#last = counts;
    this.#lastAt = now;
    if (working) {
      this.#movedAt = now;
      return this.#tell(counts, perSecond, now);
    }
    this.#audience.terminal?.clear();
    if (this.#summarised || (counts.waiting > 0 && now - this.#movedAt < patienceMs)) return;
    this.#summarised = true;
    const outcome = { first: this.#first, counts, queues, tookMs: now - this.#startedAt };
    const { terminal, log, url } = this.#audience;
    if (terminal) terminal.line(await summary(this.#mill, outcome, url));
    else log.info({ ...counts, took_ms: Math.round(outcome.tookMs) }, "quiet");
  }

  #tell(counts: Counts, perSecond: number, now: number): void {
    const { terminal, log } = this.#audience;
    if (terminal) {
      terminal.status(terminal.inPlace ? bar(this.#first, counts, perSecond) : line(counts, perSecond));
    } else if (now - this.#loggedAt >= logEveryMs) {
      this.#loggedAt = now;
      log.info({ ...counts, per_second: perSecond }, "progress");
    }
  }
}
