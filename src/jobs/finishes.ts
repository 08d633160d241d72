/** Waits for jobs to end: one statement for all that are waited for, soon at first and less often later. */
import { MillraceError } from "../core/errors.ts";
import { isUuid } from "../core/uuid.ts";
import type { Database } from "../db/database.ts";
import { type Finish, findFinishes } from "./results-store.ts";

/** Milliseconds between looks: a fraction of how long the youngest has been waited for, within these. */
const pauseMinMs = 10;
const pauseMaxMs = 500;
/** Jobs asked about per statement. */
const askMax = 1_000;

interface Waiting {
  readonly id: string;
  readonly since: number;
  readonly until: number;
  readonly withinMs: number;
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: unknown) => void;
}

export class Finishes {
  readonly #db: Database;
  readonly #waiting = new Set<Waiting>();
  #looking = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(db: Database) {
    this.#db = db;
  }

  of(id: string, withinMs: number): Promise<unknown> {
    if (!isUuid(id)) throw new MillraceError("JOB_NOT_FOUND", `There is no job ${id}.`);
    return new Promise((resolve, reject) => {
      const since = performance.now();
      this.#waiting.add({ id, since, until: since + withinMs, withinMs, resolve, reject });
      clearTimeout(this.#timer);
      if (!this.#looking) void this.#look();
    });
  }

  close(): void {
    clearTimeout(this.#timer);
    for (const { reject } of this.#waiting) reject(new MillraceError("CLOSED", "This Millrace is closed."));
    this.#waiting.clear();
  }

  async #look(): Promise<void> {
    this.#looking = true;
    try {
      const asked = [...this.#waiting].slice(0, askMax);
      const finishes = await findFinishes(this.#db, [...new Set(asked.map(({ id }) => id))]);
      const found = new Map(finishes.map((finish) => [finish.id, finish]));
      const now = performance.now();
      for (const one of asked) {
        const finish = found.get(one.id);
        this.#waiting.delete(one);
        if (finish === undefined && now < one.until) {
          this.#waiting.add(one); // behind those that were not asked about
          continue;
        }
        if (finish === undefined) one.reject(timedOut(one));
        else if (finish.status === "completed") one.resolve(finish.result);
        else one.reject(failure(one.id, finish));
      }
    } catch (error) {
      // They may ask again; the jobs go on.
      for (const { reject } of this.#waiting) reject(error);
      this.#waiting.clear();
    }
    this.#looking = false;
    if (this.#waiting.size === 0) return;
    const now = performance.now();
    const youngest = Math.min(...[...this.#waiting].map(({ since }) => now - since));
    const soonest = Math.min(...[...this.#waiting].map(({ until }) => until - now));
    const pauseMs = Math.min(Math.max(youngest / 4, pauseMinMs), pauseMaxMs, Math.max(soonest, 1));
    this.#timer = setTimeout(() => void this.#look(), pauseMs);
  }
}

function timedOut({ id, withinMs }: Waiting): MillraceError {
  return new MillraceError("WAIT_TIMEOUT", `Job ${id} has not ended within ${withinMs} ms; it goes on.`);
}

function failure(id: string, { status, code, message }: Finish): MillraceError {
  if (status === "gone") return new MillraceError("JOB_NOT_FOUND", `There is no job ${id}.`);
  if (status === "cancelled") return new MillraceError("JOB_CANCELLED", `Job ${id} was cancelled: ${message ?? ""}`);
  return new MillraceError("JOB_FAILED", `Job ${id} was given up (${code}): ${message ?? ""}`);
}
