/** What tasks say while they run, progress and lines of their logs: gathered for all jobs of a worker, and written together. */
import type { Log } from "../core/log.ts";
import { progressJson } from "../core/progress.ts";
import { type Database, isTransient } from "../db/database.ts";
import { type KeptLevel, type LineText, lineText } from "./log-line.ts";
import { type NewNotes, writeNotes } from "./notes-store.ts";
import type { RunningJob } from "./running.ts";

/** Notes are written so often at most, but for those of jobs that are about to be settled. */
const everyMs = 250;
const retryPauseMaxMs = 5_000;
/** Lines held at once, of all jobs: with the database away, what comes beyond is counted and dropped. */
const heldMax = 5_000;
/** Of one statement. */
const jobsMax = 500;
const linesMax = 1_000;

interface Line extends LineText {
  place: number;
  /** By the keeper's clock. */
  saidAt: number;
  missed: number | undefined;
}

interface Mark {
  readonly json: string;
  readonly saidAt: number;
}

/** What a running job says. */
export interface Notes {
  /** Throws `PROGRESS_INVALID`. */
  mark(value: unknown): void;
  say(level: KeptLevel, fields: object, message: string): void;
}

/** What of one job is on its way. */
interface Sheet {
  readonly notes: JobNotes;
  readonly mark: Mark | undefined;
  readonly lines: readonly Line[];
}

/** The notes of one attempt that are not written yet. */
class JobNotes implements Notes {
  readonly job: RunningJob;
  readonly #keeper: NoteKeeper;
  #mark: Mark | undefined;
  #lines: Line[] = [];
  /** Lines said so far; and those of them that were held. */
  #said = 0;
  #held = 0;

  constructor(job: RunningJob, keeper: NoteKeeper) {
    this.job = job;
    this.#keeper = keeper;
  }

  mark(value: unknown): void {
    this.#mark = { json: progressJson(value), saidAt: this.#keeper.now() };
    this.#keeper.later(this);
  }

  say(level: KeptLevel, fields: object, message: string): void {
    const saidAt = this.#keeper.now();
    this.#said += 1;
    const place = this.#said;
    const wanted = this.#held < this.most;
    if (wanted && this.#keeper.takesLine()) {
      this.#held += 1;
      this.#lines.push({ ...lineText(level, fields, message), place, saidAt, missed: undefined });
    } else this.#miss(place, saidAt);
    this.#keeper.later(this);
  }

  #miss(place: number, saidAt: number): void {
    const last = this.#lines.at(-1);
    if (last?.missed === undefined)
      this.#lines.push({ level: "warn", message: "", fields: undefined, place, saidAt, missed: 1 });
    else Object.assign(last, { place, saidAt, missed: last.missed + 1 });
  }

  /** Lines that the job may have. */
  get most(): number {
    return this.job.definition?.keepLogs ?? 0;
  }

  take(): Sheet {
    const sheet = { notes: this, mark: this.#mark, lines: this.#lines };
    this.#mark = undefined;
    this.#lines = [];
    return sheet;
  }

  putBack({ mark, lines }: Sheet): void {
    this.#mark ??= mark;
    this.#lines = [...lines, ...this.#lines];
  }
}

export class NoteKeeper {
  readonly #db: Database;
  readonly #worker: () => number;
  readonly #log: Log;
  readonly #byItself: boolean;
  readonly now: () => number;
  readonly #pending = new Set<JobNotes>();
  #timer: NodeJS.Timeout | undefined;
  #pauseMs = everyMs;
  /** One statement at a time: lines of a job are numbered as they come. */
  #writing: Promise<void> = Promise.resolve();
  #held = 0;
  #crowdedOut = 0;
  #closed = false;

  /** `clock`: in ms, for who has a time of its own; notes are then written by `flush` only. */
  constructor(db: Database, worker: () => number, log: Log, clock?: () => number) {
    this.#byItself = clock === undefined;
    this.now = clock ?? (() => performance.now());
    this.#db = db;
    this.#worker = worker;
    this.#log = log;
  }

  notesOf(job: RunningJob): Notes {
    job.lease.noted = true;
    return new JobNotes(job, this);
  }

  /** Whether there is room for one more. */
  takesLine(): boolean {
    if (this.#held < heldMax) {
      this.#held += 1;
      return true;
    }
    this.#crowdedOut += 1;
    return false;
  }

