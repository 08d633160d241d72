/**
 * What this worker knows about where work is: a lane is one (queue, rank), and its low-water mark is where the next scan starts.
 *
 * Dead index entries pile up at the head of a queue faster than vacuum takes them away (with a long transaction open anywhere, it
 * takes none). Starting behind them keeps a claim's cost flat. What arrives before the mark (a late commit, a retry) is found by
 * the sweep, which forgets all marks: at least every `sweepMs`, unless sweeping would take more than a tenth of the time.
 */
import { type LaneMark, type Outlook, fromTheHead } from "./claim-store.ts";

interface Queue {
  readonly id: number;
  /** Rank → where to start. Ascending order is made when claiming. */
  readonly marks: Map<number, LaneMark>;
  due: boolean;
}

/** One claim's view of a queue. */
export interface Lane {
  readonly queue: number;
  readonly marks: LaneMark[];
  /** Has limits, or concurrency keys. */
  readonly careful: boolean;
  /** Sweeps so far; a claim that began before the last one must not move marks. */
  readonly sweep: number;
}

export class Lanes {
  readonly #queues = new Map<number, Queue>();
  /** Queues with due work, the next to claim from first. */
  #ring: Queue[] = [];
  #sweeps = 0;
  readonly #careful = new Set<number>();
  /** performance.now() of the earliest job known to become due. */
  nextDueAt = Number.POSITIVE_INFINITY;
  /** performance.now() when the first suspect is due. */
  suspectDueAt = Number.POSITIVE_INFINITY;

  get anyDue(): boolean {
    return this.#ring.length > 0;
  }

  /** Starts over from what a look around found. */
  sweep(outlook: Outlook, now: number): void {
    this.#sweeps += 1;
    this.#queues.clear();
    this.#ring = [];
    this.nextDueAt = Number.POSITIVE_INFINITY;
    this.suspectDueAt = outlook.suspectWaitMs === null ? Number.POSITIVE_INFINITY : now + outlook.suspectWaitMs;
    this.#careful.clear();
    for (const [queue, rank, waitMs, careful] of outlook.lanes) {
      if (careful) this.#careful.add(queue);
      if (waitMs === 0) this.wake(queue, rank);
      else this.nextDueAt = Math.min(this.nextDueAt, now + waitMs);
    }
  }

  /** Somebody said there is work in this lane. A lane that is being worked already keeps its mark. */
  wake(id: number, rank: number): void {
    let queue = this.#queues.get(id);
    if (!queue) this.#queues.set(id, (queue = { id, marks: new Map(), due: false }));
    if (!queue.marks.has(rank) || !queue.due) queue.marks.set(rank, { rank, ...fromTheHead });
    if (queue.due) return;
    queue.due = true;
    this.#ring.push(queue);
  }

  /** The queue whose turn it is, or undefined. Queues take turns, so none waits for another to empty. */
  next(): Lane | undefined {
    const queue = this.#ring.shift();
    if (!queue) return undefined;
    this.#ring.push(queue);
    return {
      queue: queue.id,
      marks: [...queue.marks.values()].sort((a, b) => a.rank - b.rank),
      careful: this.#careful.has(queue.id),
      sweep: this.#sweeps,
    };
  }

  /** After a claim: where its scan ended, and whether the queue gave less than was asked. */
  claimed(lane: Lane, marks: readonly LaneMark[], exhausted: boolean): void {
    if (lane.sweep !== this.#sweeps) return;
    const queue = this.#queues.get(lane.queue);
    if (!queue) return;
    for (const mark of marks) queue.marks.set(mark.rank, mark);
    if (exhausted && queue.due) {
      queue.due = false;
      this.#ring = this.#ring.filter((other) => other !== queue);
    }
  }

  /** A queue turned out to have limits. */
  isCareful(id: number): void {
    this.#careful.add(id);
  }

  /** Forgets a queue, for example one that was just paused. */
  forget(id: number): void {
    this.#queues.delete(id);
    this.#ring = this.#ring.filter((queue) => queue.id !== id);
  }
}
