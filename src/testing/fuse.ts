/** Crash injection: a process dies between two statements, as a killed one does. Its transaction is rolled back, its answers are lost. */
import { AsyncResource } from "node:async_hooks";
import type { PGlite } from "../db/embedded.ts";
import { outside } from "./job-time.ts";

/** Where a process died. */
export interface CrashPoint {
  /** Which statement, from 1. */
  readonly statement: number;
  /** `before` it reached the database, or `after` it took effect and before its answer arrived. */
  readonly moment: "before" | "after";
  readonly sql: string;
}

/** What everything throws in a process that died; to the engine it looks like a dead connection. */
export class CrashError extends Error {
  override readonly name: string = "CrashError";
  readonly code = "CONNECTION_LOST";
}

/** The life of one process, as far as the database can tell. */
export class Fuse {
  /** Statements so far. A commit is one, a begin is none. */
  statements = 0;
  /** Set once it is dead. */
  error: CrashError | undefined;
  point: CrashPoint | undefined;
  /** The statement it died before was not part of a transaction: whether it took effect makes a difference. */
  alone = false;
  #at: Pick<CrashPoint, "statement" | "moment"> | undefined;
  /** Never resolves; rejects when it dies. */
  readonly died: Promise<never>;
  #die!: (error: CrashError) => void;

  constructor() {
    this.died = new Promise((_, reject) => {
      this.#die = reject;
    });
    this.died.catch(() => undefined); // told to whoever runs a statement
  }

  /** Counts from here on, and dies there. */
  arm(at: Pick<CrashPoint, "statement" | "moment"> | undefined): void {
    this.statements = 0;
    this.#at = at;
  }

  /** Throws when dead. */
  check(): void {
    if (this.error) throw this.error;
  }

  /** Dies now. */
  blow(why: string, point?: CrashPoint): void {
    if (this.error) return;
    this.point = point;
    this.error = new CrashError(`The process died ${why}; nothing of it reaches the database any more.`);
    this.#die(this.error);
  }

  /** Runs one statement, unless the process dies before it; and may die after it. */
  async pass<Result>(sql: string, alone: boolean, run: () => Promise<Result>): Promise<Result> {
    this.check();
    this.statements += 1;
    const statement = this.statements;
    if (statement === this.#at?.statement) {
      this.alone = alone;
      if (this.#at.moment === "before") this.blow(`before ${brief(sql)}`, { statement, moment: "before", sql });
    }
    this.check();
    const result = await outside(run);
    if (statement === this.#at?.statement) this.blow(`after ${brief(sql)}`, { statement, moment: "after", sql });
    this.check();
    return result;
  }
}

export function brief(sql: string): string {
  const line = sql.replaceAll(/\s+/g, " ").trim();
  return line.length > 80 ? `\`${line.slice(0, 80)} …\`` : `\`${line}\``;
}

type Lent = Parameters<Parameters<PGlite["transaction"]>[0]>[0];

/** The database as a process sees it that lives until its fuse blows. */
export function wired(pglite: PGlite, fuse: Fuse): PGlite {
  const own: Partial<PGlite> = {
    ...statementsOf(pglite, fuse, true),
    async transaction<Result>(work: (tx: Lent) => Promise<Result>): Promise<Result> {
      fuse.check();
      let committing = false;
      const inside = AsyncResource.bind(work);
      const through = async (tx: Lent): Promise<Result> => {
        // A transaction of the dead ends at once, whatever its code still waits for.
        const done = await Promise.race([inside(over(tx, statementsOf(tx, fuse, false))), fuse.died]);
        await fuse
          .pass("commit", true, async () => (committing = true))
          .catch((error: unknown) => {
            if (!committing) throw error;
          });
        return done;
      };
      // PostgreSQL sets timers, too.
      const result = await outside(() => pglite.transaction(through));
      fuse.check();
      return result;
    },
  };
  return over(pglite, own);
}

function statementsOf(target: PGlite | Lent, fuse: Fuse, alone: boolean): Pick<Lent, "query" | "exec" | "sql"> {
  return {
    query: (text, values, options) => fuse.pass(text, alone, () => target.query(text, values, options)),
    exec: (text, options) => fuse.pass(text, alone, () => target.exec(text, options)),
    sql: (strings, ...values) => fuse.pass(strings.join("$"), alone, () => target.sql(strings, ...values)),
  };
}

/** `own` in place of what `target` has; everything else is as it is. */
function over<Target extends object>(target: Target, own: Partial<Target>): Target {
  return new Proxy(target, {
    get(_, key) {
      if (Object.hasOwn(own, key)) return own[key as keyof Target];
      const value: unknown = Reflect.get(target, key, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}