  later(notes: JobNotes): void {
    this.#pending.add(notes);
    if (this.#closed || !this.#byItself) return;
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      void this.flush();
    }, this.#pauseMs);
  }

  /** Writes what there is, or what there is of these leases. Never throws: jobs do not fail for their notes. */
  flush(leases?: ReadonlySet<string>): Promise<void> {
    this.#writing = this.#writing.then(() => this.#write(leases));
    return this.#writing;
  }

  /** Writes what is left, once. What is said afterwards is lost. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    await this.flush();
    const lost = [...this.#pending].reduce((sum, notes) => sum + count([notes.take()]), 0);
    this.#pending.clear();
    if (lost > 0) this.#log.warn({ notes: lost }, "log lines and progress of jobs were not kept: the worker stopped");
  }

  async #write(leases: ReadonlySet<string> | undefined): Promise<void> {
    const chosen = [...this.#pending].filter(({ job }) => leases === undefined || leases.has(job.lease.id));
    while (chosen.length > 0) {
      const sheets: Sheet[] = [];
      for (let lines = 0; chosen.length > 0 && sheets.length < jobsMax && lines < linesMax;) {
        const notes = chosen.shift() as JobNotes;
        this.#pending.delete(notes);
        const sheet = notes.take();
        sheets.push(sheet);
        lines += sheet.lines.length;
      }
      if (!(await this.#send(sheets))) break;
    }
    if (this.#crowdedOut > 0) {
      this.#log.warn(
        { lines: this.#crowdedOut },
        `log lines of jobs were not kept: more than ${heldMax} waited to be written`,
      );
      this.#crowdedOut = 0;
    }
  }

  /** False when it has to be tried again. */
  async #send(sheets: readonly Sheet[]): Promise<boolean> {
    const now = this.now();
    try {
      const ours = await writeNotes(
        this.#db,
        this.#worker(),
        sheets.map((sheet) => asNew(sheet, now)),
      );
      this.#pauseMs = everyMs;
      this.#written(sheets);
      const lost = sheets.filter(({ notes }) => !ours.has(notes.job.id));
      if (lost.length > 0)
        this.#log.warn(
          { notes: count(lost), jobs: lost.length },
          "log lines and progress were not kept: the jobs are no longer this worker's",
        );
      return true;
    } catch (error) {
      if (isTransient(error)) {
        this.#pauseMs = Math.min(this.#pauseMs * 2, retryPauseMaxMs);
        for (const sheet of sheets) {
          sheet.notes.putBack(sheet);
          this.later(sheet.notes);
        }
        this.#log.debug({ err: error, retry_ms: this.#pauseMs }, "log lines and progress of jobs are not written yet");
        return false;
      }
      this.#written(sheets);
      this.#log.warn({ err: error, notes: count(sheets) }, "log lines and progress of jobs were not kept");
      return true;
    }
  }

  #written(sheets: readonly Sheet[]): void {
    for (const { lines } of sheets) this.#held -= lines.filter(({ missed }) => missed === undefined).length;
  }
}

function count(sheets: readonly Sheet[]): number {
  return sheets.reduce(
    (sum, { mark, lines }) => sum + (mark ? 1 : 0) + lines.reduce((all, { missed = 1 }) => all + missed, 0),
    0,
  );
}

function asNew({ notes, mark, lines }: Sheet, now: number): NewNotes {
  const { job, most } = notes;
  return {
    lease: job.lease.id,
    jobId: job.id,
    attempt: job.attempt,
    most,
    progress: mark?.json,
    progressAgoMs: mark && now - mark.saidAt,
    lines: lines.map(({ saidAt, ...line }) => ({ ...line, agoMs: now - saidAt })),
  };
}

/** The worker's log with the job's facts; what is more than debugging is also handed to `say`. */
export function taskLog(
  log: Log,
  { id: job, task, attempt }: Pick<RunningJob, "id" | "task" | "attempt">,
  say: (level: KeptLevel, fields: object, message: string) => void,
): Log {
  const about = { job, task, attempt };
  const both =
    (level: KeptLevel) =>
    (fields: object, message: string): void => {
      log[level]({ ...about, ...fields }, message);
      say(level, fields, message);
    };
  return {
    debug: (fields, message) => log.debug({ ...about, ...fields }, message),
    info: both("info"),
    warn: both("warn"),
    error: both("error"),
  };
}
