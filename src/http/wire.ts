/** What most answers are made of, as it is on the wire. */
import { z } from "zod";

export const time = z.iso.datetime();
export const count = z.int().min(0);
/** The number of an attempt, from 1. */
export const attemptNumber = z.int().min(1);
export const text = z.string();
export const success = { success: z.literal(true), message: z.string() };
