/** A browser for tests: a jar of cookies, and redirects followed as by somebody who clicks. */
import type { createApi } from "../../src/http/api.ts";

export interface Page {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Record<string, unknown>;
  readonly url: URL;
}

export class Browser {
  /** By origin, as `name=value`. */
  readonly jars = new Map<string, Map<string, string>>();
  /** The `Set-Cookie` lines of our server, as they came. */
  readonly set: string[] = [];
  readonly #api: ReturnType<typeof createApi>;
  readonly #origin: string;

  constructor(api: ReturnType<typeof createApi>, origin: string) {
    this.#api = api;
    this.#origin = origin;
  }

  cookies(origin = this.#origin): Map<string, string> {
    const jar = this.jars.get(origin) ?? new Map<string, string>();
    this.jars.set(origin, jar);
    return jar;
  }

  /** One request, no redirects. A path is one of our server. */
  async ask(
    to: string | URL,
    init: { method?: string; headers?: Record<string, string>; body?: string } = {},
  ): Promise<Page> {
    const url = new URL(to, this.#origin);
    const jar = this.cookies(url.origin);
    const cookie = [...jar].map(([name, value]) => `${name}=${value}`).join("; ");
    const headers = { host: url.host, ...(cookie === "" ? {} : { cookie }), ...init.headers };
    const ours = url.origin === this.#origin;
    const response = ours
      ? await this.#api.request(url.href, { ...init, headers }, {
          incoming: { socket: { remoteAddress: "192.0.2.9" } },
        } as object)
      : await fetch(url, { ...init, headers, redirect: "manual" });
    for (const line of response.headers.getSetCookie()) {
      if (ours) this.set.push(line);
      const [, name = "", value = ""] = /^([^=]+)=([^;]*)/.exec(line) ?? [];
      if (/max-age=0\b|expires=thu, 01 jan 1970/i.test(line) || value === "") jar.delete(name);
      else jar.set(name, value);
    }
    const text = await response.text();
    const isJson = response.headers.get("content-type")?.includes("json");
    return { status: response.status, headers: response.headers, body: isJson ? JSON.parse(text) : { text }, url };
  }

  /** Goes where it is sent until it is sent nowhere, or to `until`. */
  async visit(to: string | URL, until = /^$/): Promise<Page> {
    let page = await this.ask(to);
    for (let hops = 0; hops < 12 && page.status >= 300 && page.status < 400; hops += 1) {
      const next = new URL(page.headers.get("location") ?? "", page.url);
      if (until.test(next.href)) return { ...page, url: next };
      page = await this.ask(next);
    }
    return page;
  }
}
