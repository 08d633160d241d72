/** For states that no event tells of: asks again and again until it holds, and says what was waited for when it never does. */
import { setTimeout as sleep } from "node:timers/promises";

export async function until(
  what: string,
  holds: () => boolean | Promise<boolean>,
  { within = 30_000, every = 25 }: { within?: number; every?: number } = {},
): Promise<number> {
  const began = performance.now();
  while (!(await holds())) {
    if (performance.now() - began > within) throw new Error(`Waited ${within} ms in vain until ${what}.`);
    await sleep(every);
  }
  return performance.now() - began;
}
