/** Lets callers in: by a token, by a session, or as a program on this machine where that is trusted. What an endpoint asks for is checked here too. */
import type { MiddlewareHandler } from "hono";
import { RateLimiterMemory, RateLimiterRes } from "rate-limiter-flexible";
import { type Addresses, nobody } from "../access/addresses.ts";
import { type Caller, type Role, reaches } from "../access/roles.ts";
import type { Sessions } from "../access/sessions.ts";
import type { Tokens } from "../access/tokens.ts";
import { MillraceError } from "../core/errors.ts";
import { clientAddress, networkOf, suspicion } from "./access.ts";
import type { ApiContext, ApiEnv } from "./env.ts";
import type { SessionDoor } from "./session-door.ts";

export interface GateOptions {
  readonly tokens: Tokens;
  /** By which people come in. Default: cookies are not looked at. */
  readonly door?: SessionDoor;
  /** Programs on this machine may come in as operators without a token. */
  readonly trustMachine: boolean;
  /** Whose X-Forwarded-For is believed. Default: nobody's. */
  readonly proxies?: Addresses | undefined;
}

/** Wrong credentials from one address in a minute; after that more of them are 429 for as long again. Right ones come in always. */
const guesses = 10;
const guessSeconds = 60;

const program: Caller = { kind: "program", name: null, role: "admin" };
const machine: Caller = { kind: "machine", name: null, role: "operator" };

export class Gate {
  readonly #tokens: Tokens;
  readonly #door: SessionDoor | undefined;
  readonly #trustMachine: boolean;
  readonly #proxies: Addresses;
  readonly #failures = new RateLimiterMemory({ points: guesses, duration: guessSeconds, blockDuration: guessSeconds });

  constructor({ tokens, door, trustMachine, proxies = nobody }: GateOptions) {
    this.#tokens = tokens;
    this.#door = door;
    this.#trustMachine = trustMachine;
    this.#proxies = proxies;
  }

  addressOf(c: ApiContext): string | undefined {
    return clientAddress(c, this.#proxies);
  }

  /** Nobody passes whom it does not know. Throws `UNAUTHORIZED`, `TOO_MANY_REQUESTS`. */
  readonly enter: MiddlewareHandler<ApiEnv> = async (c, next) => {
    if (c.get("caller") === undefined) {
      const caller = await this.#identify(c);
      if (caller === undefined) throw this.#stranger(c);
      c.set("caller", caller);
    }
    await next();
  };

  /** The caller, of somebody who may as well be nobody. Credentials that are wrong are no credentials here. */
  async known(c: ApiContext): Promise<Caller | undefined> {
    try {
      return await this.#identify(c);
    } catch (error) {
      if (error instanceof MillraceError && (error.code === "UNAUTHORIZED" || error.code === "TOO_MANY_REQUESTS"))
        return undefined;
      throw error;
    }
  }

  /** Undefined: a stranger. Throws `UNAUTHORIZED`, `TOO_MANY_REQUESTS` for credentials that are wrong. */
  async #identify(c: ApiContext): Promise<Caller | undefined> {
    if (c.env?.inProcess) return program;
    const token = tokenIn(c);
    if (token !== undefined) return this.holderOf(c, token);
    const user = await this.#visitor(c);
    if (user !== undefined) return user;
    return this.#trustMachine && suspicion(c) === undefined ? machine : undefined;
  }

  #stranger(c: ApiContext): MillraceError {
    const why = this.#trustMachine ? suspicion(c) : undefined;
    const message =
      why === undefined
        ? "This API asks for a token."
        : `Without credentials only this machine is trusted, and ${why}.`;
    return new MillraceError("UNAUTHORIZED", message);
  }

  /** Whose token this is. Throws `UNAUTHORIZED`, and `TOO_MANY_REQUESTS` when too many wrong ones came from there. */
  async holderOf(c: ApiContext, token: string): Promise<Caller> {
    const caller = await this.#tokens.callerOf(token);
    if (caller !== undefined) return caller;
    await this.#countWrong(c);
    throw new MillraceError("UNAUTHORIZED", "This token is unknown, revoked or expired.");
  }

  async #visitor(c: ApiContext): Promise<Caller | undefined> {
    try {
      return await this.#door?.callerOf(c);
    } catch (error) {
      if (error instanceof MillraceError && error.code === "UNAUTHORIZED") await this.#countWrong(c);
      throw error;
    }
  }

  /** Tokens and sessions cannot be guessed: it is only for the work and the noise that who tries is kept waiting. */
  async #countWrong(c: ApiContext): Promise<void> {
    try {
      await this.#failures.consume(networkOf(this.addressOf(c)));
    } catch (refused) {
      throw refused instanceof RateLimiterRes ? tooMany(refused.msBeforeNext) : refused;
    }
  }
}

function tooMany(waitMs: number): MillraceError {
  const message = "Too many wrong credentials came from this address.";
  return Object.assign(new MillraceError("TOO_MANY_REQUESTS", message), { retryAfterMs: waitMs });
}

/** Throws `FORBIDDEN` unless the caller's role reaches `needed`. */
export function requireRole(c: ApiContext, needed: Role | "public"): void {
  if (needed === "public") return;
  const caller = c.get("caller");
  if (caller === undefined) throw new MillraceError("UNAUTHORIZED", "Nobody has said who asks.");
  if (reaches(caller.role, needed)) return;
  throw new MillraceError("FORBIDDEN", `This takes the role ${needed}, and this caller is ${caller.role}.`);
}

/** Where OPS_ADMIN_EMAILS names people, other people do not see how the system does; tokens go by their role. */
export function opsAdminsOnly(sessions: Sessions): MiddlewareHandler<ApiEnv> {
  return async (c, next) => {
    const caller = c.get("caller");
    if (caller !== undefined && sessions.leavesOut(caller))
      throw new MillraceError("FORBIDDEN", "Admin access required for operations diagnostics");
    await next();
  };
}

/** `Authorization: Bearer …`, or `x-api-key`. Never in the address, where logs would keep it. Throws `UNAUTHORIZED` for what is no token. */
export function tokenIn(c: ApiContext): string | undefined {
  const header = c.req.header("authorization");
  if (header === undefined) return c.req.header("x-api-key");
  const [, token] = /^(?:Bearer|Token)\s+(\S+)\s*$/i.exec(header) ?? [];
  if (token !== undefined) return token;
  throw new MillraceError(
    "UNAUTHORIZED",
    "The header Authorization is not `Bearer <token>`, which is what this API asks for.",
  );
}
