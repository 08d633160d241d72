/** Why a job that is due does not run: everything that holds it, the first to be cleared away first. Pure. */
import { describeMs } from "../core/duration.ts";
import type { Reason } from "./explain.ts";
import { releasedAt } from "./explain-composed.ts";
import { type Limits, type Line, type Observation, type Serving, lineMax } from "./explain-store.ts";
import { isOwnTask } from "./task.ts";
import { byWhom, instant, many, ordinal, when } from "./sentences.ts";

/** At least one. */
export function whyItWaits(seen: Observation): Reason[] {
  const { standing, limits } = seen;
  const reasons = [
    drained(seen),
    paused(seen),
    seen.serving && withoutWorker(seen, seen.serving),
    standing.losses > 0 ? suspect(standing.losses) : undefined,
    standing.careful ? throttled(seen) : undefined,
    ...(limits ? [queueFull(seen, limits), keyFull(seen, limits), ...used(seen, limits)] : []),
  ].filter((reason) => reason !== undefined);
  const { line } = seen;
  if (line === undefined || standing.losses > 0) return reasons;
  // The next in line is held by nobody before it: once something else does not hold it any more, it starts.
  return reasons.length > 0 && line.ahead === 0 && !line.more ? reasons : [...reasons, inLine(seen, line)];
}

/** A worker that was resumed alone takes jobs all the same. */
export function drained({ standing, serving }: Observation): Reason | undefined {
  const { now, drainedAt, drainedBy } = standing;
  if (drainedAt === null || serving === undefined || serving.serving > serving.leaving) return undefined;
  return {
    because: "SYSTEM_DRAINED",
    summary: `The system is drained since ${when(drainedAt, now)}${byWhom(drainedBy, null)}: no worker takes a job.`,
    whatNext: "`millrace drain resume`, or POST /api/drain/resume, lets every worker take jobs again.",
    facts: { drainedAt, drainedBy },
  };
}

export function paused({ job, standing }: Observation): Reason | undefined {
  const { now, pausedAt, pausedBy, pausedReason } = standing;
  if (pausedAt === null) return undefined;
  return {
    because: "QUEUE_PAUSED",
    summary: `Queue "${job.queue}" was paused at ${when(pausedAt, now)}${byWhom(pausedBy, pausedReason)}: nothing of it starts.`,
    whatNext: `Resume queue "${job.queue}".`,
    facts: { pausedAt, pausedBy, pausedReason },
  };
}

export function withoutWorker({ job, standing }: Observation, serving: Serving): Reason | undefined {
  const { running, onQueue, withTask, leaving, lastName, lastSeenAt } = serving;
  const wanted = `serves task "${job.task}" in queue "${job.queue}"`;
  const facts = {
    workersRunning: running,
    workersServing: serving.serving,
    workersLeaving: leaving,
    lastName,
    lastSeenAt,
  };
  if (serving.serving > 0 && leaving === serving.serving) {
    if (standing.drainedAt !== null) return undefined; // said already
    return {
      because: "WORKERS_DRAINING",
      summary: `${leaving === 1 ? "The only worker" : `Each of the ${leaving} workers`} that ${wanted} is draining and takes no more jobs.`,
      whatNext: "Start another worker, or let one of them take jobs again.",
      facts,
    };
  }
  if (serving.serving > 0) return undefined;
  const last =
    lastSeenAt === null
      ? "none was ever seen"
      : `the last one, ${lastName}, was seen at ${when(lastSeenAt, standing.now)}`;
  const others =
    running === 0
      ? ""
      : ` ${many(running, "worker")} ${running === 1 ? "runs" : "run"}: ${onQueue} on the queue, ${withTask} with the task, none with both.`;
  return {
    because: "NO_WORKER",
    summary: `No live worker ${wanted}; ${last}.${others}`,
    whatNext: workerNeeded(job, serving),
    facts,
  };
}

function workerNeeded({ task, queue }: Observation["job"], { running, withTask }: Serving): string {
  if (isOwnTask(task))
    return `Start a worker that serves queue "${queue}": all do but those with MILLRACE_MAINTENANCE=off.`;
  if (running === 0) return `Start a worker that works on queue "${queue}" and whose app defines task "${task}".`;
  if (withTask === 0) return `Deploy a worker whose app defines task "${task}".`;
  return `Let a worker that has task "${task}" work on queue "${queue}" too: MILLRACE_QUEUE, or work({ queues }).`;
}

function suspect(losses: number): Reason {
  return {
    because: "SUSPECT",
    summary: `It went down with a worker${losses > 1 ? ` ${losses} times` : ""} and waits to be run alone.`,
    whatNext:
      "Nothing: the next worker that has finished what it runs takes suspects one at a time. If it kills its worker alone three times, it is given up as POISON.",
    facts: { losses },
  };
}

function throttled({ job, standing: { now, throttledUntil }, limits }: Observation): Reason | undefined {
  if (throttledUntil === null) return undefined;
  const decision = limits?.decision ?? null;
  return {
    because: "THROTTLED",
    summary: `Storm control holds queue "${job.queue}" until ${when(throttledUntil, now)}${decision === null ? "" : `: ${decision}`}.`,
    whatNext:
      "Nothing: the queue goes on by itself then, unless its limits are exceeded again. If this repeats, look at its policy.",
    facts: { throttledUntil, reasonCode: decision },
  };
}

