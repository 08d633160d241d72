/** What a worker must get done while the database may be away: tried again and again. */
import type { Log } from "../core/log.ts";

/** Repeats `step` with growing pauses until it works; undefined when `givingUp` says so after a failure. */
export async function untilDone<Result>(
  what: string,
  step: () => Promise<Result>,
  givingUp: () => boolean,
  log: Log,
): Promise<Result | undefined> {
  for (let pauseMs = 100; ; pauseMs = Math.min(pauseMs * 2, 5_000)) {
    try {
      return await step();
    } catch (error) {
      const over = givingUp();
      log.warn(
        { err: error, retry_ms: over ? undefined : pauseMs },
        `${what} failed; ${over ? "giving up" : "trying again"}`,
      );
      if (over) return undefined;
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
    }
  }
}
