/**
 * Job ids: UUID version 7 (RFC 9562), made by the client. Time first, so ids sort by age and an index on them is appended to;
 * made before the insert, so an insert repeated after a lost connection is the same job and not a second one.
 */
import { randomFillSync } from "node:crypto";

const pool = Buffer.alloc(8 * 1024);
let used = pool.length;
let lastMs = 0;
let counter = 0;

const hex = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));

/** A new id for the instant `nowMs` (milliseconds since 1970); ids made in one process only ever grow. */
export function uuidv7(nowMs: number): string {
  const wholeMs = Math.floor(nowMs);
  if (wholeMs > lastMs) {
    lastMs = wholeMs;
    counter = 0;
  } else if (++counter > 0xfff) {
    // More than 4 096 ids in a millisecond, or a clock that stepped back: borrow from the next one.
    lastMs += 1;
    counter = 0;
  }
  if (used + 8 > pool.length) {
    randomFillSync(pool);
    used = 0;
  }
  const r = pool;
  const at = used;
  used += 8;
  const time = lastMs.toString(16).padStart(12, "0");
  const variant = hex[((r[at] as number) & 0x3f) | 0x80];
  return `${time.slice(0, 8)}-${time.slice(8)}-7${counter.toString(16).padStart(3, "0")}-${variant}${hex[r[at + 1] as number]}-${hex[r[at + 2] as number]}${hex[r[at + 3] as number]}${hex[r[at + 4] as number]}${hex[r[at + 5] as number]}${hex[r[at + 6] as number]}${hex[r[at + 7] as number]}`;
}

/** What every id made at that instant, or later, is not below. */
export function uuidFloor(ms: number): string {
  const time = Math.min(Math.max(Math.floor(ms), 0), 0xffff_ffff_ffff)
    .toString(16)
    .padStart(12, "0");
  return `${time.slice(0, 8)}-${time.slice(8)}-0000-0000-000000000000`;
}

const pattern = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

export function isUuid(text: string): boolean {
  return pattern.test(text);
}
