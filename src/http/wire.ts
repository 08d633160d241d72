/** What most answers are made of, as it is on the wire. */
import { z } from "zod";

export const time = z.iso.datetime();
export const count = z.int().min(0);
/** The number of an attempt, from 1. */
export const attemptNumber = z.int().min(1);
export const text = z.string();
export const success = { success: z.literal(true), message: z.string() };

let second = Number.NaN;
let upToMs = "";

/**
 * As JSON has a Date. Those of a page are of few different seconds, and only a new one is worked out: a hundred jobs take a quarter of
 * the time.
 */
export function timeText(at: Date): string;
export function timeText(at: Date | null): string | null;
export function timeText(at: Date | null): string | null {
  if (at === null) return null;
  const ms = at.getTime();
  const whole = Math.floor(ms / 1_000);
  if (whole !== second) {
    upToMs = new Date(whole * 1_000).toISOString().slice(0, -4);
    second = whole;
  }
  return `${upToMs}${`${ms - whole * 1_000}`.padStart(3, "0")}Z`;
}
