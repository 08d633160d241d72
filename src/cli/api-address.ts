/** Where the API listens: MILLRACE_ADMIN_ADDR when it is set, else MILLRACE_HOST and MILLRACE_PORTS. */
import type { Config } from "../app/config.ts";
import { MillraceError } from "../core/errors.ts";
import { isLoopbackInterface } from "../http/access.ts";

export interface ApiAddress {
  readonly host: string;
  readonly ports: readonly number[];
}

/**
 * Programs on this machine need no token: the database is embedded, and nothing says that anybody is to come from elsewhere. A proxy on
 * this machine looks like a program on it, and not every proxy says what it is.
 */
export function trustsMachine(config: Config, { host }: ApiAddress): boolean {
  const { databaseUrl, publicUrl, oidcIssuer, trustProxy } = config;
  return (
    [databaseUrl, publicUrl, oidcIssuer, trustProxy].every((one) => one === undefined) && isLoopbackInterface(host)
  );
}

/** Undefined: no API in this process. Throws `CONFIG_INVALID`. */
export function apiAddress({ adminAddr, host, ports }: Config): ApiAddress | undefined {
  if (adminAddr === undefined) return { host, ports };
  if (/^(off|0|false|none)$/i.test(adminAddr)) return undefined;
  const [, name = "", port] = /^(\[[^\]]+\]|[^:]*):(\d{1,5})$/.exec(adminAddr) ?? [];
  if (port !== undefined && Number(port) <= 65_535) return { host: name === "" ? host : name, ports: [Number(port)] };
  throw new MillraceError(
    "CONFIG_INVALID",
    `MILLRACE_ADMIN_ADDR=${adminAddr} is not allowed: it must be host:port, such as 127.0.0.1:3003, or off.`,
  );
}
