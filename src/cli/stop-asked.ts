/**
 * The wish to stop: SIGINT (Ctrl-C) or SIGTERM asks for a graceful end, a second one ends the process at once; its jobs run again
 * elsewhere when their lease is over.
 */
import { readFileSync } from "node:fs";
import { constants } from "node:os";
import type { Log } from "../core/log.ts";

/** Under npm, Ctrl-C arrives twice: from the terminal and from npm. What comes this soon after the first is the same wish. */
const sameWishMs = 500;
const parentCheckMs = 500;

/** Resolves at the first signal. From the call on, signals no longer end the process by themselves. */
export function stopAsked(log: Log): Promise<void> {
  return new Promise((resolve) => {
    const underNpm = process.env["npm_lifecycle_event"] !== undefined;
    let askedAt: number | undefined;
    const ask = (why: string): void => {
      askedAt = performance.now();
      log.info({}, `${why}: stopping; once more ends it at once`);
      resolve();
    };
    for (const signal of ["SIGINT", "SIGTERM"] as const) {
      process.on(signal, () => {
        if (askedAt === undefined) ask(signal);
        else if (!underNpm || performance.now() - askedAt > sameWishMs) process.exit(128 + constants.signals[signal]);
      });
    }
    if (underNpm) whenOrphaned(() => ask("npm is gone"));
  });
}

/** A killed npm takes nobody with it: this process would go on unseen, and hold the data folder and the port. */
function whenOrphaned(orphaned: () => void): void {
  const before = ancestors();
  const timer = setInterval(() => {
    if (ancestors() === before) return;
    clearInterval(timer);
    orphaned();
  }, parentCheckMs);
  timer.unref();
}

/** Our parent and, where it can be read, its parent: npm runs a script through a shell, which survives it. */
function ancestors(): string {
  const parent = process.ppid;
  try {
    // `pid (name) state ppid …`, and the name may hold anything.
    const [, grandparent] = /^.*\) \S (\d+)/s.exec(readFileSync(`/proc/${parent}/stat`, "utf8")) ?? [];
    return `${parent} ${grandparent}`;
  } catch {
    return String(parent); // no /proc here
  }
}
