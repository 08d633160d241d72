/**
 * One clock for every process of this machine: CLOCK_MONOTONIC, in milliseconds with fractions. Only differences mean
 * anything. (`performance.now` counts from the start of its process, and `performance.timeOrigin` is a wall clock.)
 */
export const now = () => Number(process.hrtime.bigint()) / 1e6;

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Rejects when `promise` takes longer than `ms`; `what` names it in the error. */
export async function within(ms, what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: no end after ${Math.round(ms / 1000)} s`)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
