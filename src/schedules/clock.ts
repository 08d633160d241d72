/** A clock that was ahead and has come back: the schedules it put off are set back to the tick that their rule gives, and their jobs to now. */
import { moveJobs } from "../jobs/orders-store.ts";
import { type Replaced, anyAhead, jobsAhead, lockAhead, replace } from "./clock-store.ts";
import { type ScheduleDesk, believed, placeOf } from "./desk.ts";
import { type ScheduleRow, tellSchedulers } from "./schedules-store.ts";

const batch = 1_000;
/** At a time; who calls has other things to do, too. */
const batchesMax = 20;
/** Named in the log; the audit has all. */
const namedMax = 5;
/** Who puts jobs to now, for their timeline. */
const setter = { by: null, reason: "the clock was ahead and has come back" };

/** Up to 20 000; returns how many were set back. Any number of processes may do so at once. */
export async function setBack(desk: ScheduleDesk): Promise<number> {
  let all = 0;
  for (let n = 0; n < batchesMax && (await anyAhead(desk.db)); n += 1) {
    const found = await desk.db.transaction(async (tx) => {
      const rows = await lockAhead(tx, batch);
      if (rows.length === 0) return rows;
      await replace(
        tx,
        rows.map((row) => replacedOf(desk, row)),
      );
      const waiting = await jobsAhead(
        tx,
        rows.map(({ id }) => id),
      );
      for (let from = 0; from < waiting.length; from += batch)
        await moveJobs(
          tx,
          desk.channel,
          waiting.slice(from, from + batch),
          "promote",
          { delayMs: 0 },
          setter,
          "delayed",
        );
      await tellSchedulers(tx, desk.channel);
      return rows;
    });
    if (found.length === 0) break; // somebody else has them
    all += found.length;
    const named = found.slice(0, namedMax).map(({ name }) => `"${name}"`);
    const others = found.length > namedMax ? ` and ${found.length - namedMax} more` : "";
    desk.log.warn(
      { schedules: found.length },
      `the database's clock was ahead and has come back: set back to their next tick: ${named.join(", ")}${others}`,
    );
  }
  return all;
}

function replacedOf(desk: ScheduleDesk, row: ScheduleRow): Replaced {
  const { id, nextAt, now } = row;
  const due: Replaced = { id, nextAt, dueAt: now, lastAt: believed(row) };
  // A tick of the past that could not be fired: firing decides about it, and says what is wrong.
  if (nextAt !== null && nextAt <= now) return due;
  try {
    return { id, ...placeOf(desk, row.spec, row) };
  } catch (error) {
    desk.log.error({ err: error, schedule: row.name }, `schedule "${row.name}" cannot be read here`);
    return due;
  }
}
