/** What an identity provider says of somebody, read with care: any claim may be missing or of another kind. */
import type { Person } from "./people.ts";
import { type Role, roles } from "./roles.ts";

export type Claims = Readonly<Record<string, unknown>>;

/**
 * The highest role that a claim names, as a text or in a list of texts. `path`: the name of the claim, or names with dots between them.
 * Undefined: it names none.
 */
export function claimedRole(claims: Claims, path: string): Role | undefined {
  const value = claimAt(claims, path);
  const named: readonly unknown[] = Array.isArray(value) ? value : [value];
  return roles.findLast((role) => named.includes(role));
}

/**
 * Who it is, from the ID token and from what the issuer tells otherwise. An address and whether it is verified come from one of them.
 * Undefined when there is no usable `sub`.
 */
export function personOf(idToken: Claims, userInfo: Claims): Person | undefined {
  const { iss, sub } = idToken;
  // As OpenID Connect has it: at most 255 characters of ASCII.
  if (typeof iss !== "string" || typeof sub !== "string" || !/^[\x20-\x7e]{1,255}$/.test(sub)) return undefined;
  const { email, email_verified: verified } = typeof idToken["email"] === "string" ? idToken : userInfo;
  return {
    issuer: iss,
    sub,
    email: typeof email === "string" && /^[^\s\p{Cc}\p{Surrogate}]{3,320}$/u.test(email) ? email : null,
    // Some say it as a text.
    emailVerified: verified === true || verified === "true",
    name: nameIn(idToken) ?? nameIn(userInfo),
  };
}

function nameIn({ name, preferred_username: username }: Claims): string | null {
  const given = [name, username].find((one) => typeof one === "string" && one.trim() !== "");
  if (typeof given !== "string") return null;
  return Array.from(given.replaceAll(/[\p{Cc}\p{Surrogate}]/gu, "\ufffd"))
    .slice(0, 200)
    .join("");
}

function claimAt(claims: Claims, path: string): unknown {
  if (Object.hasOwn(claims, path)) return claims[path];
  let value: unknown = claims;
  for (const key of path.split(".")) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, key)) return undefined;
    value = (value as Claims)[key];
  }
  return value;
}