function queueFull({ job }: Observation, limits: Limits): Reason | undefined {
  const { concurrency, maxInFlight, running, holders } = limits;
  const most = Math.min(concurrency ?? Number.POSITIVE_INFINITY, maxInFlight ?? Number.POSITIVE_INFINITY);
  if (running < most) return undefined;
  return {
    because: "QUEUE_FULL",
    summary:
      most === 0
        ? `Queue "${job.queue}" may run no jobs: its concurrency is 0.`
        : `Queue "${job.queue}" is full: ${running} of ${most} ${most === 1 ? "job" : "jobs"} running${longest(holders)}.`,
    whatNext:
      most === 0
        ? "Raise the queue's concurrency."
        : "It starts when one of them ends. Raise the queue's limit if that is too slow.",
    facts: { running, limit: most, holders },
  };
}

function keyFull({ standing: { key } }: Observation, limits: Limits): Reason | undefined {
  const { keyConcurrency: most, keyRunning: running, keyHolders: holders } = limits;
  if (key === "" || most === null || running < most) return undefined;
  const names = holders.map(({ job_id: id }) => id).join(", ");
  const others = running > holders.length ? ` and ${running - holders.length} more` : "";
  return {
    because: "KEY_FULL",
    summary: `Concurrency key "${key}" has ${running} of ${many(most, "job")} running: ${names}${others}.`,
    whatNext: "It starts when one of them ends.",
    facts: { key, running, limit: most, holders },
  };
}

/** Rate limits. */
function used({ job, standing: { key, now } }: Observation, limits: Limits): (Reason | undefined)[] {
  const rate = (
    because: "RATE_LIMITED" | "KEY_RATE_LIMITED" | "ATTEMPTS_LIMITED",
    of: string,
    [max, perMs, n, freesAt]: readonly [max: number | null, perMs: number | null, used: number, freesAt: Date | null],
  ): Reason | undefined => {
    if (max === null || perMs === null || n < max) return undefined;
    const frees = freesAt === null ? "" : ` It frees at ${when(freesAt, now)}.`;
    return {
      because,
      summary: `The rate limit of ${of} is used up: ${n} of ${many(max, "start")} per ${describeMs(perMs)}.${frees}`,
      whatNext: "Nothing: it starts when the limit has room. Raise the limit if that is too slow.",
      facts: { used: n, limit: max, perMs, freesAt },
    };
  };
  const { keyRateMax, keyRatePerMs, keyRateUsed, keyRateFreesAt } = limits;
  return [
    rate("RATE_LIMITED", `queue "${job.queue}"`, [
      limits.rateMax,
      limits.ratePerMs,
      limits.rateUsed,
      limits.rateFreesAt,
    ]),
    rate("ATTEMPTS_LIMITED", `attempts of queue "${job.queue}"`, [
      limits.maxAttemptsPerMinute,
      60_000,
      limits.attemptsUsed,
      limits.attemptsFreeAt,
    ]),
    key === ""
      ? undefined
      : rate("KEY_RATE_LIMITED", `key "${key}"`, [keyRateMax, keyRatePerMs, keyRateUsed, keyRateFreesAt]),
  ];
}

function inLine({ job, standing, serving }: Observation, line: Line): Reason {
  const { key, keyed } = standing;
  const { ahead, more, first, perSecond } = line;
  const place = more ? null : ahead + 1;
  const where = key === "" ? `queue "${job.queue}"` : `key "${key}" in queue "${job.queue}"`;
  const turns = keyed ? " The queue's concurrency keys take turns." : "";
  const takers = serving === undefined ? 0 : serving.serving - serving.leaving;
  const busy =
    serving === undefined || takers === 0
      ? ""
      : ` ${many(takers, "worker")} with ${many(serving.places, "place")} ${takers === 1 ? "holds" : "hold"} ${many(serving.held, "job")}.`;
  const summary =
    place === 1
      ? `Next in line of ${where}.${turns}${busy}${releasedAt(standing)}`
      : `${place === null ? `Behind more than ${lineMax} jobs` : ordinal(place)} in line of ${where}${place === null ? "" : `, behind ${many(ahead, "job")}`}, the first ${first[0]}.${turns}${busy}${releasedAt(standing)}`;
  const etaMs = place === null || perSecond <= 0 || keyed ? null : Math.round((place / perSecond) * 1000);
  return {
    because: "IN_LINE",
    summary,
    whatNext:
      etaMs === null
        ? "Nothing: it starts when its turn comes. More workers, or a higher priority, make that sooner."
        : `Nothing: the queue finishes ${speed(perSecond)}, so its turn comes in about ${describeMs(etaMs)}. More workers, or a higher priority, make that sooner.`,
    facts: { place, ahead: more ? null : ahead, moreThan: more ? lineMax : null, first, perSecond, etaMs },
  };
}

function speed(perSecond: number): string {
  return perSecond >= 1
    ? `${many(Math.round(perSecond), "job")} a second`
    : `${many(Math.round(perSecond * 60), "job")} a minute`;
}

function longest(holders: Limits["holders"]): string {
  const [oldest] = holders;
  return oldest === undefined ? "" : `, the longest ${oldest.job_id} since ${instant(new Date(oldest.since))}`;
}
