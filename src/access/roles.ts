/** What callers may do: each role what those before it may, and more. */
import { MillraceError } from "../core/errors.ts";
import { show } from "../core/options.ts";
import type { Person } from "./people.ts";

/** `viewer` reads, `operator` runs the system, `admin` removes for good and decides who may come in. */
export const roles = ["viewer", "operator", "admin"] as const;
export type Role = (typeof roles)[number];

export const reaches = (has: Role, needed: Role): boolean => roles.indexOf(has) >= roles.indexOf(needed);

/** Throws `OPTION_INVALID`. */
export function checkedRole(value: unknown): Role {
  const role = roles.find((known) => known === value);
  if (role !== undefined) return role;
  throw new MillraceError("OPTION_INVALID", `role must be one of ${roles.join(", ")}, not ${show(value)}.`);
}

/** Who asks, once that is known. */
export interface Caller {
  /** `program`: this very process; `machine`: a program on this machine, trusted without a token; `token`; `user`: somebody who signed in. */
  readonly kind: "program" | "machine" | "token" | "user";
  /** For the audit log; null for those without a name. */
  readonly name: string | null;
  readonly role: Role;
  /** Of somebody at a browser: the session that they came by, and who it is. */
  readonly session?: CallerSession;
}

interface CallerSession extends Person {
  readonly id: string;
  readonly expiresAt: Date;
}
