/** Refuses callers that ask too often, and tells all of them how much is left (draft-ietf-httpapi-ratelimit-headers). */
import { RateLimiterMemory, RateLimiterRes } from "rate-limiter-flexible";
import type { Caller } from "../access/roles.ts";
import { type LimitedClass, type RateLimits, limitedClasses } from "../access/rate-limits.ts";
import { MillraceError } from "../core/errors.ts";
import { networkOf } from "./access.ts";
import type { RouteClass } from "./endpoint.ts";
import type { ApiContext } from "./env.ts";

const windowSeconds = 60;

export class RateLimiter {
  readonly #limiters = new Map<RouteClass, { readonly most: number; readonly limiter: RateLimiterMemory }>();
  readonly #addressOf: (c: ApiContext) => string | undefined;

  constructor(limits: RateLimits, addressOf: (c: ApiContext) => string | undefined) {
    this.#addressOf = addressOf;
    for (const name of limitedClasses) {
      const most = limits[name];
      if (most > 0)
        this.#limiters.set(name, { most, limiter: new RateLimiterMemory({ points: most, duration: windowSeconds }) });
    }
  }

  /** Throws `TOO_MANY_REQUESTS`. Callers with a name are told apart by it, others by their address. */
  async count(c: ApiContext, routeClass: RouteClass): Promise<void> {
    if (c.env?.inProcess) return;
    const found = this.#limiters.get(routeClass);
    if (found === undefined) return;
    const { most, limiter } = found;
    const key = keyOf(c.get("caller"), this.#addressOf(c));
    c.header("RateLimit-Policy", `"${routeClass as LimitedClass}";q=${most};w=${windowSeconds}`);
    try {
      tell(c, routeClass, await limiter.consume(key));
    } catch (refused) {
      if (!(refused instanceof RateLimiterRes)) throw refused;
      tell(c, routeClass, refused);
      const message = `This caller has made its ${most} requests of this minute to routes of class ${routeClass}.`;
      throw Object.assign(new MillraceError("TOO_MANY_REQUESTS", message), { retryAfterMs: refused.msBeforeNext });
    }
  }
}

/** Tokens by their name and people by who they are, so that nobody chooses whose share to use up; others by where they come from. */
function keyOf(caller: Caller | undefined, address: string | undefined): string {
  if (caller?.session !== undefined) return JSON.stringify(["user", caller.session.issuer, caller.session.sub]);
  return JSON.stringify(caller?.kind === "token" ? ["token", caller.name] : ["address", networkOf(address)]);
}

function tell(c: ApiContext, routeClass: RouteClass, { remainingPoints, msBeforeNext }: RateLimiterRes): void {
  c.header("RateLimit", `"${routeClass}";r=${remainingPoints};t=${Math.ceil(msBeforeNext / 1_000)}`);
}
