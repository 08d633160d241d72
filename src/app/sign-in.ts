/** How people sign in, and how long that lasts, from the variables. */
import type { Role } from "../access/roles.ts";
import type { SignInSettings } from "../access/sign-in.ts";
import { MillraceError } from "../core/errors.ts";
import type { SessionSettings } from "../access/sessions.ts";
import type { Config } from "./config.ts";

const minuteMs = 60_000;

export function sessionSettings(config: Config): SessionSettings {
  return {
    origin: config.publicUrl,
    idleMs: config.sessionIdleMinutes * minuteMs,
    absoluteMs: config.sessionAbsoluteHours * 60 * minuteMs,
    admins: config.opsAdmins ?? new Set(),
  };
}

/** Undefined: they do not. Throws `CONFIG_INVALID` for half of it. */
export function signInSettings(config: Config): SignInSettings | undefined {
  const { oidcIssuer: issuer, oidcClientId: clientId, publicUrl: origin, oidcDefaultRole: defaultRole } = config;
  if (issuer === undefined && clientId === undefined) return undefined;
  if (issuer === undefined) throw missing("OIDC_ISSUER");
  if (clientId === undefined) throw missing("OIDC_CLIENT_ID");
  if (origin === undefined) throw missing("MILLRACE_PUBLIC_URL");
  return {
    ...sessionSettings(config),
    issuer,
    clientId,
    clientSecret: config.oidcClientSecret,
    origin,
    roleClaim: config.oidcRoleClaim,
    defaultRole: defaultRole === "none" ? null : (defaultRole as Role),
  };
}

function missing(name: string): MillraceError {
  return new MillraceError(
    "CONFIG_INVALID",
    `${name} is not set: people sign in with OIDC_ISSUER, OIDC_CLIENT_ID and MILLRACE_PUBLIC_URL, or not at all.`,
  );
}
