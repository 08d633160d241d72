/** What every worker does on the side: beat, take back what dead workers held, vacuum hot tables, fold counts. */
import type { Log } from "../core/log.ts";
import { type Database, isTransient } from "../db/database.ts";
import { foldTallies } from "./stats-store.ts";
import { anyUncounted } from "./totals-store.ts";
import { vacuumHotTables, vacuumedWithin } from "./vacuum-store.ts";
import { anyDead, reap } from "./workers-store.ts";

export interface Upkeep {
  /** Ends all loops; resolves when a round that is under way is over. */
  stop(): Promise<void>;
}

/** Something that lives and works beside a worker, and hears what it hears. */
export interface Companion {
  start(): void;
  /** A NOTIFY; true when it was meant for this one. */
  hear(payload: string): boolean;
  /** Messages may have been missed. */
  lookAgain(): void;
  /** Resolves when nothing of it is under way. */
  stop(): Promise<void>;
}

export interface Chore {
  readonly name: string;
  readonly everyMs: number;
  run(): Promise<void>;
}

/** Jitter keeps many workers from doing the same thing in the same moment: pauses are so much of what they should be, or more. */
const pauseLeast = 0.8;

/** Runs each chore again and again until stopped. A round that fails is logged and the next one comes as usual. */
export function keepUp(chores: readonly Chore[], log: Log, random: () => number): Upkeep {
  let stopped = false;
  const timers = new Map<Chore, NodeJS.Timeout>();
  const rounds = new Set<Promise<void>>();

  const schedule = (chore: Chore): void => {
    const share = pauseLeast + 2 * (1 - pauseLeast) * random();
    timers.set(
      chore,
      setTimeout(() => begin(chore), chore.everyMs * share),
    );
  };
  const begin = (chore: Chore): void => {
    const round = chore
      .run()
      .catch((error: unknown) => {
        const level = isTransient(error) ? "debug" : "warn";
        log[level]({ err: error, chore: chore.name }, `${chore.name} failed; trying again`);
      })
      .finally(() => {
        rounds.delete(round);
        if (!stopped) schedule(chore);
      });
    rounds.add(round);
  };
  chores.forEach(schedule);

  return {
    async stop() {
      stopped = true;
      timers.forEach((timer) => clearTimeout(timer));
      await Promise.all(rounds);
    },
  };
}

/**
 * Takes back the jobs of workers that stopped beating. Any number of workers may do so at once, each for all but itself: who looks,
 * lives. Silence counts only while it could have been broken: after an outage all were silent for as long as it took, so one that
 * could not look for a while gives the others half a lease to say that they live.
 */
export function reaper(
  db: Database,
  channel: string,
  self: () => number,
  { everyMs, leaseMs }: { everyMs: number; leaseMs: number },
  log: Log,
): Chore {
  let lookedAt = performance.now();
  let patientUntil = Number.NEGATIVE_INFINITY;
  return {
    name: "reap_expired_locks",
    everyMs,
    async run() {
      const before = lookedAt;
      lookedAt = Number.NEGATIVE_INFINITY; // in case this fails
      const dead = await anyDead(db, self());
      lookedAt = performance.now();
      if (lookedAt - before > Math.max(2 * everyMs, leaseMs)) patientUntil = lookedAt + leaseMs / 2;
      if (!dead || lookedAt < patientUntil) return;
      const { workers, requeued, buried } = await reap(db, channel, self());
      if (workers.length + requeued + buried === 0) return;
      log.warn(
        { workers, requeued, buried },
        `reap_expired_locks: ${workers.length} workers lost, ${requeued} jobs queued again, ${buried} given up`,
      );
    },
  };
}

/** Claims between two vacuums below which autovacuum, once a minute, is enough. */
const busyClaims = 5_000;

/**
 * Vacuums the hot tables every few seconds while they are busy: autovacuum comes once a minute, and by then a claim walks over
 * hundreds of thousands of dead index entries. One of all workers does it: after each vacuum every session plans anew what it asks of
 * these tables, which takes it up to 4 ms per statement.
 */
export function vacuum(db: Database, claimedSoFar: () => number, everyMs: number): Chore {
  let before = 0;
  return {
    name: "vacuum",
    everyMs,
    async run() {
      const now = claimedSoFar();
      if (now - before < busyClaims) return;
      before = now;
      if (await vacuumedWithin(db, everyMs * pauseLeast)) return;
      await vacuumHotTables(db);
    },
  };
}

/** One round counts no longer than this; what is left is for the next. */
const foldBudgetMs = 2_000;

/** Folds counts while there is something to count: the last round comes after the work has ended. */
export function tallies(db: Database, everyMs: number): Chore {
  return {
    name: "tallies",
    everyMs,
    async run() {
      if (!(await anyUncounted(db))) return;
      const until = performance.now() + foldBudgetMs;
      while ((await foldTallies(db)) && performance.now() < until);
    },
  };
}
