/** Waiting, but not for ever. */
import { MillraceError } from "../core/errors.ts";

/** Waits for work, but not for longer than that. Undefined when it is late; it goes on, and what becomes of it is nobody's. */
export async function within<Value>(ms: number, work: Promise<Value>): Promise<Value | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), ms);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Waits for work until this server is told to stop; the work goes on. Throws `STOPPING`. */
export async function unlessStopping<Value>(stopping: AbortSignal | undefined, work: Promise<Value>): Promise<Value> {
  if (stopping === undefined) return work;
  let refuse = (): void => undefined;
  const stopped = new Promise<never>((_, reject) => {
    const message = "This server is stopping; what was asked for goes on.";
    refuse = () => reject(new MillraceError("STOPPING", message));
    stopping.addEventListener("abort", refuse, { once: true });
    if (stopping.aborted) refuse();
  });
  try {
    return await Promise.race([work, stopped]);
  } finally {
    stopping.removeEventListener("abort", refuse);
  }
}
