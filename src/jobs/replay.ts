/**
 * Replays, by the rules of the queues they go to: a replay is a new job, and a limit on how many of those a queue takes would be none
 * if it could be got around by replaying. An input that was let in once is not measured again.
 */
import type { Executor } from "../db/database.ts";
import { type Admission, type Denial, tooLarge, tooMany } from "./admission.ts";
import { countIn, openGate } from "./admission-store.ts";
import type { Signature } from "./cancel-store.ts";
import { type ReplayChanges, replayJobs, replayTargets } from "./orders-store.ts";

export interface ReplayRoom {
  readonly channel: string;
  readonly admission: Admission;
}

export interface Replayed {
  /** Of the new jobs. */
  readonly ids: readonly string[];
  /** How many were looked at; fewer than were given when the rules let no more in. */
  readonly lookedAt: number;
  /** Why not all of them. */
  readonly denied?: { readonly queue: number; readonly denial: Denial };
}

type Pair = readonly [old: string, fresh: string];

/**
 * Replays in order, up to the first that the rules do not let in. `share`: what part of a queue's jobs per minute may be used up; the
 * rest of them is left to producers.
 */
export async function replayByRules(
  tx: Executor,
  { channel, admission }: ReplayRoom,
  pairs: readonly Pair[],
  changes: ReplayChanges,
  signature: Signature,
  share = 1,
): Promise<Replayed> {
  const old = pairs.map(([id]) => id);
  const targets = await replayTargets(tx, old, changes.queue);
  const guarded = targets.filter((target) => target.guarded || admission.perMinute !== null);
  const rooms = new Map<number, Room>();
  // In the order of their numbers: two operations that hold gates of the same queues must not wait for each other.
  for (const queue of [...new Set(guarded.map((target) => target.queue))].sort((a, b) => a - b)) {
    const gate = await openGate(tx, queue, admission.perMinute);
    const bytes = changes.input === undefined ? 0 : Buffer.byteLength(changes.input);
    const { max_payload_bytes: maxBytes, max_per_minute: perMinute } = gate;
    rooms.set(queue, {
      left: perMinute === null ? Number.POSITIVE_INFINITY : Math.ceil(perMinute * share) - gate.count,
      used: 0,
      denial:
        maxBytes !== null && bytes > maxBytes
          ? tooLarge(bytes, maxBytes)
          : tooMany(perMinute ?? 0, gate.count, gate.next_minute_ms),
      closed: maxBytes !== null && bytes > maxBytes,
    });
  }
  const queueOf = new Map(targets.map((target) => [target.id, target.queue]));
  const refused = old.findIndex((id) => !admitted(rooms.get(queueOf.get(id) ?? 0)));
  const lookedAt = refused < 0 ? pairs.length : refused;
  const ids = lookedAt === 0 ? [] : await replayJobs(tx, channel, pairs.slice(0, lookedAt), changes, signature);
  for (const [queue, { left, used }] of rooms)
    if (used > 0 && left < Number.POSITIVE_INFINITY) await countIn(tx, queue, used);
  const queue = queueOf.get(old[refused] ?? "");
  const room = queue === undefined ? undefined : rooms.get(queue);
  return { ids, lookedAt, ...(queue !== undefined && room && { denied: { queue, denial: room.denial } }) };
}

interface Room {
  readonly left: number;
  used: number;
  readonly denial: Denial;
  /** Takes none of them, however few. */
  readonly closed: boolean;
}

/** A queue without rules has no room of its own, and takes all. */
function admitted(room: Room | undefined): boolean {
  if (room === undefined) return true;
  if (room.closed || room.used >= room.left) return false;
  room.used += 1;
  return true;
}
