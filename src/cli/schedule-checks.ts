/** What the doctor finds wrong with schedules: those that nobody fires, or can; tasks that nobody runs; runs that do not end. */
import { describeMs } from "../core/duration.ts";
import type { Database } from "../db/database.ts";
import type { Finding } from "./checks.ts";
import { type ScheduleFault, countSchedules, scheduleFaults } from "./doctor-store.ts";
import { counted } from "./print.ts";

/** Of each fault; one thing is often wrong with all schedules. */
const shownMax = 5;

/** `working`: some worker lives. Without one that is said already, and everything else follows from it. */
export async function checkSchedules(db: Database, working: boolean): Promise<Finding[]> {
  const { schedules, paused, retired } = await countSchedules(db);
  const faults = (await scheduleFaults(db, shownMax)).filter(({ fault }) => working || fault !== "unserved");
  if (faults.length > 0) return faults.map(findingOf);
  const resting = [...(paused > 0 ? [`${paused} paused`] : []), ...(retired > 0 ? [`${retired} retired`] : [])];
  const message = schedules === 0 ? "No schedules." : `${[counted(schedules, "schedule"), ...resting].join(", ")}.`;
  return [{ check: "schedules", status: "ok", message }];
}

function findingOf({ fault, name, about, ms }: ScheduleFault): Finding {
  const [why, action] = {
    trouble: [`cannot be fired: ${about}`, `Correct it: \`millrace schedules update ${name}\`.`],
    late: [
      `is due since ${describeMs(ms)} and nobody fires it`,
      "Start `millrace up` or `millrace worker`, one at least without MILLRACE_SCHEDULER=off.",
    ],
    ahead: [
      `was placed by a clock that was ${describeMs(ms)} ahead of the database's now, and waits for a tick that far away`,
      "A running scheduler sets it back within 15 s: start one. If one runs, look why that clock jumps (NTP).",
    ],
    unserved: [
      `enqueues ${about}, which no live worker serves`,
      "Deploy a worker whose app has this task, correct the schedule, or pause it.",
    ],
    overdue: [
      `has a run that began ${describeMs(ms)} ago and has not ended: job ${about}`,
      `\`millrace explain ${about}\` says why.`,
    ],
  }[fault] as [string, string];
  return { check: "schedules", status: "warn", message: `Schedule "${name}" ${why.replace(/\.$/, "")}.`, action };
}
