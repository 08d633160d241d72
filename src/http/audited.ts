/**
 * Every request that changes something, and every one that is refused at the door, leaves a row in the audit: who, from where, what, and
 * what came of it. Never a body, a token or a header. The answer does not depend on it.
 */
import type { MiddlewareHandler } from "hono";
import type { Actor } from "../audit/actor-store.ts";
import { type NewAuditEntry, appendAudit } from "../audit/audit-store.ts";
import type { ErrorCode } from "../core/errors.ts";
import type { Log } from "../core/log.ts";
import type { Database } from "../db/database.ts";
import type { Endpoints } from "./endpoint.ts";
import type { ApiContext, ApiEnv } from "./env.ts";
import { codeOf } from "./problem.ts";
import { replayedHeader } from "./repeats.ts";

export interface AuditedOptions {
  readonly db: Database;
  readonly endpoints: Endpoints;
  /** Beside those of the endpoints: what else changes something, as method and path. */
  readonly more?: readonly string[];
  readonly addressOf: (c: ApiContext) => string | undefined;
  readonly log: Log;
  /** In ms, from anywhere on. */
  readonly now?: () => number;
}

/** Refusals that one process writes down in any second. The others are counted, and told by the next that is written. */
const refusalsPerSecond = 20;

/** To be used before whatever may refuse. */
export function audited(options: AuditedOptions): MiddlewareHandler<ApiEnv> {
  const { db, endpoints, more: others = [], addressOf, log, now } = options;
  const steering = new Set([
    ...endpoints
      .filter(({ method, routeClass }) => method !== "GET" && routeClass === "ops")
      .map(({ method, path }) => `${method} ${path}`),
    ...others,
  ]);
  const refusals = new Refusals(now);

  async function note(c: ApiContext): Promise<void> {
    const code = c.error === undefined ? undefined : codeOf(c.error);
    const { status } = c.res;
    const action = `${c.req.method} ${c.get("route")}`;
    const refused = isRefusal(c, code, status);
    if (!refused && !steering.has(action)) return;

    const denied = refused || status === 429;
    const more = denied ? refusals.take() : 0;
    if (more === undefined) return;
    const entry: NewAuditEntry = {
      action,
      subject: plain(c.req.path, 500),
      details: {
        status,
        ...(code === undefined ? {} : { code }),
        ...(c.res.headers.has(replayedHeader) ? { replayed: true } : {}),
        ...(more === 0 ? {} : { more_denied: more }),
      },
      ...actorOf(c, addressOf(c)),
      outcome: denied ? "deny" : status < 400 ? "allow" : "error",
    };
    try {
      await appendAudit(db, entry);
    } catch (error) {
      if (denied) refusals.giveBack(more + 1);
      log.error({ err: error, request_id: entry.requestId, action, status }, "audit.failed");
    }
  }

  return async (c, next) => {
    try {
      await next();
    } finally {
      await note(c);
    }
  };
}

/** Who asks, as the audit has it. */
export function actorOf(c: ApiContext, address: string | undefined): Actor {
  const { kind = null, name = null, role = null } = c.get("caller") ?? {};
  return {
    actorKind: kind,
    actor: name,
    role,
    address: plain(address ?? "", 100) || null,
    requestId: c.get("requestId"),
  };
}

/**
 * Refused at the door: not known, not allowed, not signed in after all, or kept waiting for wrong credentials. Other limits are those of
 * callers who may come in. The status alone does not tell: browsers are sent on to sign in.
 */
function isRefusal(c: ApiContext, code: ErrorCode | undefined, status: number): boolean {
  if (code === "UNAUTHORIZED" || code === "SIGN_IN_INVALID" || status === 401 || status === 403) return true;
  return code === "TOO_MANY_REQUESTS" && c.get("caller") === undefined;
}

/** What callers wrote, fit to be kept: no control characters, and not too long. */
const plain = (text: string, longest: number): string => text.replaceAll(/\p{Cc}/gu, "�").slice(0, longest);

/** So many in any second; the rest is counted. */
class Refusals {
  readonly #now: () => number;
  #written: readonly number[] = [];
  #missed = 0;

  constructor(now = () => performance.now()) {
    this.#now = now;
  }

  /** How many were left out since the last one that was written; undefined: leave this one out too. */
  take(): number | undefined {
    const now = this.#now();
    this.#written = this.#written.filter((at) => at > now - 1_000);
    if (this.#written.length >= refusalsPerSecond) {
      this.#missed += 1;
      return undefined;
    }
    this.#written = [...this.#written, now];
    const missed = this.#missed;
    this.#missed = 0;
    return missed;
  }

  /** What could not be written, for the next. */
  giveBack(count: number): void {
    this.#missed += count;
  }
}
