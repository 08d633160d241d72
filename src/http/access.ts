/**
 * Who is trusted without credentials: a program on this machine. The socket says where a request comes from, the Host header defeats
 * DNS rebinding, and the headers browsers add tell pages of other sites from ours. And where a request comes from at all.
 */
import { isIPv6 } from "node:net";
import type { Addresses } from "../access/addresses.ts";
import type { ApiContext } from "./env.ts";

/** Set by proxies: the socket is theirs then, and says nothing about who asks. */
const proxyHeader =
  /^(x-forwarded-.*|forwarded|via|x-real-ip|x-client-ip|x-cluster-client-ip|cf-connecting-ip|true-client-ip|fastly-client-ip)$/;

/** Why this is not a program on this machine that asks for itself; undefined when it is. */
export function suspicion(c: ApiContext): string | undefined {
  if (!isLoopbackAddress(c.env?.incoming?.socket.remoteAddress)) return "this request comes from elsewhere";
  const host = c.req.header("host");
  if (host === undefined || !isLoopbackHost(host)) return "its Host header does not name this machine";
  if (Object.keys(c.req.header()).some((name) => proxyHeader.test(name)))
    return "this request was passed on by a proxy";
  return foreignPage(c);
}

/** Why a browser sends this for a page that is not ours; undefined when none does. */
export function foreignPage(c: ApiContext): string | undefined {
  const site = c.req.header("sec-fetch-site");
  if (site === "cross-site" || site === "same-site") return "a page of another site sent this request";
  const origin = c.req.header("origin");
  const host = c.req.header("host") ?? "";
  if (origin !== undefined && origin !== `http://${host}` && origin !== `https://${host}`)
    return "a page of another origin sent this request";
  return undefined;
}

/**
 * The address that asks: the socket's, or, where that is a proxy we were told to trust, the last one in X-Forwarded-For that is none of
 * them. What callers write into the header themselves stands further to the left.
 */
export function clientAddress(c: ApiContext, proxies: Addresses): string | undefined {
  let address = c.env?.incoming?.socket.remoteAddress;
  const hops = (c.req.header("x-forwarded-for") ?? "").split(",").map((hop) => hop.trim());
  while (proxies.has(address) && hops.length > 0) {
    const hop = hops.pop();
    if (hop) address = hop;
  }
  return address?.replace(/^::ffff:(?=\d+\.)/i, "");
}

/**
 * Whom callers without a name are counted as: an address of version 4, or a network of 64 bits, of which everybody who has version 6 has
 * all the addresses.
 */
export function networkOf(address: string | undefined): string {
  if (address === undefined) return "nowhere";
  if (!isIPv6(address)) return address;
  const [left = [], right = []] = address
    .replace(/%.*$/, "")
    .split("::")
    .map((side) => side.split(":").filter((group) => group !== ""));
  const zeros = Array.from({ length: Math.max(0, 8 - left.length - right.length) }, () => "0");
  const groups = [...left, ...zeros, ...right].slice(0, 4);
  return `${groups.map((group) => Number.parseInt(group, 16).toString(16)).join(":")}::/64`;
}

/** A socket's address: `127.0.0.1`, `::1`, or IPv4 on an IPv6 socket. */
function isLoopbackAddress(address: string | undefined): boolean {
  return address !== undefined && (address === "::1" || /^(::ffff:)?127\.\d+\.\d+\.\d+$/.test(address));
}

/** The address to listen on, version 6 with brackets or without. */
export function isLoopbackInterface(host: string): boolean {
  return isLoopbackHost(isIPv6(host) ? `[${host}]` : host);
}

/** A Host header, or the address to listen on: `localhost`, `127.x.x.x` or `[::1]`, with any port. */
function isLoopbackHost(host: string): boolean {
  return /^(localhost|127\.\d{1,3}\.\d{1,3}\.\d{1,3}|\[::1\])(:\d{1,5})?$/i.test(host);
}
