import { randomUUID } from "node:crypto";

let counter = 0;

/** A version 7 UUID: milliseconds, then a counter, then chance. Ordered within a process. */
export function uuidv7() {
  const time = Date.now().toString(16).padStart(12, "0");
  const order = (counter++ & 0xfff).toString(16).padStart(3, "0");
  return `${time.slice(0, 8)}-${time.slice(8)}-7${order}${randomUUID().slice(18)}`;
}
