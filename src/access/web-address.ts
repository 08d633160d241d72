/** Addresses that secrets travel to: https, or this machine. */

const loopback = /^(localhost|127\.\d{1,3}\.\d{1,3}\.\d{1,3}|\[::1\])$/;

/** Undefined for what is no URL, would go in the clear beyond this machine, or carries a password, a query or a fragment. */
export function readSafeUrl(text: string): URL | undefined {
  if (!URL.canParse(text)) return undefined;
  const url = new URL(text);
  const safe = url.protocol === "https:" || (url.protocol === "http:" && loopback.test(url.hostname));
  return safe && url.username + url.password + url.search + url.hash === "" ? url : undefined;
}

/** The same, and nothing behind the host and the port: `https://millrace.example`, without a slash at the end. */
export function readSafeOrigin(text: string): string | undefined {
  const url = readSafeUrl(text);
  return url?.pathname === "/" ? url.origin : undefined;
}
