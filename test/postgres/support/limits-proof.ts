/** That limits are never exceeded: what runs is counted again and again, and what has run is counted in the end. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Observer } from "./ledger-proof.ts";

interface Most {
  readonly concurrency: number;
  readonly keyConcurrency: number;
}

/** Looks on while others work. */
export class LimitsWatch {
  /** What was seen beyond the limits. */
  readonly exceeded: unknown[] = [];
  /** Jobs seen running at once. */
  most = 0;
  #over = false;
  readonly #watching: Promise<void>;

  /** `observer` should have nothing else to do: it is asked every few milliseconds. */
  constructor(observer: Observer, queue: string, limits: Most) {
    this.#watching = this.#watch(observer, queue, limits);
    this.#watching.catch(() => undefined); // thrown by `stop`
  }

  async #watch(observer: Observer, queue: string, { concurrency, keyConcurrency }: Most): Promise<void> {
    while (!this.#over) {
      const rows = await observer.rows<{ key: string; n: number }>(
        `select l.key, count(*)::int as n from millrace.leases l join millrace.queues q on q.id = l.queue where q.name = $1 group by 1`,
        [queue],
      );
      const all = rows.reduce((sum, { n }) => sum + n, 0);
      this.most = Math.max(this.most, all);
      if (all > concurrency || rows.some(({ key, n }) => key !== "" && n > keyConcurrency)) this.exceeded.push(rows);
      await sleep(5);
    }
  }

  async stop(): Promise<void> {
    this.#over = true;
    await this.#watching;
  }
}

/** The most jobs of a queue that were claimed within any `windowMs`: of those that went well or were lost, whose claim has its time. */
export function mostStarts(observer: Observer, queue: string, windowMs: number): Promise<number> {
  return observer.number(
    `with starts as (
       select s.queue, s.claimed_at as at from millrace.settled s cross join unnest(s.job_ids)
       union all select a.queue, a.started_at from millrace.attempts a where a.outcome = 'lost'
     ),
     own as (select at from starts where queue = (select id from millrace.queues where name = $1))
     select max((select count(*) from own o where o.at >= s.at and o.at < s.at + $2::float8 * interval '1 millisecond')) from own s`,
    [queue, windowMs],
  );
}
