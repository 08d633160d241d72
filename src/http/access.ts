/**
 * Who may come in while there are no credentials: only a program on this machine. The socket says where a request comes from, the
 * Host header defeats DNS rebinding, and the headers browsers add tell pages of other sites from ours.
 */
import type { MiddlewareHandler } from "hono";
import { MillraceError } from "../core/errors.ts";
import type { ApiContext, ApiEnv } from "./env.ts";

/** Set by proxies: the socket is theirs then, and says nothing about who asks. */
const proxyHeaders = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];

/** Throws `UNAUTHORIZED` unless the request comes from this program, or from this machine and from no other web site. */
export const onlyThisMachine: MiddlewareHandler<ApiEnv> = async (c, next) => {
  const why = c.env?.inProcess ? undefined : suspicion(c);
  if (why !== undefined) {
    throw new MillraceError("UNAUTHORIZED", `Without credentials only this machine is trusted, and ${why}.`);
  }
  await next();
};

function suspicion(c: ApiContext): string | undefined {
  if (!isLoopbackAddress(c.env?.incoming?.socket.remoteAddress)) return "this request comes from elsewhere";
  const host = c.req.header("host");
  if (host === undefined || !isLoopbackHost(host)) return "its Host header does not name this machine";
  if (proxyHeaders.some((name) => c.req.header(name) !== undefined)) return "this request was passed on by a proxy";
  const site = c.req.header("sec-fetch-site");
  if (site === "cross-site" || site === "same-site") return "a page of another site sent this request";
  const origin = c.req.header("origin");
  if (origin !== undefined && origin !== `http://${host}`) return "a page of another origin sent this request";
  return undefined;
}

/** A socket's address: `127.0.0.1`, `::1`, or IPv4 on an IPv6 socket. */
function isLoopbackAddress(address: string | undefined): boolean {
  return address !== undefined && (address === "::1" || /^(::ffff:)?127\.\d+\.\d+\.\d+$/.test(address));
}

/** A Host header, or the address to listen on: `localhost`, `127.x.x.x` or `[::1]`, with any port. */
export function isLoopbackHost(host: string): boolean {
  return /^(localhost|127\.\d{1,3}\.\d{1,3}\.\d{1,3}|\[::1\])(:\d{1,5})?$/i.test(host);
}
