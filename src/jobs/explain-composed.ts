/** Why a job waits that is part of something: a flow, a run in steps, a key. Pure. */
import type { Reason } from "./explain.ts";
import type { NeededJob, Needs, Observation } from "./explain-store.ts";
import { byWhom, instant, many, when } from "./sentences.ts";
import type { Step } from "./steps-store.ts";

type Facts = Reason["facts"];

/** `extract 0190… (active)` */
function named({ id, name, status }: NeededJob): string {
  return `${name} ${id} (${status ?? "removed"})`;
}

export function blocked({ needs, standing }: Observation): Reason {
  const { movedBy, movedAt, moverName, moverReason } = standing;
  const since = movedAt === null ? "" : `, since "${movedBy}"${byWhom(moverName, moverReason)} at ${instant(movedAt)}`;
  if (needs === undefined || needs.open === 0) {
    return {
      because: "BLOCKED",
      summary: `Blocked: it has no due time until what it waits for is done${since}.`,
      whatNext: "It becomes due when what it waits for is done, or when somebody gives it a time.",
      facts: { since: movedAt },
    };
  }
  const { open, total, first } = needs;
  const more = open > first.length ? `, and ${open - first.length} more` : "";
  return {
    because: "BLOCKED",
    summary: `Waits for ${open} of ${many(total, "job")}: ${first.map(named).join(", ")}${more}.`,
    whatNext: "Nothing: it goes on by itself when they have ended. Ask about the first of them to see what holds it.",
    facts: { since: movedAt, open, total, first },
  };
}

/** It was given up because a job that it needs was. */
export function dependencyFailed(needs: Needs | undefined, at: string, facts: Facts): Reason {
  const first = needs?.first ?? [];
  const [culprit] = first;
  const which =
    culprit === undefined
      ? "a job that it needs"
      : first.length === 1
        ? `job ${named(culprit)}, which it needs,`
        : `jobs that it needs, ${first.map(named).join(", ")},`;
  const canRetry = first.length > 0 && first.every(({ status }) => status === "failed");
  const chained = first.some(({ deadLetterReason }) => deadLetterReason === "DEPENDENCY_FAILED");
  return {
    because: "GAVE_UP",
    summary: `Gave up${at} without a run, DEPENDENCY_FAILED: ${which} failed.`,
    whatNext: chained
      ? "That one failed because of another: ask about it. When the first of the chain is retried and completes, this one goes on by itself."
      : canRetry
        ? `Retry ${first.length === 1 ? "that one" : "those"} and this goes on by itself. Or retry this one, to run it without.`
        : "Retry this one, to run it without.",
    facts: { ...facts, needs: first },
  };
}

export const changedCode =
  "Deploy the code that began the run, then retry it; or replay it, to begin anew. Nothing was done again.";

export function released(until: string, at: Date, facts: Facts): Reason {
  return {
    because: "RELEASED",
    summary: `${until}: released at ${instant(at)}, when the jobs it waited for had ended, to run later.`,
    whatNext: "Nothing: it runs by itself then. Promote it to run it now.",
    facts,
  };
}

export function debounced(until: string, at: Date, facts: Facts): Reason {
  return {
    because: "DEBOUNCED",
    summary: `${until}: it was enqueued again under its key at ${instant(at)}, which put it off.`,
    whatNext: "Nothing: it runs when nobody enqueues under its key for a while. Promote it to run it now.",
    facts,
  };
}

/** Its run sleeps or waits for an event. */
export function suspended({ name, kind, event, startedAt }: Step, due: Date, now: Date): Reason {
  const facts = { step: name, event, dueAt: due, since: startedAt };
  if (kind === "event")
    return {
      because: "STEP_WAITS",
      summary: `Waits for event "${event}" in step "${name}" until ${when(due, now)}; emit it.`,
      whatNext: `Emit event "${event}". Without it the run goes on then, and is told that it did not come.`,
      facts,
    };
  return {
    because: "STEP_SLEEPS",
    summary: `Sleeps in step "${name}" until ${when(due, now)}.`,
    whatNext: "Nothing: it goes on by itself then.",
    facts,
  };
}

/** When a job that is due now was let go by those it waited for. */
export function releasedAt({ movedBy, movedAt }: Observation["standing"]): string {
  return movedBy === "release" && movedAt !== null ? ` Released at ${instant(movedAt)} by the jobs it waited for.` : "";
}
