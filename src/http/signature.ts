/** Who does something, and why, for the audit. */
import { z } from "zod";
import type { ApiContext } from "./env.ts";
import { given } from "./read.ts";

/** Lengths and characters are the engine's to check. */
export const signature = { by: z.string().nullish(), reason: z.string().nullish() };

/** Longest name the engine takes; an issuer and what it calls somebody may be longer. */
const nameMax = 200;

/** Where nobody is named, it is the caller. */
export function signed(
  c: ApiContext,
  { by, reason }: { readonly by?: string | null | undefined; readonly reason?: string | null | undefined },
): { by?: string; reason?: string } {
  return given({ by: by ?? c.get("caller")?.name?.slice(0, nameMax), reason });
}
