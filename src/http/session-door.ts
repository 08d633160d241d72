/**
 * Sessions of browsers: the cookie that carries their id, and what keeps other sites from using it. Over https the cookie's name begins
 * with `__Host-`, so that no other host and no plain connection can set it; on this machine without TLS browsers would not keep such a
 * cookie, and its name goes without.
 */
import { getCookie, setCookie } from "hono/cookie";
import type { Caller } from "../access/roles.ts";
import type { Sessions } from "../access/sessions.ts";
import { MillraceError } from "../core/errors.ts";
import { foreignPage } from "./access.ts";
import type { ApiContext } from "./env.ts";

const safeMethods: ReadonlySet<string> = new Set(["GET", "HEAD", "OPTIONS"]);
/** What a page of another site cannot send without asking us first, and we never say yes. */
const askedForMethods: ReadonlySet<string> = new Set(["PUT", "PATCH", "DELETE"]);

/** `session`: who has signed in. `sign_in`: who is about to. */
type CookieName = "session" | "sign_in";

export interface SessionDoorOptions {
  /** Where browsers find this server. Undefined: wherever they say that they found it. */
  readonly origin: string | undefined;
  /**
   * A session that is over is refused. Otherwise it counts for nothing, like a cookie of another program on `localhost`, so that a machine
   * that is trusted without one is trusted still.
   */
  readonly strict: boolean;
}

export class SessionDoor {
  readonly #sessions: Sessions;
  readonly #origin: string | undefined;
  readonly #secure: boolean;
  readonly #strict: boolean;

  constructor(sessions: Sessions, { origin, strict }: SessionDoorOptions) {
    this.#sessions = sessions;
    this.#origin = origin;
    this.#secure = origin?.startsWith("https:") ?? false;
    this.#strict = strict;
  }

  /**
   * Who came with a session; undefined without one. Throws `CSRF_REFUSED` for a change that a page of another site may have sent, and
   * `UNAUTHORIZED` for a session that is over.
   */
  async callerOf(c: ApiContext): Promise<Caller | undefined> {
    const id = this.read(c, "session");
    if (id === undefined) return undefined;
    if (!safeMethods.has(c.req.method)) this.refuseForgery(c);
    const found = await this.#sessions.callerOf(id);
    if (found === undefined && this.#strict)
      throw new MillraceError("UNAUTHORIZED", "This session is over: sign in at /auth/login.");
    if (found === undefined) return undefined;
    if (found.next !== undefined) this.write(c, "session", found.next);
    return found.caller;
  }

  read(c: ApiContext, name: CookieName): string | undefined {
    return getCookie(c, this.#nameOf(name)) || undefined;
  }

  /** `maxAgeSeconds`: without it the browser keeps it until it is closed. 0 takes it away. */
  write(c: ApiContext, name: CookieName, value: string, maxAgeSeconds?: number): void {
    c.header("Cache-Control", "no-store");
    setCookie(c, this.#nameOf(name), value, {
      path: "/",
      httpOnly: true,
      sameSite: "Lax",
      secure: this.#secure,
      ...(maxAgeSeconds === undefined ? {} : { maxAge: maxAgeSeconds }),
    });
  }

  #nameOf(name: CookieName): string {
    return `${this.#secure ? "__Host-" : ""}millrace_${name}`;
  }

  /**
   * Browsers say where a request comes from, or at least from which origin; and only our own pages can add a header, send JSON or use a
   * method that forms do not have. Throws `CSRF_REFUSED`.
   */
  refuseForgery(c: ApiContext): void {
    if (!this.#isOurs(c))
      throw new MillraceError("CSRF_REFUSED", "This request does not come from a page of this server.");
    const json = /^application\/json\s*(;|$)/i.test(c.req.header("content-type") ?? "");
    if (json || c.req.header("x-millrace-csrf") === "1" || askedForMethods.has(c.req.method)) return;
    throw new MillraceError(
      "CSRF_REFUSED",
      "With a session, a change takes the header X-Millrace-CSRF: 1, or a JSON body.",
    );
  }

  #isOurs(c: ApiContext): boolean {
    const site = c.req.header("sec-fetch-site");
    if (site !== undefined) return site === "same-origin" || site === "none";
    const origin = c.req.header("origin");
    if (this.#origin !== undefined) return origin === this.#origin;
    return origin !== undefined && foreignPage(c) === undefined;
  }
}
