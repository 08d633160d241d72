/**
 * Puts jobs that wait elsewhere in line, by the rules of the queue they come to: to that queue they are new, and its limits would be none
 * if jobs could be enqueued in another one and moved.
 */
import type { Executor } from "../db/database.ts";
import { type Denial, tooLarge, tooMany } from "./admission.ts";
import { countIn, openGate } from "./admission-store.ts";
import type { Signature } from "./cancel-store.ts";
import { type Move, arrivals, isGuarded, moveJobs } from "./orders-store.ts";
import type { ReplayRoom } from "./replay.ts";

export interface Moved {
  readonly ids: readonly string[];
  /** How many were looked at; fewer than were given when the queue lets no more in for now. */
  readonly lookedAt: number;
  /** Jobs that stay where they are: they are larger than the queue takes. */
  readonly tooLarge: readonly Denial[];
  /** Why not all were looked at. */
  readonly full?: Denial;
}

/** In order, up to the first for which there is no room. `share`: as for `replayByRules`. */
export async function moveByRules(
  tx: Executor,
  { channel, admission }: ReplayRoom,
  ids: readonly string[],
  action: string,
  move: Move,
  signature: Signature,
  share = 1,
): Promise<Moved> {
  const { queue } = move;
  if (queue === undefined || (admission.perMinute === null && !(await isGuarded(tx, queue))))
    return { ids: await moveJobs(tx, channel, ids, action, move, signature), lookedAt: ids.length, tooLarge: [] };
  const gate = await openGate(tx, queue, admission.perMinute);
  const { max_payload_bytes: maxBytes, max_per_minute: perMinute } = gate;
  const left = perMinute === null ? Number.POSITIVE_INFINITY : Math.ceil(perMinute * share) - gate.count;
  const arriving = new Map((await arrivals(tx, ids, queue, maxBytes)).map((one) => [one.id, one]));
  const fitting: string[] = [];
  const denials: Denial[] = [];
  let [coming, lookedAt] = [0, 0];
  for (const id of ids) {
    const one = arriving.get(id);
    // Spaces are not counted when a job is enqueued either.
    const bytes = one?.input ? Buffer.byteLength(JSON.stringify(JSON.parse(one.input))) : (one?.bytes ?? 0);
    const fits = maxBytes === null || bytes <= maxBytes;
    if (one !== undefined && fits && coming >= left) break;
    lookedAt += 1;
    if (!fits) denials.push(tooLarge(bytes, maxBytes));
    else {
      fitting.push(id);
      coming += one === undefined ? 0 : 1;
    }
  }
  const moved = fitting.length === 0 ? [] : await moveJobs(tx, channel, fitting, action, move, signature);
  const came = moved.filter((id) => arriving.has(id)).length;
  if (perMinute !== null && came > 0) await countIn(tx, queue, came);
  const full = lookedAt < ids.length ? { full: tooMany(perMinute ?? 0, gate.count, gate.next_minute_ms) } : {};
  return { ids: moved, lookedAt, tooLarge: denials, ...full };
}
