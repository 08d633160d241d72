/** What the engine should do, in as few words as possible: plain objects, no database, no concurrency. */
import type { End } from "../support/store-worker.ts";

export interface ModelJob {
  readonly id: string;
  queue: string;
  priority: number;
  readonly max: number;
  place: "pending" | "lease" | "settled" | "dead" | "cancelled";
  attempt: number;
  /** Pending: may run now. */
  due: boolean;
  suspect: boolean;
  /** In a lease and completed inside a transaction that committed; not reported yet. */
  recorded: boolean;
  /** Somebody wants it to end, and its worker has yet to say what became of that. */
  asked: boolean;
  /** An operator gave it attempts beyond its maximum. */
  retried: boolean;
  /** What history tells, oldest first: `failed`, `lost alone`, `late succeeded`, … */
  readonly told: string[];
}

export interface ModelLease {
  readonly id: string;
  readonly worker: number;
  readonly queue: string;
  readonly all: readonly string[];
  readonly open: Set<string>;
}

export class Model {
  readonly jobs = new Map<string, ModelJob>();
  readonly leases = new Map<string, ModelLease>();
  readonly dead = new Set<number>();
  readonly paused = new Set<string>();
  readonly keys = new Map<string, string>();
  /** `lease:job` of every result that was taken note of. */
  readonly #reported = new Set<string>();

  add(job: Pick<ModelJob, "id" | "queue" | "priority" | "max" | "due">): void {
    this.jobs.set(job.id, {
      ...job,
      place: "pending",
      attempt: 1,
      suspect: false,
      recorded: false,
      asked: false,
      retried: false,
      told: [],
    });
  }

  /** What a claim may take, best first. */
  claimable(queue: string): ModelJob[] {
    const due = [...this.jobs.values()].filter(
      (job) => job.place === "pending" && job.due && !job.suspect && job.queue === queue,
    );
    return this.paused.has(queue) ? [] : due.toSorted((a, b) => b.priority - a.priority);
  }

  suspects(): ModelJob[] {
    return [...this.jobs.values()].filter(
      (job) => job.place === "pending" && job.due && job.suspect && !this.paused.has(job.queue),
    );
  }

  claim(id: string, worker: number, queue: string, ids: readonly string[]): void {
    if (ids.length === 0) return;
    this.leases.set(id, { id, worker, queue, all: ids, open: new Set(ids) });
    for (const job of ids) this.#move(job, "lease");
  }

  /** A worker's report. Nobody else's lease is changed by it; results for a lease that is gone are late. */
  settle(lease: ModelLease, ends: Readonly<Record<string, End>>): void {
    for (const [id, end] of Object.entries(ends)) {
      const job = this.jobs.get(id);
      const known = this.#reported.has(`${lease.id}:${id}`);
      if (!this.leases.has(lease.id)) {
        if (job && !known) job.told.push(`late ${outcomeOf(end)}`);
        this.#reported.add(`${lease.id}:${id}`);
      } else if (job && lease.open.has(id)) {
        this.#reported.add(`${lease.id}:${id}`);
        lease.open.delete(id);
        this.#end(job, end);
      }
    }
    if (lease.open.size === 0) this.leases.delete(lease.id);
  }

  giveBack(lease: ModelLease, ids: readonly string[]): void {
    if (!this.leases.has(lease.id)) return;
    for (const id of ids) {
      const job = this.jobs.get(id);
      if (!job || job.recorded || !lease.open.delete(id)) continue;
      Object.assign(job, { place: "pending", due: true, suspect: false });
    }
    if (lease.open.size === 0) this.leases.delete(lease.id);
  }

  complete(lease: ModelLease, id: string): boolean {
    const job = this.jobs.get(id);
    if (!job || !this.leases.has(lease.id) || !lease.open.has(id)) return false;
    job.recorded = true;
    this.#reported.add(`${lease.id}:${id}`);
    return true;
  }

  reap(): void {
    for (const worker of this.dead) {
      const leases = [...this.leases.values()].filter((lease) => lease.worker === worker);
      const open = leases.flatMap((lease) => [...lease.open].map((id) => this.jobs.get(id) as ModelJob));
      const lost = open.filter((job) => !job.recorded);
      for (const job of open) if (job.recorded) Object.assign(job, { place: "settled", recorded: false });
      for (const job of lost) this.#lose(job, lost.length === 1);
      for (const job of lost) if (job.asked && job.place === "pending") this.#cancelled(job);
      for (const lease of leases) this.leases.delete(lease.id);
    }
  }

  retry(id: string): void {
    const job = this.jobs.get(id) as ModelJob;
    Object.assign(job, {
      place: "pending",
      due: true,
      suspect: false,
      attempt: job.attempt + 1,
      retried: true,
      asked: false,
    });
  }

  cancel(id: string): void {
    const job = this.jobs.get(id) as ModelJob;
    if (job.place === "lease") job.asked = true;
    else this.#cancelled(job);
  }

  /** Requests that no worker will answer. */
  finishCancels(): void {
    for (const job of this.jobs.values()) {
      if (!job.asked || job.place === "lease") continue;
      if (job.place === "pending") this.#cancelled(job);
      job.asked = false;
    }
  }

  #cancelled(job: ModelJob): void {
    job.told.push("cancelled");
    Object.assign(job, { place: "cancelled", asked: false });
  }

  forget(id: string): void {
    this.jobs.delete(id);
    for (const [key, holder] of this.keys) if (holder === id) this.keys.delete(key);
  }

  #end(job: ModelJob, end: End): void {
    if (job.recorded || end.next === "done") return void Object.assign(job, { place: "settled", recorded: false });
    if (end.next === "cancelled") return this.#cancelled(job);
    job.told.push(outcomeOf(end));
    if (end.next === "dead" || (end.next === "retry" && job.attempt >= job.max)) {
      job.asked = false;
      return this.#move(job.id, "dead");
    }
    if (end.next === "retry") job.attempt += 1;
    Object.assign(job, { place: "pending", due: (end.delayMs ?? 0) === 0, suspect: false });
  }

  #lose(job: ModelJob, alone: boolean): void {
    const strikes = job.told.filter((what) => what === "lost alone").length;
    job.told.push(alone ? "lost alone" : "lost");
    if (alone && (strikes >= 2 || job.attempt >= job.max)) return this.#move(job.id, "dead");
    Object.assign(job, { place: "pending", due: true, suspect: true, attempt: job.attempt + (alone ? 1 : 0) });
  }

  #move(id: string, place: ModelJob["place"]): void {
    (this.jobs.get(id) as ModelJob).place = place;
  }
}

function outcomeOf({ next }: End): string {
  return { done: "succeeded", retry: "failed", dead: "failed", again: "snoozed", cancelled: "cancelled" }[next];
}
