/** Lets jobs into queues that limit what may be enqueued, and remembers what it did not let in. */
import { MillraceError } from "../core/errors.ts";
import type { Log } from "../core/log.ts";
import type { Database, Executor } from "../db/database.ts";
import { type DenialCode, countIn, maxPayload, openGate, recordDenial } from "./admission-store.ts";
import type { NewJob } from "./enqueue-store.ts";

/** Denials recorded per second and process at most. The next record says how many were left out. */
const recordsPerSecond = 20;

export class Admission {
  /** For queues without a limit of their own; null: none. */
  readonly perMinute: number | null;
  /** Hears of queues that have no rules any more. */
  onFree: (queue: number) => void = () => undefined;
  readonly #db: Database;
  readonly #log: Log;
  readonly #now: () => number;
  #second = 0;
  #recorded = 0;
  #unrecorded = 0;

  constructor(db: Database, log: Log, now: () => number, perMinute: number | null) {
    this.#db = db;
    this.#log = log;
    this.#now = now;
    this.perMinute = perMinute;
  }

  /**
   * Inserts those of the jobs, all of one queue, that its rules let in; returns what was wrong with the others. `together`: all or
   * none. Counting and inserting are one transaction.
   */
  async admit(
    tx: Executor,
    jobs: readonly NewJob[],
    together: boolean,
    insert: (jobs: readonly NewJob[]) => Promise<void>,
  ): Promise<Map<NewJob, Denial>> {
    const queue = jobs[0]?.queue ?? 0;
    const gate = await openGate(tx, queue, this.perMinute);
    const denied = new Map<NewJob, Denial>();
    const maxBytes = gate.max_payload_bytes;
    if (maxBytes !== null) {
      for (const job of jobs) {
        const bytes = Buffer.byteLength(job.input);
        if (bytes > maxBytes) denied.set(job, tooLarge(bytes, maxBytes));
      }
    }
    if (gate.max_payload_bytes === null && gate.max_per_minute === null && gate.priority === null) this.onFree(queue);
    const fitting = jobs.filter((job) => !denied.has(job));
    const room = gate.max_per_minute === null ? fitting.length : Math.max(gate.max_per_minute - gate.count, 0);
    const admitted = together && (denied.size > 0 || room < fitting.length) ? [] : fitting.slice(0, room);
    if (room < fitting.length) {
      const denial = tooMany(gate.max_per_minute ?? 0, gate.count, gate.next_minute_ms);
      for (const job of fitting.slice(admitted.length)) denied.set(job, denial);
    }
    if (admitted.length === 0) return denied;
    await insert(
      admitted.map((job) =>
        job.defaultPriority && gate.priority !== null ? { ...job, priority: gate.priority } : job,
      ),
    );
    if (gate.max_per_minute !== null) await countIn(tx, queue, admitted.length);
    return denied;
  }

  /** What the queue says about the size of this input, by itself. */
  async sizeDenial(tx: Executor, job: NewJob): Promise<Denial | undefined> {
    const maxBytes = await maxPayload(tx, job.queue);
    const bytes = Buffer.byteLength(job.input);
    return maxBytes === null || bytes <= maxBytes ? undefined : tooLarge(bytes, maxBytes);
  }

  /** Writes a denial down. The caller is told anyway, so a failure here is only logged. */
  async record(queue: string, denials: Iterable<Denial>, via: Executor = this.#db): Promise<void> {
    const byCode = new Map<Denial, number>();
    for (const denial of denials) byCode.set(denial, (byCode.get(denial) ?? 0) + 1);
    for (const [{ code, details }, jobs] of byCode) {
      const second = Math.floor(this.#now() / 1_000);
      if (second !== this.#second) this.#recorded = 0;
      this.#second = second;
      if (this.#recorded >= recordsPerSecond) {
        this.#unrecorded += jobs;
        continue;
      }
      this.#recorded += 1;
      const unrecorded = this.#unrecorded === 0 ? {} : { unrecorded_before: this.#unrecorded };
      this.#unrecorded = 0;
      await recordDenial(via, queue, code, { ...details, jobs, ...unrecorded }).catch((error: unknown) => {
        this.#log.warn({ err: error, queue, code, jobs }, "a denial could not be written down");
      });
    }
  }
}

export interface Denial {
  readonly code: DenialCode;
  readonly details: object;
  readonly error: MillraceError;
}

export function tooLarge(bytes: number, maxBytes: number): Denial {
  return {
    code: "PAYLOAD_TOO_LARGE",
    details: { payload_bytes: bytes, max_payload_bytes: maxBytes },
    error: new MillraceError(
      "PAYLOAD_TOO_LARGE",
      `The input is ${bytes} bytes of JSON; the queue's policy takes ${maxBytes} (maxPayloadBytes).`,
    ),
  };
}

export function tooMany(perMinute: number, count: number, retryAfterMs: number): Denial {
  return {
    code: "ENQUEUE_RATE_EXCEEDED",
    details: { max_per_minute: perMinute, count_this_minute: count },
    error: new MillraceError(
      "ENQUEUE_RATE_EXCEEDED",
      `The queue takes ${perMinute} jobs a minute and has ${count} of this one.`,
      { retryAfterMs },
    ),
  };
}
